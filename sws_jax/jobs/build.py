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
    """The images of a run.

    Raises:
      UserError: they cannot be read, or augmented as the config says.
    """
    data = config.data
    images = load_dataset(
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
    transform(config).check_channels(images.image_shape[-1])
    return images


def reading(config: ml_collections.ConfigDict) -> Reading:
    """How images are read."""
    data = config.data
    return Reading(data.threads, data.workers, data.unreadable)


def transform(config: ml_collections.ConfigDict) -> Transform:
    """What every training image goes through on the host."""
    return Transform(**config.transform)


def durations(config: ml_collections.ConfigDict, data: Dataset) -> Durations:
    """What turns the epochs of a run into steps."""
    images = epoch_images(len(data.train), config.data.repeats)
    return Durations(images, config.global_batch_size)


def schedule(config: ml_collections.ConfigDict, durations: Durations) -> Schedule:
    """The learning rate of a run, step by step.

    Raises:
      UserError: its warm-up is longer than the run.
    """
    group = config.schedule
    if 0 < group.total_epochs < group.warmup_epochs:
        raise UserError(
            f"schedule.warmup_epochs {group.warmup_epochs:g} is longer than the run, "
            f"whose schedule.total_epochs is {group.total_epochs:g}"
        )
    return Schedule(
        kind=group.kind,
        peak=scaled_rate(group.rate, config.global_batch_size, group.rate_batch),
        total_steps=durations.steps(group.total_epochs),
        warmup_steps=durations.steps(group.warmup_epochs),
        warmup_rate=group.warmup_rate,
        minimum=group.minimum,
        steps_per_epoch=Fraction(durations.images, durations.global_batch_size),
    )


def check_length(config, durations: Durations, schedule: Schedule) -> None:
    """Refuses a run that is to train, and has no step or more than a run may have."""
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
    """The static part of a step.

    Args:
      config: of the run.
      spec: of its network.
      normalization: of its images.

    Raises:
      UserError: a batch cannot be mixed as the config says.
    """
    assert isinstance(spec, ViTSpec | AuxViTSpec)  # `start` makes no other
    augment = Augment(**config.augment)
    augment.check_batch(config.global_batch_size)
    return Recipe(
        spec=spec,
        normalization=normalization,
        compute=Compute(**config.compute),
        augment=augment,
        loss=Loss(**config.loss),
        optimizer=Optimizer(**config.optimizer),
        accum_steps=config.accum_steps,
        ema=config.ema,
    )


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
    predictor, line = teacher.for_classes(loaded, data)
    if line:
        tell(line)
    return predictor
