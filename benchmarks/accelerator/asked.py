"""What a part is asked for, and what it gives back."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import measure
from benchmarks.measure import Row, Settings


class Case(NamedTuple):
    """A row of a table.

    Attributes:
      about: what it says before anything is measured, `what` first.
      figures: measures the rest; what it raises is the reason why there is none.
    """

    about: Row
    figures: Callable[[], Row]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the cases of a part are made for.

    Attributes:
      toy: the smallest networks: does everything run?
      until: seconds since 1970, after which no row is begun.
      accelerator: the device is more than a CPU.
    """

    toy: bool
    until: float
    accelerator: bool = False

    @property
    def settings(self) -> Settings:
        """For the programs beside this one; only sizes and windows count."""
        return Settings((), self.batch_size, self.toy, self.accelerator)

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return 4 if self.toy else 256 if self.accelerator else 8

    @property
    def repeats(self) -> int:
        """Timed calls, of `steps` steps each."""
        return 2 if self.toy else 8

    @property
    def steps(self) -> int:
        """A device with its own queue is timed as it is trained on: several at once."""
        return 4 if self.accelerator else 1

    @property
    def seconds_left(self) -> float:
        return self.until - time.time()


def finite(value: float) -> float | str:
    """A figure of four digits, or "nan", "inf" and "-inf", which JSON has not."""
    return measure.short(value) if math.isfinite(value) else str(value)
