"""Several processes are one program: the same numbers, written once, nothing lost."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from sws_jax import main
from sws_jax.models import weights
from sws_jax.runtime.signals import EXIT_AGAIN
from sws_jax.sharding import AXES
from sws_jax.storage.names import METRICS
from sws_jax.training import metrics

from support.children import CONFIG, ROOT, arrays
from support.compare import close
from support.jobs import Job, free_port
from support.steps import no_key_bias

STEPS = 10


def command(tmp_path, name, **fields):
    (tmp_path / "config.py").write_text(CONFIG)
    flags = [f"--config.{key}={value}" for key, value in fields.items()]
    return [
        f"--config={tmp_path / 'config.py'}",
        f"--workdir={tmp_path / name}",
        "--lost_after=15",
        "--config.log_steps=1",
        *flags,
    ]


def files_of(workdir):
    """Relative names, without the times and hosts in those of TensorBoard, sorted."""
    names = []
    for path in workdir.rglob("*"):
        name = str(path.relative_to(workdir))
        if "checkpoints/" not in name and path.is_file():
            names.append(name.split("tfevents")[0])
    return sorted(names)


def same(one, many):
    """Losses and weights to float32 rounding, and each output written once."""
    written, logs = (sorted(one.rglob(name)) for name in ("*.safetensors", METRICS))
    assert written and logs
    for path in written:
        other = many / path.relative_to(one)
        # Keys' biases have no true gradient: Adam makes steps of rounding noise.
        old, new = (no_key_bias(weights.load(str(p))[0]) for p in (path, other))
        close(old, new, 1e-4)
    for path in logs:
        rows, others = (
            metrics.read(str(p)) for p in (path.parent, many / path.parent.name)
        )
        assert [r["step"] for r in rows] == [r["step"] for r in others]
        for row, other in zip(rows, others, strict=True):
            for name in ("loss", "val_loss"):
                if name in row:
                    np.testing.assert_allclose(other[name], row[name], rtol=2e-5)
    assert set(files_of(one)) == set(files_of(many))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The job in one process with one device."""
    folder = tmp_path_factory.mktemp("alone")
    codes, outputs = Job(*command(folder, "one")).finish()
    assert codes == [0], outputs
    return folder / "one"


def result(workdir):
    return json.loads((workdir / "run" / "result.json").read_text())


@pytest.mark.slow
def test_two_processes_are_stopped_and_one_goes_on(alone, tmp_path):
    """SIGTERM to one of two stops and saves both at the same step."""
    arguments = command(tmp_path, "many")
    two = Job(*arguments, processes=2)
    two.wait_for(tmp_path / "many" / "run" / "checkpoints" / "2")
    two.kill(1, signal.SIGTERM)
    codes, outputs = two.finish(60)
    assert codes == [EXIT_AGAIN] * 2, outputs
    assert all("stopped and saved at step" in output for output in outputs)
    (code,), (output,) = Job(*arguments, devices=2).finish()
    assert code == 0, output
    assert "goes on from step" in output
    same(alone, tmp_path / "many")


@pytest.mark.slow
def test_four_processes_killed_go_on_as_two_and_as_one(alone, tmp_path):
    """One of four dies by kill -9 and takes the others along; one of two is told to
    stop by SIGTERM and all save; one process with one device ends the run. 400 images
    in batches of 128 leave a ragged last one."""
    arguments = command(tmp_path, "many", **{"mesh.fsdp": 2})
    checkpoints = tmp_path / "many" / "run" / "checkpoints"

    four = Job(*arguments, processes=4)
    four.wait_for(checkpoints / "2" / "commit_success.txt")
    four.kill(2)
    before = time.monotonic()
    codes, outputs = four.finish(60)
    assert time.monotonic() - before < 40
    assert codes[2] == -signal.SIGKILL
    for index in (0, 1, 3):
        assert codes[index] in (EXIT_AGAIN, -signal.SIGABRT), outputs[index]

    two = Job(*arguments, processes=2, devices=2)
    saved = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    two.wait_for(checkpoints / str(saved + 2) / "commit_success.txt")
    two.kill(1, signal.SIGTERM)
    codes, outputs = two.finish(60)
    assert codes == [EXIT_AGAIN] * 2, outputs
    assert f"goes on from step {saved} of {STEPS}" in outputs[0]
    assert all("stopped and saved at step" in output for output in outputs)

    last = command(tmp_path, "many", **{"mesh.fsdp": 1})
    (code,), (output,) = Job(*last).finish()
    assert code == 0, output
    assert "goes on from step" in output
    same(alone, tmp_path / "many")
    scores = [
        (r["test"], r["val_top1"]) for r in map(result, (alone, tmp_path / "many"))
    ]
    assert scores[0][0][0]["count"] == scores[1][0][0]["count"] == 400
    assert scores[0][1] == scores[1][1]


