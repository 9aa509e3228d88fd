"""AdamW that decays tensors by their names, and curves of the learning rate."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import optax

from sws_jax import trees
from sws_jax.errors import UserError
from sws_jax.specs.limits import SCHEDULES


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW (1711.05101), without its learning rate.

    The learning rate multiplies the update in the train step, so that runs that
    differ in nothing but their schedule share one compiled step.

    Attributes:
      weight_decay: of every tensor whose name `decays`.
      b1, b2, eps: of Adam.
      clip_norm: largest global norm of the gradient; 0 never clips.
    """

    weight_decay: float = 0.05
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 0.0

    def __post_init__(self):
        for field in ("b1", "b2"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(
                    f"optimizer.{field} must be in [0, 1), and is "
                    f"{getattr(self, field)}"
                )
        for field in ("weight_decay", "eps", "clip_norm"):
            if getattr(self, field) < 0:
                raise UserError(
                    f"optimizer.{field} cannot be below 0, and is "
                    f"{getattr(self, field)}"
                )

    def build(self) -> optax.GradientTransformation:
        """The transformation of gradients to updates, before the learning rate."""
        parts = [
            optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decay_mask),
        ]
        if self.clip_norm:
            parts.insert(0, optax.clip_by_global_norm(self.clip_norm))
        return optax.chain(*parts)


def decays(name: str) -> bool:
    """Whether the tensor of that name is decayed: kernels are, and nothing else.

    The name decides and not the number of axes: a stacked bias has two, and a mask of
    ``ndim > 1`` would decay every bias and norm of a scanned network.
    """
    return name.rsplit("/", 1)[-1] == "kernel"


def decay_mask(params: trees.Tree) -> trees.Tree:
    """A tree of booleans, true where a leaf is decayed."""
    return trees.map_with_name(lambda name, _: decays(name), params)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate by step, with durations in steps.

    Attributes:
      peak: after warm-up.
      total_steps: length of the run.
      kind: "cosine" is half a cosine from `peak` at step 0 to `minimum` at the end
        of the run, its beginning replaced by the warm-up and not shifted by it, as
        published. "cosine_per_epoch" is that curve as DeiT's and SWS's code runs it:
        constant inside an epoch and one epoch late (epochs 0 and 1 both run at the
        curve's value at 0). "constant" stays at `peak` after warm-up.
      warmup_steps: linear from `warmup_rate` to `peak`.
      warmup_rate, minimum: first and last rate; not scaled with the batch.
      steps_per_epoch: read by "cosine_per_epoch"; exact, as an epoch need not be a
        whole number of steps.
    """

    peak: float
    total_steps: int
    kind: str = "cosine"
    warmup_steps: int = 0
    warmup_rate: float = 0.0
    minimum: float = 0.0
    steps_per_epoch: Fraction | int = 1

    def __post_init__(self):
        if self.kind not in SCHEDULES:
            raise UserError(
                f"schedule {self.kind!r} is not one of {', '.join(SCHEDULES)}"
            )
        if self.total_steps and self.warmup_steps > self.total_steps:
            raise UserError(
                f"the warm-up of {self.warmup_steps} steps is longer than the run of "
                f"{self.total_steps}; shorten schedule.warmup_epochs"
            )

    def __call__(self, step: int) -> float:
        """The rate of update number `step`, counted from 0."""
        if self.kind == "cosine_per_epoch":
            return self._published(max(int(step // self.steps_per_epoch) - 1, 0))
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            return self.warmup_rate + (self.peak - self.warmup_rate) * progress
        if self.kind == "constant":
            return self.peak
        return self._cosine(step / max(self.total_steps, 1))

    def _published(self, epoch: int) -> float:
        epochs, warmup = map(self._epochs, (self.total_steps, self.warmup_steps))
        if epoch < warmup:
            return self.warmup_rate + (self.peak - self.warmup_rate) * epoch / warmup
        return self._cosine(epoch / epochs)

    def _epochs(self, steps: int) -> float:
        """The whole number of epochs that these steps are rounded from, if any is."""
        whole = round(steps / self.steps_per_epoch)
        if round(whole * self.steps_per_epoch) == steps:
            return whole
        return float(steps / self.steps_per_epoch)

    def _cosine(self, progress: float) -> float:
        half = (1.0 + math.cos(math.pi * min(progress, 1.0))) / 2.0
        return self.minimum + (self.peak - self.minimum) * half


def scaled_rate(rate: float, global_batch_size: int, per: int) -> float:
    """``rate x batch / per``, the linear rule (1706.02677).

    Args:
      rate: of a batch of `per` images.
      global_batch_size: images of a step.
      per: images; 0 leaves the rate as it is.
    """
    return rate * global_batch_size / per if per else rate
