"""Work directories, weights and data in buckets, against a Cloud Storage in memory."""

import _thread
import datetime
import errno
import importlib
import importlib.util
import logging
import os
import pathlib
import shutil
import signal
import socket
import sys
import threading
import types

import fsspec
import numpy as np
import pytest

import sws_jax
from sws_jax import __main__ as commands
from sws_jax import arguments, main
from sws_jax.data import load_dataset, staging
from sws_jax.errors import UserError
from sws_jax.jobs import commandline, load
from sws_jax.models import weights
from sws_jax.storage import documents, files, lease, locks, paths, refusals
from sws_jax.storage.files import Unsent, Unwritable
from sws_jax.storage.names import BROKEN, CHECKPOINTS, LEARNGENE_FILE
from sws_jax.training import metrics
from sws_jax.training.checkpoints import Checkpoints

from support.buckets import LARGE, ROOT, put
from support.checkpoints import CLOCK, abstract, fill
from support.children import Job, ended, outcome, steps, until
from support.compare import equal
from support.learngenes import describe
from support.networks import params_of
from support.tfds import SPLITS, prepare

# Without a bucket


@pytest.mark.parametrize(
    "package, workdir, named",
    [
        ("gcsfs", "gs://bucket/run", "gcsfs"),
        ("google.cloud.storage", "gs://bucket/run", "gcsfs"),
        ("s3fs", "s3://bucket/run", "s3fs"),
    ],
)
def test_what_is_missing_is_named(package, workdir, named, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    config = "--config=configs/smoke.py"
    assert main.main([config, f"--workdir={workdir}"]) == 2
    scheme = workdir.partition("//")[0]
    message = capsys.readouterr().err
    assert f"a path that begins with {scheme}// needs a package" in message
    assert message.endswith(f"not installed: pip install {named}\n")


@pytest.mark.parametrize(
    "workdir, name",
    [
        ("gs://bucket/runs/", "gs://bucket/runs"),
        ("gs://bucket//runs///a", "gs://bucket/runs/a"),
        ("gs://bucket/", "gs://bucket"),
        ("s3://bucket//runs/", "s3://bucket/runs"),
        ("runs/a/", "runs/a/"),
    ],
)
def test_a_directory_has_one_name(workdir, name):
    argv = ["--config=configs/smoke.py", f"--workdir={workdir}"]
    assert commandline.parse(argv)[1] == name
    assert paths.absolute(name) == (name if "://" in name else os.path.abspath(name))


@pytest.mark.parametrize("workdir", ["gs://", "gs:///runs"])
def test_a_directory_in_no_bucket(workdir):
    with pytest.raises(UserError, match="gs://BUCKET/DIR"):
        commandline.parse(["--config=configs/smoke.py", f"--workdir={workdir}"])


@pytest.mark.parametrize(
    "path, scheme",
    [
        ("gs://bucket/file", "gs"),
        (pathlib.PurePosixPath("s3://bucket/file"), "s3"),
        ("s3:/bucket/file", ""),  # as text, with one slash, a folder on this disk
        ("file:///tmp/file", ""),
        ("nobody://bucket/file", ""),
        (pathlib.PurePosixPath("nobody://bucket/file"), ""),
        ("tfds:insects", ""),
    ],
)
def test_schemes(path, scheme):
    text = arguments.path("path", path)
    assert arguments.scheme(text) == scheme
    assert paths.is_remote(text) == bool(scheme)
    if scheme:
        assert text == f"{scheme}://bucket/file"
        assert refusals.bucket(text) == f"{scheme}://bucket"


# Any storage that fsspec knows, by that in this process's memory


@pytest.fixture
def memory():
    """A folder in memory, which is empty again afterwards."""
    folder = "memory://bucket"
    yield folder
    paths.remove(folder)


def test_files_in_memory(memory):
    files_are_found_and_replaced(
        f"{memory}/files", lambda: sorted(paths.objects(memory))
    )


def test_a_copy_is_renewed_where_its_object_is(memory):
    path = f"{memory}/file.json"
    with pytest.raises(FileNotFoundError, match=path):
        paths.here(path)
    files.write_json(path, {"one": 1})
    before, first = paths.version(path), paths.here(path)
    assert paths.here(path) == first and os.path.isfile(first)
    [(size, mark)] = paths.objects(memory).values()
    files.write_json(path, {"one": 2})
    assert paths.version(path) != before
    assert paths.here(path) != first and not os.path.exists(first)
    [(same_size, other_mark)] = paths.objects(memory).values()
    assert same_size == size and other_mark != mark


def test_weights_in_memory(memory, aux):
    params = params_of(aux)
    path = pathlib.PurePosixPath(f"{memory}/net.safetensors")
    weights.save(path, params, describe(aux))
    loaded, _ = weights.load(f"{memory}/net.safetensors")
    equal(params, loaded)
    with pytest.raises(UserError, match="there is no weights file memory://bucket/no"):
        weights.load(f"{memory}/none.safetensors")


def test_other_storages_have_no_locks(memory, capsys):
    command = ["--config=configs/smoke.py", f"--workdir={memory}/run"]
    assert main.main(command) == 2
    message = capsys.readouterr().err
    assert f"{memory}/run" in message and "only gs:// has locks here" in message
    assert not paths.exists(f"{memory}/run")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("NoCredentialsError", UserError),
        ("EndpointConnectionError", refusals.Unreachable),
    ],
)
def test_errors_of_the_library_for_s3(name, expected):
    error = type(name, (Exception,), {"__module__": "botocore.exceptions"})("why")
    explained = refusals.explained("s3://bucket/run", error)
    assert type(explained) is expected and "gcloud" not in str(explained)


