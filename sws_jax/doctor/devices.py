"""Checks of the devices, the mesh over them, and their memory."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import glob
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import jax

from sws_jax import sharding
from sws_jax.data import resident
from sws_jax.doctor.base import (
    PROBLEM,
    Case,
    Finding,
    Unknown,
    ok,
    problem,
    warning,
)
from sws_jax.errors import UserError
from sws_jax.estimate import sizing
from sws_jax.jobs import build, places, remarks
from sws_jax.jobs.rows import Run
from sws_jax.models import names
from sws_jax.preview.survey import largest_step
from sws_jax.runtime import host, words
from sws_jax.storage.names import RUN

_GPUS, _TPUS = "/dev/nvidia[0-9]*", "/dev/accel[0-9]*"
# Newer TPUs are passed through to user space, as devices of other vendors may be.
_PASSED, _VENDORS, _GOOGLE = (
    "/dev/vfio/[0-9]*",
    "/sys/bus/pci/devices/*/vendor",
    "0x1ae0",
)
# Environment variables of Cloud TPU hosts.
_TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE")
# Packages with JAX's back ends for GPUs, and for TPUs.
_PLUGINS = {False: ("jax_cuda12_plugin", "jax_cuda13_plugin"), True: ("libtpu",)}
_NVIDIA = "/proc/driver/nvidia/version"
_CUDA13_DRIVER = 580  # the oldest that runs CUDA 13 (NVIDIA's release notes)


def devices(case: Case) -> Iterator[Finding]:
    """The devices of JAX, and whether the host has others that JAX does not see."""
    if case.apart:
        raise Unknown("not asked: they may answer only once all processes are there")
    try:
        visible = jax.devices()
    except (RuntimeError, AssertionError) as error:
        # JAX raises an assertion for a platform that it does not know.
        platforms = os.environ.get("JAX_PLATFORMS")
        reason = words.brief(error) or f"JAX_PLATFORMS is {platforms}"
        # Checks that need no accelerator go on.
        jax.config.update("jax_platforms", "cpu")
        yield problem(
            f"JAX finds no device ({reason})", _install() or "unset JAX_PLATFORMS"
        )
        return
    kinds = collections.Counter(f"{d.device_kind} ({d.platform})" for d in visible)
    text = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    local = jax.local_devices()
    limit = sizing.memory_limit(local[0])
    each = f", {words.size(limit)} each" if limit else ""
    here = f"this host: {host.cores()} cores"
    if (memory := host.memory()) is not None:
        here += f", {words.size(memory)}"
    per_process = collections.Counter(d.process_index for d in visible)
    if len(set(per_process.values())) > 1:
        yield problem(
            "processes have different numbers of devices: "
            + ", ".join(f"process {i} has {n}" for i, n in sorted(per_process.items())),
            "give each process as many",
        )
    elif visible[0].platform == "cpu" and (advice := _install()):
        yield problem(f"JAX computes on {text} alone, and {_present()}", advice)
    else:
        yield ok(f"{text}{each}; {here}")


def _present() -> str:
    """The accelerators of this host, in words; empty where it has none."""
    if gpus := sorted(glob.glob(_GPUS)):
        return f"this host has {len(gpus)} NVIDIA GPU(s) ({gpus[0]})"
    chips = sorted(glob.glob(_TPUS)) or _passed_through()
    named = [name for name in _TPU_VARIABLES if os.environ.get(name)]
    if chips or named:
        return f"this host has TPUs ({', '.join(chips[:1] or named)})"
    return ""


def _passed_through() -> list[str]:
    """Device files of TPUs that are passed through."""
    chips = sorted(glob.glob(_PASSED))
    for path in glob.glob(_VENDORS) if chips else ():
        with contextlib.suppress(OSError), open(path) as file:
            if file.read().strip() == _GOOGLE:
                return chips
    return []


def _install() -> str:
    """How JAX comes to see this host's accelerators; empty where it has none."""
    present = _present()
    if not present:
        return ""
    wanted = os.environ.get("JAX_PLATFORMS") or ""
    if wanted == "cpu":
        return "unset JAX_PLATFORMS, which is cpu"
    on_tpu = "TPU" in present
    if any(map(_is_installed, _PLUGINS[on_tpu])):
        # JAX has tried the package, and passed it over.
        name = "tpu" if on_tpu else "cuda"
        why = f'JAX_PLATFORMS={name} python -c "import jax; jax.devices()"'
        return f"see why, as what it takes is installed: {why}"
    return 'pip install "jax[tpu]"' if on_tpu else f'pip install "jax[cuda{_cuda()}]"'


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _cuda() -> int:
    """The major version of CUDA that this host's driver runs."""
    try:
        with open(_NVIDIA) as file:
            driver = re.search(r"  (\d+)\.\d+", file.read())
    except OSError:
        driver = None
    return 12 if driver and int(driver[1]) < _CUDA13_DRIVER else 13


