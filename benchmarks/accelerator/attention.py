"""Backends of attention beside XLA's: value, gradients, time.

The shapes are those of S/16 and B/16, at token counts that are multiples of 64, of 4
and of nothing: fused kernels pad them to whole blocks, and what stands in the padding
must not reach a result. Free memory is filled with NaN before each call, so that it
would show.

How to read it: errors are those of the worst number, relative to the largest one, from
XLA's in float32 with exact products; `gradient_error` is of the worst of q, k and v. A
backend is usable if no number of three calls is NaN or infinite and its errors are at
most four times XLA's own in the same dtype. `over_xla` is the median of the ratios of
times, forward and backward, measured in turns. A backend that the device does not have
says so in `note`.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from benchmarks.accelerator.asked import Asked, Case, finite
from benchmarks.measure import Row
from sws_jax.runtime import words

TOKENS = (197, 196, 192, 64)
BACKENDS = ("xla", "cudnn")
HEAD = 64
WORSE = 4.0  # times XLA's own error


def cases(asked: Asked) -> Iterator[Case]:
    for heads, dtype in ((6, "bfloat16"), (12, "bfloat16"), (6, "float16")):
        for tokens in TOKENS:
            shape = (64, tokens, heads, HEAD)
            if asked.toy:
                shape = (2, tokens, 2, 16)
            for backend in BACKENDS:
                about = {"what": backend, "dtype": dtype, "tokens": tokens}
                about["heads"] = shape[2]
                figures = functools.partial(_measure, asked, backend, dtype, shape)
                yield Case(about, figures)


def _measure(asked: Asked, backend: str, dtype: str, shape: tuple[int, ...]) -> Row:
    arrays = _arrays(shape, dtype)
    try:
        results = [_poisoned(asked, backend, arrays) for _ in range(3)]
    except Exception as error:  # each backend has its own
        if measure.out_of_memory(error):
            raise
        return {"note": f"not available: {words.brief(error)}"}
    expected = _exact(dtype, shape)
    own = errors(_host(program("xla")(*arrays)), expected)
    worst = [errors(result, expected) for result in results]
    value, gradient = (float(np.max(each)) for each in zip(*worst, strict=True))
    bad = sum(int((~np.isfinite(x)).sum()) for result in results for x in result)
    usable = not bad and value <= WORSE * own[0] and gradient <= WORSE * own[1]
    row: Row = {
        "value_error": finite(value),
        "gradient_error": finite(gradient),
        "not_finite": bad,
        "usable": "yes" if usable else "no",
    }
    calls = {
        name: functools.partial(_several, asked, program(name), arrays)
        for name in dict.fromkeys(("xla", backend))
    }
    times = measure.in_turns(calls, asked.repeats)
    row["ms"] = measure.figure([1e3 * s / asked.steps for s in times[backend]])
    ratios = [a / b for a, b in zip(times[backend], times["xla"], strict=True)]
    row["over_xla"] = measure.short(statistics.median(ratios))
    return row


def errors(
    result: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]
) -> tuple[float, float]:
    """The errors of the value and of the worst gradient, relative to the largest."""
    value, *gradients = (
        np.abs(a - b).max() / np.abs(b).max()
        for a, b in zip(result, expected, strict=True)
    )
    return float(value), float(np.max(gradients))


@functools.lru_cache(maxsize=1)
def _arrays(shape: tuple[int, ...], dtype: str) -> tuple[jax.Array, ...]:
    """Queries, keys, values, and the gradient that comes back."""
    keys = jax.random.split(jax.random.key(0), 4)
    return tuple(jax.random.normal(key, shape).astype(dtype) for key in keys)


@functools.lru_cache(maxsize=1)
def _exact(dtype: str, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The same in float32, of factors that are rounded as those of `dtype`."""
    arrays = (x.astype(jnp.float32) for x in _arrays(shape, dtype))
    with jax.default_matmul_precision("highest"):
        return _host(program("xla")(*arrays))


@functools.cache
def program(backend: str) -> Any:
    """Value and gradients, as one program."""

    @jax.jit
    def run(q, k, v, back):
        attention = functools.partial(
            jax.nn.dot_product_attention, implementation=backend
        )
        value, pull = jax.vjp(attention, q, k, v)
        return value, *pull(back)

    return run


def _poisoned(asked: Asked, backend: str, arrays) -> tuple[np.ndarray, ...]:
    """A result that is computed in memory full of NaN."""
    # The allocator takes the smallest free piece that is large enough.
    sizes = [2**power for power in range(8, 20 if asked.toy else 28)]
    poison = [jnp.full((size,), jnp.nan) for size in sizes]
    for array in jax.block_until_ready(poison):
        array.delete()
    return _host(program(backend)(*arrays))


def _host(result) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(x, np.float32) for x in result)


def _several(asked: Asked, program, arrays) -> None:
    jax.block_until_ready([program(*arrays) for _ in range(asked.steps)])
