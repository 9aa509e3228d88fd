"""launch/worker.sh, which keeps a run on a worker, with a stub in place of Python."""

import contextlib
import os
import shutil
import subprocess
import time

import pytest

from support.children import ROOT

# A run that ends with its argument, or with 0 once the file `go` exists.
PLAYED = """#!/usr/bin/env bash
[[ $3 == go ]] || exit "$3"
while [[ ! -e $PLAYED/go ]]; do sleep 0.02; done
"""
# A `cat` that lets the run end, and waits for that, before it prints.
SLOW = """#!/usr/bin/env bash
touch "$PLAYED/go"
while kill -0 -- "-$(< "$PLAYED/sws_jax.run/pid")"; do sleep 0.02; done 2> /dev/null
exec /bin/cat "$@"
"""


class Worker:
    """The home directory of a worker, with the code that was sent there."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "sws_jax" / "launch").mkdir(parents=True)
        self.script = folder / "sws_jax" / "launch" / "worker.sh"
        shutil.copy(ROOT / "launch" / "worker.sh", self.script)
        self.put("python", PLAYED)

    def put(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def __call__(self, *words, **variables):
        defaults = dict(
            WORKER_PYTHON=str(self.folder / "python"), PLAYED=str(self.folder)
        )
        done = subprocess.run(
            ["bash", self.script, *words],
            env={**os.environ, **defaults, "JOB": "a1", **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, **variables):
        return self("state", **variables).split(" ", 2)[2]

    def ended(self):
        """The state once no process is left."""
        group = int((self.folder / "sws_jax.run" / "pid").read_text())
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(group, 0)
                time.sleep(0.02)
        return self.state()


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path)


@pytest.mark.parametrize(
    "code, after", [(75, 130), (3, 3), pytest.param(2, 2, marks=pytest.mark.slow)]
)
def test_what_has_ended_by_itself_can_be_stopped_too(worker, code, after):
    """The watcher then does not start it again; a finished run stays finished."""
    worker("stop")
    assert worker.state() == "none"
    worker("start", str(code))
    assert worker.ended() == f"ended {code} a1"
    worker("stop")
    assert worker.state() == f"ended {after} a1"
    worker("start", str(code))
    assert worker.ended() == f"ended {code} a1"


def test_a_run_that_ends_while_it_is_looked_at_is_not_lost(worker):
    worker("start", "go")
    assert worker.state() == "running a1"
    worker.put("cat", SLOW)
    path = f"{worker.folder}:{os.environ['PATH']}"
    assert worker.state(PATH=path) == "ended 0 a1"
