"""``doctor``: every check on a job that is well, and on what it is there to find."""

import importlib.metadata
import itertools
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import convert, doctor, pixels, specs
from sws_jax.data import fingerprint
from sws_jax.doctor import devices, software
from sws_jax.doctor.base import Case, Check
from sws_jax.jobs import commandline, records
from sws_jax.runtime import host
from sws_jax.runtime.rendezvous import Start
from sws_jax.storage import documents, files, locks
from sws_jax.storage.names import INPUTS, LOCK, RESULT

from support.children import CONFIG, environment
from support.digits import DIGITS, network_of
from support.disks import Disk
from support.examinations import SMOKE, examined, expect, on, only
from support.images import fill
from support.jobs import Job
from support.networks import TINY

ROOT = pathlib.Path(__file__).parent.parent
DOCTOR = (sys.executable, "-m", "sws_jax", "doctor")


def test_a_job_that_is_well(tmp_path, capsys):
    """Findings are printed at once; nothing stays, not even the work directory."""
    work = tmp_path / "new" / "work"
    assert tools.main(["doctor", SMOKE, f"--workdir={work}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert "1,257 train, 140 val, 400 test images, 10 classes" in lines[7]
    assert "aux: the job trains it itself (ancestor)" in "".join(lines)
    assert lines[-1].startswith("all is well; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config=configs/nosuch.py"], "there is no config file"),
        ([SMOKE, "--config.nosuch=1"], "there is no field config.nosuch"),
        ([SMOKE, "--coordinator=localhost:1"], "all three or none"),
        ([], "--config=FILE is missing"),
    ],
)
def test_a_request_that_cannot_be_read(arguments, words, capsys):
    assert tools.main(["doctor", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_config_that_refuses_itself(tmp_path, capsys):
    """Said of each run that it is true of; what hangs on it is left out."""
    findings = examined(
        tmp_path, "--config.tune.ema=2.0", "--config.seed=-1", checks=["mesh", "data"]
    )
    expect(findings["config"][0], doctor.PROBLEM, "ancestor, aux, ", "seed")
    expect(only(findings, "mesh"), doctor.LEFT_OUT, "needs config")
    expect(only(findings, "data"), doctor.OK)
    code = tools.main(["doctor", SMOKE, "--config.ema=2.0", f"--workdir={tmp_path}"])
    assert code == 1
    assert "ema must be in [0, 1), and is 2.0" in capsys.readouterr().out


def test_a_check_that_fails_itself_hides_no_other(tmp_path, capsys):
    def broken(case):
        yield doctor.Finding(doctor.OK, "so far")
        raise KeyError("nobody thought of it")

    def well(case):
        yield doctor.Finding(doctor.OK, "well")

    checks = [
        Check("one", broken),
        Check("two", well),
        Check("three", well, ("one",)),
        Check("four", well, ("three",)),
        Check("five", well, unless=("three",)),
    ]
    case = Case(*commandline.parse([SMOKE]), Start())
    lines = doctor.examine(case, lambda line: None, checks=checks, verbose=True)
    states = [(line.check, line.finding.state) for line in lines]
    assert states == [
        ("one", doctor.OK),
        ("one", doctor.PROBLEM),
        ("two", doctor.OK),
        ("three", doctor.LEFT_OUT),
        ("four", doctor.LEFT_OUT),
        ("five", doctor.OK),
    ]
    assert "KeyError: 'nobody thought of it'" in lines[1].finding.text
    assert "Traceback" in capsys.readouterr().err


# What is installed, and what computes


def test_versions_that_do_not_fit(tmp_path, monkeypatch):
    wanted = "flax>=99", "no-such-package>=1", "numpy<2"
    monkeypatch.setattr(software, "requirements", lambda: map(Requirement, wanted))
    # A plugin as pip leaves it, of another version than jaxlib.
    about = tmp_path / "jax_cuda13_plugin-0.1.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: jax-cuda13-plugin\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    old, absent, new, plugin = examined(tmp_path, checks=["versions"])["versions"]
    expect(old, doctor.PROBLEM, "is too old (>=99)", 'pip install "flax>=99"')
    expect(absent, doctor.PROBLEM, "not installed", 'pip install "no-such-package>=1"')
    expect(new, doctor.WARNING, "numpy", "newer than what this was tested with")
    jaxlib = importlib.metadata.version("jaxlib")
    expect(plugin, doctor.PROBLEM, f"pip install jax-cuda13-plugin=={jaxlib}")


def test_the_requirements_are_those_of_the_file():
    names = {requirement.name for requirement in software.requirements()}
    assert {"jax", "flax", "optax", "orbax-checkpoint", "grain", "packaging"} <= names


@pytest.mark.parametrize(
    "name, driver, platforms, words",
    [
        ("nvidia0", "580.65.06", None, ("1 NVIDIA GPU", 'install "jax[cuda13]"')),
        ("nvidia0", "550.54.15", None, ("1 NVIDIA GPU", 'install "jax[cuda12]"')),
        ("nvidia0", "580.65.06", "cpu", ("unset JAX_PLATFORMS",)),
        ("accel0", "", None, ("this host has TPUs", 'install "jax[tpu]"')),
        ("passed0 vendor1", "", None, ("this host has TPUs", 'install "jax[tpu]"')),
        ("accel0 libtpu.py", "", None, ("see why", "JAX_PLATFORMS=tpu python -c")),
    ],
)
def test_an_accelerator_that_jax_does_not_see(
    name, driver, platforms, words, tmp_path, monkeypatch
):
    """The host shows its device file (here one of a folder), and JAX a CPU."""
    for each in name.split():
        (tmp_path / each).write_text("0x1ae0\n" if "vendor" in each else "")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "version").write_text(f"NVRM version: Kernel Module  {driver}  Wed\n")
    monkeypatch.setattr(devices, "_GPUS", str(tmp_path / "nvidia[0-9]*"))
    monkeypatch.setattr(devices, "_TPUS", str(tmp_path / "accel[0-9]*"))
    monkeypatch.setattr(devices, "_PASSED", str(tmp_path / "passed[0-9]*"))
    monkeypatch.setattr(devices, "_VENDORS", str(tmp_path / "vendor*"))
    monkeypatch.setattr(devices, "_NVIDIA", str(tmp_path / "version"))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    findings = examined(tmp_path, checks=["devices"])
    expect(only(findings, "devices"), doctor.PROBLEM, "8 x cpu (cpu) alone", *words)


@pytest.mark.parametrize(
    "override, words",
    [
        ("mesh.data=3", "does not fit 8 devices"),
        ("global_batch_size=12", "global_batch_size 12 does not divide over 8 devices"),
    ],
)
def test_a_mesh_that_does_not_divide(override, words, tmp_path):
    findings = examined(tmp_path, f"--config.{override}", checks=["mesh", "memory"])
    expect(only(findings, "mesh"), doctor.PROBLEM, "ancestor, aux, ", words)
    expect(only(findings, "memory"), doctor.LEFT_OUT, "needs mesh")


def test_memory_that_is_too_small(tmp_path):
    """A million images in a step of a wide network ask for more than this host has."""
    findings = examined(
        tmp_path,
        "--config=configs/scratch_deit.py",
        f"--config.global_batch_size={2**20}",
        "--config.model.width=4096",
        f"--config.schedule.total_epochs={2**12}",
        checks=["data", "mesh", "memory"],
    )
    line = only(findings, "memory")
    expect(line, doctor.PROBLEM, "of this host", "mesh.dry_run=8", "accum_steps")


def test_memory_that_a_container_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_GROUPS", str(tmp_path))
    (tmp_path / "memory.max").write_text("1000000\n")
    findings = examined(tmp_path, checks=["mesh", "data", "memory"])
    expect(only(findings, "memory"), doctor.PROBLEM, "977 KiB of this host")


def test_a_device_that_is_passed_through_is_not_always_a_tpu(tmp_path, monkeypatch):
    (tmp_path / "passed0").touch()
    (tmp_path / "vendor0").write_text("0x8086\n")
    monkeypatch.setattr(devices, "_PASSED", str(tmp_path / "passed[0-9]*"))
    monkeypatch.setattr(devices, "_VENDORS", str(tmp_path / "vendor*"))
    assert devices._passed_through() == []


# The work directory


def test_a_directory_of_another_config(tmp_path):
    config, _ = commandline.parse([SMOKE, "--config.seed=5"])
    files.write_json(str(tmp_path / "config.json"), documents.plain(config.to_dict()))
    before = sorted(tmp_path.rglob("*"))
    findings = examined(tmp_path, checks=["runs"])
    expect(
        only(findings, "runs"),
        doctor.PROBLEM,
        "another config",
        "(it differs in",
        "seed",
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_another_job_is_at_a_run(tmp_path):
    lock = tmp_path / "aux" / LOCK
    with locks.claimed(str(lock)):
        findings = examined(tmp_path, checks=["runs"])
        expect(only(findings, "runs"), doctor.WARNING, "another job is at aux")
        assert lock.exists()
    lock.parent.mkdir()
    lock.touch()  # left by a process that was killed: nobody's
    expect(only(examined(tmp_path, checks=["runs"]), "runs"), doctor.OK)
    assert lock.exists()


@pytest.fixture
def disk(tmp_path):
    small = Disk(tmp_path / "disk")
    yield small if small.usable else pytest.skip("this system mounts nothing for users")
    small.close()


def test_a_directory_that_cannot_be_written(disk):
    disk.remount("ro")
    findings = examined(disk.path / "work", checks=["directory", "runs"])
    line = only(findings, "directory")
    expect(line, doctor.PROBLEM, "(Read-only file system): take another --workdir")
    expect(only(findings, "runs"), doctor.LEFT_OUT, "needs directory")


def test_a_disk_that_is_too_small(disk):
    disk.free(1024)
    findings = examined(disk.path / "work", checks=["directory", "data", "disk"])
    expect(only(findings, "directory"), doctor.OK)
    line = only(findings, "disk")
    expect(line, doctor.PROBLEM, "1 MiB are free", "checkpoint.keep_last")
    assert list(disk.path.iterdir()) == []
    disk.remount("size=64m")
    expect(only(examined(disk.path, checks=["data", "disk"]), "disk"), doctor.OK)


def test_what_is_done_takes_no_more_disk(tmp_path):
    whole = only(examined(tmp_path, checks=["data", "disk"]), "disk").text
    config, _ = commandline.parse([SMOKE])
    for row in doctor.software.runs(config):
        if row.name != "ancestor":
            files.write_json(str(tmp_path / row.name / RESULT), {})
    rest = only(examined(tmp_path, checks=["data", "disk"]), "disk").text
    assert "MiB, and" in whole and "KiB, and" in rest


# Data


def test_a_set_that_is_not_there(tmp_path):
    findings = examined(
        tmp_path,
        "--config.data.source=nosuch.npz",
        checks=["data", "reading", "teacher", "weights", "disk", "memory"],
    )
    expect(
        only(findings, "data"), doctor.PROBLEM, "there is no dataset file nosuch.npz"
    )
    for name in ("reading", "disk", "memory"):
        expect(only(findings, name), doctor.LEFT_OUT, "needs data")
    for name in ("teacher", "weights"):
        assert {line.state for line in findings[name]} == {doctor.OK}


def test_a_tfds_set_that_is_not_prepared(tmp_path):
    findings = examined(
        tmp_path,
        "--config.data.source=tfds:mnist",
        f"--config.data.directory={tmp_path}",
        checks=["data"],
    )
    command = f"python -m sws_jax prepare tfds:mnist {tmp_path}"
    expect(only(findings, "data"), doctor.PROBLEM, "is not prepared", command)


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "images", {"train": 20, "test": 2}, size=(16, 16))


def test_a_broken_image(folder, tmp_path):
    assert only(examined(tmp_path, *on(folder), checks=["data"]), "data").state == "ok"
    broken = folder / "train" / "bee" / "007.png"
    broken.write_bytes(broken.read_bytes()[:40])
    findings = examined(tmp_path, *on(folder), checks=["data", "reading"])
    expect(
        only(findings, "data"), doctor.PROBLEM, "bee/007.png is not a readable image"
    )
    expect(only(findings, "reading"), doctor.LEFT_OUT)


def test_a_broken_image_that_a_batch_finds(tmp_path):
    """Of many images a few are looked at; a batch holds others."""
    folder = fill(tmp_path / "images", {"train": 120, "test": 2}, size=(16, 16))
    for path in sorted(folder.glob("train/bee/*.png"))[1::2]:
        path.write_bytes(b"cut")
    settings = (*on(folder), "--config.data.unreadable=skip")
    findings = examined(tmp_path, *settings, checks=["data", "reading"])
    expect(
        findings["reading"][0], doctor.WARNING, "could not be read and were passed over"
    )


def test_images_that_are_empty(tmp_path):
    images, labels = np.zeros((60, 8, 8, 1), np.uint8), np.arange(60) % 10
    path = tmp_path / "empty.npz"
    arrays = dict(
        train_images=images, train_labels=labels, class_names=list("abcdefghij")
    )
    np.savez(path, **arrays, test_images=images, test_labels=labels)
    findings = examined(
        tmp_path, f"--config.data.source={path}", checks=["data", "reading"]
    )
    expect(findings["reading"][0], doctor.PROBLEM, "all pixels of a batch are 0")


def test_other_data_than_a_run_began_on(tmp_path):
    then = fingerprint.take(DIGITS)
    then["train"] = {"images": 1257, "samples": ["other"] * 4}
    files.write_json(str(tmp_path / "aux" / INPUTS), {records.DATA: then})
    findings = examined(tmp_path, checks=["data"])
    expect(
        findings["data"][0], doctor.PROBLEM, "aux holds a run on other data", "train"
    )


# Teachers, and what runs start from


def taught(path, tmp_path):
    flags = f"--config.teacher.path={path}"
    findings = examined(tmp_path / "work", flags, checks=["data", "teacher"])
    return findings["teacher"]


def test_a_teacher_that_fits(teacher, tmp_path):
    (line,) = taught(teacher, tmp_path)
    expect(line, doctor.OK, "vit_w16h2_patch4_L2, 10 classes")


def test_a_teacher_that_is_cut_off(teacher, tmp_path):
    teacher.write_bytes(teacher.read_bytes()[:-100])
    (line,) = taught(teacher, tmp_path)
    expect(line, doctor.PROBLEM, "not a readable .safetensors file", "copy it again")


def test_a_teacher_of_other_classes(tmp_path):
    path = tmp_path / "five.safetensors"
    spec = specs.ViTSpec(depth=2, **{**TINY, "num_classes": 5})
    sws_jax.save_network(str(path), network_of(spec, class_names=tuple("abcde")))
    (line,) = taught(path, tmp_path)
    expect(line, doctor.PROBLEM, "has 5 classes and digits has 10")


def test_a_teacher_whose_classes_have_other_names(teacher, tmp_path):
    spec = specs.ViTSpec(depth=2, **TINY)
    network = network_of(spec, class_names=tuple("zyxwvutsrq"))
    sws_jax.save_network(str(teacher), network)
    warned, well = taught(teacher, tmp_path)
    expect(warned, doctor.WARNING, "have other names than those of digits")
    expect(well, doctor.OK)


def test_a_teacher_that_says_no_numbers(teacher, tmp_path):
    spec = specs.ViTSpec(depth=2, **TINY)
    network = network_of(spec)
    network.params["norm"]["scale"][0] = np.nan
    sws_jax.save_network(str(teacher), network)
    (line,) = taught(teacher, tmp_path)
    expect(line, doctor.PROBLEM, "values in norm/scale that are not numbers")


def test_a_teacher_of_another_program(tmp_path):
    """It can be converted, and the advice is the command; or it cannot."""
    theirs = tmp_path / "theirs.safetensors"
    convert.save(str(theirs), network_of(specs.ViTSpec(depth=2, **TINY)), "flax")
    (line,) = taught(theirs, tmp_path)
    expect(line, doctor.PROBLEM, "another program's", f"sws_jax convert {theirs}")
    strange = tmp_path / "strange.npz"
    np.savez(strange, some=np.zeros(3))
    (line,) = taught(strange, tmp_path)
    expect(
        line, doctor.PROBLEM, "cannot be converted", "holds no network that is known"
    )


def test_weights_to_start_from(teacher, tmp_path):
    flags = f"--config.init.network={teacher}"
    single = "--config=configs/scratch_deit.py"
    findings = examined(tmp_path / "work", single, flags, checks=["data", "weights"])
    line = only(findings, "weights")
    expect(line, doctor.OK, f"{teacher}: vit_w16h2_patch4_L2")
    teacher.write_bytes(b"cut")
    findings = examined(
        tmp_path / "work", single, flags, checks=["data", "weights", "disk", "memory"]
    )
    expect(
        only(findings, "weights"), doctor.PROBLEM, "not a readable .safetensors file"
    )
    expect(only(findings, "disk"), doctor.LEFT_OUT, "needs weights")


# Whole jobs


def command(workdir, *arguments, **variables):
    """The command in a process of its own: exit code, and what it printed."""
    done = subprocess.run(
        [*DOCTOR, *map(str, arguments), f"--workdir={workdir}"],
        env=environment() | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not workdir.exists()
    return done.returncode, done.stdout


@pytest.mark.slow
def test_no_device_at_all(tmp_path):
    """Checks that need none are made all the same."""
    code, text = command(tmp_path / "work", SMOKE, JAX_PLATFORMS="cuda")
    assert code == 1
    assert re.search("problem +devices +JAX finds no device", text), text
    assert "unset JAX_PLATFORMS" in text or "pip install" in text
    assert re.findall(r"^left out +(\w+)", text, re.M) == [
        "compiler",
        "mesh",
        "reading",
        "memory",
    ]
    assert text.endswith("1 problem, 4 left out; " + text.split("; ")[-1])


@pytest.mark.slow
def test_the_main_job_is_looked_at_within_a_minute(tmp_path):
    """20 runs on digits."""
    before = time.monotonic()
    code, text = command(tmp_path / "work", "--config=configs/aux_deit.py")
    assert code == 0 and "all is well" in text, text
    assert time.monotonic() - before < 60


@pytest.mark.slow
def test_the_papers_network_is_looked_at_within_a_minute(tmp_path):
    """An Aux-S at 224 px on JPEGs, in parts that this host can hold."""
    random = np.random.default_rng(0)
    for split, label, n in itertools.product(("train", "val", "test"), "ab", range(8)):
        small = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
        path = tmp_path / "photos" / split / label / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((300, 260)).save(path)
    teacher = tmp_path / "teacher.safetensors"
    spec = specs.ViTSpec(
        depth=1, width=16, heads=2, patch_size=32, image_size=224, num_classes=2
    )
    about = dict(class_names=("a", "b"), normalization=pixels.default_normalization(3))
    sws_jax.save_network(str(teacher), network_of(spec, **about))
    chosen = f"variant=S/16,dataset={tmp_path / 'photos'},teacher={teacher}"
    before = time.monotonic()
    code, text = command(
        tmp_path / "work",
        f"--config=configs/aux_deit.py:{chosen}",
        "--config.compute.remat=True",
        "--config.accum_steps=16",
    )
    assert time.monotonic() - before < 60
    assert code == 0 and "all is well" in text, text
    assert "photos: 16 train, 16 val, 16 test images, 2 classes, 224 x 224 x 3" in text
    assert f"{teacher}: vit_w16h2_patch32_L1, 2 classes" in text
    assert "256 images 224x224x3, 0 to 255" in text


def pair(tmp_path, *arguments, **settings):
    """Exit codes, and the lines that each of two processes printed."""
    (tmp_path / "config.py").write_text(CONFIG)
    flags = f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'work'}"
    job = Job(*flags, *arguments, program=DOCTOR, **{"processes": 2, **settings})
    codes, outputs = job.finish()
    ours = ([x for x in o.splitlines() if not x.startswith("[Gloo]")] for o in outputs)
    return codes, ["\n".join(lines) for lines in ours]


@pytest.mark.slow
def test_two_processes_that_are_well(tmp_path):
    codes, (first, second) = pair(tmp_path)
    assert codes == [0, 0], first + second
    assert "all 2 are here, on 1 host" in first
    assert f"all 2 processes see {tmp_path / 'work'}" in first
    assert "all 2 processes read the same digits" in first
    assert "all is well" in first and second == "config read"
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]


