"""What a person sees while a command goes on: lines, and bars on a terminal."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from sws_jax.runtime import words

# Without tqdm's own rate and ETA, which take compilation, evaluation and saving for
# steps.
_STEPS_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
_LINE_SECONDS = 10.0  # between lines where there is no terminal for a bar


def say(text: str) -> None:
    """Prints a line on the first host, above a progress bar if there is one."""
    if _is_first():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def _is_first() -> bool:
    import jax  # which commands that have only a `Bar` need not load

    return jax.process_index() == 0


class Progress:
    """A run's progress: a bar with ETA on a terminal, one line per log step elsewhere.

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
        if sys.stderr.isatty() and _is_first():
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=label,
                bar_format=_STEPS_FORMAT,
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
        """The ETA at a step, by its label; empty before the first speed is known."""
        if self._steps_per_second is None:
            return {}
        left = (self._total - step) / self._steps_per_second
        return {"ETA": words.clock(left)}

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Bar:
    """The progress of counted things: a bar with ETA on a terminal, a line now and then
    elsewhere.

    Args:
      label: of what is done.
      total: things to be counted.
      unit: their name.
    """

    def __init__(self, label: str, total: int, unit: str):
        self._label, self._total, self._unit = label, total, unit
        self._done, self._began = 0, time.monotonic()
        self._last_line = self._began
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, desc=label, unit=unit, dynamic_ncols=True, leave=False
            )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line < _LINE_SECONDS:
            return
        self._last_line = now
        left = (now - self._began) / max(self._done, 1) * (self._total - self._done)
        print(
            f"{self._label}: {self._done:,} of {self._total:,} {self._unit} "
            f"({self._done / max(self._total, 1):.0%}), {words.duration(left)} left",
            flush=True,
        )


def bytes_bar(total: int) -> tqdm:
    """A bar of bytes, on a terminal alone."""
    return tqdm(total=total, unit="B", unit_scale=True, disable=None, leave=False)


def _short(value: float) -> str:
    return f"{value:.4g}"
