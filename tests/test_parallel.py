"""Runs of a job at once: how many, in which order, and that nothing else changes."""

import csv
import math
import os
import signal
import subprocess
import types

import pytest

from sws_jax import main
from sws_jax.errors import UserError
from sws_jax.estimate import flops
from sws_jax.jobs import commandline, execute, parallel, rows
from sws_jax.runtime import host, processes
from sws_jax.specs import Compute, ViTSpec

from support.children import MAIN, ROOT, ended, environment, unfinished, until

DIGITS = f"--config={ROOT}/configs/aux_deit.py"


def jobs_rows(*flags):
    config, _ = commandline.parse([f"{DIGITS}:depths=3-9", *flags])
    return rows.runs(config)


@pytest.mark.parametrize(
    "argv, wish, rest",
    [
        ([], None, []),
        (["--parallel=3", "--workdir=x"], 3, ["--workdir=x"]),
        (["--workdir", "x", "-parallel", "12"], 12, ["--workdir", "x"]),
        (["--parallelx=3"], None, ["--parallelx=3"]),
    ],
)
def test_the_flag(argv, wish, rest):
    assert commandline.parallel(argv) == (wish, rest)


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5", "10000", "2\n"])
def test_what_is_no_number_of_runs(text, capsys):
    assert main.main([DIGITS, f"--parallel={text}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "sws_jax: --parallel takes a number of runs at once, from 1"
    )
    assert error.count("\n") == 1


def test_the_flag_is_given_once_and_with_a_number():
    with pytest.raises(UserError, match="given twice"):
        commandline.parallel(["--parallel=2", "--parallel=2"])
    with pytest.raises(UserError, match="and not ''"):
        commandline.parallel(["--parallel"])


def test_the_chain_comes_first_and_then_who_waited_for_it():
    job = jobs_rows()
    lengths = rows.chains(job)
    assert lengths["des-L09"] == 9 * (5 + 1)
    assert lengths["aux"] == 16 * (40 + 1) + lengths["des-L09"]
    assert lengths["ancestor"] == 6 * (30 + 1) + lengths["aux"]
    assert [run.name for run in execute._longest_first(job)] == [
        "aux",
        "des-L09",
        "des-L03",
        "ancestor",
        "scratch-L09-40ep",
        "scratch-L03-40ep",
        "scratch-L09-5ep",
        "scratch-L03-5ep",
    ]
    # The ancestor and those from scratch; or the descendants and these.
    assert rows.at_once(job) == 6
    chain = [run for run in job if not run.name.startswith("scratch")]
    assert rows.at_once(chain) == 2
    assert rows.at_once(chain[:2]) == 1 and rows.at_once([]) == 0


@pytest.fixture
def machine(monkeypatch):
    """A machine of four cores with memory for a hundred runs."""

    def make(cores=4, platform="cpu", alone=True, memory=200 * 2**30):
        monkeypatch.setattr(host, "cores", lambda: cores)
        monkeypatch.setattr(host, "available", lambda: memory)
        monkeypatch.setattr(processes, "is_alone", lambda: alone)
        device = types.SimpleNamespace(platform=platform)
        monkeypatch.setattr(parallel.jax, "devices", lambda: [device])

    make()
    return make


def test_as_many_as_there_are_cores_and_work_and_memory_for(machine, tmp_path):
    job, workdir = jobs_rows(), str(tmp_path)
    choice = parallel.choose(None, job, workdir)
    assert str(choice) == "4 runs at once (--parallel=4): this machine has 4 cores"
    machine(cores=64)
    choice = parallel.choose(None, job, workdir)
    assert str(choice) == "6 runs at once (--parallel=6): more cannot begin at once"
    each = max(map(parallel.bytes_of, job))
    machine(memory=int(2.5 * each))
    choice = parallel.choose(None, job, workdir)
    assert choice.count == 2 and "each may take 1.5" in choice.why
    machine(memory=1)
    assert parallel.choose(None, job, workdir).count == 1
    machine(memory=None)
    assert parallel.choose(None, job, workdir).count == 4
    assert parallel.choose(None, job, "gs://bucket/work").why.endswith("in a bucket")
    for run in job[2:]:
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "result.json").touch()
    assert parallel.choose(None, job, workdir).count == 1
    assert parallel.choose(8, job, workdir).count == 1


def test_a_wish_comes_before_cores_and_memory_and_not_before_work(machine, tmp_path):
    machine(cores=1, memory=1)
    job = jobs_rows()
    assert parallel.choose(3, job, str(tmp_path)).count == 3
    assert parallel.choose(9, job, str(tmp_path)).count == 6
    assert parallel.choose(9, job[:1], str(tmp_path)).count == 1


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(platform="gpu"), "--parallel=2 cannot be: a GPU is for one process"),
        (dict(alone=False), "the processes of this job are at one run together"),
    ],
)
def test_one_where_there_can_be_but_one(changes, words, machine, tmp_path):
    machine(**changes)
    job = jobs_rows()
    assert parallel.choose(None, job, str(tmp_path)).count == 1
    assert parallel.choose(1, job, str(tmp_path)).count == 1
    with pytest.raises(UserError, match=words):
        parallel.choose(2, job, str(tmp_path))


@pytest.mark.parametrize("remat", [False, True])
def test_memory_is_foreseen_without_tracing(remat):
    """Against the count of what a traced step keeps."""
    (run,) = jobs_rows(f"--config.compute.remat={remat}")[:1]
    spec = ViTSpec(
        depth=6,
        width=64,
        heads=4,
        patch_size=4,
        image_size=8,
        channels=1,
        num_classes=10,
    )
    kept = 64 * flops.activation_bytes(spec, Compute(remat=remat))
    weights = 5 * 4 * flops.params(spec)
    foreseen = parallel.bytes_of(run) - parallel._PROCESS_BYTES
    assert math.isclose(foreseen, parallel._MARGIN * (kept + weights), rel_tol=0.1)


