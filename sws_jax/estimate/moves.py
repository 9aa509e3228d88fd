"""The bytes that a program moves to and from memory, counted in its traced form.

A compiler computes most operations where their result is needed, and keeps only some
values in memory. Here these are: what goes into or comes out of a product, a
convolution, a loop or a branch; what is summed, gathered, scattered, sorted or joined;
and what the program returns. Each is written once, and the kept values that it is
computed from are read once. A loop moves what its body does, each time; a slice that it
takes from a stack is copied out of it, one that it adds is written in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core

from sws_jax import xla_flags

xla_flags.warn()

# What is computed from many numbers for each, or puts them elsewhere.
_KEPT = frozenset((
    "dot_general", "conv_general_dilated", "reduce_sum", "reduce_max", "reduce_min",
    "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin", "gather", "scatter",
    "scatter-add", "dynamic_update_slice", "concatenate", "sort", "cumsum",
))  # fmt: skip
_PRODUCTS = ("dot_general", "conv_general_dilated")
# The same numbers in the same places.
_VIEWS = frozenset((
    "reshape", "squeeze", "expand_dims", "stop_gradient", "sharding_constraint",
    "optimization_barrier", "copy",
))  # fmt: skip
_LOOPS = ("scan", "while", "cond")


def moved(program: core.Jaxpr) -> int:
    """Bytes that a program reads from and writes to memory.

    Of the branches of a condition the one that moves the most counts, and a loop whose
    length is known only at run time counts once.

    Args:
      program: traced, as `jax.make_jaxpr` returns it in `jaxpr`.
    """
    return _Values(program).moved()


class _Values:
    """The values of a program, the calls in it written out."""

    def __init__(self, program: core.Jaxpr):
        self._steps: list[tuple[Any, list[Any]]] = []  # equations, what they take
        self._same: dict[Any, Any] = {}  # a variable of a call -> whose value it has
        self._write_out(program)
        self._made = {v: step for step in self._steps for v in step[0].outvars}
        self._kept = {self._value(v) for v in program.outvars if _is_variable(v)}
        for equation, taken in self._steps:
            inner = bool(_inner(equation))
            if inner or equation.primitive.name in _KEPT:
                self._kept.update(equation.outvars)
            if inner or equation.primitive.name in _PRODUCTS:
                self._kept.update(filter(_is_variable, taken))

    def moved(self) -> int:
        return sum(self._of(equation, taken) for equation, taken in self._steps)

    def _write_out(self, program: core.Jaxpr) -> None:
        for equation in program.eqns:
            taken = [self._value(v) for v in equation.invars]
            inner = _inner(equation)
            is_call = len(inner) == 1 and len(inner[0].invars) == len(taken)
            if equation.primitive.name in _LOOPS or not is_call:
                self._steps.append((equation, taken))
                continue
            self._same.update(zip(inner[0].invars, taken, strict=True))
            self._write_out(inner[0])
            results = map(self._value, inner[0].outvars)
            self._same.update(zip(equation.outvars, results, strict=True))

    def _value(self, variable: Any) -> Any:
        return (
            self._same.get(variable, variable) if _is_variable(variable) else variable
        )

    def _of(self, equation: Any, taken: Sequence[Any]) -> int:
        """Bytes that an equation moves: none where nothing of it is kept."""
        kind, inner = equation.primitive.name, _inner(equation)
        if kind == "cond":
            return max(map(moved, inner))
        if kind == "scan":
            first = equation.params["num_consts"] + equation.params["num_carry"]
            copied = 2 * sum(map(_size, taken[first:]))
            return equation.params["length"] * sum(map(moved, inner)) + copied
        if inner:
            return sum(map(moved, inner))
        if self._kept.isdisjoint(equation.outvars) or self._is_view(kind, taken):
            return 0
        read = self._read(taken)
        return sum(map(_size, read)) + sum(map(_size, equation.outvars))

    def _is_view(self, kind: str, taken: Sequence[Any]) -> bool:
        """Whether a result is there already, under another shape."""
        while kind in _VIEWS:
            (value, *_) = taken
            if not _is_variable(value) or value in self._kept:
                return True
            if value not in self._made:
                return True
            equation, taken = self._made[value]
            kind = equation.primitive.name
        return False

    def _read(self, taken: Sequence[Any]) -> set[Any]:
        """The kept values that others are computed from, and the program's own."""
        read, open_values, seen = set(), list(taken), set()
        while open_values:
            value = open_values.pop()
            if not _is_variable(value) or value in seen:
                continue
            seen.add(value)
            if value in self._kept or value not in self._made:
                read.add(value)
            else:
                open_values += self._made[value][1]
        return read


def _is_variable(value: Any) -> bool:
    return not isinstance(value, core.Literal)


def _size(value: Any) -> int:
    """Bytes of a value; keys of random numbers have none."""
    dtype = getattr(value.aval, "dtype", None)
    if dtype is None or jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return 0
    return math.prod(value.aval.shape) * dtype.itemsize


def _inner(equation: Any) -> list[core.Jaxpr]:
    """The programs inside an equation."""
    found: list[core.Jaxpr] = []
    open_values = list(equation.params.values())
    while open_values:
        value = open_values.pop(0)
        if isinstance(value, core.ClosedJaxpr):
            found.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            open_values += value
    return found
