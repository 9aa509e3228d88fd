"""A job as a plain list of runs: what depends on what, and nothing done twice.

``single``      one run, as the config says.
``descendants`` one learngene file, many depths, with the comparisons asked for.
``sws``         ancestor (if no teacher is given), Aux-Net, then as above.

A larger comparison is more rows in the list. The same command started several times,
on machines or cores that share the work directory, shares out the rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections

from sws_jax.data.base import few
from sws_jax.errors import UserError
from sws_jax.jobs import check as checks
from sws_jax.jobs import places, recipes, remarks, rundir, start, train
from sws_jax.jobs.datasets import Datasets
from sws_jax.reports import report
from sws_jax.runtime import processes
from sws_jax.runtime.progress import say
from sws_jax.storage import files, paths
from sws_jax.training.loop import Preempted

ANCESTOR, AUX = "ancestor", "aux"
_COMPARED = ("untuned", "tune", "scratch_short", "scratch_long")
_POLL_SECONDS = 5.0  # between looks at runs that other jobs are at
_TURN_SECONDS = 0.05  # between looks at a file that another job writes


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of a job.

    Attributes:
      name: also its directory in the work directory.
      role: in tables: ancestor, aux, untuned, tune, scratch_short, scratch_long
        or single.
      config: as in `sws_jax.jobs.recipes.run`.
      after: names of the runs it needs.
    """

    name: str
    role: str
    config: ml_collections.ConfigDict
    after: tuple[str, ...] = ()


def runs(config: ml_collections.ConfigDict) -> list[Run]:
    """The runs of a job, each after those it needs.

    Raises:
      UserError: an unknown job, comparison or depth.
    """
    checks.check_job(config)
    builders = {"single": _single, "descendants": _descendants, "sws": _sws}
    return builders[config.job](config)


