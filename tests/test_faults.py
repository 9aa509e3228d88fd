"""Faults made for real, at a process, a file or a disk, through the real command.

What must hold: an exit code as documented, one sentence, nothing half-written, and
the same command, the fault mended, ends at the bits of a run that met none.
"""

import itertools
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

import sws_jax
from sws_jax.storage import documents, files
from sws_jax.storage.names import METRICS
from sws_jax.training import metrics

from support.checkpoints import flip_a_bit, truncate
from support.children import (
    MAIN,
    ROOT,
    Job,
    arrays,
    complete,
    ended,
    outcome,
    steps,
    unfinished,
    until,
    watched,
)
from support.disks import Disk
from support.learngenes import GENE


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


@pytest.fixture
def gene(tmp_path):
    path = tmp_path / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    return path


# kill -9

LONG = (
    f"schedule.total_epochs={steps(12)}",
    f"checkpoint.every_epochs={steps(1)}",
    f"evaluation.every_epochs={steps(4)}",
)


@pytest.fixture(scope="module")
def long(job, whole, tmp_path_factory):
    """A run of 12 steps, each of them saved; and its seconds after it has greeted, its
    programs being compiled before."""
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
    finished = (workdir / "run" / "result.json").exists()  # killed in the report
    last = job.run(workdir, *LONG)
    assert last.code == 0, last.err
    if hit and done and not finished:  # no step before its last one is done again
        assert f"run: goes on from step {done} of 12" in last.out
    assert unfinished(workdir) == []
    return kills, torn


@pytest.mark.slow
def test_killed_in_every_quarter_of_a_run(job, long, tmp_path):
    """While a checkpoint is being written; and at a random moment of each quarter:
    start, compilation, steps, saves, scores, report."""
    expected, span = long
    random = np.random.default_rng(5)
    moments = (np.arange(4) + random.uniform(size=4)) / 4 * span
    left, writes = [None, *moments.tolist()], 0
    for number in itertools.count():
        workdir = tmp_path / str(number)
        kills, torn = killed_and_resumed(job, workdir, left)
        assert outcome(workdir) == outcome(expected)
        left, writes = left[kills:], writes + torn
        if not left:
            break
        # A run that has gone on is at its end before the last moments; one that begins
        # anew is not, unless this machine has become faster since it was timed.
        left = [moment if moment is None else 0.9 * moment for moment in left]
    assert writes


# Asked to stop


def is_saved(workdir, done):
    """It says at which step it stopped, and that one is there."""
    stopped = int(done.err.split("run: stopped and saved at step ")[1].split()[0])
    assert complete(workdir)[-1] == stopped
    assert not (workdir / "run" / "result.json").exists()
    assert unfinished(workdir) == []


@pytest.mark.slow
def test_asked_to_stop(job, tmp_path):
    """In the midst of its steps: it saves the step it is at."""
    process = job.start(tmp_path, f"schedule.total_epochs={steps(100_000)}")
    until(process, "step 3/100000")
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert done.code == 75
    is_saved(tmp_path, done)


@pytest.mark.slow
def test_asked_to_stop_at_every_stage(job, long, tmp_path):
    """Before anything, while compiling, twice in a row, in a write, and at the end."""
    expected, _ = long

    def stop(when, *, times=1):
        process = job.start(tmp_path, *LONG)
        when(process)
        for _ in range(times):
            process.send_signal(signal.SIGTERM)
        return ended(process)

    first = stop(lambda process: until(process, "config read"))
    assert first.code == 75 and "stopped before " in first.refusal()
    assert list(tmp_path.iterdir()) == []
    compiling = stop(lambda process: until(process, "12 steps of 64 images"), times=2)
    assert compiling.code == 75
    assert "stopped and saved at step 1 of 12" in compiling.refusal()

    def writing(process):
        while not is_writing(tmp_path):
            time.sleep(0.001)

    done = stop(writing)
    assert done.code == 75 and "stopped and saved at step" in done.refusal()
    last = stop(lambda process: until(process, "step 12/12"))
    assert last.code == 75
    assert "stopped and saved at step 12 of 12" in last.refusal()
    assert job.run(tmp_path, *LONG).code == 0
    assert outcome(tmp_path) == outcome(expected)


