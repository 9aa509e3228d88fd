"""What the device does at its best: products of matrices, and copies."""

from __future__ import annotations

import statistics

import jax
import jax.numpy as jnp

from benchmarks import measure
from benchmarks.accelerator.asked import Asked

CALLS = 10  # one after the other, so that the device waits for nothing


def matmul(asked: Asked, dtype: str = "bfloat16", size: int = 0) -> float:
    """Operations a second of a square product, 2 for a multiply-add.

    The factors are random: a device may be faster with zeros, and keeps a higher clock.

    Args:
      asked: of the part.
      dtype: of factors and product.
      size: of each side; 0 is one that an accelerator is kept busy with.
    """
    size = size or largest(asked)
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / _seconds(asked, lambda: product(a, b))


def copy(asked: Asked) -> float:
    """Bytes a second that the device reads and writes, counted both."""
    size = 2**20 if asked.toy else 2**28
    x = jnp.zeros((size,), jnp.float32)
    changed = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / _seconds(asked, lambda: changed(x))


def largest(asked: Asked) -> int:
    """The side of a square matrix that keeps the device busy."""
    return 256 if asked.toy else 8192 if asked.accelerator else 2048


def _seconds(asked: Asked, call) -> float:
    """Of one call among several, the median."""

    def several() -> None:
        jax.block_until_ready([call() for _ in range(CALLS)])

    several()
    times = [measure.seconds(several) for _ in range(asked.repeats)]
    return statistics.median(times) / CALLS
