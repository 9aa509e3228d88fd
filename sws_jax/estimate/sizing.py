"""What one device holds and sends in a training step, known before the first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from sws_jax import sharding
from sws_jax.estimate import flops
from sws_jax.estimate.traffic import Traffic, by_axes, collectives
from sws_jax.models.networks import Predictor
from sws_jax.runtime import words
from sws_jax.specs import Compute
from sws_jax.training import step
from sws_jax.training.picks import Program
from sws_jax.training.step import Recipe, Student


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Bytes that one device holds and sends in a compiled step.

    Attributes:
      parameters, optimizer, ema, teacher, batch: from shapes and shardings; the
        objective's own parameters are among the first.
      activations: further memory of the program, gradients included; None where the
        backend does not report it.
      traffic: of a step, the most bytes first.
      uncounted: collectives in loops without a known end, each counted once.
      replay: the state before a step, kept while the step is computed twice; 0 in runs
        without such steps.
      images: the training images, in runs whose images live on the devices; else 0.
    """

    parameters: int
    optimizer: int
    ema: int
    teacher: int
    batch: int
    activations: int | None
    traffic: tuple[Traffic, ...]
    uncounted: int
    replay: int = 0
    images: int = 0

    @property
    def total(self) -> int:
        arguments = self.parameters + self.optimizer + self.ema + self.teacher
        kept = self.replay + self.images
        return arguments + self.batch + (self.activations or 0) + kept

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step."""
        return sum(row.bytes for row in self.traffic)

    def __str__(self) -> str:
        unknown = "" if self.activations is not None else " without activations"
        text = f"{parts(self)}; {words.size(self.total)} in all{unknown}"
        return f"{text}; a step sends {self._sent()}"

    def _sent(self) -> str:
        if not self.traffic:
            return "nothing"
        kinds = ", ".join(
            f"{row.count} {row.kind}"
            + (f" over {' and '.join(row.axes)}" if row.axes else "")
            for row in self.traffic
        )
        more = ""
        if self.uncounted:
            more = f"; {self.uncounted} in loops of unknown length counted once"
        return f"{words.size(self.sent)} ({kinds}{more})"


def parts(sheet: Sheet) -> str:
    """What a device holds, in words."""
    sizes = (
        ("parameters", sheet.parameters),
        ("optimiser", sheet.optimizer),
        ("moving average", sheet.ema),
        ("teacher", sheet.teacher),
        ("batch", sheet.batch),
        ("activations and gradients", sheet.activations),
        ("state to replay a step from", sheet.replay),
        ("training images", sheet.images),
    )
    return ", ".join(f"{words.size(size)} {name}" for name, size in sizes if size)


def largest(programs: Sequence[Program]) -> Program:
    """Of the programs of a run the one that holds the most activations.

    Args:
      programs: at least one; see `sws_jax.training.picks.Picks.programs`.
    """
    if len(programs) == 1:
        return programs[0]
    return max(programs, key=lambda program: flops.step_bytes(*program))


def sheet(
    recipe: Recipe,
    mesh: Mesh,
    size: int,
    teacher: Predictor | None,
    students: tuple[Student, ...] = (),
    *,
    replayed: bool = False,
    images: int = 0,
) -> Sheet:
    """The sheet of a run's step.

    Args:
      recipe: the static part of the step.
      mesh: that it runs on.
      size: images of the global batch.
      teacher: of arrays, or of shapes with shardings.
      students: of each of the recipe's forms.
      replayed: whether steps are computed twice.
      images: bytes of the training images that live on each device.
    """
    program = step.program(recipe, mesh, size, teacher, students)
    communication = collectives(program.as_text() or "")
    return dataclasses.replace(
        _arguments(recipe, mesh, size, teacher, students, replayed, images),
        activations=_temporary(program),
        traffic=by_axes(communication, mesh),
        uncounted=sum(not operation.counted for operation in communication),
    )


def estimate(
    recipe: Recipe,
    mesh: Mesh,
    size: int,
    teacher: Predictor | None,
    students: tuple[Student, ...] = (),
    *,
    replayed: bool = False,
    images: int = 0,
) -> Sheet:
    """The sheet of a run's step by shapes alone: nothing is compiled, or sent.

    Activations are those that `flops.step_bytes` counts, and gradients as large
    as the parameters; `margin` says how much more a compiler may ask for.

    Args:
      recipe, mesh, size, teacher, students, replayed, images: as in `sheet`.
    """
    arguments = _arguments(recipe, mesh, size, teacher, students, replayed, images)
    at_once = size // (sharding.shard_count(mesh) * recipe.accum_steps)
    kept = flops.step_bytes(recipe, students) * at_once
    # A tensor axis splits most of them: those of heads and hidden units, not of widths.
    kept //= mesh.shape["tensor"]
    return dataclasses.replace(arguments, activations=kept + arguments.parameters)


def margin(compute: Compute) -> float:
    """What a compiled step may need beyond the activations counted, as a share.

    Measured: 12 % for an Aux-S at 224 px of 512 images, taught by RegNetY-16GF and
    compiled for a CPU, and 41 % of the little that rematerialisation leaves.
    """
    return 0.45 if compute.remat else 0.15


def _arguments(
    recipe: Recipe,
    mesh: Mesh,
    size: int,
    teacher: Predictor | None,
    students: tuple[Student, ...],
    replayed: bool,
    images: int,
) -> Sheet:
    """A sheet of a step's arguments alone; those of `students` are a few numbers."""
    shapes = step.argument_shapes(recipe, mesh, size, teacher, students)
    state, _, raw, _, teacher = shapes[:5]
    return Sheet(
        parameters=_bytes_on_device((state.params, state.own)),
        optimizer=_bytes_on_device(state.opt) + _bytes_on_device(state.step),
        ema=_bytes_on_device(state.ema),
        teacher=_bytes_on_device(teacher),
        batch=_bytes_on_device(raw),
        activations=None,
        traffic=(),
        uncounted=0,
        replay=_bytes_on_device(state) if replayed else 0,
        images=images,
    )


def memory_limit(device: jax.Device) -> int | None:
    """Bytes of a device that programs may use; None where it does not report them."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit")


def warning(sheet: Sheet, limit: int | None) -> str:
    """A sentence where a device has less memory than the sheet needs, or nothing."""
    if limit is None or sheet.total <= limit:
        return ""
    elsewhere = "data.on_device=no, " if sheet.images else ""
    return (
        f"that is more than the {words.size(limit)} of a device: take {elsewhere}a "
        f"smaller global_batch_size, more accum_steps, compute.remat or a larger "
        f"mesh.fsdp"
    )


def _bytes_on_device(tree: Any) -> int:
    """Bytes of a tree on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _temporary(program: jax.stages.Compiled) -> int | None:
    """Bytes of a program beside its arguments; None where a backend does not tell."""
    return getattr(program.memory_analysis(), "temp_size_in_bytes", None)