@pytest.mark.slow
def test_ctrl_c_twice(job, long, tmp_path):
    """Ends at once, as kill -9 does: what was complete stays."""
    process = job.start(tmp_path, *LONG)
    until(process, "step 6/12")
    process.send_signal(signal.SIGINT)
    with watched(process):
        while (
            "saves and stops (Ctrl-C again: at once)" not in process.stderr.readline()
        ):
            assert process.poll() is None
    process.send_signal(signal.SIGINT)
    # It may have saved and ended before the second came.
    assert ended(process).code in (-signal.SIGINT, 130)
    assert complete(tmp_path)[-1] >= 4
    assert job.run(tmp_path, *LONG).code == 0
    assert outcome(tmp_path) == outcome(long[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_all_processes_are_asked_to_stop(number, code, job, tmp_path):
    """A terminal, and many launchers, signal the whole group of processes."""
    endless = f"schedule.total_epochs={steps(100_000)}"
    process = job.start(tmp_path, endless, "data.workers=1", start_new_session=True)
    until(process, "step 3/100000")
    os.killpg(process.pid, number)
    done = ended(process)
    assert done.code == code, done.err
    if number == signal.SIGINT:
        assert "saves and stops (Ctrl-C again: at once)" in done.err
    is_saved(tmp_path, done)


@pytest.mark.slow
def test_a_job_of_untrained_runs_is_asked_to_stop(gene, job, tmp_path):
    """Runs without a step, of which the one under way is given up, and no other."""
    work = tmp_path / "work"
    words = f"learngene={gene},depths=2-3-4-5,compare=untuned"

    def start():
        config = f"{ROOT / 'configs' / 'transfer.py'}:{words},dataset={job.data}"
        command = [*MAIN, f"--config={config}", f"--workdir={work}", "--parallel=1"]
        return job.launch(command)

    process = start()
    until(process, "[2/4] untuned-L03")
    process.send_signal(signal.SIGTERM)
    stopped = ended(process)
    assert stopped.code == 75
    assert "the same command goes on" in stopped.refusal()
    finished = sorted(path.parent.name for path in work.glob("*/result.json"))
    assert finished in (["untuned-L02"], ["untuned-L02", "untuned-L03"])
    again = ended(start())
    assert again.code == 0 and "[1/4]" not in again.out
    assert len(list(work.glob("*/result.json"))) == 4


# The disk


@pytest.fixture
def disk(tmp_path):
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("no unshare and nsenter here (util-linux): no disk to fill")
    disk = Disk(tmp_path / "disk")
    yield disk if disk.usable else pytest.skip("this system mounts nothing for users")
    disk.close()


FULL = "(No space left on device)"


@pytest.mark.slow
def test_disk_full_in_a_checkpoint(disk, job, whole):
    """The checkpoints before it stay; with room, the same command goes on."""
    disk.free(560)  # one checkpoint, and half of another
    work = disk.folder / "work"
    done = job.run(work, before=disk.inside)
    assert done.code == 1
    assert f"/run/checkpoints cannot be written {FULL}: make room" in done.refusal()
    assert "the same command goes on at step 2 of 10" in done.refusal()
    assert complete(disk.path / "work") == [2]
    assert unfinished(disk.path / "work") == []
    disk.remount("size=64m")
    again = job.run(work, before=disk.inside)
    assert again.code == 0 and "goes on from step 2 of 10" in again.out
    assert outcome(disk.path / "work") == outcome(whole)


@pytest.mark.slow
def test_disk_full_in_metrics(disk, job):
    """Their lines fill one page after the other, where nothing else is written."""
    fields = (
        f"schedule.total_epochs={steps(60)}",
        "checkpoint.every_epochs=0.0",
        "log_steps=1",
    )
    disk.free(44)
    done = job.run(disk.folder / "work", *fields, before=disk.inside)
    assert done.code == 1
    written = disk.path / "work" / "run"
    assert f"cannot be written {FULL}: make room" in done.refusal()
    assert "metrics.jsonl" in done.refusal() or "events.out" in done.refusal()
    assert "the same command goes on at step 0 of 60" in done.refusal()
    lines = (written / METRICS).read_text().splitlines()
    assert len(metrics.read(str(written))) == len(lines) > 1  # no half of a line
    disk.remount("size=64m")
    assert job.run(disk.folder / "work", *fields, before=disk.inside).code == 0
    rows = metrics.read(str(written))  # each step once
    assert [row["step"] for row in rows] == list(range(1, 61))


@pytest.mark.slow
def test_disk_full_at_the_end(disk, job, whole):
    """Where a run goes on with no room at all; and where the weights are written."""
    work = disk.path / "work"
    copied(whole, work)
    for kib, what in ((0, "config.json"), (32, "weights.safetensors")):
        disk.free(kib)
        before = sorted(path.name for path in work.rglob("*"))
        done = job.run(disk.folder / "work", before=disk.inside)
        assert done.code == 1
        assert f"{what} cannot be written {FULL}" in done.refusal()
        after = sorted(path.name for path in work.rglob("*"))
        assert [n for n in after if "events" not in n] == [
            n for n in before if "events" not in n
        ]
    disk.remount("size=64m")
    assert job.run(disk.folder / "work", before=disk.inside).code == 0
    assert outcome(work) == outcome(whole)


@pytest.mark.slow
def test_files_may_not_be_large(job, whole, tmp_path):
    """The limit that any system has: of a file's size, below that of the weights."""
    limit = ("prlimit", "--fsize=16384")
    if not shutil.which(limit[0]):
        pytest.skip("no prlimit here (util-linux): no file too large")
    done = job.run(tmp_path, before=limit)
    assert done.code == 1
    assert "cannot be written (File too large): make room" in done.refusal()
    assert unfinished(tmp_path) == []
    assert job.run(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(whole)


def test_a_read_only_work_directory(disk, job):
    """Refused before anything is trained."""
    disk.remount("ro")
    done = job.run(disk.folder / "work", before=disk.inside)
    assert done.code == 2
    assert "cannot be written (Read-only file system): take anoth" in done.refusal()
    assert "steps of" not in done.out
    assert list(disk.path.iterdir()) == []


# Work directories that are not what they were


def unending(workdir):
    """Takes away what a run writes last, as if it had been killed before."""
    for name in ("result.json", "weights.safetensors"):
        (workdir / "run" / name).unlink()
    return workdir / "run"


def copied(whole, workdir):
    """A work directory as `whole`, but for its end."""
    shutil.copytree(whole, workdir, dirs_exist_ok=True)
    return unending(workdir)


def contents(workdir):
    return {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}


def other_config(directory):
    path = str(directory / "config.json")
    files.write_json(path, {**documents.read_json(path), "seed": 3})


@pytest.mark.parametrize(
    "change, words",
    [
        # By default, test_train asks all of this within its own process.
        pytest.param(
            lambda run: (run / "config.json").unlink(),
            "holds checkpoints and metrics.jsonl and no config.json to say of which "
            "run: restore it, or",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda run: truncate(run / "config.json"),
            "config.json is damaged",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            other_config, "another config (it differs in seed)", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda run: truncate(run / "inputs.json"),
            "inputs.json is damaged",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["no config", "half a config", "another config", "half of the inputs"],
)
def test_a_directory_of_another_run_is_refused(change, words, job, whole, tmp_path):
    change(copied(whole, tmp_path))
    before = contents(tmp_path)
    done = job.run(tmp_path)
    assert done.code == 2
    assert words in done.refusal()
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_other_data_behind_the_same_name(job, whole, tmp_path):
    """One label of the file is another: refused, until the old one is back."""
    copied(whole, tmp_path)
    data = arrays()
    data["test_labels"][0] = (data["test_labels"][0] + 1) % 10
    old = job.data.read_bytes()
    try:
        np.savez(job.data, **data)
        before = contents(tmp_path)
        done = job.run(tmp_path)
    finally:
        job.data.write_bytes(old)
    assert done.code == 2
    assert (
        "holds a run on other data than ./digits is now (other test im"
        in done.refusal()
    )
    assert contents(tmp_path) == before
    assert job.run(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.slow
def test_two_at_once(job, whole, tmp_path):
    """The second waits for the first, and finds everything done."""
    both = [job.start(tmp_path) for _ in range(2)]
    done = [ended(process) for process in both]
    assert [d.code for d in done] == [0, 0]
    assert sum(d.out.count("10 steps of 64 images") for d in done) == 1
    waited = [d for d in done if "steps of" not in d.out]
    assert "waiting for other jobs, which are at run" in waited[0].out
    assert unfinished(tmp_path) == []
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.slow
def test_damaged_checkpoints(job, whole, tmp_path):
    """Each is set aside for the one before, and what is none is let be."""
    kept = "checkpoint.keep_last=9"
    assert job.run(tmp_path, kept).code == 0
    run = unending(tmp_path)
    saved = run / "checkpoints"
    assert complete(tmp_path) == [2, 4, 6, 8, 10]
    truncate(saved / "10" / "params" / "manifest.ocdbt")
    shutil.rmtree(saved / "8" / "opt")
    for path in (saved / "6" / "ema").rglob("d/*"):
        flip_a_bit(path)
    truncate(saved / "4" / "metrics" / "metrics")
    (saved / "2" / "_CHECKPOINT_METADATA").write_bytes(b"")  # nothing depends on it
    (saved / "12").mkdir()
    (saved / "notes.txt").write_text("mine")
    (tmp_path / ".profile.20231212.bak").write_text("mine")
    shutil.copytree(saved / "2", saved / "7.orbax-checkpoint-tmp")
    (run / ".result.sws-0123abcd.json").write_text("{")
    (tmp_path / ".report.sws-0123abcd.png").write_bytes(b"half")
    done = job.run(tmp_path, kept)
    assert done.code == 0 and "goes on from step 2 of 10" in done.out
    broken = {path.name for path in (run / "broken_checkpoints").iterdir()}
    assert broken == {"4", "6", "8", "10", "12"}
    for step in broken:
        assert f"the checkpoint of step {step} is broken" in done.err
    assert complete(tmp_path) == [2, 4, 6, 8, 10]
    assert (saved / "notes.txt").exists()
    (tmp_path / ".profile.20231212.bak").unlink()  # not ours, and left alone
    assert unfinished(tmp_path) == []
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.slow
def test_the_only_checkpoint_is_damaged(job, whole, tmp_path):
    """Then the run starts anew, which its warning says."""
    run = copied(whole, tmp_path)
    for step in complete(tmp_path)[:-1]:
        shutil.rmtree(run / "checkpoints" / str(step))
    truncate(run / "checkpoints" / "10" / "meta" / "metadata")
    done = job.run(tmp_path)
    assert done.code == 0 and "falling back to the start" in done.err
    assert outcome(tmp_path) == outcome(whole)


# Files that a run starts from


def not_numbers(path):
    gene = sws_jax.load_learngene(str(path))
    gene.params["norm"]["scale"][3] = np.nan
    sws_jax.save_learngene(str(path), gene)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage, words",
    [
        (truncate, "is not a readable .safetensors file"),
        (flip_a_bit, "does not hold what was written (its digest is another)"),
        (not_numbers, "holds values in norm/scale that are not numbers"),
    ],
    ids=["half", "a bit", "NaN"],
)
def test_a_damaged_learngene(damage, words, gene, job, tmp_path):
    damage(gene)
    work = tmp_path / "work"
    config = f"{ROOT / 'configs' / 'des_deit.py'}:learngene={gene}"
    done = ended(job.launch([*MAIN, f"--config={config}", f"--workdir={work}"]))
    assert done.code == 2
    assert f"{gene} {words}" in done.refusal()
    assert not work.exists()


@pytest.mark.slow
def test_a_teacher_that_says_no_numbers(job, whole, tmp_path):
    """Also where any accuracy of a teacher is accepted."""
    path = str(tmp_path / "teacher.safetensors")
    teacher = sws_jax.load_network(str(whole / "run" / "weights.safetensors"))
    teacher.params["head"]["bias"][0] = np.nan
    sws_jax.save_network(path, teacher)
    fields = (f"teacher.path={path}", "teacher.min_accuracy=0.0", "loss.kind=soft")
    done = job.run(tmp_path / "work", *fields)
    assert done.code == 2
    assert (
        "the teacher's logits of validation images are not all numbers"
        in done.refusal()
    )
    assert not (tmp_path / "work").exists()


# While it trains


@pytest.mark.slow
def test_a_loss_that_is_no_number(job, tmp_path):
    """An absurd learning rate; the last good checkpoint stays."""
    rate = ("schedule.rate=1e25", f"checkpoint.every_epochs={steps(1)}")
    done = job.run(tmp_path, *rate)
    assert done.code == 1
    assert "the loss is" in done.refusal() and "lower schedule.rate" in done.refusal()
    stopped = int(done.refusal().split("at step ")[1].split()[0])
    assert complete(tmp_path)[-1] == stopped - 1
    assert unfinished(tmp_path) == []


def readers(process):
    """The processes that read images for another one."""
    threads = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [pid for path in threads for pid in path.read_text().split()]
    line = {pid: pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [int(pid) for pid in children if b"spawn_main" in line[pid]]


@pytest.mark.slow
def test_a_worker_that_is_killed_and_one_that_is_left(job, tmp_path):
    """A run ends with its worker; and where it is killed, and cannot end them, its
    workers end with the process they read for."""
    fields = (f"schedule.total_epochs={steps(100)}", "checkpoint.every_epochs=0.0")
    process = job.start(tmp_path / "work", *fields, "data.workers=1")
    until(process, "step 3/100")
    killed = readers(process)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert killed
    done = ended(process)
    assert done.code == 1
    assert "a process that reads images ended with code -9" in done.refusal()
    step = int(done.refusal().split("goes on at step ")[1].split()[0])
    assert complete(tmp_path / "work") == [step] and 3 <= step < 100

    process = job.start(tmp_path / "work", *fields, "data.workers=1")
    line = until(process, "goes on from step")
    assert f"goes on from step {step} of 100" in line
    until(process, "/100")
    left = readers(process)
    assert left
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(pathlib.Path(f"/proc/{pid}/cmdline").exists() for pid in left):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    ended(process)
    assert job.run(tmp_path / "work", *fields).code == 0
    # The run's own process reads the same images.
    assert job.run(tmp_path / "whole", *fields).code == 0
    assert outcome(tmp_path / "work") == outcome(tmp_path / "whole")


def folder_of_images(root):
    """Digits of three classes as files."""
    data = arrays()
    for split, count in (("train", 60), ("test", 10)):
        for label in range(3):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            chosen = data[f"{split}_images"][data[f"{split}_labels"] == label][:count]
            for number, pixels in enumerate(chosen):
                Image.fromarray(pixels[..., 0]).save(folder / f"{number:03}.png")
    return root


@pytest.mark.slow
def test_an_image_that_turns_unreadable(job, tmp_path):
    """Overwritten while the run reads; mended it goes on, or passes over it."""
    root = folder_of_images(tmp_path / "images")
    fields = (
        f"data.source={root}",
        "data.memory_gib=0.0",
        "global_batch_size=8",
        "schedule.total_epochs=4.0",
        "checkpoint.every_epochs=0.0",
        "evaluation.every_epochs=0.0",
    )
    process = job.start(tmp_path / "work", *fields)
    until(process, "step 3/")
    image = root / "train" / "1" / "020.png"
    whole = image.read_bytes()
    truncate(image)
    done = ended(process)
    assert done.code == 1
    assert f"{image} is not a readable image" in done.refusal()
    assert "pass over such images with data.unreadable=skip" in done.refusal()
    step = int(done.refusal().split("goes on at step ")[1].split()[0])
    assert complete(tmp_path / "work") == [step]
    shutil.copytree(tmp_path / "work", tmp_path / "skipping")
    skipping = job.run(tmp_path / "skipping", *fields, "data.unreadable=skip")
    assert skipping.code == 0, skipping.err
    result = documents.read_json(str(tmp_path / "skipping" / "run" / "result.json"))
    assert result["unreadable"] > 0
    assert result["unreadable_from"] == step
    image.write_bytes(whole)
    assert job.run(tmp_path / "work", *fields).code == 0
    assert job.run(tmp_path / "whole", *fields).code == 0
    assert outcome(tmp_path / "work") == outcome(tmp_path / "whole")