# Files in a bucket


@pytest.mark.slow
def test_files_are_found_and_replaced(storage):
    files_are_found_and_replaced(f"{ROOT}/files", storage.names)


def files_are_found_and_replaced(folder, objects):
    """Below a folder called `files`, which is empty; `objects` lists all there are."""
    assert not paths.exists(folder) and paths.names(folder) == []
    files.write_json(f"{folder}/a/one.json", {"one": 1})
    files.write_json(f"{folder}/two.json", {"two": 2})
    assert documents.read_json(f"{folder}/a/one.json") == {"one": 1}
    files.write_json(f"{folder}/a/one.json", {"one": 11})  # the copy here is older
    assert documents.read_json(f"{folder}/a/one.json") == {"one": 11}
    assert paths.names(folder) == ["a", "two.json"]
    assert paths.folders(folder) == ["a"]
    assert paths.is_dir(f"{folder}/a") and not paths.is_file(f"{folder}/a")
    assert paths.is_file(f"{folder}/two.json") and not paths.is_dir(f"{folder}/tw")
    files.write_text(f"{folder}/b/old", "")
    paths.move(f"{folder}/a", f"{folder}/b")
    assert objects() == ["files/b/one.json", "files/two.json"]
    paths.remove(f"{folder}/b")
    paths.remove(f"{folder}/b")
    assert objects() == ["files/two.json"]


@pytest.mark.slow
@pytest.mark.filterwarnings(LARGE)
def test_a_large_file_is_sent_in_parts_and_whole(storage):
    content = np.random.default_rng(0).bytes(6 * 2**20)
    with files.replacing(f"{ROOT}/large.bin") as temporary:
        with open(temporary, "wb") as file:
            file.write(content)
        assert "large.bin" not in storage.names()
    assert any("resumable" in request for request in storage.requests)
    with open(paths.here(f"{ROOT}/large.bin"), "rb") as file:
        assert file.read() == content
    with pytest.raises(ValueError), files.replacing(f"{ROOT}/half.bin"):
        raise ValueError
    assert "half.bin" not in storage.names()


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def at_once(storage, monkeypatch):
    """Tries that follow each other without a pause."""

    async def sleep(seconds):
        pass

    retry = importlib.import_module("gcsfs.retry")
    monkeypatch.setattr(retry, "asyncio", types.SimpleNamespace(sleep=sleep))


@pytest.mark.slow
@pytest.mark.parametrize(
    "status, code, words",
    [
        (401, 2, "gcloud auth application-default login"),
        (403, 2, "Storage Admin on gs://bucket"),
        (400, 2, "see to the name and the settings of gs://bucket"),
        (429, 75, "cannot be reached"),
        (503, 75, "cannot be reached"),
    ],
)
def test_what_a_bucket_answers(
    storage, at_once, monkeypatch, capsys, status, code, words
):
    monkeypatch.setattr(storage, "status", status)
    command = ["--config=configs/smoke.py", f"--workdir={ROOT}/run"]
    assert main.main(command) == code
    err = capsys.readouterr().err
    assert err.count("sws_jax: ") == 1 and "Traceback" not in err
    assert words in err
    refused = Unsent if code == 75 else UserError
    with pytest.raises(refused, match="gs://bucket/run/file"):
        files.write_text(f"{ROOT}/run/file", "text")


