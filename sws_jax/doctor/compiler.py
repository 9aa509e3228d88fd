"""Checks of JAX's compiler: programs that some versions of it compute wrongly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sws_jax import xla_flags
from sws_jax.doctor.base import Case, Finding, ok, problem

_Program = tuple[Callable, tuple[Any, ...], Any]


def compiler(case: Case) -> Iterator[Finding]:
    """Small programs, on this process's own device: no other process is waited for."""
    device = jax.local_devices()[0]
    wrong = [name for name, program in programs().items() if not is_right(program)]
    version = f"jaxlib {xla_flags.jaxlib()} on {device.platform}"
    if not wrong:
        yield ok(f"{version} is right in {len(programs())} cases that others get wrong")
        return
    yield problem(
        f"{version} computes wrong numbers, and a run here may: {', '.join(wrong)}",
        _advice(),
    )


def _advice() -> str:
    flags = os.environ.get("XLA_FLAGS", "")
    if flag := xla_flags.needed():
        return f"have {flag} in XLA_FLAGS, which are {flags!r}"
    tried = ", ".join(xla_flags.TRIED)
    return f"install a version of jaxlib that was tried ({tried})"


def is_right(program: _Program) -> bool:
    """Whether a program of `programs` gives its result when it is compiled."""
    function, arguments, expected = program
    return bool(np.array_equal(jax.jit(function)(*arguments), expected))


def programs() -> dict[str, _Program]:
    """Function, arguments and result of each, by name.

    All numbers are whole, and so small that any device represents them exactly, even
    one that rounds the factors of a product to 8 bits.
    """
    random = np.random.default_rng(0)
    # Only the last row is compared: 2**15 is exact in 8 bits, numbers near it are not.
    rows = np.zeros((2**15 + 1, 3), np.float32)
    rows[:, 0] = np.arange(len(rows))
    matrices = random.integers(-3, 4, (64, 16, 16)).astype(np.float32)
    sums = matrices.sum(-1)
    tokens = random.integers(-1, 2, (4, 50, 256)).astype(np.float32)
    kernel = random.integers(-1, 2, (256, 256)).astype(np.float32)
    return {
        "squares of a product's rows": (
            lambda x: jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(x)[-1],
            (rows,),
            np.float32(2**30),
        ),
        "a product with equal numbers, times and summed": (
            lambda x, c: jnp.sum((x @ jnp.full_like(x, c)) * x, axis=-1),
            (matrices, np.float32(2)),
            2 * sums * sums,
        ),
        "a product summed over tokens": (
            lambda x, kernel: jnp.sum(x @ kernel, axis=1),
            (tokens, kernel),
            tokens.sum(1) @ kernel,
        ),
    }
