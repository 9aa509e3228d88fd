"""Do the networks learn here what they learn on a CPU?

The first steps of configs/smoke.py's Aux-Net, which is distilled, and of a descendant,
which learns from labels, on the CPU of this host and on the accelerator. All that is
random is drawn alike.

How to read it: `largest_difference` is that of a loss from the CPU's in float32,
relative to it. The tolerances stand above what was seen on a CPU alone within these 20
steps: 1.2e-6 after weights were changed by 1e-6, 8e-4 after they were rounded as TF32
rounds, 7e-3 in bfloat16. A wrong kernel is off by far more.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np

from benchmarks.accelerator.asked import Asked, Case, finite
from benchmarks.measure import Row
from sws_jax import sharding

STEPS = 20
# Name, dtype, JAX's precision of products in float32, tolerance.
EXACT = ("float32, exact products", "float32", "highest", 1e-4)
PRECISIONS = (
    EXACT,
    ("float32 as usual", "float32", None, 5e-3),
    ("bfloat16", "bfloat16", None, 3e-2),
)
# In their order in the job.
AUX, DESCENDANT = 0, 1


def cases(asked: Asked) -> Iterator[Case]:
    steps = 3 if asked.toy else STEPS
    runs = [("Aux-Net", AUX, precision) for precision in PRECISIONS]
    for title, number, precision in [*runs, ("descendant", DESCENDANT, EXACT)]:
        about = {"what": title, "precision": precision[0], "steps": steps}
        yield Case(about, functools.partial(_measure, number, steps, *precision[1:]))


def _measure(
    number: int, steps: int, dtype: str, precision: str | None, tolerance: float
) -> Row:
    expected = _losses(number, steps, "float32", "highest", on_cpu=True)
    actual = _losses(number, steps, dtype, precision, on_cpu=False)
    return compared(expected, actual, tolerance)


def compared(
    expected: tuple[float, ...], actual: tuple[float, ...], tolerance: float
) -> Row:
    """The row of two loss curves: a loss that is no number is not right."""
    pairs = list(zip(expected, actual, strict=True))
    # NaN where any of them is; Python's `max` would depend on their order.
    difference = float(np.max([abs(a - e) / abs(e) for e, a in pairs]))
    return {
        "first_loss": finite(actual[0]),
        "last_loss": finite(actual[-1]),
        "largest_difference": finite(difference),
        "tolerance": tolerance,
        "right": "yes" if difference <= tolerance else "no",
    }


@functools.cache
def _jobs() -> tuple:
    from benchmarks import chain  # it needs more packages than the other parts

    return tuple(chain.jobs("configs/smoke.py", "des-L02"))


@functools.cache
def _losses(
    number: int, steps: int, dtype: str, precision: str | None, on_cpu: bool
) -> tuple[float, ...]:
    job = _jobs()[number]
    compute = dataclasses.replace(job.recipe.compute, dtype=dtype)
    job = dataclasses.replace(
        job, recipe=dataclasses.replace(job.recipe, compute=compute)
    )
    devices = jax.devices("cpu") if on_cpu else jax.devices()
    with jax.default_matmul_precision(precision):
        losses, _ = job.trained(sharding.make_mesh(devices[:1]), steps)
    return tuple(losses)