@pytest.mark.slow
def test_two_processes_with_a_directory_and_data_each(tmp_path):
    """Process 1 has a path of its own for both; process 0 prints it, and once."""
    images = tmp_path / "images"
    arrays = dict(
        train_images=np.arange(60 * 64, dtype=np.uint8).reshape(60, 8, 8, 1),
        train_labels=np.arange(60) % 10,
        class_names=list("abcdefghij"),
    )
    arrays |= dict(test_images=arrays["train_images"], test_labels=np.arange(60) % 10)
    for name in ("one", "two"):
        (images / name).mkdir(parents=True)
        np.savez(images / name / "set.npz", **arrays)
        arrays["train_images"] = arrays["train_images"][::-1]
    # The same config: a relative path that means other files in another directory.
    under = {n: ("env", "-C", str(images / d)) for n, d in enumerate(("one", "two"))}
    codes, (first, second) = pair(
        tmp_path,
        "--config.data.source=set.npz",
        under=under,
        own={1: [f"--workdir={tmp_path / 'elsewhere'}"]},
    )
    assert codes == [1, 1] and second == "config read", first + second
    assert f"process 1 of 2 cannot see {tmp_path / 'work'} of process 0" in first
    assert first.count("process 1 reads other data than process 0") == 1
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.py", "images"}