def mesh(case: Case) -> Iterator[Finding]:
    """Whether the mesh and the batches of every run divide over the devices."""
    texts: dict[str, list[str]] = {}
    wrong: dict[str, list[str]] = {}
    for row in case.rows:
        try:
            run_mesh = sharding.make_mesh(sizes=row.config.mesh)
            build.check_batches(row.config, run_mesh)
        except UserError as error:
            wrong.setdefault(str(error), []).append(row.name)
            continue
        size, parts = row.config.global_batch_size, sharding.shard_count(run_mesh)
        shape = " x ".join(f"{axis} {run_mesh.shape[axis]}" for axis in sharding.AXES)
        text = f"{shape}; {size} images a step, {size // parts} a device"
        texts.setdefault(text, []).append(row.name)
    for text, refused in wrong.items():
        yield problem(f"{words.few(refused)}: {text}")
    for text in texts if not wrong else ():
        yield ok(text)


def sheet(case: Case) -> Iterator[Finding]:
    """The largest step's memory, by shapes, against what a device has.

    Nothing is compiled: a large network takes a compiler most of a minute.
    """
    if case.states.get("teacher") == PROBLEM and not all(map(_is_sized, case.rows)):
        raise Unknown("needs teacher to be well")
    survey = case.survey()
    deepest: dict[Any, tuple[Run, Any]] = {}
    for row in case.rows:
        spec = survey.spec(row)
        if row.config.schedule.total_epochs:
            # Of networks that differ in depth alone, the deepest needs the most.
            vits = tuple(vit.replace(depth=1, drop_path=0.0) for vit in spec.vits)
            phase = row.config.phase.method, row.config.phase.name
            replayed = row.config.replay.every_steps > 0
            key = spec.family, vits, row.config.global_batch_size, replayed, phase
            _, other = deepest.get(key, (None, None))
            if other is None or spec.depth > other.depth:
                deepest[key] = row, spec
    first = jax.local_devices()[0]
    device = resident.Device(first.platform, sizing.memory_limit(first))
    sheets, notes = [], []
    for row, spec in deepest.values():
        run_mesh = sharding.make_mesh(sizes=row.config.mesh)
        recipe, size, teacher, students, replayed, images, lines = largest_step(
            survey, row, run_mesh, device
        )
        estimate = sizing.estimate(
            recipe,
            run_mesh,
            size,
            teacher,
            students,
            replayed=replayed,
            images=images,
        )
        sheets.append((row.name, estimate, sizing.margin(recipe.compute)))
        notes += remarks.of_mesh(row.config, spec, run_mesh)
        for line in lines:
            yield ok(line)
    for remark in dict.fromkeys(notes):
        yield warning(remark)
    if not sheets:
        yield ok("no run takes a step: nothing but the networks is held")
        return
    name, largest, margin = max(sheets, key=lambda entry: entry[1].total)
    finding = _fits(case, largest, name, margin)
    yield dataclasses.replace(finding, text=finding.text + case.assumed(survey))


def _is_sized(row: Run) -> bool:
    """Whether the size of a run's teacher is known, though it may have no weights."""
    path = places.teacher_path(row.config)
    is_file = os.path.basename(path) != path  # and maybe in a bucket
    return not path or path.startswith(RUN) or (not is_file and names.is_name(path))


def _fits(case: Case, needed: sizing.Sheet, name: str, margin: float) -> Finding:
    """Whether a sheet fits the memory of a device, or of the host."""
    local = jax.local_devices()
    limit, whose, total = sizing.memory_limit(local[0]), "a device", needed.total
    if local[0].platform == "cpu" or limit is None:
        limit, whose = host.memory(), "this host"
        total = needed.total * len(local)
    if limit is None:
        raise Unknown("this system does not say how much memory it has")
    parts = sizing.parts(needed)
    text = f"{name}: about {words.size(total)} of {words.size(limit)} of {whose}"
    text += f" ({parts}{' for each device' if len(local) > 1 else ''})"
    exact = case.again(f"--config.mesh.dry_run={jax.device_count()}")
    less = "smaller global_batch_size, more accum_steps, compute.remat or larger "
    less += f"mesh.fsdp; {exact} counts it in the compiled program"
    if total > limit:
        return problem(text, less)
    if total + margin * (needed.activations or 0) * (total / needed.total) > limit:
        return warning(f"{text}, which a compiler may exceed", less)
    return ok(text)