@pytest.mark.slow
def test_a_bucket_that_nobody_serves(storage, at_once, monkeypatch):
    for address in (f"http://127.0.0.1:{_free_port()}", "http://nowhere.invalid"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        fsspec.filesystem("gcs").clear_instance_cache()
        with pytest.raises(refusals.Unreachable, match="gs://bucket/run cannot be"):
            paths.exists(f"{ROOT}/run")
        with pytest.raises(Unsent, match="gs://bucket/run/file"):
            files.write_text(f"{ROOT}/run/file", "text")
    monkeypatch.undo()
    fsspec.filesystem("gcs").clear_instance_cache()
    assert not paths.exists(f"{ROOT}/none")


@pytest.mark.slow
@pytest.mark.parametrize(
    "status, expected",
    [
        (None, refusals.Unreachable),  # there is no answer
        (503, refusals.Unreachable),
        (404, UserError),  # a machine without a service account
        (403, UserError),
    ],
)
def test_rights_of_a_machine(storage, monkeypatch, status, expected):
    """As the libraries tell of a machine of the cloud, whose rights are asked for."""
    from gcsfs.credentials import GoogleCredentials
    from google.auth import compute_engine

    host = os.environ["STORAGE_EMULATOR_HOST"].removeprefix("http://")
    monkeypatch.setattr(storage, "status", status)
    module = "google.auth.compute_engine._metadata._GCE_METADATA_HOST"
    monkeypatch.setattr(module, host if status else f"127.0.0.1:{_free_port()}")
    pause = types.SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr("google.auth._exponential_backoff.time", pause)
    credentials = GoogleCredentials("project", "read_write", "anon")
    credentials.credentials = compute_engine.Credentials()
    with pytest.raises(Exception) as raised:
        credentials.maybe_refresh()
    assert "Invalid Credentials" in str(raised.value)  # which may be untrue
    assert type(refusals.explained("gs://bucket/run", raised.value)) is expected


@pytest.mark.slow
def test_a_refresh_that_is_refused(storage):
    from google.auth import exceptions

    path = "gs://bucket/run"
    denied = refusals.explained(path, exceptions.RefreshError("invalid_grant"))
    assert isinstance(denied, UserError) and "Storage Admin" in str(denied)
    later = refusals.explained(path, exceptions.RefreshError("busy", retryable=True))
    assert isinstance(later, refusals.Unreachable)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "no")]
)
def test_a_disk_of_this_machine_is_no_bucket(error):
    assert refusals.explained("gs://bucket/run", error) is error


@pytest.mark.slow
def test_without_a_bucket(storage, capsys):
    command = ["--config=configs/smoke.py", "--workdir=gs://other/run"]
    assert main.main(command) == 2
    assert "buckets create gs://other" in capsys.readouterr().err
    with pytest.raises(Unwritable, match="gs://other/file"):
        files.write_text("gs://other/file", "text")


# The lock


@pytest.mark.slow
def test_one_at_a_time(storage):
    lock = f"{ROOT}/locks/lock"
    with locks.claimed(lock) as first:
        assert first and storage.names("locks/") == ["locks/lock"]
        for _ in range(2):  # being refused takes nothing from whoever holds it
            with locks.claimed(lock) as second:
                assert not second
    assert storage.names("locks/") == []
    with pytest.raises(OSError, match="full"), locks.claimed(lock):
        raise OSError("full")
    with locks.claimed(lock) as again:
        assert again


@pytest.mark.slow
def test_of_many_one_takes_a_lock_that_was_left(storage):
    """Its holder died without a word, and all that waited come at once."""
    took, together = [], threading.Barrier(6)
    end = threading.Event()

    def take():
        together.wait()
        with locks.claimed(f"{ROOT}/left/lock") as mine:
            took.append(mine)
            if mine:
                end.wait(30)
            elif len(took) == 6:
                end.set()

    storage.write("left/lock", b"{}", {"owner": "dead"})
    storage.objects["left/lock"].updated -= datetime.timedelta(
        seconds=lease.STALE_SECONDS + 1
    )
    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(took) < 6 and any(thread.is_alive() for thread in threads):
        threading.Event().wait(0.01)
    end.set()
    for thread in threads:
        thread.join()
    assert sorted(took) == [False] * 5 + [True]
    assert storage.names("left/") == []


@pytest.mark.slow
def test_a_lock_is_kept_fresh_and_its_loss_noticed(storage, monkeypatch):
    monkeypatch.setattr(lease, "FRESH_SECONDS", 0.05)
    ended = threading.Event()
    monkeypatch.setattr(_thread, "interrupt_main", lambda number: ended.set())
    with locks.claimed(f"{ROOT}/kept/lock") as mine:
        assert mine
        before = storage.objects["kept/lock"].generation
        while storage.objects["kept/lock"].generation < before + 3:
            assert not ended.wait(0.01)
        theirs = storage.write("kept/lock", b"{}", {"owner": "another"})
        assert ended.wait(10)
    # What another has taken is not removed.
    assert storage.described("kept/lock") == theirs


