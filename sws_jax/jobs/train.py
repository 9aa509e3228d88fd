"""One trainer for every run: ancestor, Aux-Net, descendant, scratch.

Runs differ in their config alone: model, teacher, init, data and schedule. This file
reads in the order in which things happen: the config is checked, the directory is
claimed, data, network and teacher become a task, which is trained and ended. Nothing
behind the task reads a config.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import ml_collections

from sws_jax import sharding
from sws_jax.data import pipeline
from sws_jax.data.base import Unreadable
from sws_jax.estimate import sizing
from sws_jax.jobs import (
    begun,
    build,
    check,
    columns,
    model_fields,
    phases,
    places,
    recipes,
    trained,
)
from sws_jax.jobs.datasets import Datasets
from sws_jax.jobs.directory import RunDirectory
from sws_jax.methods import learngenes
from sws_jax.methods.base import Learngene, Trained
from sws_jax.models import networks
from sws_jax.models.networks import Network
from sws_jax.runtime import processes
from sws_jax.runtime.progress import say
from sws_jax.specs import ViTSpec
from sws_jax.storage import files
from sws_jax.storage.names import LEARNGENE_FILE, WEIGHTS
from sws_jax.training import ending, roles
from sws_jax.training.ending import Finished
from sws_jax.training.history import Begun
from sws_jax.training.loop import NonFinite, Preempted, Training
from sws_jax.training.replay import Diverged
from sws_jax.training.task import Task


@sharding.alone()
def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    directory: str | None = None,
    role: str = roles.SINGLE,
    method: str = "",
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
      method: in a job, that the network is initialised by; kept in the result. Empty
        leaves it to what its weights say.
      should_stop: asked after every step; true saves and raises `Preempted`.
      starting: called once the run is this process's to do, and can be done.
      datasets: of the job, whose runs share what is opened; default its own.

    Returns:
      The contents of ``result.json``.

    Raises:
      UserError: the config cannot be run, with the reason.
      NonFinite: the loss or a gradient became NaN or infinite.
      Diverged: a step that was computed twice gave two results.
      Stopped: something else ended the run on its way.
      Preempted: see `should_stop`.
      Busy: another job is at this run.

    With several processes, all of them call this, and the first writes the files.
    """
    directory = directory or os.path.join(workdir, config.name)
    datasets = datasets or Datasets()
    config = recipes.completed(config)
    check.check_run(config)
    config, as_begun = begun.as_begun(directory, config, workdir)
    for line in as_begun:
        say(line)
    run = RunDirectory(directory, config, workdir)
    if (result := run.result()) is not None:
        lines = run.check_finished(
            lambda: datasets.open_quickly(config), datasets.fingerprint
        )
        for line in lines:
            say(line)
        return result
    with run.claimed():
        # It may have been finished while this one asked.
        if (result := run.result()) is not None:
            return result
        _train(run, datasets, role, method, should_stop, starting)
    # The files that it started from may be others by now, or gone.
    return run.finished()


def _train(
    run: RunDirectory,
    datasets: Datasets,
    role: str,
    method: str,
    should_stop,
    starting,
) -> None:
    """Trains a run whose directory is claimed, and writes its weights and result."""
    mesh = build.mesh(run.config)
    data = datasets.open(run.config)
    fingerprint, data_lines = run.check_data(data)
    data_lines = [*datasets.remarks(data), *data_lines]
    task = build.task(run, mesh, data, role, method, data_lines)
    # The config can be run: from here on the directory is this run's.
    starting()
    config_with_network = model_fields.with_network(run.config, task.recipe.spec)
    fields = run.begin(config_with_network, fingerprint)
    begun_with = Begun(fields["compute.dtype"], fields["data.unreadable"])
    training = Training(task, should_stop, begun_with)
    all_ended_alike = False
    try:
        training.open()
        training.steps(functools.partial(_step_lines, task))
        finished = ending.finish(training)
        more = functools.partial(columns.of_task, task, config_with_network)
        processes.first_does(lambda: _write(run, finished, more()))
        all_ended_alike = True
    except (Preempted, NonFinite, Diverged):
        all_ended_alike = True
        raise
    except (Unreadable, pipeline.WorkerDied) as error:
        raise ending.unread(training, error) from None
    except files.Unwritable as error:
        raise ending.unwritten(training, error) from None
    finally:
        training.close(all_ended_alike)


def _step_lines(task: Task) -> list[str]:
    """Lines on what a device holds and sends in a step, which is compiled for them.

    Of several programs it is the largest.
    """
    size = task.global_batch_size
    recipe, students = sizing.largest(task.picks.programs(task.total))
    replayed = task.replay_every > 0
    sheet = sizing.sheet(
        recipe,
        task.mesh,
        size,
        task.teacher,
        students,
        replayed=replayed,
        images=task.resident_bytes,
    )
    lines = [f"{task.name}: per device: {sheet}"]
    limit = sizing.memory_limit(task.mesh.local_devices[0])
    if warning := sizing.warning(sheet, limit):
        lines.append(f"{task.name}: warning: {warning}")
    return lines


def _write(run: RunDirectory, finished: Finished, more: dict[str, Any]) -> None:
    """Writes the weights of a finished run, then its result; in one process alone.

    Args:
      run: its directory.
      finished: what it ends with.
      more: that the result is to hold.
    """
    gene = _learngene(run, finished)
    if gene is not None:
        learngenes.save_learngene(os.path.join(run.path, LEARNGENE_FILE), gene)
    else:
        networks.save_network(os.path.join(run.path, WEIGHTS), finished.network)
    trained.save_own(run.path, finished.network, finished.own)
    run.finish({**finished.result, **more})


def _net(run: RunDirectory, network: Network) -> ViTSpec:
    """The network that a run's method is asked with, for the images of its own."""
    names = ("image_size", "channels", "num_classes")
    return phases.net(run.config, {n: getattr(network.spec, n) for n in names})


def _learngene(run: RunDirectory, finished: Finished) -> Learngene | None:
    """The learngene that a run leaves; None where it leaves its network."""
    config, network = run.config, finished.network
    if phases.leaves_learngene(config):
        method = learngenes.find_method(config.phase.method)
        results = trained.load(config, run.workdir, phases.earlier(config))
        # They have to be those that the run began with.
        run.check_unchanged(places.earlier_phases(config))
        results[config.phase.name] = Trained(network, finished.own)
        return method.extract(results, _net(run, network))
    assert network.description is not None
    if network.description.kind == "aux_net" and not config.phase.method:
        return learngenes.extract(network)
    return None