def execute(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Does what is not yet done of a job, and writes its report.

    Args:
      config: of the job.
      workdir: one directory per run, and ``config.json``, ``results.csv``,
        ``report.png`` and (after an Aux-Net) ``learngene.safetensors``.
      should_stop: as in `sws_jax.jobs.train.train`.

    Returns:
      The runs' results, in order, each with its ``role``.
    """
    rows = runs(config)

    def refuse() -> None:
        paths.check_utf8(workdir, "take another --workdir")
        check(config, rows)
        check_networks(rows, workdir)
        for run in rows:
            rundir.refuse_other(os.path.join(workdir, run.name), run.config, workdir)
        refuse_other(config, workdir)

    processes.decided(refuse)
    for line in remarks.of_job(config):
        say(line)
    results = _results(config, rows, workdir, should_stop)
    processes.first_does(lambda: _write_report(results, workdir))
    return results


def _write_report(results: list[dict[str, Any]], workdir: str) -> None:
    with _own_turn(workdir):
        report.write([*results, *_besides(results, workdir)], workdir)


def _besides(results: list[dict[str, Any]], workdir: str) -> list[dict[str, Any]]:
    """Finished runs of a larger comparison, of which this one is a part."""
    asked = {result["name"] for result in results}
    # (Results have no role that older software wrote.)
    roles = report.roles(workdir)
    found = []
    for name in paths.folders(workdir):
        path = os.path.join(workdir, name, rundir.RESULT)
        if name in asked or not paths.exists(path):
            continue
        try:
            result = rundir.read_result(path)
        except UserError as error:
            say(f"{report.RESULTS} lacks {name}: {error}")
            continue
        role = result.get("role") or roles.get(name, "")
        if role in _COMPARED and result.get("name") == name:  # and no copy of another
            found.append({**result, "role": role})
    return found


@contextlib.contextmanager
def _own_turn(workdir: str) -> Iterator[None]:
    """One of several jobs writes what they share, after what a killed one left."""
    if paths.is_remote(workdir):  # where files appear whole, and nothing is left
        yield
        return
    while True:
        with files.claimed(os.path.join(workdir, rundir.LOCK)) as mine:
            if mine:
                files.sweep(workdir)
                yield
                return
        time.sleep(_TURN_SECONDS)


def refuse_other(config, workdir: str) -> None:
    """Refuses a directory of another job, or with files that are not of one.

    The comparison of a job may grow.
    """
    _refuse_foreign(workdir)
    names = rundir.differing(config, os.path.join(workdir, rundir.CONFIG))
    names = [name for name in names if not name.startswith("compare.")]
    if names:
        raise UserError(
            f"{workdir} holds a job with another config (it differs in "
            f"{few(names)}): take another --workdir"
        )


def _refuse_foreign(workdir: str) -> None:
    """Refuses a directory whose files the report would be written over."""
    report.roles(workdir)  # refuses a table of something else
    if paths.exists(os.path.join(workdir, rundir.CONFIG)):
        return
    written = (*report.WRITTEN, places.LEARNGENE)
    found = [n for n in written if paths.exists(os.path.join(workdir, n))]
    if found:
        raise UserError(
            f"{workdir} holds {' and '.join(found)} and no {rundir.CONFIG} to say of "
            f"which job, and nothing is written over: take another --workdir, or move "
            f"{'it' if len(found) == 1 else 'them'} away"
        )


def _results(
    config, rows: Sequence[Run], workdir: str, should_stop
) -> list[dict[str, Any]]:
    """Does what is not yet done, and waits for what other jobs are at."""
    results: dict[str, dict[str, Any]] = {}
    told: list[str] = []
    datasets = Datasets()
    while len(results) < len(rows):
        progressed = False
        busy = []
        for position, run in enumerate(rows, start=1):
            if run.name in results or not results.keys() >= set(run.after):
                continue
            if should_stop():
                raise Preempted(
                    f"stopped before {run.name}, with the runs before it saved; the "
                    f"same command goes on"
                )
            try:
                label = f"[{position}/{len(rows)}] {run.name}"
                results[run.name] = _one(
                    config, run, label, workdir, should_stop, datasets
                )
                progressed = True
            except rundir.Busy:
                busy.append(run.name)
        if not progressed:
            if should_stop():
                raise Preempted("stopped while waiting for other jobs")
            if busy != told:
                say(f"waiting for other jobs, which are at {', '.join(busy)}")
                told = busy
            time.sleep(_POLL_SECONDS)
    return [results[run.name] for run in rows]


def _one(
    config, run: Run, label: str, workdir: str, should_stop, datasets: Datasets
) -> dict[str, Any]:
    """Does one row, unless it is done, or another job is at it."""
    done = True

    def starting() -> None:
        nonlocal done
        done = False
        # A job that is refused before its first run has started leaves nothing.
        path = os.path.join(workdir, rundir.CONFIG)
        written = files.plain(config.to_dict())

        def write() -> None:
            with _own_turn(workdir):
                rundir.keep_begun(workdir)
                files.write_json(path, written)

        processes.first_does(write)
        say(label)

    result = train.train(
        run.config,
        workdir,
        role=run.role,
        should_stop=should_stop,
        starting=starting,
        datasets=datasets,
    )
    if run.role == AUX:
        processes.first_does(lambda: _publish(workdir, run.name))
    result = {**result, "role": run.role}
    if not done:
        say(f"{run.name}: {report.sentence(result)}")
    return result


def _publish(workdir: str, name: str) -> None:
    """The learngene of a run, where users look for it."""
    source = os.path.join(workdir, name, places.LEARNGENE)
    target = os.path.join(workdir, places.LEARNGENE)
    with _own_turn(workdir), files.replacing(target) as temporary:
        shutil.copyfile(paths.here(source), temporary)


def _single(config) -> list[Run]:
    return [Run(config.name, "single", _run(config, config.name))]


def _sws(config) -> list[Run]:
    rows = []
    teacher = config.teacher.path
    if not teacher:
        if "ancestor" not in config:
            raise UserError(
                "this config trains no ancestor: give its teacher as teacher=PATH, a "
                "weights file or the directory of a finished run"
            )
        rows.append(Run(ANCESTOR, ANCESTOR, _run(config, ANCESTOR, config.ancestor)))
        teacher = f"run:{ANCESTOR}"
    aux = _run(config, AUX)
    aux.teacher.path = teacher
    needs = (ANCESTOR,) if rows else ()
    rows.append(Run(AUX, AUX, aux, needs))
    return rows + _compare(config, config.tune, f"run:{AUX}", (AUX,))


def _descendants(config) -> list[Run]:
    if not config.init.learngene:
        raise UserError(
            "this config starts from a learngene: give its file as learngene=PATH"
        )
    return _compare(config, ml_collections.ConfigDict(), config.init.learngene, ())


def _compare(config, tune, learngene: str, needs: tuple[str, ...]) -> list[Run]:
    """Descendants of every depth, and what they are compared with."""
    compare = config.compare
    if not compare.depths:
        raise UserError("compare.depths is empty: name at least one depth")
    rows = []
    # A depth that is named twice is one row.
    depths = tuple(dict.fromkeys(compare.depths))
    for number, depth in itertools.product(range(compare.seeds), depths):
        if number and compare.level == "untuned":
            continue  # nothing in an expansion is random
        label = f"L{depth:02d}" + (f"-seed{number}" if number else "")
        if compare.level == "untuned":
            name, role = f"untuned-{label}", "untuned"
        else:
            name, role = f"des-{label}", "tune"
        # (What was asked of the Aux-Net by name was not asked of its descendants.)
        descendant = _run(config, name, tune, insist=not needs)
        descendant.seed = config.seed + number
        descendant.model.depth = depth
        descendant.init.learngene = learngene
        if role == "untuned":
            descendant.schedule.update(total_epochs=0.0, warmup_epochs=0.0)
        rows.append(Run(name, role, descendant, needs))
        if compare.level != "full":
            continue
        short, long = descendant.schedule.total_epochs, float(compare.long_epochs)
        budgets = {"scratch_short": short, "scratch_long": long}
        if f"{long:g}" == f"{short:g}":  # one row serves both
            del budgets["scratch_long"]
        for role, epochs in budgets.items():
            name = f"scratch-{label}-{epochs:g}ep"
            scratch = _run(config, name, config.scratch)
            scratch.seed = config.seed + number
            scratch.model.update(depth=depth, stages=())
            recipes.last(scratch, epochs)
            rows.append(Run(name, role, scratch))
    return rows


def _run(
    config, name: str, changes=None, *, insist: bool = True
) -> ml_collections.ConfigDict:
    """The fields of one run: the job's own, then the changes.

    Args:
      insist: on the job's fields that were asked for by name too, and not on the
        changes' alone.
    """
    made = recipes.run()
    made.update({key: config[key] for key in made})
    insisted = set(recipes.insisted(config)) if insist else set()
    if changes:
        made.update(changes)
        if "init" in changes:
            insisted |= set(recipes.insisted(changes))
    made.init.insist = tuple(sorted(insisted))
    made.name = name
    return made


def check(config, rows: Sequence[Run]) -> None:
    """Refuses now what would else be refused after hours of earlier runs."""
    fixed = [f for f in ("plan", "allotment", "network") if config.init[f]]
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
        done = is_done(run, workdir)
        if not (done and places.initial_file_is_outside(run.config)):
            answers.of(run.name, run.config)
    check_alike(rows, answers, workdir)


def is_done(run: Run, workdir: str) -> bool:
    """Whether a run of a job has its result."""
    return paths.exists(os.path.join(workdir, run.name, rundir.RESULT))


def older_in(workdir: str) -> Callable[[str], bool]:
    """Whether older software began the run of a name, in a work directory."""
    return lambda name: rundir.is_older(os.path.join(workdir, name), workdir)


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
    grown = {
        run.config.model.depth: run for run in rows if run.role in ("tune", "untuned")
    }
    for run in rows:
        depth = run.config.model.depth
        if not run.role.startswith("scratch") or depth not in grown:
            continue
        if older_in(workdir)(run.name) or paths.exists(
            os.path.join(workdir, run.name, rundir.CONFIG)
        ):
            continue
        pair = (answers.made.get(one.name) for one in (grown[depth], run))
        theirs, own = (start.model_fields(found) if found else {} for found in pair)
        for name in sorted(theirs.keys() & own.keys()):
            free = ("drop_path", *recipes.BEGINNINGS, *recipes.insisted(run.config))
            if name not in free and own[name] != theirs[name]:
                raise UserError(
                    f"{run.name} would be no comparison: its model.{name} is "
                    f"{own[name]}, and {grown[depth].name} has {theirs[name]} from its "
                    f"learngene: give --config.model.{name}={theirs[name]}"
                )


def _check_order(rows: Sequence[Run]) -> None:
    seen: set[str] = set()
    for run in rows:
        if run.name in seen:
            raise UserError(f"the job has two runs named {run.name}")
        missing = [name for name in run.after if name not in seen]
        if missing:
            raise UserError(f"{run.name} needs {', '.join(missing)} before it")
        seen.add(run.name)
