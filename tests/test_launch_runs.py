"""Real runs through the scripts of launch/: interrupted, and then finished."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from support.children import CONFIG, ROOT, environment, outcome, steps, unfinished
from support.jobs import Job as Processes
from support.jobs import free_port

pytestmark = pytest.mark.slow
STUBS = ROOT / "tests" / "stubs"
TOTAL, SAVED = 80, 20  # steps, and from one checkpoint to the next


class Run:
    """A run by two processes, and its outcome where nothing interrupts it."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "config.py").write_text(CONFIG)
        job = Processes(*self.arguments("whole"), processes=2)
        codes, outputs = job.finish()
        assert codes == [0, 0], outputs
        self.outcome = outcome(folder / "whole")

    def arguments(self, workdir):
        return [
            f"--config={self.folder / 'config.py'}",
            f"--workdir={self.folder / workdir}",
            f"--config.schedule.total_epochs={steps(TOTAL)}",
            f"--config.evaluation.every_epochs={steps(TOTAL)}",
            f"--config.checkpoint.every_epochs={steps(SAVED)}",
        ]

    def sign(self, workdir):
        """A checkpoint, whose existence shows that the run has saved and goes on."""
        return self.folder / workdir / "run" / "checkpoints" / str(SAVED)

    def launch(self, script, *words, **variables):
        """Starts a script, with a number of the job, from which JAX makes its port."""
        job = str(61440 + free_port() % 4096)
        variables = {
            **environment(),
            "PATH": f"{STUBS}:{os.environ['PATH']}",
            "SETTINGS": str(ROOT / "launch" / "settings.example.env"),
            "NAME": script,
            "STUB_JOB": job,
            **variables,
        }
        return subprocess.Popen(
            [ROOT / "launch" / f"{script}.sh", *words],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def went_on(self, workdir, log):
        """The run was resumed once, and ended as an uninterrupted one does."""
        (step,) = re.findall(rf"run: goes on from step (\d+) of {TOTAL}", log)
        assert SAVED <= int(step) < TOTAL
        assert outcome(self.folder / workdir) == self.outcome
        assert not unfinished(self.folder / workdir)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("run"))


def ended(process, seconds=150):
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    return process.returncode, out


def test_a_preempted_pod_is_recreated_and_the_run_finished(run, tmp_path):
    (tmp_path / "scenario.json").write_text(
        json.dumps({"waits": ["ACCEPTED"], "preempt": str(run.sign("pod"))})
    )
    words = ("watch", "--spend", "--delete", "--", *run.arguments("pod"))
    code, out = ended(
        run.launch(
            "tpu",
            *words,
            GCLOUD_STUB=str(tmp_path),
            WORKER_PYTHON=sys.executable,
            POLL_SECONDS="0.1",
        )
    )
    assert code == 0, out
    assert "SUSPENDED, as after a preemption: restart 1 of at most 20" in out
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["made"] == 2 and state["resource"] is None
    # The workers of the first resource are gone, with their logs.
    run.went_on("pod", (tmp_path / "worker-0" / "sws_jax.run" / "log").read_text())
    log = (tmp_path / "worker-1" / "sws_jax.run" / "log").read_text()
    assert "process 1 of 2" in log


def test_processes_of_this_machine_are_started_again(run):
    process = run.launch(
        "local", "--", *run.arguments("here"), PROCESSES="2", PYTHON=sys.executable
    )
    killer = threading.Thread(target=kill_one, args=(process, run.sign("here")))
    killer.start()
    code, out = ended(process)
    killer.join()
    assert code == 0, out
    assert "137: restart 1 of at most 20" in out
    run.went_on("here", out)


def kill_one(process, sign):
    """Kills the second of its processes once the sign exists."""
    while not sign.exists() and process.poll() is None:
        time.sleep(0.02)
    workdir = str(sign.parents[2]).encode()
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # The process may have ended just now.
            words = (folder / "cmdline").read_bytes()
            if b"--process_id=1" in words and workdir in words:
                os.kill(int(folder.name), signal.SIGKILL)


def test_a_slurm_job_at_the_end_of_its_time_is_queued_again(run, tmp_path):
    code, out = ended(
        run.launch(
            "slurm",
            *("create", "--spend", "--", *run.arguments("cluster")),
            NODES="1",
            GPUS_PER_NODE="2",
            NODE_PYTHON=sys.executable,
            SLURM_STUB=str(tmp_path),
            STUB_TERM=str(run.sign("cluster")),
        )
    )
    (path,) = (ROOT / "build" / "launch").glob("slurm-*.log")
    log = path.read_text()
    path.unlink()
    assert code == 0, out
    assert (tmp_path / "ended").read_text() == "0 2", log
    assert "the processes ended with 75 75: restart 1 of at most 20" in log
    run.went_on("cluster", log)
