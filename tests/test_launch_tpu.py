"""launch/tpu.sh against a stub of gcloud that fails in the ways that gcloud may."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from support.children import ROOT

STUBS = ROOT / "tests" / "stubs"
PLAYED = """#!/usr/bin/env bash
# A run that ends, on each attempt, with the next exit code of this worker's list.
list=$PLAYED/$SLURM_PROCID
echo "$@" >> "$list.arguments"
code=$(head -n 1 "$list")
sed -i 1d "$list"
[[ $code != stays ]] || exec sleep 60
if [[ $code == dropped ]]; then
  while [[ ! -e $PLAYED/dropped ]]; do sleep 0.05; done
  code=0
fi
exit "$code"
"""
ARGUMENTS = ("--config=configs/smoke.py", "--config.data.mean=(0.5, 0.5)")


class Cloud:
    """A folder with the state of the stub, and the settings of a launch."""

    def __init__(self, folder, **scenario):
        self.folder = folder
        (folder / "scenario.json").write_text(json.dumps(scenario))
        self.settings = {
            "PATH": f"{STUBS}:{os.environ['PATH']}",
            "GCLOUD_STUB": str(folder),
            "SETTINGS": str(ROOT / "launch" / "settings.example.env"),
            "POLL_SECONDS": "0.1",
            "QUOTA_SECONDS": "0",
        }

    def plays(self, *attempts):
        """Replaces runs by exit codes of the two workers, attempt by attempt."""
        python = self.folder / "python"
        python.write_text(PLAYED)
        python.chmod(0o755)
        for index in range(2):
            lines = "".join(f"{codes[index]}\n" for codes in attempts)
            (self.folder / str(index)).write_text(lines)
        self.settings |= dict(WORKER_PYTHON=str(python), PLAYED=str(self.folder))

    def tpu(self, *words, **settings):
        return subprocess.run(
            [ROOT / "launch" / "tpu.sh", *words],
            env={**os.environ, **self.settings, **settings},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def watch(self, *arguments, **settings):
        arguments = arguments or ARGUMENTS
        return self.tpu("watch", "--spend", "--delete", "--", *arguments, **settings)

    def commands(self):
        lines = (self.folder / "calls.txt").read_text().splitlines()
        return [line.split()[0] for line in lines]

    def calls(self, command):
        return self.commands().count(command)

    def state(self, name):
        return json.loads((self.folder / "state.json").read_text())[name]

    def resource(self):
        return self.state("resource")

    def created_count(self):
        return self.state("made")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """As much of this repository as a worker needs for a run that is a stub."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "launch").mkdir()
    shutil.copy(ROOT / "launch" / "worker.sh", folder / "launch")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "a commit"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return str(folder)


