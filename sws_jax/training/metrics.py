"""The log of a run, as JSON lines and for TensorBoard, and the clock of its speed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from sws_jax.errors import UserError
from sws_jax.storage import documents, files, paths
from sws_jax.storage.files import Unwritable
from sws_jax.storage.names import EVENTS, METRICS

# Columns of the log of any run. An objective's own numbers have other names.
RESERVED = (
    "step",
    "loss",
    "grad_norm",
    "unreadable",
    "rate",
    "epoch",
    "images_per_second",
    "input_wait",
    "val_top1",
    "val_loss",
    "val_images",
    "val_top1_ema",
)
_SEND_SECONDS = 30.0  # between copies to a bucket that no checkpoint asks for


class Writer:
    """Appends to ``metrics.jsonl`` and TensorBoard files in a run's directory.

    Every method raises `Unwritable` where the disk is full.

    Nothing can be added to an object in a bucket. The files of a directory there grow
    on this machine, and are sent whole, now and then and before each checkpoint.

    Args:
      directory: of the run.
      step: the last one whose lines are kept; a resumed run writes later ones again.
    """

    def __init__(self, directory: str, *, step: int = 0):
        self._directory = self._local = directory
        if paths.is_remote(directory):
            self._local = tempfile.mkdtemp(prefix="sws_jax_")
        self._path = os.path.join(self._local, METRICS)
        rows = [row for row in read(directory) if row["step"] <= step]
        files.write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._board = _Board(self._local, step=step)
        self.send()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds a line, and its numbers for TensorBoard."""
        _append(self._path, json.dumps({"step": step, **values}) + "\n")
        self._board.write(step, values)
        if time.monotonic() - self._sent > _SEND_SECONDS:
            with contextlib.suppress(Unwritable):  # the next try may succeed
                self.send()

    def send(self) -> None:
        """Brings all lines to a directory in a bucket; does nothing for any other."""
        self._sent = time.monotonic()
        if self._local != self._directory:
            for name in os.listdir(self._local):
                target = os.path.join(self._directory, name)
                with files.replacing(target) as temporary:
                    shutil.copyfile(os.path.join(self._local, name), temporary)

    def close(self) -> None:
        self._board.close()
        if self._local != self._directory:
            try:
                # A run that has failed to write says so itself.
                with contextlib.suppress(Unwritable, UserError):
                    self.send()
            finally:
                shutil.rmtree(self._local, ignore_errors=True)


def _append(path: str, text: str) -> None:
    """Adds a line to a file, whole or not at all."""
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        data = text.encode()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            file.truncate(end)
            raise Unwritable(path, error) from None


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Imports in the block take a package for absent, unless it is loaded already.

    tensorboardX imports PyTorch where that is installed, for kinds of values that are
    not written here. That takes longer than everything else that a run imports.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


class _Board:
    """A TensorBoard file, written by the caller's own thread.

    The library's `SummaryWriter` hands every event to a thread of its own. A full disk
    ends that thread, and the caller would wait for it for ever.
    """

    def __init__(self, directory: str, *, step: int):
        # It is slow to import, and only writers need it.
        with _hidden("torch"):
            from tensorboardX import record_writer, summary
            from tensorboardX.proto import event_pb2

        self._event, self._scalar = event_pb2.Event, summary.scalar
        process = f"{socket.gethostname()}.{os.getpid()}"
        name = f"{EVENTS}.{time.time():.0f}.{process}"
        self._path = os.path.join(directory, name)
        try:
            self._file = record_writer.RecordWriter(self._path)
        except OSError as error:
            raise Unwritable(self._path, error) from None
        with self._writing():
            self._add(file_version="brain.Event:2")
            # Hides what an earlier process wrote of later steps.
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=step + 1, session_log=started)
            self._file.flush()

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._writing():
            for name, value in values.items():
                self._add(step=step, summary=self._scalar(name, value))
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of an event whose failure was raised
            self._file.close()

    def _add(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._file.write(event.SerializeToString())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            raise Unwritable(self._path, error) from None


def read(directory: str) -> list[dict[str, Any]]:
    """All rows of a run's metrics, without lines that are damaged or cut off.

    Args:
      directory: of the run.

    Raises:
      UserError: a whole line has something else than a number.
    """
    path = os.path.join(directory, METRICS)
    if not paths.exists(path):
        return []
    rows = []
    with open(paths.here(path), "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                if misfit := documents.misfit(row, dict.fromkeys(row, float)):
                    raise UserError(
                        f"{path} is damaged (line {number}: {misfit}): restore the "
                        f"line, or remove it"
                    )
                rows.append(row)
    return rows


class Clock:
    """Counts seconds of training alone, without compilation, evaluation and saving.

    Args:
      seconds, steps: of the run's earlier starts, from `state`.

    Attributes:
      seconds: until the last pause.
      steps: that were done while the clock ran.
    """

    def __init__(self, seconds: float = 0.0, steps: float = 0):
        self.seconds, self.steps = seconds, steps
        self._since: float | None = None
        self.lap()

    def start(self) -> None:
        self._since = time.perf_counter()

    def pause(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context in which the clock stands still; it goes on if it ran before."""
        was_running = self._since is not None
        self.pause()
        yield
        if was_running:
            self.start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which the training waits for its input; see `input_wait`."""
        before = self._total()
        yield
        self._waited += self._total() - before

    def count(self, steps: int) -> None:
        """Adds `steps` done while the clock ran."""
        self.steps += steps

    def lap(self) -> None:
        """Begins a new window, for `steps_per_second` and `input_wait`."""
        self._lap = self._total(), self.steps  # seconds and steps before it
        self._waited = 0.0

    @property
    def steps_per_second(self) -> float | None:
        """Speed since the last `lap`; None if no step was taken.

        A run may go on after a restart on other hardware: a mean over all its steps
        says nothing of how fast it is now.
        """
        seconds_before, steps_before = self._lap
        seconds, steps = self._total() - seconds_before, self.steps - steps_before
        return steps / seconds if steps and seconds > 0 else None

    @property
    def input_wait(self) -> float | None:
        """Share of the time since the last `lap` in which the training waited for its
        input; None if no step was taken.

        It is the host that waits. A device that has steps to do meanwhile is busy.
        """
        seconds = self._total() - self._lap[0]
        return None if self.steps_per_second is None else self._waited / seconds

    def _total(self) -> float:
        """Seconds until now."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self.seconds + running

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps of the clock."""
        return {"seconds": self.seconds, "steps": self.steps}
