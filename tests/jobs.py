"""Jobs of several real processes on this machine, each with its own CPU devices."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent

# Ten steps of 64 digits: `sws_jax.presets.small` in miniature.
CONFIG = """
from sws_jax import presets


def get_config(arg=None):
    config = presets.job("single", name="run")
    presets.small(config)
    steps = 64 / 1257
    config.model.update(depth=2, width=16, heads=2)
    config.schedule.update(total_epochs=10 * steps, warmup_epochs=0.0, rate=1e-3)
    config.checkpoint.every_epochs = 2 * steps
    config.evaluation.update(batch_size=128, every_epochs=2 * steps)
    config.ema = 0.9
    config.log_steps = 1
    return config
"""


def free_port():
    with socket.socket() as taken:
        taken.bind(("", 0))
        return taken.getsockname()[1]


def _cached(folder):
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


class Job:
    """One command in several processes; what each printed, and how it ended.

    Args:
      *arguments: of ``python -m sws_jax.main``.
      processes: to start, and `devices` that each has.
      flags: whether the processes are told of each other by flags; else `environment`
        of each, by its number, tells them.
      only: numbers of those that are started at all.
      cache: of compiled programs, for jobs that have some in common.
      under: by its number, the command that a process is started under.
    """

    def __init__(
        self,
        *arguments,
        processes=1,
        devices=1,
        flags=True,
        environment=None,
        only=(),
        cache="",
        under=None,
    ):
        port = free_port()
        self.parts = {}
        for index in only or range(processes):
            command = [sys.executable, "-m", "sws_jax.main", *map(str, arguments)]
            command = [*(under or {}).get(index, ()), *command]
            if flags and processes > 1:
                command += [
                    f"--coordinator=localhost:{port}",
                    f"--num_processes={processes}",
                    f"--process_id={index}",
                ]
            settings = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
                " --xla_backend_optimization_level=0"
                " --xla_llvm_disable_expensive_passes=true",
                **(_cached(cache) if cache else {}),
                **(environment(index, port) if environment else {}),
            }
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
