"""Training steps, as shares of the rate of one product of matrices.

Forward, backward, AdamW, norm of the gradient and moving average, in bfloat16 over
float32 weights, of one batch that stays on the device, without augmentation: what a
network costs by itself. Scanned, nothing computed twice.

How to read it: `share` is the arithmetic of the step (`sws_jax.estimate.flops`:
products alone, 2 for a multiply-add) by its time, over the rate `matmul_tflops`, which
was measured just before. A batch that the memory does not hold is halved until it does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import numpy as np

from benchmarks import measure, step
from benchmarks.accelerator import rates
from benchmarks.accelerator.asked import Asked, Case, finite
from benchmarks.measure import MIB, Row
from sws_jax import specs
from sws_jax.estimate import flops
from sws_jax.models.networks import Predictor
from sws_jax.specs import AuxViTSpec, Compute, ViTSpec
from sws_jax.training import step as steps

NETWORKS = {
    "B/16": "vit_base_patch16_L12",
    "S/16": "vit_small_patch16_L12",
    "Aux-B/16": "aux_vit_base_patch16_3-3-4-3-3",
    "Aux-S/16": "aux_vit_small_patch16_3-3-4-3-3",
}
TOYS = {False: "vit_nano_patch16_L2", True: "aux_vit_nano_patch16_1-2"}
EMA = 0.99996
BF16 = Compute("bfloat16")


def cases(asked: Asked) -> Iterator[Case]:
    rate = functools.cache(functools.partial(rates.matmul, asked))
    for what in NETWORKS:
        yield case(asked, what, BF16, rate)


def case(asked: Asked, what: str, compute: Compute, rate, **about: str) -> Case:
    """The row of a network that is run in one way."""
    recipe = recipe_of(asked, what, compute)
    row = {"what": what, "network": recipe.spec.name, **about}

    def figures() -> Row:
        training = fitting(asked, recipe)
        times = measure.in_turns(
            {"step": lambda: training(asked.steps)}, asked.repeats
        )["step"]
        return row_of(asked, training, times, rate())

    return Case(row, figures)


def network(asked: Asked, what: str) -> ViTSpec | AuxViTSpec:
    """One of `NETWORKS`, or a toy like it, with a class token as the peers have it."""
    name = NETWORKS[what]
    if asked.toy:
        name = TOYS[name.startswith("aux")]
        return specs.named(name, pool="token", image_size=32, num_classes=10)
    return specs.named(name, pool="token")


def recipe_of(asked: Asked, what: str, compute: Compute = BF16) -> steps.Recipe:
    """The step that is timed."""
    spec = network(asked, what)
    return steps.Recipe(spec, step.IMAGENET, compute, ema=EMA)


def fitting(
    asked: Asked,
    recipe: steps.Recipe,
    teacher: Predictor | None = None,
    batch_size: int = 0,
) -> step.Training:
    """A training that has taken its first steps, with the largest batch that fits.

    Raises:
      RuntimeError: a single image does not fit.
    """
    size = batch_size or asked.batch_size
    while True:
        try:
            training = step.Training(recipe, size, teacher)
            training.start()
            return training
        except (MemoryError, RuntimeError) as error:
            if not measure.out_of_memory(error) or size == 1:
                raise
        size //= 2


def row_of(
    asked: Asked,
    training: step.Training,
    times: list[float],
    rate: float,
) -> Row:
    """What a timed training shows.

    Args:
      asked: of the part.
      training: after its steps.
      times: of calls of so many steps as `asked` says, in seconds.
      rate: operations a second that shares are of.

    Raises:
      ArithmeticError: the loss is no number.
    """
    loss = float(jax.device_get(training.numbers["loss"]))
    if not np.isfinite(loss):
        raise ArithmeticError(f"the loss of {training.recipe.spec.name} is {loss}")
    spec, teacher = training.recipe.spec, training.recipe.teacher
    row: Row = {"batch": training.batch_size}
    row["step_ms"] = measure.figure([1e3 * s / asked.steps for s in times])
    seconds = row["step_ms"]["median"] / 1e3
    done = flops.step_flops(spec, teacher=teacher) * training.batch_size / seconds
    row["images_per_second"] = measure.short(training.batch_size / seconds)
    row["tflops"] = measure.short(done / 1e12)
    row["matmul_tflops"] = measure.short(rate / 1e12)
    row["share"] = measure.short(done / rate)
    row["loss"] = finite(loss)
    row["compile_s"] = measure.short(training.lower_s + training.compile_s)
    if training.memory is not None:
        row["temp_mib"] = measure.short(training.memory.temp_size_in_bytes / MIB)
    return row
