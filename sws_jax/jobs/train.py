"""One trainer for every run: ancestor, Aux-Net, descendant, scratch.

Runs differ in their config alone: model, teacher, init, data and schedule. This file
reads in the order in which things happen: the config is checked, the directory is
claimed, data, network and teacher become a task, which is trained and ended. Nothing
behind the task reads a config.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from sws_jax import sharding, trees
from sws_jax.data import Dataset, pipeline
from sws_jax.data.base import Unreadable
from sws_jax.data.transforms import Fit
from sws_jax.estimate import sizing
from sws_jax.jobs import (
    begun,
    build,
    check,
    initial,
    model_fields,
    places,
    recipes,
    remarks,
    teacher,
)
from sws_jax.jobs.datasets import Datasets
from sws_jax.jobs.directory import RunDirectory
from sws_jax.methods import learngenes
from sws_jax.models import networks, weights
from sws_jax.models.networks import Network
from sws_jax.runtime import processes
from sws_jax.runtime.progress import say
from sws_jax.specs import AuxViTSpec, Spec
from sws_jax.storage import files
from sws_jax.storage.names import LEARNGENE, WEIGHTS
from sws_jax.training import ending, step
from sws_jax.training.history import Begun
from sws_jax.training.loop import NonFinite, Preempted, Training
from sws_jax.training.task import Task


@sharding.alone()
def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    directory: str | None = None,
    role: str = "single",
    should_stop: Callable[[], bool] = lambda: False,
    starting: Callable[[], None] = lambda: None,
    datasets: Datasets | None = None,
) -> dict[str, Any]:
    """Trains one network to the end of its schedule and scores it.

    Args:
      config: fields as in `sws_jax.jobs.recipes.run`.
      workdir: where ``run:NAME`` paths of the config are found.
      directory: of this run; default ``workdir/name``. It holds config, metrics,
        checkpoints, weights (a learngene, if the network is an Aux-Net) and
        ``result.json``. A finished run is not repeated, an unfinished one goes on.
      role: in a job, kept in the result.
      should_stop: asked after every step; true saves and raises `Preempted`.
      starting: called once the run is this process's to do, and can be done.
      datasets: of the job, whose runs share what is opened; default its own.

    Returns:
      The contents of ``result.json``.

    Raises:
      UserError: the config cannot be run, with the reason.
      NonFinite: the loss or a gradient became NaN or infinite.
      Stopped: something else ended the run on its way.
      Preempted: see `should_stop`.
      Busy: another job is at this run.

    With several processes, all of them call this, and the first writes the files.
    """
    directory = directory or os.path.join(workdir, config.name)
    datasets = datasets or Datasets()
    config = recipes.completed(config)
    check.check(config)
    check.check_teacher(config)
    config, as_begun = begun.as_begun(directory, config, workdir)
    for line in as_begun:
        say(line)
    run = RunDirectory(directory, config, workdir)
    if (result := run.result()) is not None:
        glance, take = lambda: datasets.glance(config), datasets.fingerprint
        for line in run.check_finished(glance, take):
            say(line)
        return result
    with run.claimed():
        # It may have been finished while this one asked.
        if (result := run.result()) is not None:
            return result
        _train(run, datasets, role, should_stop, starting)
    # The files that it started from may be others by now, or gone.
    return run.finished()


def _train(
    run: RunDirectory, datasets: Datasets, role: str, should_stop, starting
) -> None:
    """Trains a run whose directory is claimed, and writes its weights and result."""
    mesh = sharding.make_mesh(sizes=run.config.mesh)
    build.check_batches(run.config, mesh)
    data = datasets.of(run.config)
    fingerprint, data_lines = run.check_data(data)
    task = _task(run, mesh, data, role, [*datasets.remarks(data), *data_lines])
    # The config can be run: from here on the directory is this run's.
    starting()
    recorded = model_fields.recorded(run.config, task.recipe.spec)
    begun = run.begin(recorded, fingerprint)
    first = Begun(begun["compute.dtype"], begun["data.unreadable"])
    training = Training(task, should_stop, first)
    together = False  # all processes end the run alike
    try:
        training.open()
        training.steps(functools.partial(_step_lines, task))
        network, result = ending.finish(training)
        processes.first_does(lambda: _write(run, network, result))
        together = True
    except (Preempted, NonFinite):
        together = True
        raise
    except (Unreadable, pipeline.WorkerDied) as error:
        raise ending.unread(training, error) from None
    except files.Unwritable as error:
        raise ending.unwritten(training, error) from None
    finally:
        training.close(together)


def _task(
    run: RunDirectory, mesh: Mesh, data: Dataset, role: str, data_lines: Sequence[str]
) -> Task:
    """What a run trains, for how long, from which weights and by which teacher.

    Nothing is written.

    Args:
      run: its directory, with the config.
      mesh: its devices.
      data: its images.
      role: in its job.
      data_lines: to be said of the data.

    Raises:
      UserError: the run cannot be begun, with the reason.
    """
    config = run.config
    durations = build.durations(config, data)
    schedule = build.schedule(config, durations)
    build.check_length(config, durations, schedule)
    network, first_lines, other_lines = _network(run, data)
    assert network.description is not None
    best = config.evaluation.select == "best"
    task = Task(
        name=config.name,
        role=role,
        directory=run.path,
        seed=config.seed,
        mesh=mesh,
        data=data,
        transform=build.transform(config),
        fit=Fit(data.image_shape[:2], config.data.eval_crop),
        reading=build.reading(config),
        repeats=config.data.repeats,
        global_batch_size=config.global_batch_size,
        score_batch_size=config.evaluation.batch_size,
        epochs=config.schedule.total_epochs,
        epoch_images=durations.images,
        schedule=schedule,
        score_every=durations.every(config.evaluation.every_epochs),
        save_every=durations.every(config.checkpoint.every_epochs),
        log_every=config.log_steps,
        milestones={e: durations.steps(e) for e in _milestones(config)},
        keep_last=config.checkpoint.keep_last,
        # The best is chosen among checkpoints, and the last step may be it.
        save_last=config.checkpoint.final or best,
        select_best=best,
        network=network,
        make_ema=functools.partial(initial.ema_start, config, network.spec),
        recipe=build.recipe(config, network.spec, data.normalization),
        teacher=None,
        about=network.description,
        stored=_stored(run, network),
        first_lines=first_lines,
        lines=(
            *data_lines,
            *other_lines,
            *remarks.of(config, durations, schedule),
            *_batch_lines(config, network.spec, mesh, schedule.total_steps),
        ),
    )
    return _taught(task, run)


def _network(
    run: RunDirectory, data: Dataset
) -> tuple[Network, tuple[str, ...], tuple[str, ...]]:
    """The network of a run before its first step.

    Returns:
      The network; lines on how it starts; lines on what it has otherwise than it is
      asked for, as older software began it.
    """
    # The digests of files are taken before the files are read, which must not change
    # meanwhile.
    processes.first_does(lambda: run.inputs)
    lines: list[str] = []
    older_lines: list[str] = []
    network = initial.start(
        run.config,
        data,
        run.workdir,
        lines.append,
        differs=older_lines.append if run.is_older() else None,
    )
    return network, tuple(lines), tuple(older_lines)


def _taught(task: Task, run: RunDirectory) -> Task:
    """A task with the teacher of its run, which is refused where it knows nothing."""
    lines: list[str] = []
    predictor = build.load_teacher(run.config, task.data, run.workdir, lines.append)
    run.check_inputs()  # all files are read
    if predictor is None:
        return task
    network = predictor.network
    assert network.description is not None
    shardings = step.network_shardings(network.spec, task.mesh)
    placed = Network(network.spec, sharding.put(network.params, shardings))
    predictor = dataclasses.replace(predictor, network=placed)
    score = task.score(predictor, task.data.val)
    teacher.check_scores(score, task.data, run.config.teacher.min_accuracy)
    name = network.description.net.name
    line = f"teacher {name}, validation top-1 {score['top1']:.1%}"
    if score["skipped"]:
        line += f" of {int(score['count']):,} images that can be read"
    lines = [f"{task.name}: {line}" for line in (*lines, line)]
    return dataclasses.replace(
        task,
        teacher=predictor,
        about=task.about.replace(teacher=name),
        first_lines=(*task.first_lines, *lines),
    )


def _milestones(config: ml_collections.ConfigDict) -> list[float]:
    """Epochs to score apart from the end, in order; the end itself only for 0."""
    total = config.schedule.total_epochs
    if total == 0:
        return [0.0]
    epochs = sorted(set(config.evaluation.milestones))
    return [float(e) for e in epochs if 0 <= e < total]


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


def _step_lines(task: Task) -> list[str]:
    """Lines on what a device holds and sends in a step, which is compiled for them."""
    size = task.global_batch_size
    sheet = sizing.sheet(task.recipe, task.mesh, size, task.teacher)
    lines = [f"{task.name}: per device: {sheet}"]
    limit = sizing.memory_limit(task.mesh.local_devices[0])
    if warning := sizing.warning(sheet, limit):
        lines.append(f"{task.name}: warning: {warning}")
    return lines


def _write(run: RunDirectory, network: Network, result: dict[str, Any]) -> None:
    """Writes the weights of a finished run, then its result; in one process alone."""
    if isinstance(network.spec, AuxViTSpec):
        path = os.path.join(run.path, LEARNGENE)
        learngenes.save_learngene(path, learngenes.extract(network))
    else:
        networks.save_network(os.path.join(run.path, WEIGHTS), network)
    run.finish(result)
