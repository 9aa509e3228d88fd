"""What is refused before the first run of a job starts, and not after hours of others.

Nothing is written here. A job that has begun in the work directory is compared with the
one that is asked for; runs that have ended need their files no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from sws_jax.errors import UserError
from sws_jax.jobs import begun, model_fields, places, recipes, start
from sws_jax.jobs import check as checks
from sws_jax.jobs.directory import differing
from sws_jax.jobs.rows import Run
from sws_jax.reports import rows as report_rows
from sws_jax.runtime import words
from sws_jax.specs import ViTSpec
from sws_jax.storage import paths
from sws_jax.storage.names import CONFIG, LEARNGENE_FILE, REPORT_FILES, RESULT
from sws_jax.training import roles


def check(config, rows: Sequence[Run]) -> None:
    """Refuses rows that contradict their job, each other or themselves.

    Args:
      config: of the job.
      rows: of the job.

    Raises:
      UserError: naming the field, or the runs.
    """
    fixed = [name for name in ("plan", "allotment", "network") if config.init[name]]
    if config.job != "single" and fixed:
        raise UserError(
            f"init.{fixed[0]} belongs to one run, and this job has {len(rows)}: use "
            f"configs/des_deit.py, or compare.depths here"
        )
    _check_order(rows)
    for run in rows:
        checks.check_run(run.config)


def check_networks(rows: Sequence[Run], workdir: str) -> None:
    """Refuses runs that no weights could start as they are asked for.

    Files that are not there refuse nothing: of a finished run none is needed.

    Args:
      rows: of a job.
      workdir: where ``run:NAME`` paths are found.

    Raises:
      UserError: as `sws_jax.jobs.start.answer`.
    """
    answers = start.Answers(None, workdir, older_in(workdir))
    for run in rows:
        needs_no_file = is_done(run, workdir)
        if not (needs_no_file and places.initial_file_is_outside(run.config)):
            answers.answer_for(run.name, run.config)
    check_alike(rows, answers, workdir)


def is_done(run: Run, workdir: str) -> bool:
    """Whether a run of a job has its result."""
    return paths.exists(os.path.join(workdir, run.name, RESULT))


def older_in(workdir: str) -> Callable[[str], bool]:
    """Whether older software began the run of a name, in a work directory."""
    return lambda name: begun.is_older(os.path.join(workdir, name), workdir)


def check_alike(rows: Sequence[Run], answers: start.Answers, workdir: str) -> None:
    """Refuses nets from scratch that are no comparison, as descendants are others.

    Fields that were set for the nets from scratch by name are left alone, and so are
    runs that have begun.

    Args:
      rows: of a job.
      answers: for each of them.
      workdir: of the job.

    Raises:
      UserError: naming the field.
    """
    descendants: dict[int, Run] = {}
    for run in rows:
        if run.role in roles.DESCENDANTS:
            descendants.setdefault(run.config.model.depth, run)
    for run in rows:
        descendant = descendants.get(run.config.model.depth)
        if run.role not in roles.SCRATCH or descendant is None:
            continue
        has_begun = paths.exists(os.path.join(workdir, run.name, CONFIG))
        if older_in(workdir)(run.name) or has_begun:
            continue
        pair = (answers.specs.get(one.name) for one in (descendant, run))
        theirs, own = (
            model_fields.fields_of(spec) if isinstance(spec, ViTSpec) else {}
            for spec in pair
        )
        free = ("drop_path", *recipes.BEGINNINGS, *model_fields.insisted(run.config))
        for name in sorted(theirs.keys() & own.keys() - set(free)):
            if own[name] != theirs[name]:
                raise UserError(
                    f"{run.name} would be no comparison: its model.{name} is "
                    f"{own[name]}, and {descendant.name} has {theirs[name]} from its "
                    f"learngene: give --config.model.{name}={theirs[name]}"
                )


def _check_order(rows: Sequence[Run]) -> None:
    """Refuses two runs of one name, and a run before one that it needs."""
    earlier: list[str] = []
    for run in rows:
        if run.name in earlier:
            raise UserError(f"the job has two runs named {run.name}")
        if missing := [name for name in run.after if name not in earlier]:
            raise UserError(
                f"{run.name} needs {missing[0]}, but no run of that name comes before "
                f"it; those that do are {', '.join(earlier) or 'none'}"
            )
        earlier.append(run.name)


def refuse_other(config, rows: Sequence[Run], workdir: str) -> None:
    """Refuses a directory of another job, or with files that are not of one.

    The comparison of a job may grow, and its methods; its name may tell of both.

    Args:
      config: of the job.
      rows: of the job.
      workdir: of the job.

    Raises:
      UserError: naming the fields, or the files.
    """
    _refuse_foreign(rows, workdir)
    different = differing(config, os.path.join(workdir, CONFIG))
    free = {"compare"} if config.job == "single" else {"compare", "methods", "name"}
    different = [name for name in different if name.partition(".")[0] not in free]
    if different:
        raise UserError(
            f"{workdir} holds a job with another config (it differs in "
            f"{words.few(different)}): take another --workdir"
        )


def _refuse_foreign(rows: Sequence[Run], workdir: str) -> None:
    """Refuses a directory whose files the job would write over."""
    report_rows.roles(workdir)  # refuses a table that no job wrote
    if paths.exists(os.path.join(workdir, CONFIG)):
        return
    learngenes = (run.publishes for run in rows if run.publishes)
    written = (*REPORT_FILES, *dict.fromkeys((LEARNGENE_FILE, *learngenes)))
    present = [name for name in written if paths.exists(os.path.join(workdir, name))]
    if present:
        raise UserError(
            f"{workdir} holds {' and '.join(present)} and no {CONFIG} to say of "
            f"which job, and nothing is written over: take another --workdir, or move "
            f"{'it' if len(present) == 1 else 'them'} away"
        )
