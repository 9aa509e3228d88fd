"""``doctor`` where the work directory or the data is in a bucket."""

import pytest
from test_doctor import examined, only, said
from test_remote import LARGE, ROOT, put, storage  # noqa: F401  a fixture
from test_tfds import SPLITS, prepare

from sws_jax import doctor, files, rundir
from sws_jax.data import staging

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(LARGE)]


def test_a_work_directory_in_a_bucket(storage):  # noqa: F811
    work = f"{ROOT}/doctor/work"
    names = ["directory", "runs", "data", "disk"]
    found = examined(work, checks=names)
    assert {line.state for lines in found.values() for line in lines} == {doctor.OK}
    said(only(found, "directory"), doctor.OK, f"{work} can be made and written")
    said(only(found, "disk"), doctor.OK, "MiB of the bucket")
    assert storage.names("doctor/") == []
    with files.claimed(f"{work}/aux/{rundir.LOCK}"):
        found = examined(work, checks=["runs"])
        said(only(found, "runs"), doctor.WARNING, "another job is at aux")
    assert storage.names("doctor/") == []


def test_a_bucket_that_is_not_there(storage):  # noqa: F811
    found = examined("gs://other/work", checks=["directory"])
    said(only(found, "directory"), doctor.PROBLEM, "gs://other")


def test_data_that_a_run_would_copy(storage, tmp_path, monkeypatch):  # noqa: F811
    """Nothing is copied: a set may take hours. Where it is here, it is read."""
    prepare(tmp_path / "made", SPLITS)
    put(storage, tmp_path / "made", "doctor_tfds")
    cache = tmp_path / "cache"
    given = [
        "--config=configs/smoke.py",
        "--config.data.source=tfds:insects",
        f"--config.data.directory={ROOT}/doctor_tfds",
        f"--config.data.cache={cache}",
        "--config.data.image_size=12",
    ]
    checks = ["data", "reading", "mesh"]
    found = examined(tmp_path / "work", *given, checks=checks)
    first, second = found["data"]
    said(first, doctor.OK, f"are copied to {cache}/bucket/doctor_tfds/insects/1.0.0")
    said(second, doctor.LEFT_OUT, "a run copies them when it begins")
    said(only(found, "reading"), doctor.LEFT_OUT)
    assert not cache.exists()
    monkeypatch.setattr(staging, "RESERVE", 2**60)
    found = examined(tmp_path / "work", *given, checks=["data"])
    said(found["data"][0], doctor.PROBLEM, "give data.cache another directory")
    monkeypatch.undo()
    staging.staged(f"{ROOT}/doctor_tfds/insects/1.0.0", str(cache))
    found = examined(tmp_path / "work", *given, checks=checks)
    said(only(found, "data"), doctor.OK, "insects: ", "3 classes, 12 x 12 x 3")
    said(only(found, "reading"), doctor.OK)
