"""Processes of one command that help it: how they start, what they say, how they end.

A helper is a process of its own, so that a kill of one leaves the others and the files
of all as they are. It is not bound to a core, and its threads are not limited: XLA
divides work by the cores that it sees, and then divides, and rounds, as ever.

A helper reads its standard input, which is a pipe of the process that started it: at
its end that process is gone, in whatever way, and the helper saves and stops. Signals
come through that process alone: a terminal's Ctrl-C reaches no helper.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO

from sws_jax.runtime.progress import say
from sws_jax.runtime.signals import EXIT_AGAIN, Asked

_VARIABLE = "SWS_JAX_HELPS"  # set for helpers alone
_PROGRAM = "sws_jax"  # with which the last sentence of a command begins
_LABEL = re.compile(r"\[\d+/\d+\] (\S+)$")  # the line with which a run begins
_LOOK_SECONDS = 0.1
_STOPPED = (EXIT_AGAIN, 128 + signal.SIGINT)


def is_helper() -> bool:
    """Whether this process helps another."""
    return _VARIABLE in os.environ


def serve(asked: Asked) -> None:
    """Saves and stops this helper once the process that it helps is gone.

    Args:
      asked: the signals to end that this process gets.
    """
    threading.Thread(target=_end_with_parent, args=(asked,), daemon=True).start()


def _end_with_parent(asked: Asked) -> None:
    while os.read(0, 1):
        pass
    # Nobody reads what is printed from here on.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    if asked:  # and a second wish to end is one to end at once
        os._exit(asked.exit_code)
    os.kill(os.getpid(), signal.SIGTERM)


class Crew:
    """The helpers of this process, which end with its ``with`` block.

    Args:
      command: that a helper runs.
      most: processes at once, this one among them.
      asked: the signals to end that this process gets, which are passed on.
      environment: of helpers; default this process's own.

    Attributes:
      failure: exit code and sentence of the first helper that failed; None as long as
        none has. Then the others are stopped.
    """

    def __init__(
        self,
        command: Sequence[str],
        most: int,
        asked: Asked,
        environment: Mapping[str, str] | None = None,
    ):
        self.failure: tuple[int, str] | None = None
        self._command, self._most, self._asked = list(command), most, asked
        self._environment = dict(os.environ if environment is None else environment)
        self._helpers: list[_Helper] = []
        self._started = 0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Crew:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._watcher.join()
        self._stop(signal.SIGTERM)
        for helper in self._helpers:
            helper.wait()

    def call(self, runs: int) -> None:
        """Starts as many helpers as so many runs and the limit leave work for.

        One that has ended is not replaced: what ended it, such as a lack of memory,
        would end the next one too.

        Args:
          runs: that can begin now, one of them in this process.
        """
        while self._started < min(self._most, runs) - 1 and not self.failure:
            self._helpers.append(_Helper(self._command, self._environment))
            self._started += 1

    @property
    def at_work(self) -> bool:
        """Whether a helper has not ended."""
        return any(helper.code is None for helper in self._helpers)

    def _watch(self) -> None:
        """Passes signals on, and notices helpers that end, until the block ends."""
        told = False
        seen: set[_Helper] = set()
        while not self._ended.wait(_LOOK_SECONDS):
            if self._asked and not told:
                told = True
                self._stop(self._asked.first or signal.SIGTERM)
            for helper in self._helpers:
                if helper in seen or helper.code is None:
                    continue
                seen.add(helper)
                self._note_end(helper, told)

    def _note_end(self, helper: _Helper, told: bool) -> None:
        """Notes how a helper ended by itself."""
        code = helper.wait()
        if code == 0 or told or self.failure:
            return
        if code < 0 or code in _STOPPED:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            say(
                f"{helper.label}: its process was ended ({how}); the "
                f"others go on with what it has saved"
            )
            return
        sentence = helper.sentence or f"a helper ended with exit code {code}"
        self.failure = code, sentence
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        for helper in self._helpers:
            helper.send(number)


class _Helper:
    """A process that helps this one; its lines are printed here.

    Args:
      command: that it runs.
      environment: of this process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
        self.label, self.sentence = "helper", ""
        self._process = subprocess.Popen(
            command,
            env={**environment, _VARIABLE: "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,  # out of the terminal's reach
        )
        assert self._process.stdout and self._process.stderr
        self._readers = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for read, stream in (
                (self._say, self._process.stdout),
                (self._warn, self._process.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    @property
    def code(self) -> int | None:
        """Its exit code, negative after a signal; None while it goes on."""
        return self._process.poll()

    def wait(self) -> int:
        """Its exit code, once it has ended and all that it said is printed."""
        code = self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream
            stream.close()
        return code

    def send(self, number: int) -> None:
        """Sends a signal; nothing to a process that has ended."""
        self._process.send_signal(number)

    def _say(self, stream: IO[str]) -> None:
        """Prints its lines, each with the name of its run."""
        for line in map(str.rstrip, stream):
            if match := _LABEL.match(line):
                self.label = match[1]
            named = self.label in line
            say(line if named else f"{self.label}: {line}")

    def _warn(self, stream: IO[str]) -> None:
        """Prints its warnings, and keeps the sentence that it ends with."""
        for line in stream:
            if line.startswith(f"{_PROGRAM}: "):
                self.sentence = line.removeprefix(f"{_PROGRAM}: ").rstrip()
            else:
                sys.stderr.write(line)
                sys.stderr.flush()
