"""Does the runs of a job, each once, and writes its report.

The same command started several times, on machines or cores that share the work
directory, shares out the runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections

from sws_jax.errors import UserError
from sws_jax.jobs import begun, build, preflight, records, remarks, train
from sws_jax.jobs.directory import Busy, refuse_other
from sws_jax.jobs.rows import AUX, COMPARED, Run, runs
from sws_jax.reports import report
from sws_jax.runtime import processes
from sws_jax.runtime.progress import say
from sws_jax.storage import files, paths
from sws_jax.storage.names import CONFIG, LEARNGENE, LOCK, RESULT

_POLL_SECONDS = 5.0  # between looks at runs that other jobs are at
_TURN_SECONDS = 0.05  # between looks at a file that another job writes


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
        preflight.check(config, rows)
        preflight.check_networks(rows, workdir)
        for run in rows:
            refuse_other(os.path.join(workdir, run.name), run.config, workdir)
        preflight.refuse_other(config, workdir)

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
        path = os.path.join(workdir, name, RESULT)
        if name in asked or not paths.exists(path):
            continue
        try:
            result = records.read_result(path)
        except UserError as error:
            say(f"{report.RESULTS} lacks {name}: {error}")
            continue
        role = result.get("role") or roles.get(name, "")
        if role in COMPARED and result.get("name") == name:  # and no copy of another
            found.append({**result, "role": role})
    return found


@contextlib.contextmanager
def _own_turn(workdir: str) -> Iterator[None]:
    """One of several jobs writes what they share, after what a killed one left."""
    if paths.is_remote(workdir):  # where files appear whole, and nothing is left
        yield
        return
    while True:
        with files.claimed(os.path.join(workdir, LOCK)) as mine:
            if mine:
                files.sweep(workdir)
                yield
                return
        time.sleep(_TURN_SECONDS)


def _results(
    config, rows: Sequence[Run], workdir: str, should_stop
) -> list[dict[str, Any]]:
    """Does what is not yet done, and waits for what other jobs are at."""
    results: dict[str, dict[str, Any]] = {}
    told: list[str] = []
    datasets = build.Datasets()
    while len(results) < len(rows):
        progressed = False
        busy = []
        for position, run in enumerate(rows, start=1):
            if run.name in results or not results.keys() >= set(run.after):
                continue
            if should_stop():
                raise train.Preempted(
                    f"stopped before {run.name}, with the runs before it saved; the "
                    f"same command goes on"
                )
            try:
                label = f"[{position}/{len(rows)}] {run.name}"
                results[run.name] = _one(
                    config, run, label, workdir, should_stop, datasets
                )
                progressed = True
            except Busy:
                busy.append(run.name)
        if not progressed:
            if should_stop():
                raise train.Preempted("stopped while waiting for other jobs")
            if busy != told:
                say(f"waiting for other jobs, which are at {', '.join(busy)}")
                told = busy
            time.sleep(_POLL_SECONDS)
    return [results[run.name] for run in rows]


def _one(
    config, run: Run, label: str, workdir: str, should_stop, datasets: build.Datasets
) -> dict[str, Any]:
    """Does one row, unless it is done, or another job is at it."""
    done = True

    def starting() -> None:
        nonlocal done
        done = False
        # A job that is refused before its first run has started leaves nothing.
        path = os.path.join(workdir, CONFIG)
        written = files.plain(config.to_dict())

        def write() -> None:
            with _own_turn(workdir):
                begun.keep_begun(workdir)
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
    source = os.path.join(workdir, name, LEARNGENE)
    target = os.path.join(workdir, LEARNGENE)
    with _own_turn(workdir), files.replacing(target) as temporary:
        shutil.copyfile(paths.here(source), temporary)
