"""From a run's config to the objects that it names, one function for each group."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import ml_collections
from jax.sharding import Mesh

from sws_jax import sharding
from sws_jax.data import Dataset, load_dataset
from sws_jax.data.augment import Augment
from sws_jax.data.pipeline import Reading, epoch_images
from sws_jax.data.transforms import Transform
from sws_jax.errors import UserError
from sws_jax.jobs import places, teacher
from sws_jax.methods.objectives import Loss
from sws_jax.models.networks import Predictor
from sws_jax.pixels import Normalization
from sws_jax.specs import AuxViTSpec, Compute, Spec, ViTSpec
from sws_jax.training.durations import MOST_STEPS, Durations
from sws_jax.training.optim import Optimizer, Schedule, scaled_rate
from sws_jax.training.step import Recipe


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


def reading(config: ml_collections.ConfigDict) -> Reading:
    data = config.data
    return Reading(data.threads, data.workers, data.unreadable)


def transform(config: ml_collections.ConfigDict) -> Transform:
    return Transform(**config.transform)


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
    if schedule.total_steps > MOST_STEPS:
        raise UserError(
            f"schedule.total_epochs {config.schedule.total_epochs:g} is "
            f"{schedule.total_steps:,} steps of {durations.global_batch_size} images, "
            f"and a run has at most {MOST_STEPS:,}"
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
