"""How fast the devices of this process compute and move numbers: measured in a second.

A training step is products of matrices, and operations between them that wait for
memory: norms, softmax, activations. Each rate is the median of the runs of a small
program on the first device in a fifth of a second, counted as a step is.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sws_jax.estimate import moves

_RUNS = 5  # at least
_ENOUGH_SECONDS = 0.2  # a core that has idled needs a while to be at its pace
_TURNS = 4  # of a program's loop, so that a call counts for little
# On a CPU and elsewhere: the side of a square matrix, and the rows of an array.
_SIDES = {"cpu": 1024}
_SIDE = 8192
_ROWS = {"cpu": 2**11}
_MANY_ROWS = 2**17
_WIDTH = 512
_MOST_FRESH = 2**28  # bytes; of more, a part is measured


@dataclasses.dataclass(frozen=True)
class Rates:
    """What one device does in a second.

    Attributes:
      products: FLOPs of a matrix product, 2 for a multiply-add.
      memory: bytes that norm, softmax and GELU, with their gradients, read and write,
        as `sws_jax.estimate.moves` counts them: less than memory could, where they
        are held up by arithmetic.
    """

    products: float
    memory: float


@functools.lru_cache(maxsize=8)
def measured(dtype: str = "float32") -> Rates:
    """The rates of the first device; measured once in a process.

    Args:
      dtype: of the numbers.
    """
    platform = jax.devices()[0].platform
    side = _SIDES.get(platform, _SIDE)
    matrix = _drawn((side, side), dtype)
    seconds = _seconds(jax.jit(jnp.matmul), matrix, matrix)
    rows = _drawn((_ROWS.get(platform, _MANY_ROWS), _WIDTH), dtype)
    bytes_moved = moves.moved(jax.make_jaxpr(_others)(rows).jaxpr)
    return Rates(2 * side**3 / seconds, bytes_moved / _seconds(jax.jit(_others), rows))


def fresh_seconds(size: int) -> float:
    """Seconds in which the first device fills memory that it has just been given.

    A CPU's programs ask the system for their temporary memory in each run, and it is
    handed out page by page; an accelerator's keep theirs.

    Args:
      size: bytes. Of more than 256 MiB, so many are measured.
    """
    measured_size = min(size, _MOST_FRESH)
    count = measured_size // 4
    if not count:
        return 0.0
    fill = jax.jit(lambda value: jnp.full(count, value, np.float32))
    return _seconds(fill, np.float32(1)) * size / measured_size


def _others(x: jax.Array) -> jax.Array:
    """A few updates by what stands between the products of a block."""

    def turn(x, _):
        for operation in (_norm, jax.nn.softmax, _gelu):
            x = x - 0.1 * jax.grad(lambda x, f=operation: jnp.sum(f(x) ** 2))(x)
        return x, None

    return jax.lax.scan(turn, x, None, length=_TURNS)[0]


def _norm(x: jax.Array) -> jax.Array:
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def _gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def _drawn(shape: tuple[int, int], dtype: str) -> jax.Array:
    draw = np.random.default_rng(0).standard_normal(shape, np.float32)
    return jax.device_put(jnp.asarray(draw, dtype), jax.devices()[0])


def _seconds(call: Callable[..., jax.Array], *arguments) -> float:
    """The median of calls, the first of which only compiles."""
    jax.block_until_ready(call(*arguments))
    times: list[float] = []
    while len(times) < _RUNS or sum(times) < _ENOUGH_SECONDS:
        before = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        times.append(time.perf_counter() - before)
    return statistics.median(times)
