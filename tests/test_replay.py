"""A device that computes wrongly is found out, and named, by computing a step twice."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sws_jax import main, sharding
from sws_jax.jobs import commandline, train
from sws_jax.storage.names import RESULT
from sws_jax.training import replay

from support import flips
from support.children import CONFIG, ROOT, complete, outcome, steps
from support.jobs import Job
from support.runs import tiny

MESH = {"data": 2, "fsdp": 2, "tensor": 2}
DEVICE = 5


def command(workdir, every, mesh=MESH):
    """Six steps on digits, with a checkpoint after each second one."""
    (workdir / "config.py").write_text(CONFIG)
    flags = [f"--config.mesh.{axis}={count}" for axis, count in mesh.items()]
    flags.append(f"--config.schedule.total_epochs={steps(6)}")
    flags.append(f"--config.replay.every_steps={every}")
    return [f"--config={workdir / 'config.py'}", f"--workdir={workdir}", *flags]


def test_a_flipped_bit_ends_the_run_which_goes_on_from_before(
    tmp_path, capsys, monkeypatch
):
    """In the end the run is that without replay, to the bit."""
    argv = command(tmp_path, every=1)
    with monkeypatch.context() as wrong:
        device = jax.devices()[DEVICE]
        flips.install(wrong.setattr, lambda: device)
        assert main.main(argv) == main.EXIT_DIVERGED == 3
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if "sws_jax: " in line]
    assert line.startswith(
        f"sws_jax: run: step {flips.STEP}, computed twice from the same state and "
        f"batch, differs on device {DEVICE} (cpu, process 0), in {flips.LEAF}; stopped "
        f"before it was saved, with the checkpoint of step 2 kept in {tmp_path / 'run'}"
    )
    assert "XLA_FLAGS=--xla_gpu_deterministic_ops=true" in line
    assert complete(tmp_path) == [2] and not (tmp_path / "run" / RESULT).exists()
    assert main.main(argv) == 0
    assert "goes on from step 2 of 6" in capsys.readouterr().out
    config, _ = commandline.parse(command(tmp_path, every=0))
    without = tmp_path / "without"
    train.train(config, str(without))
    assert outcome(tmp_path) == outcome(without)


@pytest.mark.parametrize(
    "leaf, computation",
    [
        ("step", 0),
        ("params/head/bias", 1),
        ("ema/blocks/mlp/fc1/kernel", 0),
        ("opt/[0]/nu/blocks/attn/qkv/kernel", 1),
    ],
)
def test_the_device_is_named_whatever_array_it_has_wrong(
    leaf, computation, tmp_path, monkeypatch
):
    """One that is on every device, and one that is split over fsdp and tensor."""
    device = jax.devices()[DEVICE]
    flips.install(monkeypatch.setattr, lambda: device, leaf, computation)
    config = tiny(mesh=MESH, replay=dict(every_steps=2))
    where = f"step 4, .* on device 5 (cpu, process 0), in {leaf}; .* nothing kept in "
    with pytest.raises(replay.Diverged, match=pattern(where)):
        train.train(config, str(tmp_path))


def pattern(words):
    """A regular expression for words between which ``.*`` is anything."""
    return ".*".join(map(re.escape, words.split(".*")))


def test_a_step_between_two_replays_is_not_looked_at(tmp_path, monkeypatch):
    """Every third is replayed, of steps that are counted from 1."""
    device = jax.devices()[DEVICE]
    flips.install(monkeypatch.setattr, lambda: device, computation=0)
    config = tiny(steps=4, mesh=MESH, replay=dict(every_steps=3))
    assert train.train(config, str(tmp_path))["test"]


def placed(array, *places):
    mesh = sharding.make_mesh(sizes=MESH)
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*places)))


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "int32", "uint32", "int8", "bool"]
)
def test_any_bit_of_any_number_shows(dtype):
    """Its lowest and its highest, at the ends of an array and in its middle."""
    kind = jnp.dtype(dtype)
    zeros = np.zeros((4, 3, 2), kind)
    sums = np.asarray(replay._sums(({"a": placed(zeros, "fsdp")}, {})))
    assert sums.shape == (8, 1)
    masks = [1] if dtype == "bool" else [1, 1 << (8 * kind.itemsize - 1)]
    for place in (0, 9, zeros.size - 1):
        for mask in masks:
            bits = zeros.copy().view(f"uint{8 * kind.itemsize}")
            bits.reshape(-1)[place] ^= mask
            one = placed(bits.view(kind), "fsdp")
            changed = np.asarray(replay._sums(({"a": one}, {}))) != sums
            parts = [(p.device.id, np.asarray(p.data)) for p in one.global_shards]
            holders = [holder for holder, part in parts if any(part.tobytes())]
            ids = [device.id for device in one.sharding.mesh.devices.flat]
            found = [ids[row] for row in np.flatnonzero(changed[:, 0])]
            assert sorted(found) == sorted(holders) and len(holders) == 4


def test_numbers_that_change_places_show():
    values = np.arange(12, dtype=np.float32)
    first, second = (({"a": placed(a)}, {}) for a in (values, values[::-1].copy()))
    assert (np.asarray(replay._sums(first)) != np.asarray(replay._sums(second))).all()


def test_a_gradient_that_is_passed_on_names_those_that_have_it():
    """One device's wrong gradient is summed by all; three are named, and the rest
    counted."""
    calls = []

    def program(state, by):
        calls.append(state)
        more = by if len(calls) == 2 else 0
        return {"w": state["w"] + more}, {"loss": placed(np.float32(1))}

    state, one = {"w": placed(np.zeros(4, np.float32))}, np.float32(1)
    (after, metrics), place = replay.twice(program, state, one)
    assert not np.asarray(after["w"]).any() and float(metrics["loss"]) == 1
    assert place == (
        "on 8 of 8 devices, as one passes on to the others what it computes wrongly: "
        "device 0 (cpu, process 0), device 1 (cpu, process 0), device 2 (cpu, process "
        "0) and 5 more, in w"
    )
    assert replay.twice(program, state, one)[1] == ""


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_flipped_bit_in_one_of_two_processes_ends_both(wrong, tmp_path):
    """Each has two devices; both name the second one of that process."""
    program = (sys.executable, str(ROOT / "tests" / "support" / "flips.py"), str(wrong))
    argv = [*command(tmp_path, every=2, mesh={"fsdp": 2}), "--lost_after=60"]
    job = Job(*argv, processes=2, devices=2, program=program)
    codes, outputs = job.finish(300)
    assert codes == [main.EXIT_DIVERGED] * 2, outputs
    for output in outputs:
        (line,) = [line for line in output.splitlines() if "sws_jax: " in line]
        assert f"run: step {flips.STEP}, computed twice" in line
        assert f"(cpu, process {wrong}), in {flips.LEAF}; stopped" in line
        assert "the checkpoint of step 2 kept in" in line
    assert complete(tmp_path) == [2]