@pytest.mark.slow
def test_a_process_that_leaves_gives_its_locks_back(storage):
    with locks.claimed(f"{ROOT}/released/lock") as mine:
        assert mine
        lease.give_all()
        assert storage.names("released/") == []


# Checkpoints


@pytest.mark.slow
def test_a_broken_checkpoint_is_set_aside(storage, aux, caplog):
    run = f"{ROOT}/broken"
    saved = fill(run, aux, {1: 0.1, 2: 0.2})
    prefix = f"broken/{CHECKPOINTS}"
    damaged = [
        name
        for name in storage.names(f"{prefix}/2/params/")
        if "/d/" in name and len(storage.objects[name].data) > 1000
    ]
    assert damaged
    for name in damaged:
        data = bytearray(storage.objects[name].data)
        data[len(data) // 2] ^= 0x10
        storage.write(name, bytes(data))
    manager = Checkpoints(run)
    with caplog.at_level(logging.WARNING):
        restored = manager.restore_newest(abstract(aux))
    assert (restored.step, restored.clock) == (1, CLOCK)
    equal(saved[1], restored.items)
    assert f"moved to {run}/{BROKEN}" in caplog.text
    assert storage.names(f"broken/{BROKEN}/2/params/")
    assert not storage.names(f"{prefix}/2/")
    assert manager.steps() == [1]
    manager.close()


@pytest.mark.slow
def test_a_checkpoint_that_was_not_ended_is_removed(storage, aux):
    run = f"{ROOT}/half"
    fill(run, aux, {1: 0.1, 2: 0.2})
    prefix = f"half/{CHECKPOINTS}"
    del storage.objects[f"{prefix}/2/commit_success.txt"]
    assert load.load(run)[1] == f"{run} at step 1"
    manager = Checkpoints(run)
    assert manager.steps() == [1]
    assert not storage.names(f"{prefix}/2/")
    manager.close()


@pytest.mark.slow
def test_a_checkpoint_that_the_bucket_refuses(storage, aux, monkeypatch):
    """Another try would not help, so that no launcher makes one."""
    run = f"{ROOT}/rights"
    fill(run, aux, {1: 0.1})
    manager = Checkpoints(run)
    items, about = {"params": params_of(aux, seed=2)}, describe(aux, step=2)
    with monkeypatch.context() as broken, pytest.raises(Unwritable) as raised:
        broken.setattr(storage, "status", 403)
        manager.save(2, items, clock=CLOCK, description=about, val_top1=0.2)
        manager.wait()
    assert "a checkpoint in gs://bucket/rights" in str(raised.value)
    assert not isinstance(raised.value, Unsent)
    manager.close()
    manager = Checkpoints(run)
    assert manager.steps() == [1]
    manager.close()


# Data


@pytest.mark.slow
def test_a_prepared_set_is_brought_here_once(storage, tmp_path, capfd, monkeypatch):
    prepare(tmp_path / "made", SPLITS)
    put(storage, tmp_path / "made", "tfds")
    storage.write("tfds/insects/1.0.0/insects-train.tfrecord-0", b"not read")
    options = dict(val_fraction=0.25, image_size=12)
    cache = tmp_path / "cache"

    def load():
        return load_dataset(
            "tfds:insects", directory=f"{ROOT}/tfds", cache=str(cache), **options
        )

    monkeypatch.setattr(staging, "RESERVE", 2**60)
    with pytest.raises(UserError, match="make room, or give data.cache another"):
        load()
    monkeypatch.undo()
    copied = load()
    local = load_dataset("tfds:insects", directory=str(tmp_path / "made"), **options)
    for here, there in ((local.train, copied.train), (local.test, copied.test)):
        assert len(here) == len(there)
        for index in range(len(here)):
            equal(here.read(index), there.read(index))
    [target] = (cache / "bucket" / "tfds" / "insects").glob("*/1.0.0")
    assert f"are copied to {target}" in capfd.readouterr().out
    assert not list(target.glob("*.tfrecord*")) and not list(cache.rglob("lock"))

    # A copy that was broken off goes on with the files that are not whole.
    first, second, *_ = sorted(target.glob("*.array_record*"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:10])
    storage.requests.clear()
    load()
    fetched = {r.split("/o/")[1] for r in storage.requests if "alt=media" in r}
    assert len(fetched) == 2
    assert "2 of 5 files" in capfd.readouterr().out
    load()
    assert "copied" not in capfd.readouterr().out

    # Prepared again, with one other label: no file has another size.
    shards = [n for n in storage.names("tfds/insects/1.0.0/") if "-train." in n]
    data = storage.objects[shards[0]].data
    storage.write(shards[0], data[:-1] + bytes([data[-1] ^ 1]))
    load()
    out = capfd.readouterr().out
    assert "5 of 5 files" in out and f"to be removed: {target}" in out
    [other] = set((cache / "bucket" / "tfds" / "insects").glob("*/1.0.0")) - {target}
    name = shards[0].rpartition("/")[2]
    assert (other / name).read_bytes() != (target / name).read_bytes()


@pytest.mark.slow
def test_a_folder_of_images_is_refused(storage):
    storage.write("images/train/ant/1.png", b"")
    with pytest.raises(UserError, match="python -m sws_jax prepare SOURCE OUT"):
        load_dataset(f"{ROOT}/images")
    with pytest.raises(UserError, match="there is no dataset file gs://bucket/none"):
        load_dataset(f"{ROOT}/none.npz")


@pytest.mark.slow
def test_weights_of_other_programs_are_copied_first(storage, capsys):
    storage.write("theirs.safetensors", b"")
    command = ["convert", f"{ROOT}/theirs.safetensors", "ours.safetensors"]
    assert commands.main(command) == 2
    assert "gcloud storage cp gs://bucket/theirs" in capsys.readouterr().err


# A run


@pytest.mark.slow
def test_a_run_in_a_bucket(storage, tmp_path):
    """Stopped and resumed, with its data there too: the bits of a run on this disk,
    whose learngene and report are in the bucket."""
    job = Job.make(tmp_path)
    storage.write("digits.npz", job.data.read_bytes())
    changes = [
        "model.stages=(1,2)",
        f"schedule.total_epochs={steps(40)}",
        f"checkpoint.every_epochs={steps(20)}",
        f"evaluation.every_epochs={steps(20)}",
    ]
    there = [*changes, f"data.source={ROOT}/digits.npz"]
    work = f"{ROOT}/jobs/one"
    here = job.start(tmp_path / "local", *changes)
    process = job.start(work, *there)
    until(process, "step 3/40")
    assert "jobs/one/run/lock" in storage.names()
    process.send_signal(signal.SIGTERM)
    stopped = ended(process)
    assert stopped.code == 75, stopped.err
    assert "the same command goes on" in stopped.refusal()
    assert storage.names("jobs/one/run/checkpoints/")
    assert not storage.names("jobs/one/run/result.json")
    resumed = job.run(work, *there)
    assert resumed.code == 0, resumed.err
    assert "run: goes on from step" in resumed.out
    local = ended(here)
    assert local.code == 0, local.err
    assert outcome(work) == outcome(str(tmp_path / "local"))

    left = storage.names("jobs/one/")
    assert not any(name.endswith("/lock") or "tmp" in name for name in left)
    for name in ("results.csv", "table.md", "report.png", "config.json"):
        assert f"jobs/one/{name}" in left
    assert sum("tfevents" in name for name in left) == 2
    gene = sws_jax.load_learngene(f"{work}/run/{LEARNGENE_FILE}")
    own = sws_jax.load_learngene(str(tmp_path / "local" / "run" / LEARNGENE_FILE))
    equal(sws_jax.expand(own, depth=5).params, sws_jax.expand(gene, depth=5).params)
    assert load.load(f"{work}/run", depth=5)[0].spec.depth == 5
    shutil.rmtree(tmp_path / "local")


@pytest.mark.slow
def test_lines_are_sent_before_they_are_needed(storage, monkeypatch):
    run = f"{ROOT}/lines"
    writer = metrics.Writer(run)
    writer.write(1, {"loss": 3.0})
    assert metrics.read(run) == []
    writer.send()
    assert metrics.read(run) == [{"step": 1, "loss": 3.0}]
    monkeypatch.setattr(metrics, "_SEND_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(storage, "status", 403)
        with pytest.raises(UserError, match="Storage Admin"):
            writer.send()
    writer.write(2, {"loss": 2.0})
    assert [row["step"] for row in metrics.read(run)] == [1, 2]
    writer.close()
    again = metrics.Writer(run, step=1)  # what came after that step is written again
    again.write(2, {"loss": 1.0})
    again.close()
    assert [row["loss"] for row in metrics.read(run)] == [3.0, 1.0]
