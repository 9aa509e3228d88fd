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


class Progress:
    """A bar with ETA on a terminal, one line per log step elsewhere.

    Args:
      label: the run's name.
      total, done: steps.
    """

    def __init__(self, label: str, *, total: int, done: int = 0):
        self._label, self._total = label, total
        self._last: dict[str, str] = {}
        self._bar = None
        if sys.stderr.isatty() and jax.process_index() == 0:
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=label,
                unit="step",
                dynamic_ncols=True,
                leave=False,
            )

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def log(self, step: int, values: dict[str, float], steps_per_second: float) -> None:
        """Shows the numbers of a log step."""
        shown = {k: _short(v) for k, v in values.items()}
        if self._bar is not None:
            # A line is short: the loss, and how good the network last was.
            self._last |= {k: shown[k] for k in ("loss", "val_top1") if k in shown}
            self._bar.set_postfix(self._last, refresh=False)
            return
        left = (self._total - step) / steps_per_second if steps_per_second else 0.0
        eta = datetime.timedelta(seconds=round(left))
        numbers = "  ".join(f"{k} {v}" for k, v in shown.items())
        say(
            f"{self._label}  step {step}/{self._total} "
            f"({step / max(self._total, 1):.0%})  {numbers}  ETA {eta}"
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _short(value: float) -> str:
    return f"{value:.4g}"
