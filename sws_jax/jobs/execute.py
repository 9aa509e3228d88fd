"""Does the runs of a job, each once, and writes its report.

The same command started several times, on machines that share the work directory,
shares out the runs; so do the processes that one command starts (`Shared`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import ml_collections

from sws_jax.errors import UserError
from sws_jax.jobs import begun, columns, preflight, records, remarks, train
from sws_jax.jobs.datasets import Datasets
from sws_jax.jobs.directory import Busy, refuse_other
from sws_jax.jobs.rows import Run, chains, runs
from sws_jax.reports import rows as report_rows
from sws_jax.reports import write as report
from sws_jax.runtime import processes
from sws_jax.runtime.progress import say
from sws_jax.storage import documents, files, locks, paths
from sws_jax.storage.names import CONFIG, LEARNGENE_FILE, LOCK, RESULT, RESULTS
from sws_jax.training import roles
from sws_jax.training.loop import Preempted

_POLL_SECONDS = 5.0  # between looks at runs that are locked by other jobs
_SHARED_POLL_SECONDS = 1.0  # where these are of the same command
_LOCK_RETRY_SECONDS = 0.05  # between tries to lock the work directory


@dataclasses.dataclass(frozen=True)
class Shared:
    """How a process shares the runs of a job with others of the same command.

    Runs begin in the order of `_longest_first`.

    Attributes:
      call: told how many runs can begin now, by the process that starts the others.
      at_work: whether there are others.
      reports: whether this process refuses, says what holds for all runs, and writes
        the report.
    """

    call: Callable[[int], None] = lambda runs: None
    at_work: Callable[[], bool] = lambda: True
    reports: bool = True


def execute(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    shared: Shared | None = None,
) -> list[dict[str, Any]]:
    """Does what is not yet done of a job, and writes its report.

    Args:
      config: of the job.
      workdir: one directory per run, and ``config.json``, ``results.csv``,
        ``report.png`` and each method's learngene, ``learngene.safetensors`` of SWS
        and ``METHOD-learngene.safetensors`` of others.
      should_stop: as in `sws_jax.jobs.train.train`.
      shared: with other processes; None does all runs here, in the order of the job.

    Returns:
      The runs' results, in order, each with its ``role``.
    """
    rows = runs(config)

    def refuse() -> None:
        paths.check_utf8(workdir, "take another --workdir")
        preflight.check(config, rows)
        preflight.check_networks(rows, workdir)
        for run in rows:
            refuse_other(os.path.join(workdir, run.name), run.config, workdir)
        preflight.refuse_other(config, rows, workdir)

    reports = shared is None or shared.reports
    if reports:
        processes.decided(refuse)
        for line in remarks.of_job(config, [run.name for run in rows]):
            say(line)
    results = _results(config, rows, workdir, should_stop, shared)
    if reports:
        processes.first_does(lambda: write_report(rows, results, workdir))
    return results


def write_report(
    rows: Sequence[Run], results: Sequence[dict[str, Any]], workdir: str
) -> None:
    """Writes the report of these runs, and of others in the work directory.

    Args:
      rows: of this job.
      results: of these runs, as `execute` returns them.
      workdir: of the job.
    """
    with _job_lock(workdir):
        present = [*results, *_other_runs(results, workdir)]
        completed = [columns.completed(result, workdir) for result in present]
        whole = columns.with_before(completed, rows, workdir)
        report.write(_listed(whole, {result["name"] for result in results}), workdir)


def _listed(
    results: Sequence[dict[str, Any]], ours: Collection[str]
) -> list[dict[str, Any]]:
    """The results that a report lists: of other runs those that are compared.

    And those that these stand on, of methods that this job does not have.

    Args:
      results: with what each stands on; see `columns.with_before`.
      ours: names of the runs of this job.
    """
    compared = [r for r in results if r["name"] in ours or r["role"] in roles.COMPARED]
    wanted = {r["name"] for r in compared}.union(*(r["before"] for r in compared))
    return [r for r in results if r["name"] in wanted]


def _other_runs(
    results: Sequence[dict[str, Any]], workdir: str
) -> list[dict[str, Any]]:
    """Results of a larger comparison in the directory, of which this is a part."""
    ours = {result["name"] for result in results}
    # Results that older software wrote have no role; the table has it.
    of_table = report_rows.roles(workdir)
    others = []
    for name in paths.folders(workdir):
        path = os.path.join(workdir, name, RESULT)
        if name in ours or not paths.exists(path):
            continue
        try:
            result = records.read_result(path)
        except UserError as error:
            say(f"{RESULTS} lacks {name}: {error}")
            continue
        role = result.get("role") or of_table.get(name, "")
        # A directory of another name is a copy of a run.
        if role in (*roles.BEFORE, *roles.COMPARED) and result.get("name") == name:
            others.append({**result, "role": role})
    return others


@contextlib.contextmanager
def _job_lock(workdir: str) -> Iterator[None]:
    """Holds the lock of a work directory, of which unfinished files are removed.

    Jobs that share the directory write its shared files one after the other. In a
    bucket files appear whole, and nothing is locked.
    """
    if paths.is_remote(workdir):
        yield
        return
    while True:
        with locks.claimed(os.path.join(workdir, LOCK)) as is_ours:
            if is_ours:
                files.sweep(workdir)
                yield
                return
        time.sleep(_LOCK_RETRY_SECONDS)


def _results(
    config, rows: Sequence[Run], workdir: str, should_stop, shared: Shared | None
) -> list[dict[str, Any]]:
    """Does the runs that are not done, and waits for those that other jobs do."""
    results: dict[str, dict[str, Any]] = {}
    last_busy: list[str] = []
    datasets = Datasets()
    ordered = _longest_first(rows) if shared else rows
    positions = {run.name: position for position, run in enumerate(rows, start=1)}
    while len(results) < len(rows):
        progressed = False
        busy = []
        for run in ordered:
            if run.name in results or not results.keys() >= set(run.after):
                continue
            if should_stop():
                raise Preempted(
                    f"stopped before {run.name}, with the runs before it saved; the "
                    f"same command goes on"
                )
            try:
                begin = functools.partial(
                    _begin, rows, positions[run.name], workdir, shared
                )
                results[run.name] = _run_result(
                    config, run, begin, workdir, should_stop, datasets
                )
                progressed = True
            except Busy:
                busy.append(run.name)
            if progressed and shared:
                break  # A longer chain may go on now.
        if not progressed:
            if should_stop():
                raise Preempted("stopped while waiting for other jobs")
            is_shared = shared is not None and shared.at_work()
            if busy != last_busy and not is_shared:
                say(f"waiting for other jobs, which are at {', '.join(busy)}")
                last_busy = busy
            time.sleep(_SHARED_POLL_SECONDS if is_shared else _POLL_SECONDS)
    return [results[run.name] for run in rows]


def _longest_first(rows: Sequence[Run]) -> list[Run]:
    """Runs that others were trained for, then those that need none.

    Of either the longest chain comes first. So the first descendant is there early, and
    the long runs from scratch are not the last.
    """
    lengths = chains(rows)
    return sorted(rows, key=lambda run: (not run.after, -lengths[run.name]))


def _begin(
    rows: Sequence[Run], position: int, workdir: str, shared: Shared | None
) -> None:
    """Says that a run begins, and calls others for those that can begin beside it.

    A mistake that ends the first run at its start is said once, and before any other
    process is there.
    """
    say(f"[{position}/{len(rows)}] {rows[position - 1].name}")
    if shared:
        shared.call(_open_runs(rows, workdir))


def _open_runs(rows: Sequence[Run], workdir: str) -> int:
    """How many runs are under way, or could be."""
    left = {run.name for run in rows if not preflight.is_done(run, workdir)}
    return sum(run.name in left and not left & set(run.after) for run in rows)


def _run_result(
    config,
    run: Run,
    begin: Callable[[], None],
    workdir: str,
    should_stop,
    datasets: Datasets,
) -> dict[str, Any]:
    """The result of one run, which is done first unless it is finished.

    Raises:
      Busy: another job is at it.
    """
    finished = True

    def starting() -> None:
        nonlocal finished
        finished = False
        # A job that is refused before its first run has started leaves nothing.
        path = os.path.join(workdir, CONFIG)
        plain = documents.plain(config.to_dict())

        def write() -> None:
            with _job_lock(workdir):
                begun.keep_begun(workdir)
                files.write_json(path, plain)

        processes.first_does(write)
        begin()

    result = train.train(
        run.config,
        workdir,
        role=run.role,
        method=run.method,
        should_stop=should_stop,
        starting=starting,
        datasets=datasets,
    )
    if run.publishes:
        processes.first_does(lambda: _publish(workdir, run))
    result = {**result, "role": run.role}
    if not finished:
        say(f"{run.name}: {report.sentence(result)}")
    return result


def _publish(workdir: str, run: Run) -> None:
    """Copies the learngene of a run to the work directory, where users look for it."""
    source = os.path.join(workdir, run.name, LEARNGENE_FILE)
    if not paths.exists(source):
        raise UserError(
            f"{run.name} is finished, but {source} is gone: put it back, or remove "
            f"{os.path.dirname(source)}, and the same command trains it anew"
        )
    target = os.path.join(workdir, run.publishes)
    with _job_lock(workdir), files.replacing(target) as temporary:
        shutil.copyfile(paths.here(source), temporary)
