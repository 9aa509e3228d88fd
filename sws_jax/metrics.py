"""Numbers of a run, written down: JSON lines, TensorBoard, a clock."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from sws_jax import files

METRICS = "metrics.jsonl"


class Writer:
    """Appends to ``metrics.jsonl`` and TensorBoard files in a run's directory.

    Opened at a step, it drops the lines of later steps: a resumed run writes them
    again.
    """

    def __init__(self, directory: str, *, step: int = 0):
        from tensorboardX import SummaryWriter  # slow to import; only writers need it

        self._path = os.path.join(directory, METRICS)
        kept = [row for row in read(directory) if row["step"] <= step]
        files.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(self._path, "a")  # noqa: SIM115
        self._board = SummaryWriter(directory, purge_step=step + 1, flush_secs=10)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read(directory: str) -> list[dict[str, Any]]:
    """All rows of a run's metrics; a line cut off by a crash is left out."""
    path = os.path.join(directory, METRICS)
    if not os.path.exists(path):
        return []
    rows = []
    with open(path) as file:
        for line in file:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


class Clock:
    """Seconds of training alone: no compilation, no evaluation, across restarts."""

    def __init__(self, seconds: float = 0.0, steps: float = 0):
        self.seconds, self.steps = seconds, steps
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.perf_counter()

    def pause(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def count(self, steps: int) -> None:
        """Adds `steps` done while the clock ran."""
        self.steps += steps

    @property
    def steps_per_second(self) -> float:
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        seconds = self.seconds + running
        return self.steps / seconds if seconds > 0 else 0.0

    def state(self) -> dict[str, float]:
        return {"seconds": self.seconds, "steps": self.steps}
