"""From a run's config to the objects that it names."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
from fractions import Fraction

import ml_collections
from jax.sharding import Mesh

from sws_jax import (
    configs,
    networks,
    places,
    presets,
    profiles,
    sharding,
    start,
    teacher,
)
from sws_jax.data import Dataset, images, load_dataset, tfds
from sws_jax.data.augment import Augment
from sws_jax.data.base import Normalization
from sws_jax.data.pipeline import Reading, epoch_images
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError
from sws_jax.learngenes import base
from sws_jax.losses import Loss
from sws_jax.optim import Optimizer, Schedule, scaled_rate
from sws_jax.specs import AuxViTSpec, Compute, Spec, ViTSpec
from sws_jax.step import Recipe

_ALL = 2**31 - 1


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what needs neither data nor files to be seen as wrong.

    Raises:
      UserError: naming the field.
    """
    if not config.name or os.path.basename(config.name) != config.name:
        raise UserError(
            f"name is the run's directory in the work directory, and cannot be "
            f"{config.name!r}"
        )
    base.check_seed(config.seed)
    if config.init.head not in presets.HEADS:
        raise UserError(
            f"init.head {config.init.head!r} is not one of {', '.join(presets.HEADS)}"
        )
    if not 0 <= config.ema < 1:
        raise UserError(f"ema must be in [0, 1), and is {config.ema}")
    profiles.find(config.profile)
    if config.ema_start not in ("weights", "seed"):
        raise UserError(f"ema_start {config.ema_start!r} is not one of weights, seed")
    if config.log_steps < 1:
        raise UserError(f"log_steps must be at least 1, and is {config.log_steps}")
    if config.evaluation.select not in ("last", "best"):
        raise UserError(
            f"evaluation.select {config.evaluation.select!r} is not one of last, best"
        )
    if any(not epochs >= 0 for epochs in config.evaluation.milestones):
        raise UserError(
            f"evaluation.milestones are epochs of at least 0, and not "
            f"{config.evaluation.milestones}"
        )
    for name, least in (("global_batch_size", 1), ("accum_steps", 1)):
        if config[name] < least:
            raise UserError(f"{name} must be at least {least}, and is {config[name]}")
    if config.evaluation.batch_size < 1:
        raise UserError(
            f"evaluation.batch_size must be at least 1, and is "
            f"{config.evaluation.batch_size}"
        )
    if not config.data.memory_gib >= 0:
        raise UserError(
            f"data.memory_gib must be at least 0, and is {config.data.memory_gib}"
        )
    for made, group in (
        (Compute, config.compute),
        (Transform, config.transform),
        (Augment, config.augment),
        (Loss, config.loss),
        (Optimizer, config.optimizer),
    ):
        made(**group)
    images.check_decoder(config.data.decoder)
    if config.data.image_size < 0:
        raise UserError(
            f"data.image_size must be at least 1, or 0 for the images' own, and is "
            f"{config.data.image_size}"
        )
    Augment(**config.augment).check_batch(config.global_batch_size)
    # Whatever the number of images: a million stand for it.
    schedule(config, Durations(2**20, config.global_batch_size))
    reading(config)
    Fit((1, 1), config.data.eval_crop)
    epoch_images(1, config.data.repeats)
    patch = config.model.patch_size
    some = dict(image_size=(patch, patch), channels=1, num_classes=1)
    start.network_spec(config, some)
    known = set(presets.run().model)
    if unknown := [n for n in presets.insisted(config) if n not in known]:
        raise UserError(
            f"init.insist names fields of model, and {unknown[0]!r} is none: they are "
            f"{', '.join(sorted(known))}"
        )
    _check_finite(config)


def check_teacher(config: ml_collections.ConfigDict) -> None:
    """Refuses a run that is distilled and names no teacher.

    (A job's own config may: its runs get theirs from each other.)
    """
    if needs_teacher(config) and not config.teacher.path:
        raise UserError(
            f"loss.kind {config.loss.kind!r} needs a teacher: give its weights file or "
            f"run directory as teacher.path"
        )


def _check_finite(config: ml_collections.ConfigDict) -> None:
    """Refuses NaN and infinity, but for memory, of which there may be no limit."""
    for field in configs.fields(config):
        value = functools.reduce(operator.getitem, field.split("."), config)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                if field != "data.memory_gib":
                    raise UserError(f"{field} must be finite, and is {number}")


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
        self._told: set[str] = set()

    def of(self, config: ml_collections.ConfigDict) -> Dataset:
        """The set of a run, as `dataset` opens it."""
        key = repr(sorted(config.data.to_dict().items()))
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
        for one in (config, light):
            key = repr(sorted(one.data.to_dict().items()))
            if key in self._open:
                return self._open[key]
        data = config.data
        name = data.source.removeprefix(tfds.PREFIX)
        if name != data.source and not tfds.is_here(name, data.directory, data.cache):
            return None
        return self.of(light)

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
        return max(self.steps(epochs), 1) if epochs > 0 else _ALL


def durations(config: ml_collections.ConfigDict, data: Dataset) -> Durations:
    images = epoch_images(len(data.train), config.data.repeats)
    return Durations(images, config.global_batch_size)


def schedule(config: ml_collections.ConfigDict, durations: Durations) -> Schedule:
    fields = config.schedule
    if 0 < fields.total_epochs < fields.warmup_epochs:
        raise UserError(
            f"schedule.warmup_epochs {fields.warmup_epochs:g} is longer than the run, "
            f"whose schedule.total_epochs is {fields.total_epochs:g}"
        )
    return Schedule(
        kind=fields.kind,
        peak=scaled_rate(fields.rate, config.global_batch_size, fields.rate_batch),
        total_steps=durations.steps(fields.total_epochs),
        warmup_steps=durations.steps(fields.warmup_epochs),
        warmup_rate=fields.warmup_rate,
        minimum=fields.minimum,
        steps_per_epoch=Fraction(durations.images, durations.global_batch_size),
    )


def check_length(config, durations: Durations, schedule: Schedule) -> None:
    """Refuses a run that is to train and is shorter than a step."""
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


def load_teacher(config, data: Dataset, workdir: str):
    """The frozen teacher of a run, or None."""
    if not needs_teacher(config):
        return None
    path = places.resolve(config.teacher.path, workdir)
    found = teacher.load_teacher(path, dtype=config.teacher.dtype)
    teacher.check_classes(found, data)
    return found
