"""What a job needs of devices, here or elsewhere: nothing is trained or written."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import tabulate

from sws_jax import sharding, xla_flags
from sws_jax.data import resident
from sws_jax.errors import UserError
from sws_jax.estimate import flops, sizing, times
from sws_jax.jobs import build, preflight, remarks
from sws_jax.jobs.commandline import PARALLEL
from sws_jax.jobs.rows import Run, at_once, runs
from sws_jax.preview.survey import Survey, largest_step
from sws_jax.runtime import host, words
from sws_jax.runtime.progress import say
from sws_jax.training import step

# Bytes of memory of a device, as their makers state them.
_GIB, _GB = 2**30, 10**9
TPUS = {"v4": 32 * _GIB, "v5e": 16 * _GIB, "v5p": 95 * _GIB, "v6e": 32 * _GIB}
GPUS = {
    "A100-40GB": 40 * _GB,
    "A100-80GB": 80 * _GB,
    "H100": 80 * _GB,
    "H200": 141 * _GB,
}
# Slices of these are named after their cores, of which a device has two.
_TWO_CORES = ("v4", "v5p")

# The devices of this process, whose rates can be measured.
HERE = "here"

# All that a line depends on, the recipe first -> the line.
Lines = dict[Any, "Line"]


@dataclasses.dataclass
class Line:
    """A line of the table: runs with equal steps.

    Attributes:
      sheet: what a device holds and sends.
      time: of a step; None where devices are elsewhere.
      names: of the runs.
      steps: of all of them together.
    """

    sheet: sizing.Sheet
    time: times.Time | None
    names: list[str] = dataclasses.field(default_factory=list)
    steps: int = 0


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices by number, where it is known by memory in bytes, and by where they are.

    Attributes:
      devices: how many.
      memory: of each of them, in bytes.
      is_here: they are those of this process.
    """

    devices: int
    memory: int | None = None
    is_here: bool = False


