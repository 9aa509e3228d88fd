"""Sizing a job for devices that are not here."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from sws_jax import main, specs
from sws_jax.errors import UserError
from sws_jax.estimate import flops, rates
from sws_jax.estimate.rates import Rates
from sws_jax.preview import dry_run
from sws_jax.specs import Compute

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = f"--config={ROOT}/configs"
GIB = 2**30


@pytest.mark.parametrize(
    "text, devices, memory",
    [
        ("8", 8, None),
        ("v5e-256", 256, 16 * GIB),
        ("v6e-64", 64, 32 * GIB),
        ("v4-32", 16, 32 * GIB),
        ("v5p-128", 64, 95 * GIB),
        ("8xA100-40GB", 8, 40 * 10**9),
        ("16xH200", 16, 141 * 10**9),
    ],
)
def test_machines(text, devices, memory):
    assert dry_run.machine(text) == dry_run.Machine(devices, memory)


@pytest.mark.parametrize(
    "text, words",
    [
        ("v9-8", "v4, v5e, v5p, v6e as in v5e-256, or of A100-40GB, .*, and is 'v9-8'"),
        ("8xA100", "or of A100-40GB, A100-80GB, H100, H200 as in 8xH100"),
        ("0", "is a number of devices"),
        ("-8", "is a number of devices"),
        ("v4-7", "of which a device has two, and 7 is odd"),
    ],
)
def test_unknown_machines_list_the_known(text, words):
    with pytest.raises(UserError, match=words):
        dry_run.machine(text)


def printed(capsys, *argv):
    code = main.main(list(argv))
    out, error = capsys.readouterr()
    assert (code, error) == (0, "")
    return out


def cells(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return line.removeprefix(name).split()


def test_a_whole_job_from_a_laptop(tmp_path, capsys, monkeypatch):
    """The ancestor teaches, though it has no file; nothing is written."""
    monkeypatch.chdir(tmp_path)
    argv = ["--config.compare.level=untuned", "--config.mesh.fsdp=4"]
    argv.append("--config.ancestor.replay.every_steps=9")
    machine = "--config.mesh.dry_run=8xH100"
    text = printed(capsys, f"{CONFIGS}/smoke.py", machine, *argv)
    assert text.startswith("8xH100: 8 devices of 74.5 GiB, nothing is run\n")
    ancestor, aux = cells(text, "ancestor"), cells(text, "aux")
    assert ancestor[4:8] == ["-", "-", "544", "B"]  # 8 of 64 images, and their labels
    assert aux[5:7] == ancestor[:2]
    # Weights and two moments are kept twice; the Aux-Net's steps are not replayed.
    assert ancestor[10] != "-" == aux[11]
    assert "replay: the state before a step, which is kept" in text
    assert text.count(" yes ") == 2 and " NO " not in text
    assert "no step is trained: untuned-L02 and 1 more" in text
    assert "an estimate for other devices" in text
    assert not list(tmp_path.iterdir())


def test_this_machine_is_told_how_long_a_step_takes(tmp_path, capsys, monkeypatch):
    """Rates that are easy to see in the table; nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rates, "measured", lambda dtype: Rates(2e9, 1e30))
    monkeypatch.setattr(rates, "fresh_seconds", lambda size: 0.0)
    argv = ["--config.model.depth=1", "--config.schedule.total_epochs=1.0"]
    argv += ["--config.schedule.warmup_epochs=0.0"]
    argv += [f"--config.global_batch_size={8 * jax.device_count()}"]
    config = f"{CONFIGS}/scratch_deit.py"
    text = printed(capsys, config, "--config.mesh.dry_run=here", *argv)
    count = jax.device_count()
    assert text.startswith(f"here: {count} device") and "nothing is run" in text
    assert "a step takes" in text.splitlines()[2]
    amount, unit = cells(text, "scratch")[-2:]
    spec = specs.ViTSpec(
        depth=1, width=64, heads=4, patch_size=4, image_size=8, channels=1,
        num_classes=10,
    )  # fmt: skip
    expected = 8 * flops.step_flops(spec, Compute(remat=True)) / 2e9
    assert unit == "ms" and float(amount) == pytest.approx(1e3 * expected, rel=1e-2)
    steps = round(1257 / (8 * count))
    assert f"all {steps} steps: 1 s" in text
    assert "2 GFLOP/s" in text and "other devices" not in text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_no_data_and_no_files_are_needed(tmp_path, capsys, monkeypatch):
    """A teacher by name; half precision counts, and what does not fit is marked."""
    monkeypatch.chdir(tmp_path)
    arguments = "variant=32px,dataset=tfds:none,compare=untuned"
    argv = ["--config.mesh.dry_run=4", "--config.model.width=32"]
    argv += ["--config.model.heads=2", "--config.model.stages=(1,2)"]
    argv += ["--config.compute.remat=False"]
    config = f"{CONFIGS}/aux_deit.py:{arguments},teacher="
    wide = printed(capsys, f"{config}levit_128s", *argv)
    assert "tfds:none is not read; assumed" in wide
    assert "no step is trained: untuned-L03 and 3 more" in wide
    half = printed(
        capsys, f"{config}levit_128s", *argv, "--config.compute.dtype=bfloat16"
    )
    totals = [float(cells(text, "aux")[9]) for text in (wide, half)]
    assert cells(wide, "aux")[10] == cells(half, "aux")[10] == "MiB"
    assert totals[1] < totals[0]
    assert "bfloat16: the CPU's program is wider" in half
    monkeypatch.setitem(dry_run.TPUS, "v5e", 10**6)
    small = printed(capsys, f"{config}levit_128s", *argv, "--config.mesh.dry_run=v5e-4")
    assert " NO " in small


@pytest.mark.parametrize(
    "config, argv, words",
    [
        ("scratch_deit.py", "dry_run=v9-8", "mesh.dry_run is a number of devices"),
        ("scratch_deit.py", "dry_run=512", "needs 512 devices, and JAX has started"),
        ("scratch_deit.py", "dry_run=8 fsdp=3", "fsdp 3 x tensor 1 does not fit 8"),
        ("scratch_deit.py", "dry_run=5", "size 64 does not divide over 5 devices"),
        (
            "aux_deit.py:variant=32px,dataset=x.npz,teacher=no.safetensors",
            "dry_run=8",
            "the teacher of aux is not known, as there is no file no.safetensors",
        ),
        ("scratch_deit.py:dataset=x.npz", "dry_run=8", "say it as --config.data.image"),
    ],
)
def test_mistakes_are_answered_in_one_line(config, argv, words, capsys):
    flags = [f"--config.mesh.{flag}" for flag in argv.split()]
    assert main.main([f"{CONFIGS}/{config}", *flags]) == main.EXIT_REFUSED
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("sws_jax: ") and error.count("\n") == 1
    assert words in error


@pytest.mark.slow
def test_256_devices_in_a_process_of_its_own(tmp_path):
    """The README's command, whose table is the one that is printed."""
    readme = (ROOT / "README.md").read_text()
    command, shown = readme.split("<!-- dry run -->\n```text\n$ ")[1].split("\n", 1)
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(ROOT)
    words = command.replace("--config=", f"--config={ROOT}/").split()
    completed = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    table, printed = shown.split("```")[0], completed.stdout
    # Shapes are exact; what the program needs and sends is the compiler's.
    assert cells(table, "aux")[:10] == cells(printed, "aux")[:10]
    assert cells(printed, "aux")[-3] == "yes"
    assert not list(tmp_path.iterdir())
