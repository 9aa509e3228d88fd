"""Epochs as steps: the one place that converts them."""

from __future__ import annotations

import dataclasses
import math

from sws_jax.errors import UserError

# The most steps that a run may have. An interval of as many never ends.
MOST_STEPS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Durations:
    """Epochs of a config as steps.

    A duration of some epochs is the nearest whole number of steps.

    Attributes:
      images: of an epoch.
      global_batch_size: images of a step.
    """

    images: int
    global_batch_size: int

    def steps(self, epochs: float) -> int:
        """The nearest whole number of steps.

        Raises:
          UserError: the epochs are below 0, infinite or NaN.
        """
        if not 0 <= epochs < math.inf:
            raise UserError(
                f"durations are epochs of at least 0, and one of them is {epochs}"
            )
        return round(epochs * self.images / self.global_batch_size)

    def every(self, epochs: float) -> int:
        """An interval: never below one step; 0 epochs means never."""
        never = MOST_STEPS
        return min(max(self.steps(epochs), 1), never) if epochs > 0 else never