def test_the_data_of_a_run_count(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"x" * 10_000)
    (small,) = jobs_rows("--config.data.image_size=8")[:1]
    (large,) = jobs_rows("--config.data.image_size=8", f"--config.data.source={path}")[
        :1
    ]
    assert parallel.bytes_of(large) - parallel.bytes_of(small) == 10_000
    (folder,) = jobs_rows("--config.data.image_size=8", "--config.data.source=images")[
        :1
    ]
    assert parallel.bytes_of(folder) - parallel.bytes_of(small) == 2 * 2**30


def test_a_process_that_shares_runs_takes_the_longest_chain_and_says_nothing_of_all(
    tmp_path, monkeypatch, capsys
):
    config = commandline.load(f"{ROOT}/configs/smoke.py").unlock()
    config.compare.update(level="full", depths=(4,))
    asked, told = [], []

    def train(run, *args, starting, **kwargs):
        asked.append(run.name)
        if run.name == "scratch-L04-10ep" and asked.count(run.name) == 1:
            raise execute.Busy("another process")
        starting()
        return {"name": run.name}

    monkeypatch.setattr(execute.train, "train", train)
    monkeypatch.setattr(execute, "_publish", lambda workdir, run: None)
    monkeypatch.setattr(execute, "_SHARED_POLL_SECONDS", 0.0)
    monkeypatch.setattr(execute.report, "write", None)  # It is another's to write.
    monkeypatch.setattr(execute.report, "sentence", lambda result: "done")
    shared = execute.Shared(call=told.append, reports=False)
    results = execute.execute(config, str(tmp_path), shared=shared)
    assert [result["name"] for result in results] == [
        run.name for run in rows.runs(config)
    ]
    assert asked == [
        "scratch-L04-10ep",  # which another is at
        "ancestor",
        "aux",
        "des-L04",
        "scratch-L04-10ep",
        "scratch-L04-2ep",
    ]
    assert told[0] == 3  # could begin
    out = capsys.readouterr().out
    assert out.startswith("[1/5] ancestor\n")
    assert "waiting" not in out


SMALL = [
    f"--config={ROOT}/configs/smoke.py",
    "--config.model.width=16",
    "--config.compare.depths=(2,)",
    "--config.compare.long_epochs=30",
]


def start(workdir, *flags):
    return subprocess.Popen(
        [*MAIN, *SMALL, f"--workdir={workdir}", *flags],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def table(workdir):
    with open(workdir / "results.csv") as file:
        found = list(csv.DictReader(file))
    assert found
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def files(workdir):
    """Relative names; a run that goes on has one more file of TensorBoard."""
    found = (path.relative_to(workdir) for path in workdir.rglob("*"))
    names = (str(path).partition("tfevents")[0] for path in found)
    return {name for name in names if "checkpoints/" not in name}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    done = ended(start(workdir, "--parallel=1"))
    assert done.code == 0 and "at once" not in done.out
    return workdir


@pytest.mark.slow
def test_two_at_once_leave_what_one_leaves(alone, tmp_path):
    done = ended(start(tmp_path, "--parallel=2"))
    assert done.code == 0 and done.err == ""
    assert "2 runs at once (--parallel=2): as asked for" in done.out
    assert done.out.count("sws_jax") <= 1 and done.out.count("process 0 of 1") == 1
    begun = [line for line in done.out.splitlines() if line.startswith("[")]
    assert sorted(begun) == sorted(set(begun)) and len(begun) == 5  # each run once
    assert table(tmp_path) == table(alone)
    assert files(tmp_path) == files(alone)
    again = ended(start(tmp_path))
    assert again.code == 0 and "[" not in again.out.partition("run ")[0]


def helpers_of(process):
    """Numbers of the processes that help one."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == process.pid:
                    found.append(int(name))
        except (OSError, ValueError):
            pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["parent", "helper"])
def test_a_kill_loses_nothing(whom, alone, tmp_path):
    process = start(tmp_path, "--parallel=2")
    until(process, "scratch-L02-30ep  step 100/")
    (helper,) = helpers_of(process)
    if whom == "helper":
        os.kill(helper, signal.SIGKILL)
        done = ended(process)
        assert done.code == 0 and "its process was ended (signal 9)" in done.out
    else:
        process.kill()
        process.communicate()
        # The next command waits for what the helper still saves.
        done = ended(start(tmp_path, "--parallel=2"))
        assert done.code == 0 and done.err == ""
        assert "goes on from step" in done.out
    assert table(tmp_path) == table(alone)
    assert files(tmp_path) == files(alone)
    assert not unfinished(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_save_all_runs(number, code, alone, tmp_path):
    process = start(tmp_path, "--parallel=2")
    until(process, "scratch-L02-30ep  step 100/")
    process.send_signal(number)
    done = ended(process)
    assert done.code == code
    assert done.err.count("sws_jax: ") == 1 + (number == signal.SIGINT)
    assert "stopped and saved" in done.err
    assert not unfinished(tmp_path)
    assert ended(start(tmp_path)).code == 0
    assert table(tmp_path) == table(alone)


@pytest.mark.slow
def test_what_fails_in_a_helper_is_said_once_and_ends_all(tmp_path):
    done = ended(start(tmp_path, "--parallel=2", "--config.scratch.schedule.rate=1e25"))
    assert done.code == 1
    assert "scratch-L02" in done.refusal() and "the loss is" in done.refusal()
    assert not unfinished(tmp_path)
