"""Faults made for real, at a process, a file or a disk, through the real command.

What must hold: an exit code as documented, one sentence, nothing half-written, and
the same command, the fault mended, ends at the bits of a run that met none.
"""

import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from children import (
    Job,
    arrays,
    complete,
    ended,
    outcome,
    steps,
    unfinished,
    until,
)
from test_checkpoints import flip_a_bit, truncate

from sws_jax import files, main, metrics


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return Job.make(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    """A run of ten steps that met no fault."""
    workdir = tmp_path_factory.mktemp("whole")
    done = job.run(workdir)
    assert done.code == 0, done.err
    assert unfinished(workdir) == []
    return workdir


# kill -9

LONG = (
    f"schedule.total_epochs={steps(24)}",
    f"checkpoint.every_epochs={steps(1)}",
    f"evaluation.every_epochs={steps(4)}",
)


@pytest.fixture(scope="module")
def long(job, tmp_path_factory):
    """A run of 24 steps, each of them saved; and its seconds after it has greeted."""
    workdir = tmp_path_factory.mktemp("long")
    process = job.start(workdir, *LONG)
    until(process, "process 0 of 1")
    begun = time.monotonic()
    assert ended(process).code == 0
    return workdir, time.monotonic() - begun


def is_writing(workdir):
    return bool(list((workdir / "run" / "checkpoints").glob("*tmp*")))


def kill(process, workdir, seconds):
    """kill -9 so many seconds after now, or (None) while a checkpoint is written.

    Returns:
      Whether it came in time.
    """
    if seconds is None:
        while not is_writing(workdir) and process.poll() is None:
            time.sleep(0.001)
    else:
        time.sleep(seconds)
    process.kill()
    return ended(process).code == -signal.SIGKILL


def killed_and_resumed(job, workdir, seconds):
    """Kills the long run at each of these moments, as far as it goes on so long.

    Returns:
      How many kills there were, and how many of them within a write.
    """
    kills = torn = 0
    done = 0
    for moment in seconds:
        process = job.start(workdir, *LONG)
        until(process, "process 0 of 1")
        hit = kill(process, workdir, moment)
        saved = complete(workdir)
        # What was complete before is not lost by going on, and being killed again.
        assert max(saved, default=0) >= done
        done = max(saved, default=0)
        if not hit:
            break
        kills += 1
        torn += is_writing(workdir)
    last = job.run(workdir, *LONG)
    assert last.code == 0, last.err
    if hit and done:  # no step before the last complete checkpoint is done again
        assert f"run: goes on from step {done} of 24" in last.out
    assert unfinished(workdir) == []
    return kills, torn


def test_killed_twice(job, long, tmp_path):
    """Once at random, once while a checkpoint is being written."""
    expected, span = long
    moment = np.random.default_rng(0).uniform(0.3, 0.7) * span
    kills, torn = killed_and_resumed(job, tmp_path, [moment, None])
    assert kills == 2 and torn
    assert outcome(tmp_path) == outcome(expected)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(job, long, tmp_path):
    """Spread over the whole run: start, compilation, steps, saves, scores, report."""
    expected, span = long
    random = np.random.default_rng(5)
    kills = 0
    for number in itertools.count():
        workdir = tmp_path / str(number)
        moments = random.uniform(0, span, min(5, 20 - kills)).tolist()
        kills += killed_and_resumed(job, workdir, moments)[0]
        assert outcome(workdir) == outcome(expected)
        if kills == 20:
            break
