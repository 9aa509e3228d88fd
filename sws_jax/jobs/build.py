"""From a run's config to the objects that it names."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_collections
from jax.sharding import Mesh

from sws_jax import sharding
from sws_jax.data import Dataset, fingerprint, images, load_dataset, tfds
from sws_jax.data.augment import Augment
from sws_jax.data.pipeline import Reading, epoch_images
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError
from sws_jax.jobs import fields, places, recipes, rundir, start, teacher
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks, profiles
from sws_jax.models.networks import Predictor
from sws_jax.pixels import Normalization
from sws_jax.specs import AuxViTSpec, Compute, Spec, ViTSpec
from sws_jax.storage import names
from sws_jax.training.optim import Optimizer, Schedule, scaled_rate
from sws_jax.training.step import Recipe

_ALL = 2**31 - 1
_LONGEST_NAME = 255  # bytes, of most file systems
# That a job writes beside its runs' directories.
_FILES = (
    *names.REPORT_FILES, places.LEARNGENE, rundir.CONFIG, rundir.INPUTS, rundir.LOCK,
)  # fmt: skip


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what needs neither data nor files to be seen as wrong.

    Raises:
      UserError: naming the field.
    """
    _check_name(config.name)
    check_fields(config)
    profiles.find(config.profile)
    for made, group in (
        (Compute, config.compute),
        (Transform, config.transform),
        (Augment, config.augment),
        (Loss, config.loss),
        (Optimizer, config.optimizer),
    ):
        made(**group)
    images.check_decoder(config.data.decoder)
    Augment(**config.augment).check_batch(config.global_batch_size)
    # Whatever the number of images: a million stand for it.
    schedule(config, Durations(2**20, config.global_batch_size))
    reading(config)
    Fit((1, 1), config.data.eval_crop)
    epoch_images(1, config.data.repeats)
    patch = config.model.patch_size
    some = dict(image_size=(patch, patch), channels=1, num_classes=1)
    start.network_spec(config, some)
    known = set(recipes.run().model)
    if unknown := [n for n in recipes.insisted(config) if n not in known]:
        raise UserError(
            f"init.insist names fields of model, and {unknown[0]!r} is none: they are "
            f"{', '.join(sorted(known))}"
        )


