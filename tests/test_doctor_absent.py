"""``doctor`` where data, a bucket or processes are not there, or not all of them."""

import jax
import pytest

from sws_jax import doctor, pixels
from sws_jax.data import base
from sws_jax.doctor import devices, inputs
from sws_jax.doctor.base import Case
from sws_jax.jobs import commandline
from sws_jax.runtime.rendezvous import Start
from sws_jax.storage import paths

from support.examinations import SMOKE, examined, expect, on, only
from support.images import fill
from support.jobs import free_port

SINGLE = "--config=configs/scratch_deit.py"
NO_DATA = "--config.data.source=nosuch.npz"


# Data


def test_without_data_the_files_of_weights_are_looked_at(teacher, tmp_path):
    """A teacher, and a network to start from, by themselves."""
    taught = [SMOKE, NO_DATA, f"--config.teacher.path={teacher}"]
    starting = [SINGLE, NO_DATA, f"--config.init.network={teacher}"]
    for check, flags in (("teacher", taught), ("weights", starting)):
        line = only(examined(tmp_path / "work", *flags, checks=["data", check]), check)
        expect(line, doctor.OK, f"{teacher}: vit_w16h2_patch4_L2", "is not known")
    teacher.write_bytes(teacher.read_bytes()[:-100])
    for check, flags in (("teacher", taught), ("weights", starting)):
        line = only(examined(tmp_path / "work", *flags, checks=["data", check]), check)
        expect(line, doctor.PROBLEM, "not a readable .safetensors file")
    teacher.unlink()
    for check, flags in (("teacher", taught), ("weights", starting)):
        line = only(examined(tmp_path / "work", *flags, checks=["data", check]), check)
        expect(line, doctor.PROBLEM, f"there is no weights file {teacher}")


def test_a_learngene_without_data(teacher, tmp_path):
    """A network's file is none."""
    flags = [SINGLE, NO_DATA, f"--config.init.learngene={teacher}"]
    findings = examined(tmp_path / "work", *flags, checks=["data", "weights"])
    expect(only(findings, "weights"), doctor.PROBLEM, "not a learngene")


def test_a_well_known_set_that_is_not_whole(tmp_path):
    folder = fill(tmp_path / "imagenet2012", {"train": 4, "val": 1}, size=(16, 16))
    warned, well = examined(tmp_path, *on(folder), checks=["data"])["data"]
    lacking = "train has 12 images of 1,281,167 and validation has 3 images of 50,000"
    expect(warned, doctor.WARNING, lacking, "python -m sws_jax prepare")
    expect(well, doctor.OK, "imagenet2012: ")


@pytest.mark.parametrize(
    "name, counts, is_whole",
    [
        ("imagenet2012", (1_281_167, 50_000, 100_000), True),
        ("imagenet2012-256", (1_281_167, 50_000, 1), True),
        ("imagenet2012-256", (1_281_166, 50_000, 1), False),
        ("imagenet2012", (1_281_167, 49_999, 1), False),
        ("imagenet_v2", (20, 2, 2), True),
    ],
)
@pytest.mark.parametrize("is_held_out", [True, False])
def test_the_counts_of_well_known_sets(name, counts, is_whole, is_held_out):
    """Whether validation images are the set's own, or held out of the others."""

    class Split:
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def read(self, index):
            raise AssertionError("nothing is read for that")

    train, val, test = map(Split, counts)
    if is_held_out:
        test = val
        train, val = base.hold_out(train, 0.1)
    dataset = base.Dataset(
        name, train, val, test, ("a", "b"), (8, 8, 3), pixels.default_normalization(3)
    )
    assert [line.state for line in inputs._not_whole(dataset)] == (
        [] if is_whole else [doctor.WARNING]
    )


# A bucket that does not answer


class Silent:
    """A storage library whose every question fails, after all its tries."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        def ask(path, *args, **settings):
            self.asked.append(path)
            raise ConnectionError("no route to host")

        return ask


@pytest.mark.parametrize(
    "arguments, well, left_out",
    [
        (
            [SMOKE, "--config.teacher.path=gs://silent/teacher.safetensors"],
            ["data", "weights"],
            ["runs", "teacher", "disk", "memory"],
        ),
        (
            [
                SINGLE,
                "--config.data.source=tfds:insects",
                "--config.data.directory=gs://silent/data",
                "--config.data.image_size=8",
                "--config.init.network=gs://silent/network.safetensors",
            ],
            ["teacher"],
            ["runs", "data", "reading", "weights", "disk", "memory"],
        ),
    ],
)
def test_a_bucket_that_does_not_answer(arguments, well, left_out, monkeypatch):
    """It is asked once, since the libraries try for half a minute."""
    silent = Silent()
    monkeypatch.setattr(paths, "_file_system", lambda path: (silent, path))
    names = ["directory", "mesh", "reading", *well, *left_out]
    findings = examined("gs://silent/work", *arguments, checks=names)
    assert silent.asked == ["gs://silent/work"]
    expect(
        only(findings, "directory"),
        doctor.PROBLEM,
        "gs://silent/work cannot be reached",
    )
    for name in left_out:
        expect(only(findings, name), doctor.LEFT_OUT, "needs ")
    for name in well:
        assert {line.state for line in findings[name]} == {doctor.OK}, findings[name]


def test_data_in_a_bucket_that_does_not_answer(tmp_path, monkeypatch):
    """What else is there is not asked for."""
    silent = Silent()
    monkeypatch.setattr(paths, "_file_system", lambda path: (silent, path))
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://silent/data")
    flags = [SMOKE, "--config.data.source=tfds:insects"]
    flags.append("--config.teacher.path=gs://silent/teacher.safetensors")
    findings = examined(tmp_path / "work", *flags, checks=["data", "teacher"])
    assert silent.asked == ["gs://silent/data"]
    expect(only(findings, "data"), doctor.PROBLEM, "gs://silent/data cannot be reached")
    expect(
        only(findings, "teacher"), doctor.LEFT_OUT, "needs gs://silent, which does not"
    )


# Processes


def test_doctor_waits_no_longer_than_its_minute_allows():
    job = commandline.parse([SMOKE])
    assert Case(*job, Start()).start.start_timeout == 30
    assert Case(*job, Start(start_timeout=6)).start.start_timeout == 6


def test_devices_of_a_host_whose_process_is_apart(tmp_path, monkeypatch):
    """They are not asked, and so are not reported as missing."""
    (tmp_path / "accel0").touch()
    monkeypatch.setattr(devices, "_TPUS", str(tmp_path / "accel[0-9]*"))
    platforms = jax.config.jax_platforms
    start = Start(f"localhost:{free_port()}", 2, 1, start_timeout=1)
    case = Case(*commandline.parse([SMOKE, f"--workdir={tmp_path}"]), start)
    names = ("config", "processes", "devices", "mesh")
    checks = [check for check in doctor.CHECKS if check.name in names]
    try:
        lines = doctor.examine(case, lambda line: None, checks=checks)
    finally:
        jax.config.update("jax_platforms", platforms)
    config, apart, left_out, mesh = (line.finding for line in lines)
    expect(config, doctor.OK)
    expect(apart, doctor.PROBLEM, "cannot reach process 0", "start all within 1 s")
    expect(left_out, doctor.LEFT_OUT, "once all processes are there")
    expect(mesh, doctor.LEFT_OUT, "needs devices")
