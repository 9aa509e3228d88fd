"""From a run's config to the objects that it names, and to the task made of them.

Whatever needs neither data nor files has a function that takes the config alone, and
`check_objects` calls them all. `task` puts together what a run trains.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from fractions import Fraction

import jax
import ml_collections
from jax.sharding import Mesh

from sws_jax import sharding, trees
from sws_jax.data import Dataset, images, load_dataset, resident
from sws_jax.data.augment import Augment
from sws_jax.data.pipeline import Reading, epoch_images
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError
from sws_jax.estimate import sizing
from sws_jax.jobs import initial, phases, places, remarks, teacher
from sws_jax.jobs.directory import RunDirectory
from sws_jax.jobs.places import Images
from sws_jax.methods import learngenes
from sws_jax.models import weights
from sws_jax.models.networks import Network, Predictor
from sws_jax.pixels import Normalization
from sws_jax.runtime import processes
from sws_jax.specs import Compute, Spec, Trained, variants
from sws_jax.training import step
from sws_jax.training.durations import MOST_STEPS, Durations
from sws_jax.training.optim import Optimizer, Schedule, scaled_rate
from sws_jax.training.picks import Picks
from sws_jax.training.step import Recipe
from sws_jax.training.task import Task

# Placeholder for the images of an epoch, where no check depends on it.
_SOME_IMAGES = 2**20


def dataset(config: ml_collections.ConfigDict) -> Dataset:
    """The images of a run.

    Raises:
      UserError: they cannot be read, or augmented as the config says.
    """
    data = config.data
    loaded = load_dataset(
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
    transform(config).check_channels(loaded.image_shape[-1])
    return loaded


def check_objects(config: ml_collections.ConfigDict) -> None:
    """Makes all that needs neither data nor files, to refuse what cannot be made.

    Raises:
      UserError: naming the field.
    """
    Compute(**config.compute)
    resident.check(config.data.on_device, transform(config))
    mixing = augment(config)
    phases.objective(config)
    Optimizer(**config.optimizer)
    images.check_decoder(config.data.decoder)
    mixing.check_batch(config.global_batch_size)
    schedule(config, Durations(_SOME_IMAGES, config.global_batch_size))
    reading(config)
    Fit((1, 1), config.data.eval_crop)
    epoch_images(1, config.data.repeats)


def reading(config: ml_collections.ConfigDict) -> Reading:
    """How images are read."""
    data = config.data
    return Reading(data.threads, data.workers, data.unreadable)


def transform(config: ml_collections.ConfigDict) -> Transform:
    """What every training image goes through on the host."""
    return Transform(**config.transform)


def durations(config: ml_collections.ConfigDict, images: int) -> Durations:
    """What turns the epochs of a run, on so many training images, into steps."""
    count = epoch_images(images, config.data.repeats)
    return Durations(count, config.global_batch_size)


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


def mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The devices of a run, over which its batches divide."""
    device_mesh = sharding.make_mesh(sizes=dict(config.mesh))
    check_batches(config, device_mesh)
    return device_mesh


def check_batches(config, mesh: Mesh) -> None:
    """Refuses batches that do not divide over a mesh."""
    for name, size, micro_batches in (
        ("global_batch_size", config.global_batch_size, config.accum_steps),
        ("evaluation.batch_size", config.evaluation.batch_size, 1),
    ):
        sharding.check_batch(name, size, mesh, micro_batches)


def augment(config: ml_collections.ConfigDict) -> Augment:
    """What batches go through on the devices."""
    return Augment(**config.augment)


def recipe(
    config, spec: Trained, normalization: Normalization, teacher: Spec | None = None
) -> Recipe:
    """The static part of a step.

    Args:
      config: of the run.
      spec: of its network.
      normalization: of its images.
      teacher: of its teacher, if it has one.

    Raises:
      UserError: a batch cannot be mixed as the config says.
    """
    mixing = augment(config)
    mixing.check_batch(config.global_batch_size)
    return Recipe(
        spec=spec,
        normalization=normalization,
        compute=Compute(**config.compute),
        augment=mixing,
        loss=phases.objective(config),
        optimizer=Optimizer(**config.optimizer),
        accum_steps=config.accum_steps,
        ema=config.ema,
        teacher=teacher,
    )


def picks(config, recipe: Recipe, images: Images) -> Picks:
    """What each step of a run computes: its network, or variants of it.

    Args:
      config: of the run.
      recipe: of a step.
      images: that the run trains on, as far as they are known.

    Raises:
      UserError: the variants of its phase do not begin with its network, or are none of
        it.
    """
    phase = phases.find(config, images.input_and_head)
    if phase is None or not phase.variants:
        return Picks(recipe, (), variants.pick_first, config.seed)
    if phase.variants[0] != recipe.spec:
        raise UserError(
            f"the first variant of phase {phase.name} is {phase.variants[0].name}, and "
            f"must be the network that it trains, {recipe.spec.name}"
        )
    computed = variants.computations(phase.variants)
    return Picks(recipe, computed, phase.pick, config.seed)


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
    if not places.needs_teacher(config):
        return None
    path = places.resolve(config.teacher.path, workdir)
    loaded = teacher.load_teacher(path, dtype=config.teacher.dtype)
    predictor, line = teacher.for_classes(loaded, data)
    if line:
        tell(line)
    return predictor


