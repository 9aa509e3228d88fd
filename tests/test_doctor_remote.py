"""``doctor`` where the work directory or the data is in a bucket."""

import tempfile

import pytest

import sws_jax
from sws_jax import doctor, pixels, specs
from sws_jax.data import staging
from sws_jax.storage import locks
from sws_jax.storage.names import LOCK

from support.buckets import LARGE, ROOT, put
from support.digits import network_of
from support.examinations import SMOKE, examined, only, said
from support.networks import TINY
from support.tfds import CLASSES, SPLITS, prepare

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(LARGE)]


def test_a_work_directory_in_a_bucket(storage):
    work = f"{ROOT}/doctor/work"
    names = ["directory", "runs", "data", "disk"]
    found = examined(work, checks=names)
    assert {line.state for lines in found.values() for line in lines} == {doctor.OK}
    said(only(found, "directory"), doctor.OK, f"{work} can be made and written")
    said(only(found, "disk"), doctor.OK, "MiB of the bucket")
    assert storage.names("doctor/") == []
    with locks.claimed(f"{work}/aux/{LOCK}"):
        found = examined(work, checks=["runs"])
        said(only(found, "runs"), doctor.WARNING, "another job is at aux")
    assert storage.names("doctor/") == []


def test_a_bucket_that_is_not_there(storage):
    found = examined("gs://other/work", checks=["directory"])
    said(only(found, "directory"), doctor.PROBLEM, "gs://other")


def test_data_that_a_run_would_copy(storage, tmp_path, monkeypatch):
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
    known, copied, left_out = found["data"]
    held = f"{ROOT}/doctor_tfds/insects/1.0.0"
    said(known, doctor.OK, f"{held}: 24 train, 6 test images, 3 classes, 12 x 12 x 3")
    said(copied, doctor.OK, f"are copied to {cache}/bucket/doctor_tfds/insects/")
    said(left_out, doctor.LEFT_OUT, "a run copies them when it begins")
    said(only(found, "reading"), doctor.LEFT_OUT)
    assert not cache.exists()
    monkeypatch.setattr(staging, "RESERVE", 2**60)
    found = examined(tmp_path / "work", *given, checks=["data"])
    said(found["data"][1], doctor.PROBLEM, "give data.cache another directory")
    monkeypatch.undo()
    staging.staged(f"{ROOT}/doctor_tfds/insects/1.0.0", str(cache))
    found = examined(tmp_path / "work", *given, checks=checks)
    said(only(found, "data"), doctor.OK, "insects: ", "3 classes, 12 x 12 x 3")
    said(only(found, "reading"), doctor.OK)


@pytest.fixture
def unstaged(storage, tmp_path, monkeypatch):
    """Makes a set in the bucket that TFDS_DATA_DIR names; its config's arguments."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    cache = tmp_path / "cache"

    def make(*arguments, name="insects", **others):
        made = tmp_path / "made"
        prepare(made, SPLITS, name=name, **others)
        put(storage, made, "doctor_default")
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        monkeypatch.setenv("TFDS_DATA_DIR", f"{ROOT}/doctor_default/")
        given = f"--config.data.source=tfds:{name}", f"--config.data.cache={cache}"
        return [SMOKE, *given, *arguments]

    yield make
    assert not cache.exists() and list(temporary.iterdir()) == []


def test_data_in_a_bucket_that_the_environment_names(unstaged, tmp_path):
    """What a run would refuse after the copy is said before it."""
    given = unstaged("--config.data.image_size=8")
    checks = ["data", "teacher", "memory", "mesh", "disk"]
    missing = "--config.teacher.path=missing.safetensors"
    found = examined(tmp_path / "work", *given, missing, checks=checks)
    known, copied, left_out = found["data"]
    said(known, doctor.OK, "24 train, 6 test images, 3 classes, 8 x 8 x 3")
    said(copied, doctor.OK, "are copied to")
    said(left_out, doctor.LEFT_OUT)
    said(only(found, "teacher"), doctor.PROBLEM, "no weights file missing.safetensors")
    said(only(found, "memory"), doctor.LEFT_OUT, "needs teacher")
    said(only(found, "disk"), doctor.OK)


def test_weights_beside_data_in_a_bucket(unstaged, tmp_path):
    """Classes are compared; and where images have no known size, as far as it goes."""
    sizeless = unstaged()
    three = {**TINY, "channels": 3, "num_classes": 3}
    path, spec = tmp_path / "net.safetensors", specs.ViTSpec(depth=2, **three)
    look = dict(normalization=pixels.default_normalization(3))
    found = network_of(spec, class_names=tuple(CLASSES), **look)
    sws_jax.save_network(str(path), found)
    taught = f"--config.teacher.path={path}"
    for given in (sizeless, [*sizeless, "--config.data.image_size=8"]):
        found = examined(tmp_path / "work", *given, taught, checks=["data", "teacher"])
        said(only(found, "teacher"), doctor.OK, f"{path}: vit_w16h2_patch4_L2")
        assert "is not known" not in only(found, "teacher").text
    single = ["--config=configs/scratch_deit.py", *sizeless[1:]]
    single.append(f"--config.init.network={path}")
    checks = ["data", "weights", "disk"]
    found = examined(tmp_path / "work", *single, checks=checks)
    said(found["data"][0], doctor.OK, "3 classes, 3 channels")
    said(only(found, "weights"), doctor.OK, f"{path}: ", "is not known")
    said(only(found, "disk"), doctor.LEFT_OUT, "how large images are")
    single.append("--config.data.image_size=8")
    found = examined(tmp_path / "work", *single, checks=checks)
    said(only(found, "weights"), doctor.OK, "head inherited")
    spec = specs.ViTSpec(depth=2, **{**three, "num_classes": 5})
    sws_jax.save_network(str(path), network_of(spec, class_names=(), **pixels))
    found = examined(tmp_path / "work", *sizeless, taught, checks=["data", "teacher"])
    said(only(found, "teacher"), doctor.PROBLEM, "has 5 classes and insects has 3")


def test_a_well_known_set_in_a_bucket_that_is_not_whole(unstaged, tmp_path):
    found = examined(tmp_path / "work", *unstaged(name="imagenet2012"), checks=["data"])
    lacking = "train has 24 images of 1,281,167 and validation has 0 images of 50,000"
    said(found["data"][0], doctor.WARNING, lacking)


def test_a_set_in_a_bucket_that_no_run_could_read(unstaged, tmp_path):
    given = unstaged(label=(None, None))
    line = only(examined(tmp_path / "work", *given, checks=["data"]), "data")
    said(line, doctor.PROBLEM, "needs a feature image of 8 bits and a feature label")
