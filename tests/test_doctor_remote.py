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
from support.examinations import SMOKE, examined, expect, only
from support.networks import TINY
from support.tfds import CLASSES, SPLITS, prepare

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(LARGE)]


def test_a_work_directory_in_a_bucket(storage):
    work = f"{ROOT}/doctor/work"
    names = ["directory", "runs", "data", "disk"]
    findings = examined(work, checks=names)
    assert {line.state for lines in findings.values() for line in lines} == {doctor.OK}
    expect(only(findings, "directory"), doctor.OK, f"{work} can be made and written")
    expect(only(findings, "disk"), doctor.OK, "MiB of the bucket")
    assert storage.names("doctor/") == []
    with locks.claimed(f"{work}/aux/{LOCK}"):
        findings = examined(work, checks=["runs"])
        expect(only(findings, "runs"), doctor.WARNING, "another job is at aux")
    assert storage.names("doctor/") == []


def test_a_bucket_that_is_not_there(storage):
    findings = examined("gs://other/work", checks=["directory"])
    expect(only(findings, "directory"), doctor.PROBLEM, "gs://other")


def test_data_that_a_run_would_copy(storage, tmp_path, monkeypatch):
    """Nothing is copied: a set may take hours. Where it is here, it is read."""
    prepare(tmp_path / "made", SPLITS)
    put(storage, tmp_path / "made", "doctor_tfds")
    cache = tmp_path / "cache"
    flags = [
        "--config=configs/smoke.py",
        "--config.data.source=tfds:insects",
        f"--config.data.directory={ROOT}/doctor_tfds",
        f"--config.data.cache={cache}",
        "--config.data.image_size=12",
    ]
    checks = ["data", "reading", "mesh"]
    findings = examined(tmp_path / "work", *flags, checks=checks)
    known, copied, left_out = findings["data"]
    directory = f"{ROOT}/doctor_tfds/insects/1.0.0"
    expect(
        known,
        doctor.OK,
        f"{directory}: 24 train, 6 test images, 3 classes, 12 x 12 x 3",
    )
    expect(copied, doctor.OK, f"are copied to {cache}/bucket/doctor_tfds/insects/")
    expect(left_out, doctor.LEFT_OUT, "a run copies them when it begins")
    expect(only(findings, "reading"), doctor.LEFT_OUT)
    assert not cache.exists()
    monkeypatch.setattr(staging, "RESERVE", 2**60)
    findings = examined(tmp_path / "work", *flags, checks=["data"])
    expect(findings["data"][1], doctor.PROBLEM, "give data.cache another directory")
    monkeypatch.undo()
    staging.staged(f"{ROOT}/doctor_tfds/insects/1.0.0", str(cache))
    findings = examined(tmp_path / "work", *flags, checks=checks)
    expect(only(findings, "data"), doctor.OK, "insects: ", "3 classes, 12 x 12 x 3")
    expect(only(findings, "reading"), doctor.OK)


@pytest.fixture
def unstaged(storage, tmp_path, monkeypatch):
    """Makes a set in the bucket that TFDS_DATA_DIR names; its config's arguments."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    cache = tmp_path / "cache"

    def make(*arguments, name="insects", **others):
        prepared_set = tmp_path / "prepared"
        prepare(prepared_set, SPLITS, name=name, **others)
        put(storage, prepared_set, "doctor_default")
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        monkeypatch.setenv("TFDS_DATA_DIR", f"{ROOT}/doctor_default/")
        flags = f"--config.data.source=tfds:{name}", f"--config.data.cache={cache}"
        return [SMOKE, *flags, *arguments]

    yield make
    assert not cache.exists() and list(temporary.iterdir()) == []


def test_data_in_a_bucket_that_the_environment_names(unstaged, tmp_path):
    """What a run would refuse after the copy is refused before it."""
    flags = unstaged("--config.data.image_size=8")
    checks = ["data", "teacher", "memory", "mesh", "disk"]
    missing = "--config.teacher.path=missing.safetensors"
    findings = examined(tmp_path / "work", *flags, missing, checks=checks)
    known, copied, left_out = findings["data"]
    expect(known, doctor.OK, "24 train, 6 test images, 3 classes, 8 x 8 x 3")
    expect(copied, doctor.OK, "are copied to")
    expect(left_out, doctor.LEFT_OUT)
    expect(
        only(findings, "teacher"), doctor.PROBLEM, "no weights file missing.safetensors"
    )
    expect(only(findings, "memory"), doctor.LEFT_OUT, "needs teacher")
    expect(only(findings, "disk"), doctor.OK)


def test_weights_beside_data_in_a_bucket(unstaged, tmp_path):
    """Classes are compared; and where images have no known size, as far as it goes."""
    sizeless = unstaged()
    three = {**TINY, "channels": 3, "num_classes": 3}
    path, spec = tmp_path / "net.safetensors", specs.ViTSpec(depth=2, **three)
    look = dict(normalization=pixels.default_normalization(3))
    findings = network_of(spec, class_names=tuple(CLASSES), **look)
    sws_jax.save_network(str(path), findings)
    taught = f"--config.teacher.path={path}"
    for flags in (sizeless, [*sizeless, "--config.data.image_size=8"]):
        findings = examined(
            tmp_path / "work", *flags, taught, checks=["data", "teacher"]
        )
        expect(only(findings, "teacher"), doctor.OK, f"{path}: vit_w16h2_patch4_L2")
        assert "is not known" not in only(findings, "teacher").text
    single = ["--config=configs/scratch_deit.py", *sizeless[1:]]
    single.append(f"--config.init.network={path}")
    checks = ["data", "weights", "disk"]
    findings = examined(tmp_path / "work", *single, checks=checks)
    expect(findings["data"][0], doctor.OK, "3 classes, 3 channels")
    expect(only(findings, "weights"), doctor.OK, f"{path}: ", "is not known")
    expect(only(findings, "disk"), doctor.LEFT_OUT, "how large images are")
    single.append("--config.data.image_size=8")
    findings = examined(tmp_path / "work", *single, checks=checks)
    expect(only(findings, "weights"), doctor.OK, "head inherited")
    spec = specs.ViTSpec(depth=2, **{**three, "num_classes": 5})
    sws_jax.save_network(str(path), network_of(spec, class_names=(), **look))
    findings = examined(
        tmp_path / "work", *sizeless, taught, checks=["data", "teacher"]
    )
    expect(only(findings, "teacher"), doctor.PROBLEM, "has 5 classes and insects has 3")


def test_a_well_known_set_in_a_bucket_that_is_not_whole(unstaged, tmp_path):
    findings = examined(
        tmp_path / "work", *unstaged(name="imagenet2012"), checks=["data"]
    )
    lacking = "train has 24 images of 1,281,167 and validation has 0 images of 50,000"
    expect(findings["data"][0], doctor.WARNING, lacking)


def test_a_set_in_a_bucket_that_no_run_could_read(unstaged, tmp_path):
    flags = unstaged(label=(None, None))
    line = only(examined(tmp_path / "work", *flags, checks=["data"]), "data")
    expect(line, doctor.PROBLEM, "needs a feature image of 8 bits and a feature label")
