"""Checks of the work directory: who uses it, whether it can be written, and room."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator

import jax

from sws_jax.doctor.base import Case, Finding, ok, problem, warning
from sws_jax.errors import UserError
from sws_jax.jobs import preflight
from sws_jax.jobs.directory import refuse_other
from sws_jax.jobs.rows import Run
from sws_jax.models import networks
from sws_jax.runtime import words
from sws_jax.storage import documents, files, locks, paths
from sws_jax.storage.names import CONFIG, LOCK, RESULT
from sws_jax.training import step

_TOKEN = ".doctor"  # a lock, for as long as the directory is examined


def work_directory(case: Case) -> Iterator[Finding]:
    """A small file is written, read and removed, as those of a run are."""
    if case.index:
        return
    with case.asking(case.workdir):
        was_there = paths.is_dir(case.workdir)
        _claim(case)
    state = "can be written" if was_there else "can be made and written"
    yield ok(f"{case.workdir} {state}")


def _claim(case: Case) -> None:
    """Locks the directory as a run does, until all processes have seen the lock."""
    try:
        # The lock makes the directories that are missing, and removes them again.
        lock = os.path.join(case.workdir, _TOKEN)
        case.cleanup.enter_context(locks.claimed(lock))
        _write(os.path.join(case.workdir, f"{_TOKEN}.json"), case.config.name)
        case.probe_file = _TOKEN
    finally:
        if not (case.together and case.probe_file):
            case.cleanup.close()


def _write(path: str, name: str) -> None:
    """Writes a file as a run does, reads it, and removes it."""
    try:
        files.write_json(path, {"name": name})
        if documents.read_json(path) != {"name": name}:
            raise UserError(
                f"{path} is not what was written there: take another --workdir"
            )
    finally:
        paths.remove(path)


def runs(case: Case) -> Iterator[Finding]:
    """Whether the directory is this job's, another's, or in use by a running job."""
    if case.index:
        return
    wrong: list[str] = []
    for check in (
        lambda: preflight.refuse_other(case.config, case.rows, case.workdir),
        *(lambda row=row: _refuse_other(case, row) for row in case.rows),
    ):
        try:
            check()
        except UserError as error:
            wrong.append(str(error))
    for text in wrong[:3]:
        yield problem(text)
    if len(wrong) > 3:
        yield problem(f"{len(wrong) - 3} more directories are other runs'")
    busy = [row.name for row in case.rows if _is_busy(case, row)]
    if busy:
        yield warning(
            f"another job is at {', '.join(busy)}: this one would wait for it, and "
            f"share the other runs with it",
            "let it end, or take another --workdir",
        )
    if not wrong and not busy:
        done = sum(_has(case, row, RESULT) for row in case.rows)
        begun = sum(_has(case, row, CONFIG) for row in case.rows) - done
        yield ok(
            f"of {len(case.rows)} runs {done} are done, and {begun} go on"
            if done or begun
            else "holds none of the job's runs yet"
        )


def _refuse_other(case: Case, row: Run) -> None:
    refuse_other(_directory(case, row), row.config, case.workdir)


def _is_busy(case: Case, row: Run) -> bool:
    return locks.is_claimed(os.path.join(_directory(case, row), LOCK))


def _directory(case: Case, row: Run) -> str:
    return os.path.join(case.workdir, row.name)


def _has(case: Case, row: Run, name: str) -> bool:
    return paths.exists(os.path.join(_directory(case, row), name))


def disk(case: Case) -> Iterator[Finding]:
    """Free space against what unfinished runs will write."""
    if case.index:
        return
    survey = case.survey()
    needed = 0
    for row in case.rows:
        survey.spec(row)
        if not _has(case, row, RESULT):
            written = _size(_directory(case, row))
            recipe = survey.picks(row, survey.teacher(row)).recipe
            needed += max(kept(row.config, recipe) - written, 0)
    if paths.is_remote(case.workdir):
        size = words.size(needed)
        yield ok(f"checkpoints and weights will take about {size} of the bucket")
        return
    folder, free = files.free_space(case.workdir)
    text = (
        f"checkpoints and weights will take about {words.size(needed)}, and "
        f"{words.size(free)} are free in {folder}{case.assumed(survey)}"
    )
    if needed > free:
        yield problem(
            text,
            "make room, take another --workdir, or keep fewer (checkpoint.keep_last)",
        )
    elif needed > 0.9 * free:
        yield warning(text, "make room: others may fill what is left")
    else:
        yield ok(text)


def kept(config, recipe: step.Recipe) -> int:
    """Bytes of a run's files, when they are largest.

    These are the weights, and checkpoints (`sws_jax.training.checkpoints`): the last
    ones, the best, the milestones, and the one that is being written.

    Args:
      config: of the run.
      recipe: of a step of it.
    """
    network, state = _sizes(recipe)
    schedule, checkpoint = config.schedule, config.checkpoint
    if not schedule.total_epochs:
        return network
    every = checkpoint.every_epochs
    saves = int(checkpoint.final or config.evaluation.select == "best")
    saves += math.ceil(schedule.total_epochs / every) if every else 0
    saves += len(config.evaluation.milestones)
    most = max(checkpoint.keep_last, 1) + 1 + len(config.evaluation.milestones) + 1
    return network + min(saves, most) * state


@functools.lru_cache(maxsize=64)
def _sizes(recipe: step.Recipe) -> tuple[int, int]:
    """Bytes of what a run leaves in the end, and of a checkpoint of its training."""
    params = networks.abstract_params(recipe.spec)
    state = jax.eval_shape(functools.partial(step.new_state, recipe), params)
    return _bytes((state.params, state.own)), _bytes(state)


def _bytes(tree) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _size(folder: str) -> int:
    """Bytes of the files in a folder, if there is one on this machine."""
    every = (os.path.join(at, n) for at, _, names in os.walk(folder) for n in names)
    return sum(os.path.getsize(path) for path in every if os.path.exists(path))
