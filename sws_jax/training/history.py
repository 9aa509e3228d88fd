"""What a run remembers of its steps, across restarts, besides its weights.

A checkpoint keeps it in its item ``clock``, with the fields of `History.state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sws_jax.runtime import processes
from sws_jax.training import metrics


class Begun(NamedTuple):
    """How the first step of a run was computed, in what may change on the way.

    Attributes:
      dtype: that the network was computed in.
      unreadable: what was done about images that cannot be read.
    """

    dtype: str
    unreadable: str


class History:
    """The numbers and the circumstances of a run's steps.

    Args:
      saved: the ``clock`` of the checkpoint that the run goes on from; empty at its
        beginning. Older software kept fewer fields.
      first: steps before this start.
      dtype: that steps are computed in from now on.
      unreadable: what is done about images that cannot be read, from now on.
      begun: the same two, as the run began.

    Attributes:
      dtypes: each type of numbers, with the first step that was computed in it.
      skips_from: the step from which on images that cannot be read are passed over;
        None where they are not.
      clock: seconds of training.
      changes: what is new with this start, in sentences.
    """

    def __init__(
        self,
        saved: Mapping[str, Any],
        *,
        first: int,
        dtype: str,
        unreadable: str,
        begun: Begun,
    ):
        fields = dict(saved)
        self.changes: list[str] = []
        # The type of the first step has 0: all steps had it until the next type's.
        begun_in = {"dtype": begun.dtype, "from_step": 0}
        self.dtypes = list(fields.pop("dtypes", [begun_in] if first else []))
        self._note_dtype(dtype, first)
        skipped = begun.unreadable == "skip" and first
        self.skips_from = fields.pop("unreadable_from", 0 if skipped else None)
        if unreadable == "skip":
            self._note_skipping(first)
        # The numbers of the steps since the last line of the log.
        self._window: list[dict[str, float]] = list(fields.pop("window", []))
        # Images passed over: before this start, and since, of this process's rows.
        self._skipped_before = int(fields.pop("unreadable", 0))
        self._skipped_here = 0
        self.clock = metrics.Clock(fields.pop("seconds", 0.0), fields.pop("steps", 0))
        # Fields of a newer version, for the next checkpoint.
        self._unknown_fields = fields

    def _note_dtype(self, dtype: str, first: int) -> None:
        before = self.dtypes[-1]["dtype"] if self.dtypes else None
        if dtype == before:
            return
        if before is not None:
            self.changes.append(
                f"computed in {dtype} from here on, and in {before} before"
            )
        self.dtypes.append({"dtype": dtype, "from_step": first})

    def _note_skipping(self, first: int) -> None:
        if self.skips_from is not None:
            return
        if first:
            self.changes.append(
                "images that cannot be read are passed over from here on, and stopped "
                "the run before"
            )
        self.skips_from = first

    def add(self, numbers: Mapping[str, float]) -> None:
        """Adds the numbers of a step to those of which a line of the log is made."""
        self._window.append(dict(numbers))

    def means(self) -> dict[str, float]:
        """Means over the steps since the last line of the log; the next one begins.

        A number that some of the steps lack is a mean over the others.
        """
        usual = ("loss", "grad_norm")
        others = sorted(set().union(*self._window) - set(usual))
        row = {
            name: float(np.mean([past[name] for past in self._window if name in past]))
            for name in (*usual, *others)
        }
        self._window.clear()
        return row

    def add_skipped(self, images: int) -> None:
        """Adds images that this process has passed over."""
        self._skipped_here += images

    def skipped(self) -> int:
        """Images passed over until now, by all processes, which all ask."""
        return self._skipped_before + sum(processes.everyone(self._skipped_here))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            **self._unknown_fields,
            **self.clock.state(),
            "dtypes": self.dtypes,
            "unreadable": self.skipped(),
            "unreadable_from": self.skips_from,
            "window": list(self._window),
        }
