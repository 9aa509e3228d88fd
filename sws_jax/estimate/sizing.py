"""What one device holds and sends in a training step, before the first one is taken."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sws_jax import sharding
from sws_jax.estimate import cost, hlo
from sws_jax.models.networks import Predictor
from sws_jax.runtime import words
from sws_jax.specs import Compute
from sws_jax.training import step


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a device sends in all collectives of a kind over the same mesh axes.

    Attributes:
      kind: one of `sws_jax.estimate.hlo.KINDS`.
      axes: of the mesh; empty where the groups are no axes of it.
      count: of collectives in a step.
      bytes: that a device sends, going round rings.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: float


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Bytes that one device holds and sends in a compiled step.

    Attributes:
      parameters, optimizer, ema, teacher, batch: from shapes and shardings.
      activations: what the program needs besides, gradients included; None where
        the backend does not say.
      traffic: of a step, the most bytes first.
      uncounted: collectives in loops without a known end, each counted once.
    """

    parameters: int
    optimizer: int
    ema: int
    teacher: int
    batch: int
    activations: int | None
    traffic: tuple[Traffic, ...]
    uncounted: int

    @property
    def total(self) -> int:
        held = self.parameters + self.optimizer + self.ema + self.teacher + self.batch
        return held + (self.activations or 0)

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step."""
        return sum(traffic.bytes for traffic in self.traffic)

    def __str__(self) -> str:
        unknown = "" if self.activations is not None else " without activations"
        text = f"{parts(self)}; {words.size(self.total)} in all{unknown}"
        return f"{text}; a step sends {self._sent()}"

    def _sent(self) -> str:
        if not self.traffic:
            return "nothing"
        kinds = ", ".join(
            f"{traffic.count} {traffic.kind}"
            + (f" over {' and '.join(traffic.axes)}" if traffic.axes else "")
            for traffic in self.traffic
        )
        more = ""
        if self.uncounted:
            more = f"; {self.uncounted} in loops of unknown length counted once"
        return f"{words.size(self.sent)} ({kinds}{more})"


def parts(sheet: Sheet) -> str:
    """What a device holds, in words."""
    held = (
        ("parameters", sheet.parameters),
        ("optimiser", sheet.optimizer),
        ("moving average", sheet.ema),
        ("teacher", sheet.teacher),
        ("batch", sheet.batch),
        ("activations and gradients", sheet.activations),
    )
    return ", ".join(f"{words.size(size)} {name}" for name, size in held if size)


def sheet(
    recipe: step.Recipe, mesh: Mesh, size: int, teacher: Predictor | None
) -> Sheet:
    """The sheet of a run's step.

    Args:
      recipe: static.
      mesh: it runs on.
      size: of the global batch.
      teacher: of arrays or of shapes that know where they live.
    """
    program = step.program(recipe, mesh, size, teacher)
    found = hlo.collectives(program.as_text() or "")
    return dataclasses.replace(
        _arguments(recipe, mesh, size, teacher),
        activations=_temporary(program),
        traffic=_traffic(found, mesh),
        uncounted=sum(not one.counted for one in found),
    )


def estimate(
    recipe: step.Recipe, mesh: Mesh, size: int, teacher: Predictor | None
) -> Sheet:
    """The sheet of a run's step by shapes alone: nothing is compiled, or sent.

    Activations are those that `cost.activation_bytes` counts, and gradients as large as
    the parameters; `margin` says how much more a compiler may ask for.
    """
    found = _arguments(recipe, mesh, size, teacher)
    images = size // (sharding.shard_count(mesh) * recipe.accum_steps)
    kept = cost.activation_bytes(recipe.spec, recipe.compute) * images
    # (A tensor axis splits most of them: heads and hidden units, not the widths.)
    kept //= mesh.shape["tensor"]
    return dataclasses.replace(found, activations=kept + found.parameters)


def margin(compute: Compute) -> float:
    """What a compiled step may hold beyond the activations counted, as a share.

    Measured: 12 % for an Aux-S at 224 px of 512 images, taught by RegNetY-16GF and
    compiled for a CPU, and 41 % of the little that rematerialisation leaves.
    """
    return 0.45 if compute.remat else 0.15


def _arguments(
    recipe: step.Recipe, mesh: Mesh, size: int, teacher: Predictor | None
) -> Sheet:
    """A sheet of what a step is given."""
    state, _, raw, _, teacher = step.arguments(recipe, mesh, size, teacher)
    return Sheet(
        parameters=_held(state.params),
        optimizer=_held(state.opt) + _held(state.step),
        ema=_held(state.ema),
        teacher=_held(teacher),
        batch=_held(raw),
        activations=None,
        traffic=(),
        uncounted=0,
    )


def memory_limit(device: jax.Device) -> int | None:
    """Bytes that a device lends to programs, where it says."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit")


def warning(sheet: Sheet, limit: int | None) -> str:
    """A sentence where a device has less than the sheet asks for, or nothing."""
    if limit is None or sheet.total <= limit:
        return ""
    return (
        f"that is more than the {words.size(limit)} of a device: take a smaller "
        f"global_batch_size, more accum_steps, compute.remat or a larger mesh.fsdp"
    )


def _held(tree: Any) -> int:
    """Bytes of a tree on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _temporary(program: jax.stages.Compiled) -> int | None:
    """What a program needs besides its arguments; None where a backend does not say."""
    try:
        stats = program.memory_analysis()
    except NotImplementedError:  # JAX's answer for a backend without the analysis
        return None
    return getattr(stats, "temp_size_in_bytes", None)


def _traffic(found: Iterable[hlo.Collective], mesh: Mesh) -> tuple[Traffic, ...]:
    known = _axes(mesh)
    totals: dict[tuple[str, tuple[str, ...]], tuple[int, float]] = {}
    for one in found:
        if one.size < 2:
            continue
        members = next((frozenset(group) for group in one.groups if 0 in group), None)
        if not one.groups and one.kind != "collective-permute":
            members = frozenset(range(mesh.size))
        key = one.kind, known.get(members, ())
        count, sent = totals.get(key, (0, 0.0))
        totals[key] = count + one.times, sent + one.times * one.sent
    rows = [Traffic(*key, *values) for key, values in totals.items()]
    return tuple(sorted(rows, key=lambda row: -row.bytes))


def _axes(mesh: Mesh) -> dict[frozenset[int] | None, tuple[str, ...]]:
    """Axes by the group of devices along them that the first device is in."""
    places = np.arange(mesh.size).reshape(mesh.devices.shape)
    split = [axis for axis in sharding.AXES if mesh.shape[axis] > 1]
    found: dict[frozenset[int] | None, tuple[str, ...]] = {}
    for count in range(1, len(split) + 1):
        for axes in itertools.combinations(split, count):
            index = tuple(slice(None) if a in axes else 0 for a in sharding.AXES)
            found[frozenset(places[index].reshape(-1).tolist())] = axes
    return found
