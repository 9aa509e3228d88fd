"""What a person sees while a run goes on."""

from __future__ import annotations

import datetime
import sys

import jax
from tqdm import tqdm


def say(text: str) -> None:
    """Prints a line on the first host, above a progress bar if there is one."""
    if jax.process_index() == 0:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


# (tqdm's own rate and ETA take compilation, evaluation and saving for steps.)
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Progress:
    """A bar with ETA on a terminal, one line per log step elsewhere.

    The ETA follows from the speed of the last window of steps, once there is one.

    Args:
      label: the run's name.
      total, done: steps.
    """

    def __init__(self, label: str, *, total: int, done: int = 0):
        self._label, self._total = label, total
        self._last: dict[str, str] = {}
        self._steps_per_second: float | None = None
        self._bar = None
        if sys.stderr.isatty() and jax.process_index() == 0:
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=label,
                bar_format=_BAR,
                dynamic_ncols=True,
                leave=False,
            )

    def advance(self) -> None:
        if self._bar is not None:
            self._set_postfix(self._bar.n + 1)
            self._bar.update(1)

    def log(
        self, step: int, values: dict[str, float], steps_per_second: float | None
    ) -> None:
        """Shows the numbers of a log step.

        Args:
          step: updates made.
          values: by their names.
          steps_per_second: since the last log step; None where that is not known.
        """
        shown = {k: _short(v) for k, v in values.items()}
        self._steps_per_second = steps_per_second or self._steps_per_second
        if self._bar is not None:
            # A line is short: the loss, and how good the network last was.
            self._last |= {k: shown[k] for k in ("loss", "val_top1") if k in shown}
            self._set_postfix(step)
            return
        numbers = "  ".join(f"{k} {v}" for k, v in (shown | self._eta(step)).items())
        say(
            f"{self._label}  step {step}/{self._total} "
            f"({step / max(self._total, 1):.0%})  {numbers}"
        )

    def _set_postfix(self, step: int) -> None:
        assert self._bar is not None
        self._bar.set_postfix(self._last | self._eta(step), refresh=False)

    def _eta(self, step: int) -> dict[str, str]:
        """At a step; nothing before the first speed is known."""
        if self._steps_per_second is None:
            return {}
        left = (self._total - step) / self._steps_per_second
        return {"ETA": str(datetime.timedelta(seconds=round(left)))}

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _short(value: float) -> str:
    return f"{value:.4g}"
