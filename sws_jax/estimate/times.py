"""How long a training step takes on the devices of this process, before it is run.

A step is its products at the rate of one large product, what it moves at the rate of
norms, softmax and GELU, and its temporary memory at the rate at which the system hands
it out, one after the other (`sws_jax.estimate.rates`). What devices send each other is
not in it, nor reading images, nor a device that waits for the host.
"""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import Mesh

from sws_jax import sharding
from sws_jax.estimate import flops, moves, rates
from sws_jax.estimate.rates import Rates
from sws_jax.models.networks import Predictor
from sws_jax.training import step
from sws_jax.training.step import Recipe, Student


@dataclasses.dataclass(frozen=True)
class Time:
    """The time of a step on one device, and what it is made of.

    Attributes:
      flops: of its products.
      moved: bytes that it reads and writes.
      fresh: seconds until its temporary memory is there.
      rates: of the device.
    """

    flops: float
    moved: float
    fresh: float
    rates: Rates

    @property
    def seconds(self) -> float:
        products = self.flops / self.rates.products
        return products + self.moved / self.rates.memory + self.fresh


@sharding.alone()
def of_step(
    recipe: Recipe,
    mesh: Mesh,
    size: int,
    teacher: Predictor | None = None,
    students: tuple[Student, ...] = (),
    *,
    temporary: int = 0,
) -> Time:
    """The time of a run's step on this machine, whose rates are measured.

    Args:
      recipe, mesh, size, teacher, students: as in `sws_jax.estimate.sizing.sheet`.
      temporary: bytes of the compiled step beside its arguments.

    Raises:
      UserError: there are products in a loop of unknown length.
    """
    arguments = step.argument_shapes(recipe, mesh, size, teacher, students)
    program = step.compiled_step(recipe, mesh)
    traced = jax.make_jaxpr(program)(*arguments)
    return Time(
        flops.flops(program, *arguments) / mesh.size,
        moves.moved(traced.jaxpr) / mesh.size,
        rates.fresh_seconds(temporary),
        rates.measured(recipe.compute.dtype),
    )