FLOW = (
    f"--config={ROOT / 'configs' / 'smoke.py'}",
    "--config.global_batch_size=256",
    "--config.ancestor.schedule.total_epochs=1",
    "--config.schedule.total_epochs=1",
    "--config.compare.level=tune",
    "--config.compare.depths=(4,)",
    "--config.tune.schedule.total_epochs=1",
    "--config.tune.evaluation.milestones=(0.0,)",
)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """Teacher, Aux-Net, learngene, descendant and report, on one device."""
    workdir = tmp_path_factory.mktemp("flow")
    codes, outputs = Job(*FLOW, f"--workdir={workdir}").finish()
    assert codes == [0], outputs
    return workdir


@pytest.mark.slow
def test_the_whole_flow_in_several_processes(flow, tmp_path):
    """Weights and teacher split along two axes of the mesh, the first of them over
    processes. The tests above split along the third, that of the batch."""
    count, mesh = 2, (1, 2, 2)
    sizes = [f"--config.mesh.{axis}={n}" for axis, n in zip(AXES, mesh, strict=True)]
    job = Job(*FLOW, *sizes, f"--workdir={tmp_path}", processes=count, devices=2)
    codes, outputs = job.finish(300)
    assert codes == [0] * count, outputs
    same(flow, tmp_path)
    assert files_of(flow) == files_of(tmp_path)  # each written once
    assert "ancestor: test top-1" in outputs[0]
    for number, output in enumerate(outputs):
        assert f"process {number} of {count}, 4 cpu device(s)" in output
        assert not number or "top-1" not in output
    table, other = ((path / "results.csv").read_text() for path in (flow, tmp_path))
    accuracies, others = (
        [row.split(",")[13] for row in text.splitlines()] for text in (table, other)
    )
    assert accuracies == others


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_process_ends_the_others(frozen, tmp_path):
    """It neither dies nor answers: silence counts as death after --lost_after."""
    arguments = [*command(tmp_path, "many"), "--lost_after=8"]
    job = Job(*arguments, processes=2)
    job.wait_for(tmp_path / "many" / "run" / "checkpoints" / "2")
    job.kill(frozen, signal.SIGSTOP)
    before = time.monotonic()
    other = job.parts[1 - frozen]
    output, _ = other.communicate(timeout=60)
    job.kill(frozen)
    job.finish()
    assert other.returncode in (EXIT_AGAIN, -signal.SIGABRT), output
    assert time.monotonic() - before < 8 + 20