def task(
    run: RunDirectory,
    mesh: Mesh,
    data: Dataset,
    role: str,
    method: str,
    data_lines: Sequence[str],
) -> Task:
    """What a run trains, for how long, from which weights and by which teacher.

    Nothing is written.

    Args:
      run: its directory, with the config.
      mesh: its devices.
      data: its images.
      role: in its job.
      method: in its job.
      data_lines: to be said of the data.

    Raises:
      UserError: the run cannot be begun, with the reason.
    """
    config = run.config
    lengths = durations(config, len(data.train))
    rates = schedule(config, lengths)
    check_length(config, lengths, rates)
    network, first_lines, other_lines = _network(run, data)
    assert network.description is not None and isinstance(network.spec, Trained)
    step_recipe = recipe(config, network.spec, data.normalization)
    computed = picks(config, step_recipe, Images.of(data))
    best = config.evaluation.select == "best"
    on_device = rates.total_steps > 0 and _lives_on_device(config, data, mesh)
    without_teacher = Task(
        name=config.name,
        role=role,
        method=method,
        directory=run.path,
        seed=config.seed,
        mesh=mesh,
        data=data,
        transform=transform(config),
        fit=places.fit(config, data),
        reading=reading(config),
        repeats=config.data.repeats,
        global_batch_size=config.global_batch_size,
        score_batch_size=config.evaluation.batch_size,
        epochs=config.schedule.total_epochs,
        epoch_images=lengths.images,
        schedule=rates,
        score_every=lengths.every(config.evaluation.every_epochs),
        save_every=lengths.every(config.checkpoint.every_epochs),
        log_every=config.log_steps,
        milestones={e: lengths.steps(e) for e in _milestones(config)},
        keep_last=config.checkpoint.keep_last,
        # The best is chosen among checkpoints, and the last step may be it.
        save_last=config.checkpoint.final or best,
        select_best=best,
        network=network,
        make_ema=functools.partial(initial.ema_start, config, network.spec),
        recipe=step_recipe,
        teacher=None,
        variants=computed.variants,
        pick=computed.pick,
        about=network.description,
        stored=_stored(run, network),
        first_lines=first_lines,
        lines=(
            *data_lines,
            *(resident.lines(data, on_device) if rates.total_steps else ()),
            *other_lines,
            *remarks.of_run(config, lengths, rates),
            *_batch_lines(config, network.spec, mesh, rates.total_steps),
        ),
        replay_every=config.replay.every_steps,
        on_device=on_device,
    )
    return _with_teacher(without_teacher, run)


def _lives_on_device(config, data: Dataset, mesh: Mesh) -> bool:
    """Whether the training images of a run live on its devices, in all processes.

    Raises:
      UserError: the config wants it, and it cannot be done.
    """
    first = mesh.local_devices[0]
    device = resident.Device(first.platform, sizing.memory_limit(first))
    choice, moves = config.data.on_device, transform(config)
    return processes.decided(lambda: resident.lives_there(choice, data, moves, device))


def _network(
    run: RunDirectory, data: Dataset
) -> tuple[Network, tuple[str, ...], tuple[str, ...]]:
    """The network of a run before its first step.

    Returns:
      The network; lines on how it starts; lines on fields in which it differs from the
      config, as older software began the run.
    """
    # The digests of files are taken before the files are read, which must not change
    # meanwhile.
    processes.first_does(lambda: run.inputs)
    lines: list[str] = []
    older_lines: list[str] = []
    network = initial.initial_network(
        run.config,
        data,
        run.workdir,
        lines.append,
        on_difference=older_lines.append if run.is_older() else None,
    )
    return network, tuple(lines), tuple(older_lines)


def _with_teacher(task: Task, run: RunDirectory) -> Task:
    """A task with the teacher of its run; a teacher near chance is refused."""
    lines: list[str] = []
    predictor = load_teacher(run.config, task.data, run.workdir, lines.append)
    run.check_inputs()  # All files have been read.
    if predictor is None:
        return task
    network = predictor.network
    assert network.description is not None
    shardings = step.network_shardings(network.spec, task.mesh)
    placed = Network(network.spec, sharding.put(network.params, shardings))
    predictor = dataclasses.replace(predictor, network=placed)
    score = task.score(predictor, task.data.val)
    teacher.check_scores(score, task.data, run.config.teacher.min_accuracy)
    name = network.spec.name
    line = f"teacher {name}, validation top-1 {score['top1']:.1%}"
    if score["skipped"]:
        line += f" of {int(score['count']):,} images that can be read"
    lines = [f"{task.name}: {line}" for line in (*lines, line)]
    return dataclasses.replace(
        task,
        teacher=predictor,
        recipe=dataclasses.replace(task.recipe, teacher=network.spec),
        about=task.about.replace(teacher=name),
        first_lines=(*task.first_lines, *lines),
    )


def _milestones(config: ml_collections.ConfigDict) -> tuple[float, ...]:
    """Epochs before the end that are scored; (0.0,) for a run without steps."""
    total = config.schedule.total_epochs
    if total == 0:
        return (0.0,)
    epochs = sorted(set(config.evaluation.milestones))
    return tuple(float(e) for e in epochs if 0 <= e < total)


def _stored(run: RunDirectory, network: Network) -> int:
    """Parameters of the learngene's file, or of the network itself."""
    if not run.config.init.learngene:
        return trees.count(network.params)
    about = weights.describe(places.learngene_file(run.config, run.workdir))
    return trees.count(learngenes.abstract_learngene(about).params)


def _batch_lines(
    config: ml_collections.ConfigDict, spec: Spec, mesh: Mesh, total: int
) -> list[str]:
    """Lines on the steps of a run, and on what its mesh does not divide."""
    hosts, devices = jax.process_count(), sharding.shard_count(mesh)
    size = config.global_batch_size
    lines = [
        f"{spec.name}, {total} steps of {size} images ({size // hosts} per host, "
        f"{size // devices} per device)",
        *remarks.of_mesh(config, spec, mesh),
    ]
    return [f"{config.name}: {line}" for line in lines]
