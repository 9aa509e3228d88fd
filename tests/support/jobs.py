"""Jobs of several real processes on this machine, each with its own CPU devices."""

import signal
import socket
import subprocess
import time

from support.children import MAIN, ROOT, environment


def free_port():
    with socket.socket() as taken:
        taken.bind(("", 0))
        return taken.getsockname()[1]


class Job:
    """One command in several processes; what each printed, and how it ended.

    Args:
      *arguments: of ``python -m sws_jax.main``.
      processes: to start, and `devices` that each has.
      flags: whether the processes are told of each other by flags; else `cluster`
        gives the variables that tell each, by its number and a port.
      only: numbers of those that are started at all.
      under: by its number, the command that a process is started under.
      program: in place of ``python -m sws_jax.main``.
      own: by its number, what a process is given besides.
    """

    def __init__(
        self,
        *arguments,
        processes=1,
        devices=1,
        flags=True,
        cluster=None,
        only=(),
        under=None,
        program=MAIN,
        own=None,
    ):
        port = free_port()
        self.parts = {}
        for index in only or range(processes):
            command = [*program, *map(str, arguments)]
            command += map(str, (own or {}).get(index, ()))
            command = [*(under or {}).get(index, ()), *command]
            if flags and processes > 1:
                command += [
                    f"--coordinator=localhost:{port}",
                    f"--num_processes={processes}",
                    f"--process_id={index}",
                ]
            settings = environment(devices=devices)
            settings |= cluster(index, port) if cluster else {}
            self.parts[index] = subprocess.Popen(
                command,
                env=settings,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=ROOT,
            )

    def kill(self, index, number=signal.SIGKILL):
        self.parts[index].send_signal(number)

    def wait_for(self, path, seconds=120):
        """Until a file is there, while the processes live."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            dead = [p.returncode for p in self.parts.values() if p.poll() is not None]
            assert not dead and time.monotonic() < deadline, (dead, self.finish())
            time.sleep(0.01)

    def finish(self, seconds=180):
        """The exit codes, and all that was printed."""
        deadline = time.monotonic() + seconds
        outputs = []
        try:
            for part in self.parts.values():
                left = max(deadline - time.monotonic(), 0.1)
                outputs.append(part.communicate(timeout=left)[0])
        finally:
            for part in self.parts.values():
                part.kill()
        return [part.returncode for part in self.parts.values()], outputs
