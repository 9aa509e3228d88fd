"""The same step in PyTorch, with timm's network and torch.compile, in turns.

How to read it: `speed_over_peer` is the median of the ratios of its time to ours:
above 1, this project is faster. Where torch.compile does not work, the same step runs
without it, and its `peer_mode` says so.
"""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import jax

from benchmarks import measure, step
from benchmarks.accelerator import rates, steps
from benchmarks.accelerator.asked import Asked, Case
from benchmarks.accelerator.report import SKIPPED
from benchmarks.measure import Row
from sws_jax import specs, trees
from sws_jax.models import networks

START_SECONDS = 90.0  # of which torch.compile takes most


def cases(asked: Asked) -> Iterator[Case]:
    for what in ("B/16", "S/16"):
        yield Case({"what": what}, functools.partial(_measure, asked, what))


def _measure(asked: Asked, what: str) -> Row:
    recipe = steps.recipe_of(asked, what)
    platform = jax.devices()[0].platform
    if platform not in ("cpu", "gpu"):
        return {SKIPPED: "PyTorch's step is timed on a CPU and on a GPU alone"}
    ours = steps.fitting(asked, recipe)
    command = (sys.executable, "-m", "benchmarks.accelerator.timm_step", platform)
    fields = json.dumps(specs.to_dict(recipe.spec))
    row: Row = {"peer_mode": "compiled"}
    for mode in ("compiled", "eager"):
        peer = Peer([*command, fields, str(ours.batch_size), mode])
        try:
            left = asked.seconds_left
            started = peer.answer(left if asked.toy else min(START_SECONDS, left))
            if "missing" in started:
                return {SKIPPED: started["missing"]}
            known = trees.count(networks.abstract_params(recipe.spec))
            if started["params"] != known:  # then the ratio would be of two networks
                raise AssertionError(
                    f"timm has {started['params']:,} parameters, ours {known:,}"
                )
            row |= _turns(asked, ours, peer)
            row["peer_mode"] = mode
            row["peer_start_s"] = measure.short(started["start_s"])
            return row
        except Silent as silent:
            row["note"] = f"{mode}: {silent}"
        finally:
            peer.stop()
    return row


def _turns(asked: Asked, ours: step.Training, peer: Peer) -> Row:
    """Both, one after the other, again and again."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(asked.repeats):
        times["ours"].append(measure.seconds(lambda: ours(asked.steps)))
        times["peer"].append(peer.seconds(asked.steps))
    ratios = [b / a for a, b in zip(times["ours"], times["peer"], strict=True)]
    row = steps.row_of(asked, ours, times["ours"], rates.matmul(asked))
    row["peer_step_ms"] = measure.figure([1e3 * s / asked.steps for s in times["peer"]])
    return {"speed_over_peer": measure.short(statistics.median(ratios)), **row}


class Silent(Exception):
    """A peer has ended, or does not answer."""


class Peer:
    """The process of `benchmarks.accelerator.timm_step`.

    Args:
      command: that starts it.
    """

    def __init__(self, command: Sequence[str]):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def answer(self, seconds: float) -> dict:
        """What it says next: when it has taken its first steps, and when asked.

        Raises:
          Silent: it ends, or says nothing for so many seconds.
        """
        seconds = max(seconds, 0.0)
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise Silent(f"no answer within {seconds:.0f} s") from None
        if not line:
            self._lines.put(line)  # for whoever asks again
            raise Silent(f"it ended with exit code {self._process.wait()}")
        return json.loads(line)

    def seconds(self, count: int) -> float:
        """Of so many steps, as it measured them itself.

        Raises:
          Silent: as `answer`.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its answer is its end
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
        return self.answer(60.0)["seconds"]

    def stop(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # of what it was not asked
            self._process.stdin.close()
        # A compiler's own processes may hold the other end.
        self._reader.join(timeout=5.0)
        if not self._reader.is_alive():
            self._process.stdout.close()