def check_teacher(config: ml_collections.ConfigDict) -> None:
    """Refuses a run that is distilled and names no teacher.

    (A job's own config may: its runs get theirs from each other.)
    """
    if needs_teacher(config) and not config.teacher.path:
        raise UserError(
            f"loss.kind {config.loss.kind!r} needs a teacher: give its weights file or "
            f"run directory as teacher.path"
        )


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Refuses a value out of the range that `sws_jax.jobs.fields` gives its field.

    Args:
      config: of a run.

    Raises:
      UserError: naming the field.
    """
    for name, field in fields.RUN.items():
        field.check(name, functools.reduce(operator.getitem, name.split("."), config))


def check_job(config: ml_collections.ConfigDict) -> None:
    """As `check_fields`, for what a job has beside the fields of its runs."""
    for name, field in fields.JOB.items():
        group, _, last = name.rpartition(".")
        held = config.get(group, {}) if group else config
        if last in held:
            field.check(name, held[last])


def _check_name(name: str) -> None:
    """Refuses what is no name of a directory in the work directory."""
    why = ""
    if not name or os.path.basename(name) != name or "\\" in name:
        why = ""
    elif not name.isprintable():
        why = ": it has characters that do not print"
    elif name.startswith("."):
        why = ": it begins with a dot"
    elif len(os.fsencode(name)) > _LONGEST_NAME:
        why = f": it is longer than {_LONGEST_NAME} bytes"
    elif name.lower() in _FILES:
        why = ": the work directory has a file of that name"
    else:
        return
    shown = name if len(name) <= 40 else f"{name[:40]}..."
    raise UserError(
        f"name is the run's directory in the work directory, and cannot be "
        f"{shown!r}{why}"
    )


def dataset(config: ml_collections.ConfigDict) -> Dataset:
    data = config.data
    found = load_dataset(
        data.source,
        val_fraction=data.val_fraction,
        image_size=data.image_size or None,
        mean=tuple(data.mean),
        std=tuple(data.std),
        directory=data.directory,
        cache=data.cache,
        memory_gib=data.memory_gib,
        decoder=data.decoder,
        unreadable=data.unreadable,
    )
    transform(config).check_channels(found.image_shape[-1])
    return found


class Datasets:
    """The sets that the runs of a job train on, each opened once for all of them."""

    def __init__(self) -> None:
        self._open: dict[str, Dataset] = {}
        self._known: tuple[Dataset, dict[str, Any]] | None = None
        self._told: set[str] = set()

    def of(self, config: ml_collections.ConfigDict) -> Dataset:
        """The set of a run, as `dataset` opens it."""
        key = self._key(config)
        if key not in self._open:
            self._open.clear()  # a set may take much memory, and few jobs have two
            self._open[key] = dataset(config)
        found = self._open[key]
        transform(config).check_channels(found.image_shape[-1])
        return found

    def glance(self, config: ml_collections.ConfigDict) -> Dataset | None:
        """The set of a run, without what takes long: its images are neither decoded
        nor copied. None where it is in a bucket, and not here.

        Raises:
          UserError: there is no such set any more, or not as it was.
        """
        light = config.copy_and_resolve_references().unlock()
        light.data.update(memory_gib=0.0, unreadable="skip")
        if self._key(config) in self._open:
            return self.of(config)
        data = config.data
        name = data.source.removeprefix(tfds.PREFIX)
        if name != data.source and not tfds.is_here(name, data.directory, data.cache):
            return None
        return self.of(light)

    def fingerprint(self, data: Dataset) -> dict[str, Any]:
        """Of the set that finished runs are compared with, one after the other."""
        if self._known is None or self._known[0] is not data:
            self._known = data, fingerprint.take(data)
        return self._known[1]

    @staticmethod
    def _key(config: ml_collections.ConfigDict) -> str:
        return repr(sorted(config.data.to_dict().items()))

    def remarks(self, data: Dataset) -> list[str]:
        """What is to be said of a set, once."""
        lines = [f"{data.name}: {note}" for note in data.notes]
        new = [line for line in lines if line not in self._told]
        self._told.update(new)
        return new


def reading(config: ml_collections.ConfigDict) -> Reading:
    data = config.data
    return Reading(data.threads, data.workers, data.unreadable)


def transform(config: ml_collections.ConfigDict) -> Transform:
    return Transform(**config.transform)


@dataclasses.dataclass(frozen=True)
class Durations:
    """Epochs of a config as steps: the one place that converts them.

    An epoch is as many images as there are, and a step a global batch of them; a
    duration of some epochs is the nearest whole number of steps.
    """

    images: int
    global_batch_size: int

    def steps(self, epochs: float) -> int:
        if not 0 <= epochs < math.inf:
            raise UserError(
                f"durations are epochs of at least 0, and one of them is {epochs}"
            )
        return round(epochs * self.images / self.global_batch_size)

    def every(self, epochs: float) -> int:
        """An interval: never below one step; 0 epochs means never."""
        return min(max(self.steps(epochs), 1), _ALL) if epochs > 0 else _ALL


def durations(config: ml_collections.ConfigDict, data: Dataset) -> Durations:
    images = epoch_images(len(data.train), config.data.repeats)
    return Durations(images, config.global_batch_size)


def schedule(config: ml_collections.ConfigDict, durations: Durations) -> Schedule:
    given = config.schedule
    if 0 < given.total_epochs < given.warmup_epochs:
        raise UserError(
            f"schedule.warmup_epochs {given.warmup_epochs:g} is longer than the run, "
            f"whose schedule.total_epochs is {given.total_epochs:g}"
        )
    return Schedule(
        kind=given.kind,
        peak=scaled_rate(given.rate, config.global_batch_size, given.rate_batch),
        total_steps=durations.steps(given.total_epochs),
        warmup_steps=durations.steps(given.warmup_epochs),
        warmup_rate=given.warmup_rate,
        minimum=given.minimum,
        steps_per_epoch=Fraction(durations.images, durations.global_batch_size),
    )


def check_length(config, durations: Durations, schedule: Schedule) -> None:
    """Refuses a run that is to train and is shorter than a step, or without end."""
    if schedule.total_steps > _ALL:
        raise UserError(
            f"schedule.total_epochs {config.schedule.total_epochs:g} is "
            f"{schedule.total_steps:,} steps of {durations.global_batch_size} images, "
            f"and a run has at most {_ALL:,}"
        )
    if config.schedule.total_epochs and not schedule.total_steps:
        raise UserError(
            f"schedule.total_epochs {config.schedule.total_epochs} is less than one "
            f"step of {durations.global_batch_size} images"
        )


def check_batches(config, mesh: Mesh) -> None:
    """Refuses batches that do not divide over a mesh."""
    for name, size, parts in (
        ("global_batch_size", config.global_batch_size, config.accum_steps),
        ("evaluation.batch_size", config.evaluation.batch_size, 1),
    ):
        sharding.check_batch(name, size, mesh, parts)


def mesh_remarks(config, spec: Spec, mesh: Mesh) -> list[str]:
    """What does not fall apart over a mesh, in words."""
    found = []
    boxed = networks.abstract_params(spec, boxed=True)
    if left := sharding.undivided(boxed, mesh):
        found.append(f"replicated, as they do not divide: {', '.join(left)}")
    mixing, size = config.augment, config.global_batch_size
    group, own = mixing.mix_group or size, size // sharding.shard_count(mesh)
    if (mixing.mixup or mixing.cutmix) and own % group:
        found.append(
            f"mixup groups of {group} images span devices, which pass them on; an "
            f"augment.mix_group that divides {own} keeps them"
        )
    return found


def needs_teacher(config) -> bool:
    """Whether a run is distilled."""
    return Loss(**config.loss).needs_teacher


def recipe(config, spec: Spec, normalization: Normalization) -> Recipe:
    """The static part of a step, of images that are normalised so."""
    assert isinstance(spec, ViTSpec | AuxViTSpec)  # `start` makes no other
    made = Recipe(
        spec=spec,
        normalization=normalization,
        compute=Compute(**config.compute),
        augment=Augment(**config.augment),
        loss=Loss(**config.loss),
        optimizer=Optimizer(**config.optimizer),
        accum_steps=config.accum_steps,
        ema=config.ema,
    )
    made.augment.check_batch(config.global_batch_size)
    return made


def load_teacher(
    config, data: Dataset, workdir: str, tell: Callable[[str], None]
) -> Predictor | None:
    """The frozen teacher of a run, or None.

    Args:
      config: of the run.
      data: what it trains on, in the order of whose classes the teacher answers.
      workdir: where ``run:NAME`` paths are found.
      tell: takes a line on the names of its classes.

    Raises:
      UserError: there is none, or it does not fit the data.
    """
    if not needs_teacher(config):
        return None
    path = places.resolve(config.teacher.path, workdir)
    loaded = teacher.load_teacher(path, dtype=config.teacher.dtype)
    found, said = teacher.for_classes(loaded, data)
    if said:
        tell(said)
    return found