@pytest.mark.slow
def test_two_processes_of_other_configs(tmp_path):
    """What process 1 found before they met is printed too, after they have met."""
    codes, (first, second) = pair(tmp_path, own={1: ["--config.ema=2.0"]})
    assert codes == [1, 1] and second == "config read", first + second
    problem = "process 1 has another config than process 0 (it differs in ema)"
    assert first.count(problem) == 1
    assert "process 1: run: ema must be in [0, 1), and is 2.0" in first
    assert "left out  mesh" in first and "ok        data  " in first


@pytest.mark.slow
def test_processes_that_do_not_come(tmp_path):
    """Those that are there make all other checks, and print their own problems."""
    own = {1: ["--config.ema=2.0"]}
    settings = dict(processes=3, only=(0, 1), own=own)
    codes, (first, second) = pair(tmp_path, "--start_timeout=6", **settings)
    assert codes == [1, 1], first + second
    assert first.count("process 2 of 3 did not come") == 1
    assert "digits: 1,257 train" in first and "1 problem, 7 left out" in first
    assert "do: start all within 6 s: doctor waits no longer" in first
    assert "process 1: run: ema must be in [0, 1), and is 2.0" in second
    assert "process 1: process 2 of 3 did not come" in second
    assert not re.search("^ok", second, re.MULTILINE)