@pytest.mark.slow
def test_a_directory_that_one_process_does_not_see_is_refused(tmp_path):
    arguments = command(tmp_path, "many")
    port = free_port()
    jobs = [
        Job(
            *(arguments if index == 0 else command(tmp_path, "elsewhere")),
            f"--coordinator=localhost:{port}",
            "--num_processes=2",
            f"--process_id={index}",
        )
        for index in range(2)
    ]
    for job in jobs:
        codes, outputs = job.finish(60)
        assert codes == [main.EXIT_REFUSED], outputs
        assert "process 1 of 2 cannot see" in outputs[0]
        assert "put --workdir where all hosts see the same files" in outputs[0]
    assert not (tmp_path / "many").exists() and not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_damage_that_one_process_meets_is_everyones(alone, tmp_path):
    """Four processes hold a quarter of the weights each; one file is cut in half."""
    fields = {"mesh.fsdp": 2, "checkpoint.keep_last": 3}
    arguments = command(tmp_path, "many", **fields)
    two = Job(*arguments, processes=2)
    checkpoints = tmp_path / "many" / "run" / "checkpoints"
    two.wait_for(checkpoints / "4" / "commit_success.txt")
    two.kill(0)
    two.finish(60)
    newest = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    for path in (checkpoints / str(newest) / "params").rglob("ocdbt.process_1/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = Job(*arguments, processes=2)
    codes, outputs = again.finish(300)
    assert codes == [0, 0], outputs
    assert f"the checkpoint of step {newest} is broken" in outputs[0]
    assert (tmp_path / "many" / "run" / "broken_checkpoints" / str(newest)).is_dir()
    same(alone, tmp_path / "many")


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_ends_all(tmp_path):
    """It says so and exits 1; the other does not wait for it."""
    random = np.random.default_rng(0)
    for split, count in (("train", 100), ("test", 4)):
        for number in range(count):
            path = tmp_path / "images" / split / str(number % 2) / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(path)
    seen = np.linspace(0, 99, 64).astype(
        int
    )  # looked at before a run, to hold the set in memory
    (unseen,) = np.setdiff1d(np.arange(50), seen)[:1]
    broken = sorted((tmp_path / "images" / "train").rglob("*.png"))[unseen]
    broken.write_bytes(broken.read_bytes()[:60])
    fields = {
        "data.source": tmp_path / "images",
        "data.memory_gib": 0.0,
        "schedule.total_epochs": 20.0,
    }
    codes, outputs = Job(*command(tmp_path, "many", **fields), processes=2).finish(60)
    alone = next(n for n, text in enumerate(outputs) if broken.name in text)
    assert codes[alone] == main.EXIT_ERROR, outputs
    assert "the same command goes on from the last checkpoint" in outputs[alone]
    assert codes[1 - alone] in (EXIT_AGAIN, -signal.SIGABRT), outputs


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prlimit"), reason="there is no prlimit")
@pytest.mark.parametrize("failing, what", [(1, "params"), (0, "metrics")])
def test_a_write_that_fails_in_one_process_ends_all(failing, what, tmp_path):
    """It says what it could not write; the other does not wait for it."""
    fields = {"mesh.fsdp": 2, "model.width": 64}
    if what == "metrics":
        fields |= {"checkpoint.every_epochs": 0.0, "schedule.total_epochs": 20.0}
    arguments = command(tmp_path, "many", **fields)
    under = {failing: ("prlimit", "--fsize=16384")}
    codes, outputs = Job(*arguments, processes=2, under=under).finish(90)
    assert codes[failing] == main.EXIT_ERROR, outputs
    assert "cannot be written (File too large): make room" in outputs[failing]
    assert codes[1 - failing] in (EXIT_AGAIN, -signal.SIGABRT), outputs
    if what == "params":
        codes, outputs = Job(*arguments, devices=2).finish()
        assert codes == [0], outputs


@pytest.mark.slow
def test_data_that_one_host_lacks_end_all(tmp_path):
    """A relative path, and the second process in another directory."""
    fields = {"data.source": "digits.npz"}
    (tmp_path / "elsewhere").mkdir()
    np.savez(tmp_path / "digits.npz", **arrays())
    under = {0: ("env", "-C", tmp_path), 1: ("env", "-C", tmp_path / "elsewhere")}
    arguments = command(tmp_path, "many", **fields)
    codes, outputs = Job(*arguments, processes=2, under=under).finish(60)
    assert codes[1] == main.EXIT_REFUSED, outputs
    assert "there is no dataset file digits.npz" in outputs[1]
    assert codes[0] in (EXIT_AGAIN, -signal.SIGABRT), outputs


@pytest.mark.slow
def test_a_job_of_short_runs_is_asked_to_stop(tmp_path):
    """In the only step of its first run, whose end is the same: no other begins."""
    arguments = [
        f"--config={ROOT / 'configs' / 'smoke.py'}",
        f"--workdir={tmp_path / 'many'}",
        "--config.global_batch_size=1024",
        "--config.ancestor.schedule.total_epochs=1.0",
        "--config.schedule.total_epochs=1.0",
        "--config.schedule.warmup_epochs=0.0",
    ]
    job = Job(*arguments, processes=2)
    job.wait_for(tmp_path / "many" / "ancestor" / "config.json")
    job.kill(1, signal.SIGTERM)
    codes, outputs = job.finish(120)
    assert codes == [EXIT_AGAIN] * 2, outputs
    assert "[2/" not in outputs[0]
