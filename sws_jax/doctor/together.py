"""Checks of what several processes must have in common; all processes make them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import jax

from sws_jax.data import fingerprint
from sws_jax.doctor import software
from sws_jax.doctor.base import Case, Finding, ok, problem
from sws_jax.errors import UserError
from sws_jax.runtime import processes, rendezvous
from sws_jax.runtime.rendezvous import numbers
from sws_jax.storage import documents, paths

_SEEN_SECONDS = 5.0  # A network disk may show a file late.


def meet(case: Case) -> Iterator[Finding]:
    """All processes connect, with the same config and the same versions."""
    place = case.place
    if case.unplaced:
        yield problem(case.unplaced)
    if place is None:
        return
    before = time.monotonic()
    try:
        # The job's own name is not used here, so that processes of another job connect
        # too, and are named below.
        rendezvous.start(case.start, "doctor")
        everyones = processes.collected(_own(case))
    except Exception as error:
        case.apart = True
        # No later check may wait for processes that are not there.
        jax.config.update("jax_platforms", "cpu")
        seconds = case.start.start_timeout
        if not isinstance(error, UserError) or time.monotonic() - before < seconds:
            raise
        yield problem(
            str(error), f"start all within {seconds} s: doctor waits no longer"
        )
        return
    case.together = True
    first = everyones[0]
    alike = True
    for index, other in enumerate(everyones):
        fields = documents.differing(first["config"], other["config"])
        if fields:
            alike = False
            yield problem(
                f"process {index} has another config than process 0 (it differs in "
                f"{', '.join(fields[:3])}{' and more' if len(fields) > 3 else ''})",
                "start all with the same command",
            )
        if other["versions"] != first["versions"]:
            alike = False
            pairs = zip(other["versions"], first["versions"], strict=False)
            yield problem(
                f"process {index} on {other['host']} has other versions than process "
                f"0: {', '.join(f'{a} for {b}' for a, b in pairs if a != b)}",
                "install the same versions on every host",
            )
    if alike:
        hosts = sorted({other["host"] for other in everyones})
        names = ", ".join(hosts[:4]) + (" and more" if len(hosts) > 4 else "")
        yield ok(
            f"all {place.count} are here, on {len(hosts)} host"
            f"{'s' if len(hosts) > 1 else ''} ({names}), with the same config and "
            f"versions"
        )


def _own(case: Case) -> dict[str, Any]:
    """What the processes compare, of this one."""
    return {
        "config": case.config_json(),
        "versions": software.installed(),
        "host": socket.gethostname(),
    }


def same_directory(case: Case) -> Iterator[Finding]:
    """All processes see the file that process 0 keeps in the work directory."""
    if not case.together:
        return
    probe_file = processes.collected(case.probe_file)[0]
    path = os.path.join(case.workdir, probe_file)
    deadline = time.monotonic() + _SEEN_SECONDS
    while not (seen := bool(probe_file) and paths.exists(path)):
        if time.monotonic() > deadline or not probe_file:
            break
        time.sleep(0.25)
    blind = [n for n, saw in enumerate(processes.everyone(seen)) if not saw]
    case.cleanup.close()
    if blind and probe_file:
        yield problem(
            f"{numbers(blind)} of {jax.process_count()} cannot see {case.workdir} of "
            f"process 0",
            "put --workdir where all hosts see the same files",
        )
    elif probe_file:
        yield ok(f"all {jax.process_count()} processes see {case.workdir}")


def same_data(case: Case) -> Iterator[Finding]:
    """All processes read the same images, by a sample of them."""
    if not case.together or case.data is None:
        return
    try:
        own = fingerprint.take(case.data)
    except Exception:
        processes.collected({})  # The other processes wait for this one.
        raise
    fingerprints = processes.collected(own)
    first = fingerprints[0]
    others = [n for n, theirs in enumerate(fingerprints) if theirs != first]
    for index in others:
        theirs = fingerprints[index]
        names = fingerprint.differing(first, theirs) if first and theirs else []
        yield problem(
            f"process {index} reads other data than process 0 (other "
            f"{', '.join(names) or 'images'})",
            f"give all hosts the same {case.config.data.source}",
        )
    if not others:
        yield ok(f"all {len(fingerprints)} processes read the same {case.data.name}")