def test_a_run_that_is_lost_once_is_started_again_and_finished(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.plays((75, 134), (0, 0))
    done = cloud.watch()
    assert done.returncode == 0, done.stderr
    assert "the run ended with 75 134: restart 1 of at most 20" in done.stderr
    assert "the run is finished" in done.stderr
    # The same arguments both times, a space and brackets among them.
    lines = (tmp_path / "1.arguments").read_text().splitlines()
    assert lines == ["-m sws_jax.main " + " ".join(ARGUMENTS)] * 2
    assert cloud.calls("create") == 1 and cloud.resource() is None


@pytest.mark.parametrize(
    "codes, code, words",
    [
        # Of the two codes that the command itself ends with, one by default.
        pytest.param(*((2, 75), 2, "the run was refused"), marks=pytest.mark.slow),
        (("stays", 1), 1, "the run stopped with an error"),
        ((75, 3), 6, "a device computed wrongly"),
        pytest.param(
            *((130, 75), 130, "the run was stopped by hand"), marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_that_says_why_it_ended_is_not_started_again(
    tmp_path, repository, codes, code, words
):
    cloud = Cloud(tmp_path)
    cloud.plays(codes)
    done = cloud.tpu("watch", "--spend", "--", *ARGUMENTS, REPO=repository)
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "restart" not in done.stderr
    kept = "(sws-aux-s is kept, and costs money: launch/tpu.sh delete --delete)"
    assert kept in done.stderr and cloud.resource() == "ACTIVE"
    assert cloud.tpu("delete").returncode == 2
    assert cloud.tpu("delete", "--delete").returncode == 0
    assert cloud.resource() is None


@pytest.mark.slow
def test_the_end_of_an_earlier_run_is_not_taken_for_that_of_this_one(
    tmp_path, repository
):
    cloud = Cloud(tmp_path)
    cloud.plays((1, 1), (0, 0), (2, 2), ("stays", "stays"))
    cloud.settings["REPO"] = repository
    other = "--config=configs/aux_deit.py"

    def watch(*words):
        return cloud.tpu("watch", "--spend", *words)

    assert watch("--", *ARGUMENTS).returncode == 1
    assert watch("--", *ARGUMENTS).returncode == 0
    assert watch("--", other).returncode == 2
    lines = (tmp_path / "0.arguments").read_text().splitlines()
    first = "-m sws_jax.main " + " ".join(ARGUMENTS)
    assert lines == [first, first, f"-m sws_jax.main {other}"]
    # A run that has not ended is neither stopped nor deleted for another.
    assert cloud.tpu("run", "--", *ARGUMENTS).returncode == 0
    refused = watch("--delete", "--", other)
    assert refused.returncode == 2
    assert "another run, of other arguments or another commit" in refused.stderr
    assert cloud.tpu("status").stdout.count(" running") == 2
    assert cloud.tpu("delete", "--delete").returncode == 0


def test_a_pod_that_is_well_is_let_be(tmp_path, repository):
    """Despite a notice, failures of this machine's ssh, and a passing error."""
    notice = "To take a quick anonymous survey, run: $ gcloud survey"
    cloud = Cloud(tmp_path, create=["unavailable"], notice=notice, refused=3)
    cloud.plays((0, 0))
    words = ("watch", "--spend", "--", *ARGUMENTS)
    settings = dict(UNREACHABLE_TRIES="2", QUOTA_TRIES="2", WAIT_SECONDS="30")
    done = cloud.tpu(*words, REPO=repository, **settings)
    assert done.returncode == 0, done.stderr
    assert "UNAVAILABLE: The service is currently" in done.stderr
    assert done.stderr.count("answer: tpu@host: Permission denied (publickey)") == 3
    assert "restart" not in done.stderr and cloud.resource() == "ACTIVE"
    assert cloud.calls("create") == 1 and "delete" not in cloud.commands()


@pytest.mark.slow
def test_connections_that_fail_are_no_host_that_is_lost(tmp_path, repository):
    """As long as some worker answers that the run goes on."""
    cloud = Cloud(tmp_path, dropped=5)
    cloud.plays(("dropped", "dropped"))
    done = cloud.watch(REPO=repository, UNREACHABLE_TRIES="2")
    assert done.returncode == 0, done.stderr
    assert "restart" not in done.stderr and cloud.calls("create") == 1
    sentence = "a worker does not answer, and the run goes on on others: ssh: connect"
    assert done.stderr.count(sentence) == 5


@pytest.mark.slow
def test_a_host_that_is_lost_is_replaced_once_the_others_have_ended(
    tmp_path, repository
):
    cloud = Cloud(tmp_path, lost=[1])
    cloud.plays((134, "stays"), (0, 0))
    done = cloud.watch(REPO=repository, UNREACHABLE_TRIES="2")
    assert done.returncode == 0, done.stderr
    assert "a worker cannot be reached: restart 1 of at most 20" in done.stderr
    assert cloud.calls("create") == 2


def test_what_another_hand_deletes_is_not_bought_again(tmp_path, repository):
    cloud = Cloud(tmp_path, deleted=str(tmp_path / "0.arguments"))
    cloud.plays(("stays", "stays"))
    done = cloud.watch(REPO=repository)
    assert done.returncode == 130, done.stderr
    sentence = "sws-aux-s was deleted by another hand (there is no sws-aux-s)"
    assert sentence in done.stderr
    assert cloud.calls("create") == 1 and "delete" not in cloud.commands()


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario, settings, code, words, creates",
    [
        (dict(create=["quota", "quota", "granted"]), {}, 0, "the run is finished", 3),
        (dict(create=["quota"]), dict(QUOTA_TRIES="3"), 3, "asked 3 times", 3),
        (dict(create=["failed", "granted"]), {}, 0, "sws-aux-s is FAILED", 2),
        (dict(create=["denied"]), {}, 2, "PERMISSION_DENIED", 1),
        ({}, dict(CREATE_FLAGS="--spott"), 2, "unrecognized arguments: --spott", 0),
        (
            dict(
                waits=["CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"]
            ),
            *({}, 0, "the run is finished", 1),
        ),
        (dict(waits="forever"), dict(WAIT_SECONDS="2"), 4, "is WAITING_FOR_RESOURC", 1),
        # The request has expired before the watcher looks again.
        (
            dict(waits="forever"),
            dict(
                WAIT_SECONDS="2",
                POLL_SECONDS="2.5",
                CREATE_FLAGS="--valid-until-duration=1s",
            ),
            *(4, "is FAILED after 2 s (WAIT_SECONDS)", 1),
        ),
        (
            dict(create=["failed", "granted"], undeleted=3),
            *(dict(QUOTA_TRIES="2"), 0, "cannot be deleted yet: ERROR", 2),
        ),
        (dict(create=["exists"]), dict(QUOTA_TRIES="3"), 3, "ALREADY_EXISTS", 3),
        (dict(unreachable=[1]), dict(UNREACHABLE_TRIES="2"), 0, "2 of 2 times", 2),
        (
            dict(unreachable=[1]),
            dict(UNREACHABLE_TRIES="2", MAX_RESTARTS="0"),
            5,
            "a worker cannot be reached, after 0 restarts",
            1,
        ),
    ],
    ids=(
        "quota no-quota failed denied misused waits forever expired undeleted exists "
        "unreachable lost"
    ).split(),
)
def test_what_the_cloud_may_do(
    tmp_path, repository, scenario, settings, code, words, creates
):
    cloud = Cloud(tmp_path, **scenario)
    cloud.plays((0, 0))
    done = cloud.watch(REPO=repository, **settings)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert cloud.calls("create") == creates
    assert done.stderr.count("asked for sws-aux-s") == cloud.created_count()
    assert cloud.resource() is None  # nothing is left that costs money


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario, settings, code, words",
    [
        (dict(create=["denied"]), {}, 2, "PERMISSION_DENIED: Permission 'tpu.nodes"),
        (dict(create=["quota"]), dict(QUOTA_TRIES="2"), 3, "asked 2 times"),
    ],
    ids=["denied", "no-quota"],
)
def test_nothing_is_said_to_be_kept_where_there_is_nothing(
    tmp_path, scenario, settings, code, words
):
    cloud = Cloud(tmp_path, **scenario)
    done = cloud.tpu("watch", "--spend", "--", *ARGUMENTS, **settings)
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "(there is no sws-aux-s)" in done.stderr
    assert "money" not in done.stderr and "asked for" not in done.stderr


@pytest.mark.slow
def test_a_request_that_is_given_up_is_deleted_unasked(tmp_path):
    """It might be granted later, and cost money unnoticed."""
    cloud = Cloud(tmp_path, waits="forever")
    words = ("watch", "--spend", "--", *ARGUMENTS)
    done = cloud.tpu(*words, WAIT_SECONDS="1")
    assert done.returncode == 4, done.stderr
    assert cloud.calls("delete") == 1 and cloud.resource() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario, words",
    [
        (dict(refused=99), "sws-aux-s does not answer: tpu@host: Permission denied"),
        (dict(says="RESTING"), "gcloud says that sws-aux-s is 'RESTING', which is no"),
        (dict(says=""), "gcloud says that sws-aux-s is '', which is no state"),
    ],
    ids=["silent", "unknown", "empty"],
)
def test_where_nobody_can_look_the_watcher_ends_and_the_pod_is_let_be(
    tmp_path, repository, scenario, words
):
    """Even with ``--delete``, since the run may still go on."""
    cloud = Cloud(tmp_path, **scenario)
    cloud.plays((0, 0))
    done = cloud.watch(REPO=repository, WAIT_SECONDS="1")
    assert done.returncode == 5, done.stderr
    assert f"for 1 s (WAIT_SECONDS) {words}" in done.stderr
    assert "costs money: launch/tpu.sh delete --delete" in done.stderr
    assert cloud.calls("create") == 1 and "delete" not in cloud.commands()


@pytest.mark.slow
def test_a_preemption_is_one_restart_however_long_the_deletion_takes(
    tmp_path, repository
):
    scenario = dict(preempt=str(tmp_path / "0.arguments"), undeleted=3, lingers=2)
    cloud = Cloud(tmp_path, **scenario)
    cloud.plays(("stays", "stays"), (0, 0))
    words = ("watch", "--spend", "--", *ARGUMENTS)
    done = cloud.tpu(*words, REPO=repository, MAX_RESTARTS="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be deleted yet: ERROR") == 3
    assert done.stderr.count("SUSPENDED, as after a preemption: restart 1 of") == 1
    assert cloud.calls("create") == 2 and cloud.resource() == "ACTIVE"


@pytest.mark.slow
def test_restarts_are_counted(tmp_path, repository):
    cloud = Cloud(tmp_path)
    cloud.plays(*[(75, 75)] * 3)
    done = cloud.watch(REPO=repository, MAX_RESTARTS="2")
    assert done.returncode == 5, done.stderr
    assert "the run ended with 75 75, after 2 restarts (MAX_RESTARTS)" in done.stderr
    assert cloud.resource() is None


@pytest.mark.slow
def test_processes_that_stay_behind_are_ended(tmp_path, repository):
    cloud = Cloud(tmp_path)
    cloud.plays((134, "stays"), (0, 0))
    done = cloud.watch(REPO=repository, STRAGGLER_SECONDS="1")
    assert done.returncode == 0, done.stderr
    assert "the run ended with 134 on some workers: restart 1" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario, sign, left, resource",
    [
        (
            dict(waits="forever"),
            "asked for sws-aux-s",
            "the request for sws-aux-s is kept, and costs money once it is granted",
            "WAITING_FOR_RESOURCES",
        ),
        (dict(create=["quota"]), "again in 60 s", "there is no sws-aux-s)", None),
    ],
    ids=["waiting", "no-quota"],
)
def test_the_watcher_ends_alone_and_at_once(tmp_path, scenario, sign, left, resource):
    cloud = Cloud(tmp_path, **scenario)
    cloud.settings |= dict(POLL_SECONDS="60", QUOTA_SECONDS="60")
    with subprocess.Popen(
        [ROOT / "launch" / "tpu.sh", "watch", "--spend", "--", *ARGUMENTS],
        env={**os.environ, **cloud.settings},
        stderr=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert any(sign in line for line in watcher.stderr)
        start = time.monotonic()
        watcher.send_signal(signal.SIGINT)
        errors = watcher.stderr.read()
    assert time.monotonic() - start < 30
    assert watcher.returncode == 130
    assert f"the watcher has ended, and nothing else ({left}" in errors
    assert cloud.resource() == resource


@pytest.mark.slow
def test_each_step_by_hand(tmp_path, repository):
    cloud = Cloud(tmp_path)
    cloud.plays(*[("stays", "stays")] * 2)
    cloud.settings["REPO"] = repository

    def output(*words):
        done = cloud.tpu(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    output("create", "--spend")
    assert output("status").startswith("ACTIVE")
    assert output("status").count(" bare") == 2
    output("setup")
    assert output("status").count(" none") == 2
    output("run", "--", *ARGUMENTS)
    assert output("status").count(" running") == 2
    output("stop")
    # A stop by hand is told from another signal.
    assert output("status").count(" ended 130") == 2
    output("run", "--", *ARGUMENTS)
    (tmp_path / "worker-0" / "sws_jax.run" / "boot").write_text("an earlier one")
    status = output("status")
    assert status.count(" ended 137") == status.count(" running") == 1
    output("logs")
    output("delete", "--delete")
    assert cloud.resource() is None
