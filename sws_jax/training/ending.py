"""The end of a run: the weights that are kept and their scores, or why there are none.

`finish` is called by all processes alike. `unread` and `unwritten` answer what one of
them may have met alone.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import jax

from sws_jax import sharding, trees
from sws_jax.data.base import Unreadable
from sws_jax.errors import Interrupted, Stopped, UserError
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.models.networks import Network
from sws_jax.runtime import host
from sws_jax.storage import files
from sws_jax.training import step
from sws_jax.training.loop import Training


class Finished(NamedTuple):
    """What a run ends with.

    Attributes:
      network: with the weights that it keeps, as numpy arrays.
      own: the objective's own parameters of the same step; {} where it has none.
      result: what ``result.json`` holds.
    """

    network: Network
    own: trees.Tree
    result: dict[str, Any]


def finish(training: Training) -> Finished:
    """Scores the weights that a run keeps, on the test images once.

    Args:
      training: after its last step.

    Raises:
      Preempted: the run was asked to stop between two scores.
      Stopped: a checkpoint that is needed is broken.
    """
    task = training.task
    training.history.clock.pause()
    training.checkpoints.wait()
    step_number, params, own = _kept(training)
    val = training.val
    if val.get("step") != step_number:
        val = task.score(task.predictor(params), task.data.val)
    about = training.described(step_number, val)
    scores = _test_scores(training, step_number, params)
    network = Network(task.network.spec, trees.to_host(params), about)
    result = _result(training, params, about, val["top1"], scores)
    return Finished(network, trees.to_host(own), result)


def _kept(training: Training) -> tuple[int, trees.Tree, trees.Tree]:
    """The step whose weights a run keeps, those weights, and the objective's own."""
    total, state = training.task.total, training.state
    best = training.checkpoints.best_step()
    if training.task.select_best and best is not None and best != total:
        items = _restored(training, best, own=state.own is not None)
        return best, items["params"], items.get("own", {})
    return total, state.params, {} if state.own is None else state.own


def _test_scores(
    training: Training, step_number: int, params: trees.Tree
) -> list[dict[str, float]]:
    """Scores on the test images: of the milestones, then of the weights that are kept.

    Args:
      training: after its last step.
      step_number: the step of the weights that are kept.
      params: those weights.
    """
    task, scores = training.task, []
    for epochs, milestone in task.milestones.items():
        _stop_between_scores(training)
        if milestone:
            weights = _restored(training, milestone)["params"]
        else:
            weights = sharding.put(task.network.params, training.shardings.params)
        score = task.score(task.predictor(weights), task.data.test)
        scores.append({"epochs": epochs, "step": milestone, **score})
    if task.total:  # without a step, the milestone at 0 was the end
        _stop_between_scores(training)
        score = task.score(task.predictor(params), task.data.test)
        scores.append({"epochs": task.epochs, "step": step_number, **score})
    return scores


def _stop_between_scores(training: Training) -> None:
    """Stops where asked: test images may take long, and the weights are there."""
    total = training.task.total
    if not training.should_stop():
        return
    if total and total not in training.checkpoints.steps():
        training.save(total)
        training.checkpoints.wait()
    raise training.stopped(total)


def _restored(
    training: Training, step_number: int, *, own: bool = False
) -> dict[str, trees.Tree]:
    """The item ``params`` of a step's checkpoint, and if asked for ``own``."""
    state, shardings = training.state, training.shardings
    spec = training.checkpoints.describe(step_number).spec
    like = {"params": networks.abstract_params(spec)}
    places = {"params": shardings.params}
    if own:
        like["own"], places["own"] = state.own, shardings.own
    like = jax.tree.map(step.with_sharding, like, places)
    return training.checkpoints.restore_or_redo(step_number, like).items


def _result(
    training: Training,
    params: trees.Tree,
    about: Description,
    val_top1: float,
    scores: list[dict[str, float]],
) -> dict[str, Any]:
    """What ``result.json`` holds.

    Args:
      training: after its last step.
      params: the weights that are kept.
      about: what they are.
      val_top1: their accuracy on the validation images.
      scores: on the test images.
    """
    task, spec = training.task, training.task.network.spec
    return {
        "name": task.name,
        "role": task.role,
        "network": spec.name,
        "depth": spec.depth,
        "stages": list(about.stages),
        "plan": list(about.plan),
        "method": task.method or about.method,
        "profile": about.profile,
        "dataset": task.data.name,
        "seed": task.seed,
        "params": trees.count(params),
        "stored_params": task.stored,
        "epochs": task.epochs,
        "steps": task.total,
        "layer_epochs": spec.depth * task.epochs,
        "val_top1": val_top1,
        "test": scores,
        "dtypes": training.history.dtypes,
        "unreadable": training.history.skipped(),
        "unreadable_from": training.history.skips_from,
        "seconds": round(training.history.clock.seconds, 2),
        "hardware": host.hardware(),
        "versions": dict(about.versions),
    }


def unread(training: Training, error: UserError) -> Exception:
    """What an image that cannot be read, or a lost reader, ends a run with.

    Args:
      training: in a step.
      error: `Unreadable` or `sws_jax.data.pipeline.WorkerDied`.
    """
    # With several processes the others are in the next step, and cannot save.
    if jax.process_count() == 1:
        training.flush()
        checkpoints, done = training.checkpoints, training.done
        checkpoints.wait()
        if done > training.first and done not in checkpoints.steps():
            try:
                training.save(done)  # for another try
                checkpoints.wait()
            except files.Unwritable as failure:
                return unwritten(training, failure)
        if training.should_stop():
            # Whoever asked this process to stop has asked its workers too.
            return training.stopped(done)
    remedy = ""
    if isinstance(error, Unreadable):
        remedy = (
            ": mend it, or pass over such images with data.unreadable=skip (in another "
            "--workdir where other runs have finished without)"
        )
    return _cut_short(training, f"{error}{remedy}")


def unwritten(training: Training, error: files.Unwritable) -> Stopped:
    """What a file that cannot be written ends a run with."""
    # What was being saved may yet be; no failure is said twice.
    with contextlib.suppress(files.Unwritable):
        if jax.process_count() == 1:
            training.checkpoints.wait()
    if isinstance(error, Interrupted):
        return _cut_short(training, str(error), Interrupted)
    return _cut_short(training, f"{error}: make room, or see to the disk")


def _cut_short(
    training: Training, text: str, error_class: type[Stopped] = Stopped
) -> Stopped:
    """The error that ends a run early, with where the same command goes on."""
    where = "from the last checkpoint"
    if jax.process_count() == 1:
        newest = max(training.checkpoints.steps(), default=0)
        where = f"at step {newest} of {training.task.total}"
    return error_class(f"{text}; the same command goes on {where}")