def machine(text: str) -> Machine:
    """The devices that ``mesh.dry_run`` names.

    Args:
      text: a number of devices, a TPU slice (v5e-256), GPUs (8xH100) or ``here``.

    Raises:
      UserError: it names none; the known ones are listed.
    """
    if text == HERE:
        return _present()
    if re.fullmatch(r"[1-9]\d*", text):
        return Machine(int(text))
    if (tpus := re.fullmatch(r"(\w+)-([1-9]\d*)", text)) and tpus[1] in TPUS:
        kind, count = tpus[1], int(tpus[2])
        cores = 2 if kind in _TWO_CORES else 1
        if count % cores:
            raise UserError(
                f"mesh.dry_run {text!r}: a slice of {kind} is named after its "
                f"cores, of which a device has two, and {count} is odd"
            )
        return Machine(count // cores, TPUS[kind])
    if (gpus := re.fullmatch(r"([1-9]\d*)x(.+)", text)) and gpus[2] in GPUS:
        return Machine(int(gpus[1]), GPUS[gpus[2]])
    raise UserError(
        f"mesh.dry_run is a number of devices, or N of {', '.join(TPUS)} as in "
        f"v5e-256, or of {', '.join(GPUS)} as in 8xH100, or here, and is {text!r}"
    )


def _present() -> Machine:
    """The devices of this process; those made of a CPU share its memory."""
    devices = jax.devices()
    limit = sizing.memory_limit(devices[0])
    if limit is None and devices[0].platform == "cpu" and (whole := host.memory()):
        limit = whole // len(devices)
    return Machine(len(devices), limit, is_here=True)


def pretend(devices: int) -> None:
    """Makes this machine's CPU look like so many devices.

    Raises:
      UserError: JAX has started, with fewer.
    """
    # Programs are compiled to be read, and never run: they need no optimisation.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=1"
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = xla_flags.joined(before or "", flags)
    try:
        jax.config.update("jax_num_cpu_devices", devices)
        jax.config.update("jax_platforms", "cpu")
        jax.devices()
    except RuntimeError:  # JAX has started its back end.
        present = len(jax.devices("cpu"))
        if present < devices:
            raise UserError(
                f"mesh.dry_run needs {devices} devices, and JAX has started here with "
                f"{present}: run it in a process of its own"
            ) from None
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Prints what each run of a job needs of the devices that ``mesh.dry_run`` names.

    Args:
      config: of the job, with ``mesh.dry_run``.
      workdir: where ``run:NAME`` paths of the config are found, if they exist.

    Raises:
      UserError: the job could not be run so, or a teacher is not known.
    """
    target = machine(config.mesh.dry_run)
    rows = runs(config)
    preflight.check(config, rows)
    preflight.check_networks(rows, workdir)
    if not target.is_here:
        pretend(target.devices)
    devices = jax.devices() if target.is_here else jax.devices("cpu")[: target.devices]
    survey = Survey(config, workdir)
    lines = _lines(rows, survey, devices, target)
    count = words.many(target.devices, "device")
    memory = f" of {words.size(target.memory)}" if target.memory else ""
    who = f" ({host.hardware()})" if target.is_here else ""
    say(f"{config.mesh.dry_run}: {count}{memory}{who}, nothing is run\n")
    say(_table(list(lines.values()), target))
    notes = [*survey.notes, *_explanations(lines)]
    if (most := at_once(rows)) > 1:
        notes.append(
            f"runs at once: on CPUs up to {most} ({PARALLEL}), each with memory of its "
            f"own; on accelerators one"
        )
    say("\n" + "\n".join(notes))


def _lines(
    rows: Sequence[Run], survey: Survey, devices: Sequence[jax.Device], target: Machine
) -> Lines:
    """The table of a job's runs; a step is compiled once for all runs that share it.

    The survey takes notes of remarks on the runs, and of those that train nothing.

    Args:
      rows: of the job.
      survey: of the job.
      devices: of the mesh, which stand for those of the job.
      target: what the job would run on.
    """
    lines: Lines = {}
    untrained = []
    platform = devices[0].platform if target.is_here else ""
    device = resident.Device(platform, target.memory)
    for row in rows:
        spec = survey.spec(row)
        mesh = sharding.make_mesh(devices, row.config.mesh)
        build.check_batches(row.config, mesh)
        if not row.config.schedule.total_epochs:
            untrained.append(row.name)
            continue
        largest = largest_step(survey, row, mesh, device)
        recipe, size, teacher, students, replayed, images, trained = largest
        if not target.is_here:
            # The rules of this machine are not those of another.
            recipe, teacher = _plain(recipe), teacher and _plain(teacher)
        structure = jax.tree.structure(students)
        computed_in = teacher and teacher.compute
        key = (recipe, mesh, size, computed_in, structure, replayed, images)
        if key not in lines:
            arguments = (recipe, mesh, size, teacher, students)
            sheet = sizing.sheet(*arguments, replayed=replayed, images=images)
            time = None
            if target.is_here:
                temporary = sheet.activations or 0
                time = times.of_step(*arguments, temporary=temporary)
            else:
                sheet = _in_own_dtype(sheet, recipe, mesh, size, students)
            lines[key] = Line(sheet, time)
        for remark in (*trained, *remarks.of_mesh(row.config, spec, mesh)):
            survey.note(remark)
        lines[key].names.append(row.name)
        lines[key].steps += survey.steps(row)
    if untrained:
        survey.note(f"no step is trained: {_label(untrained)}")
    return lines


def _plain(computed):
    """A recipe, or a predictor, with the plain formulas of a network."""
    compute = dataclasses.replace(computed.compute, backend="plain")
    return dataclasses.replace(computed, compute=compute)


def _in_own_dtype(
    sheet: sizing.Sheet,
    recipe: step.Recipe,
    mesh,
    size: int,
    students: tuple[step.Student, ...],
) -> sizing.Sheet:
    """The sheet of a step in half precision, which a CPU computes in float32.

    The activations that are kept for the backward pass (`flops.step_bytes`) are twice
    as large there: the surplus, of the images of one device, is subtracted. It is
    divided by the tensor axis, which splits most of them, so that never too much is
    subtracted.

    Args:
      sheet: of the program that was compiled for CPUs.
      recipe: static.
      mesh: that it runs on.
      size: of the global batch.
      students: of each of the recipe's forms.
    """
    compute = recipe.compute
    if sheet.activations is None or compute.dtype == "float32":
        return sheet
    wide = dataclasses.replace(compute, dtype="float32")
    image = flops.step_bytes(dataclasses.replace(recipe, compute=wide), students)
    image -= flops.step_bytes(recipe, students)
    images = size // (sharding.shard_count(mesh) * recipe.accum_steps)
    widened = image * images // mesh.shape["tensor"]
    return dataclasses.replace(sheet, activations=sheet.activations - widened)


def _table(lines: Sequence[Line], target: Machine) -> str:
    """The table of a dry run: a line for each sheet, with the names of its runs."""
    head = ["run", "parameters", "optimiser", "average", "teacher", "batch"]
    head += ["activations", "in all", "a step sends"]
    replayed = any(line.sheet.replay for line in lines)
    if replayed:
        head.insert(-2, "replay")
    resident_images = any(line.sheet.images for line in lines)
    if resident_images:
        head.insert(-2, "images")
    if target.memory:
        head.insert(-1, "fits")
    timed = any(line.time for line in lines)
    if timed:
        head.append("a step takes")
    body = []
    for line in lines:
        sheet = line.sheet
        sizes: list[int | None] = [sheet.parameters, sheet.optimizer, sheet.ema]
        sizes += [sheet.teacher, sheet.batch, sheet.activations]
        sizes += [sheet.replay] * replayed + [sheet.images] * resident_images
        sizes.append(sheet.total)
        cells = [_label(line.names), *(words.size(n) if n else "-" for n in sizes)]
        if target.memory:
            cells.append("yes" if sheet.total <= target.memory else "NO")
        cells.append(words.size(sheet.sent) if sheet.sent else "-")
        if timed:
            cells.append(words.short(line.time.seconds) if line.time else "-")
        body.append(cells)
    sides = ["left", *["right"] * (len(head) - 1)]
    return tabulate.tabulate(body, head, disable_numparse=True, colalign=sides)


def _label(names: list[str]) -> str:
    """The first of the runs with these names, and how many more there are."""
    return words.few(names, most=1)


def _explanations(lines: Lines) -> list[str]:
    """Lines below the table, on what its columns count."""
    sheets = [line.sheet for line in lines.values()]
    timed = [line for line in lines.values() if line.time]
    compiled = (
        "as compiled for these" if timed else "as compiled for a CPU: an estimate"
    )
    notes = [
        "all figures: of one device",
        f"activations: what the program needs besides, gradients included, {compiled}"
        + ("" if timed else " for other devices"),
        "a step sends: by ring algorithms, in the collectives of that program",
    ]
    dtypes = {recipe.compute.dtype for recipe, *_ in lines}
    if (half := sorted(dtypes - {"float32"})) and not timed:
        notes.append(
            f"{' and '.join(half)}: the CPU's program is wider; less what it keeps for "
            f"the backward pass in float32"
        )
    if any(sheet.replay for sheet in sheets):
        notes.append(
            "replay: the state before a step, which is kept while the step is computed "
            "twice"
        )
    if any(sheet.images for sheet in sheets):
        notes.append("images: those of training, which every device holds")
    if any(sheet.uncounted for sheet in sheets):
        notes.append("collectives in loops of unknown length: counted once")
    return notes + _of_time(timed)


def _of_time(lines: Sequence[Line]) -> list[str]:
    """Lines on what the times of steps are made of; none where there are none."""
    notes = []
    measured = {line.time.rates: None for line in lines if line.time}
    for rates in measured:
        notes.append(
            f"a step takes: an estimate, from {rates.products / 1e9:,.4g} GFLOP/s of a "
            f"large product and {rates.memory / 1e9:,.4g} GB/s of norms, softmax and "
            f"GELU, measured here just now; without what devices send each other"
        )
    if lines:
        seconds = sum(line.time.seconds * line.steps for line in lines if line.time)
        steps = sum(line.steps for line in lines)
        notes.append(
            f"all {words.many(steps, 'step')}: {words.duration(seconds)}, without "
            f"compilation, evaluation, reading images and writing checkpoints"
        )
    return notes
