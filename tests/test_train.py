"""Runs: resuming, refusing, results, and what stays in their directory."""

import csv
import dataclasses
import io
import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

import sws_jax
from sws_jax import specs, trees
from sws_jax.errors import UserError
from sws_jax.estimate import sizing
from sws_jax.jobs import (
    build,
    commandline,
    initial,
    recipes,
    teacher,
    train,
)
from sws_jax.jobs.directory import Busy, differing
from sws_jax.methods import surgery
from sws_jax.models import networks, vit
from sws_jax.models.networks import Predictor
from sws_jax.pixels import Normalization
from sws_jax.reports import rows
from sws_jax.specs import LeViTSpec, RegNetSpec
from sws_jax.storage import documents, files, locks
from sws_jax.storage.names import CONFIG, LOCK, RESULT, WEIGHTS
from sws_jax.training import loop, metrics, step
from sws_jax.training.checkpoints import Checkpoints
from sws_jax.training.task import Task

from support.checkpoints import abstract, data_files, flip_a_bit
from support.compare import close, equal
from support.learngenes import describe, learngene
from support.networks import TINY, aux_spec, params_of
from support.runs import Script, epochs, tiny

ROOT = pathlib.Path(__file__).parent.parent


def weights(directory):
    return sws_jax.load_network(os.path.join(directory, WEIGHTS)).params


def child(script, *arguments, **kwargs):
    """Python in another process, on the same eight devices."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


KILL_AT_STEP = """
    import os, signal, sys, time
    from support import runs
    from sws_jax.jobs import train

    workdir, at, wait_for = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    asked = []

    def kill():
        asked.append(None)
        if len(asked) == at:
            while wait_for and not os.path.exists(os.path.join(workdir, wait_for)):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    train.train(runs.tiny(save_every=3), workdir, should_stop=kill)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    result = train.train(tiny(save_every=3), str(workdir))
    return workdir / "run", result


@pytest.mark.parametrize(
    "how",
    [
        "after a save",
        pytest.param("during a save", marks=pytest.mark.slow),
        pytest.param("a bit flipped", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_is_bitwise_uninterrupted(how, uninterrupted, tmp_path):
    """kill -9 for real; the same command goes on and ends at the same bits."""
    wait_for = "" if how == "during a save" else "run/checkpoints/6"
    at = 6 if how == "during a save" else 8
    process = child(KILL_AT_STEP, tmp_path, at, wait_for)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    directory = tmp_path / "run"
    assert not (directory / RESULT).exists()
    if how == "a bit flipped":
        for path in data_files(directory, 6):
            flip_a_bit(path)
    result = train.train(tiny(save_every=3), str(tmp_path))
    expected_directory, expected = uninterrupted
    equal(weights(expected_directory), weights(directory))
    assert result["test"] == expected["test"]
    assert result["val_top1"] == expected["val_top1"]
    rows, same = metrics.read(str(directory)), metrics.read(str(expected_directory))
    assert [r["step"] for r in rows] == [r["step"] for r in same] == [3, 6, 9, 10]
    assert [r["val_loss"] for r in rows] == [r["val_loss"] for r in same]
    if how == "a bit flipped":
        assert (directory / "broken_checkpoints" / "6").is_dir()


def test_a_finished_run_is_not_repeated(uninterrupted):
    directory, result = uninterrupted
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}
    again = train.train(tiny(save_every=3), str(directory.parent))
    assert again == result
    after = {p: p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}
    assert before == after


def test_another_config_in_the_same_directory_is_refused(uninterrupted):
    directory, _ = uninterrupted
    other = tiny(save_every=3, schedule=dict(rate=2e-3), model=dict(depth=3))
    before = (directory / CONFIG).read_text()
    with pytest.raises(ValueError, match=r"differs in model.depth, schedule.rate"):
        train.train(other, str(directory.parent))
    assert (directory / CONFIG).read_text() == before


def test_a_directory_that_does_not_say_of_which_run_is_refused(uninterrupted, tmp_path):
    """As where its config was lost before the run had ended; nothing is changed."""
    directory = tmp_path / "run"
    shutil.copytree(uninterrupted[0], directory)
    for name in (CONFIG, RESULT):
        (directory / name).unlink()

    def contents():
        return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    before = contents()
    with pytest.raises(UserError, match="and no config.json to say of which run: rest"):
        train.train(tiny(save_every=3), str(tmp_path))
    assert contents() == before


# What may differ where a run goes on, or was finished; whatever else does makes another
# run.
FREE = {
    "checkpoint.every_epochs", "checkpoint.keep_last", "compute.backend",
    "compute.dtype", "compute.remat", "compute.unroll", "data.cache", "data.memory_gib",
    "data.on_device", "data.threads",
    "data.unreadable", "data.workers", "init.insist", "log_steps", "mesh.data",
    "mesh.dry_run", "mesh.fsdp", "mesh.tensor", "replay.every_steps",
}  # fmt: skip


def test_every_other_field_makes_another_run(tmp_path):
    config, path = recipes.run(), str(tmp_path / CONFIG)
    files.write_json(path, documents.plain(config.to_dict()))
    others = {int: 7, float: 7.5, str: "other", tuple: (7,)}
    for name in commandline.fields(config):
        changed = config.copy_and_resolve_references()
        group, _, field = name.rpartition(".")
        node = changed[group] if group else changed
        before = node[field]
        node[field] = others.get(type(before), not before)  # or a switch
        expected = [] if name in FREE else [name]
        assert differing(changed, path) == expected


def test_a_run_of_older_software_goes_on(uninterrupted, tmp_path):
    """A field that it did not know had today's default; any other is another config."""
    finished, result = uninterrupted
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    path = str(directory / CONFIG)
    old = documents.read_json(path)
    del old["data"]["repeats"]
    files.write_json(path, old)
    assert train.train(tiny(save_every=3), str(tmp_path)) == result
    other = tiny(save_every=3, data=dict(repeats=3))
    with pytest.raises(UserError, match="it differs in data.repeats"):
        train.train(other, str(tmp_path))


def test_one_process_at_a_run(tmp_path):
    lock = tmp_path / "run" / LOCK
    with locks.claimed(str(lock)):
        with pytest.raises(Busy, match="another job is at the run in"):
            train.train(tiny(), str(tmp_path))
    assert not lock.parent.exists()


def test_a_run_compiles_once_and_says_what_a_device_holds(
    tmp_path, capsys, monkeypatch
):
    """Before its first step, when it goes on too; equal runs share the program."""
    before = step._program.cache_info().misses
    config = tiny(steps=3, save_every=3, optimizer=dict(eps=2e-8))
    with pytest.raises(loop.Preempted):
        train.train(config, str(tmp_path), should_stop=lambda: True)
    train.train(config, str(tmp_path))
    monkeypatch.setattr(sizing, "memory_limit", lambda device: 2**10)
    other = tiny(steps=3, save_every=3, name="other", optimizer=dict(eps=2e-8))
    train.train(other, str(tmp_path))
    train.train(other, str(tmp_path))  # finished: nothing is said
    assert step._program.cache_info().misses == before + 1
    lines = capsys.readouterr().out.splitlines()
    sheets = [line for line in lines if "per device: " in line and "sends" in line]
    assert [line.split(":")[0] for line in sheets] == ["run", "run", "other"]
    assert re.search(r"in all; a step sends .* all-reduce over data\)$", sheets[0])
    (warned,) = [line for line in lines if "warning" in line]
    assert warned.startswith("other: warning: that is more than the 1 KiB of a device")


def test_a_run_goes_on_elsewhere(uninterrupted, tmp_path, capsys):
    """Stopped on 8 x 1 x 1 in float32; on another mesh the numbers are the same."""
    steps = iter([False, False, False, True])
    with pytest.raises(loop.Preempted, match="saved at step 4 of 10"):
        train.train(tiny(save_every=3), str(tmp_path), should_stop=lambda: next(steps))
    mesh = dict(data=2, fsdp=2, tensor=2)
    result = train.train(tiny(save_every=3, mesh=mesh), str(tmp_path))
    assert "run: goes on from step 4 of 10" in capsys.readouterr().out
    expected_directory, expected = uninterrupted
    rows = [r for r in metrics.read(str(tmp_path / "run")) if r["step"] != 4]
    same = metrics.read(str(expected_directory))
    tolerance = 2e-5
    for row, other in zip(rows, same, strict=True):
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=tolerance)
    assert rows[0]["val_loss"] == same[0]["val_loss"]
    loss = result["test"][0]["loss"]
    assert loss == pytest.approx(expected["test"][0]["loss"], rel=tolerance)


def test_what_changes_on_the_way_is_in_the_result(tmp_path, capsys, monkeypatch):
    """Another type of numbers, and images passed over, from a step on; never after."""
    Script(monkeypatch)
    changed = dict(compute=dict(dtype="bfloat16"), data=dict(unreadable="skip"))
    with pytest.raises(loop.Preempted, match="saved at step 1 of 2"):
        train.train(tiny(steps=2), str(tmp_path), should_stop=lambda: True)
    assert "from here on" not in capsys.readouterr().out
    result = train.train(tiny(steps=2, **changed), str(tmp_path))
    out = capsys.readouterr().out
    assert "run: computed in bfloat16 from here on, and in float32 before" in out
    assert "run: images that cannot be read are passed over from here on" in out
    assert result["dtypes"] == [
        {"dtype": "float32", "from_step": 0},
        {"dtype": "bfloat16", "from_step": 1},
    ]
    assert (result["unreadable"], result["unreadable_from"]) == (0, 1)
    (row,) = csv.DictReader(io.StringIO(rows.to_csv(rows.rows([result]))))
    assert row["dtype"] == "float32 bfloat16@1"
    assert (row["unreadable"], row["unreadable_from"]) == ("0", "1")
    assert train.train(tiny(steps=2, **changed), str(tmp_path)) == result
    for group, words in (
        ("compute", "compute.dtype bfloat16, and float32 is asked for"),
        ("data", "data.unreadable skip, and stop is asked for"),
    ):
        asked = {name: f for name, f in changed.items() if name != group}
        with pytest.raises(UserError, match=f"a finished run with {words}"):
            train.train(tiny(steps=2, **asked), str(tmp_path))


def test_a_slow_start_by_a_newer_version_goes_on(tmp_path, monkeypatch):
    """What its clock holds besides is kept; the speed is that of this start's steps
    since the last line, and the time is that of the whole run."""
    config, clock = tiny(steps=4), {"seconds": 1e6, "steps": 1, "joules": {"gpu": [7]}}
    config.log_steps = 1
    with monkeypatch.context() as newer:
        newer.setattr(metrics.Clock, "state", lambda self: clock)
        with pytest.raises(loop.Preempted, match="saved at step 1 of 4"):
            train.train(config, str(tmp_path), should_stop=lambda: True)
    begun, lap = [], metrics.Clock.lap
    monkeypatch.setattr(
        metrics.Clock, "lap", lambda self: begun.append(self.steps) or lap(self)
    )
    result = train.train(config, str(tmp_path))
    saved = documents.read_json(
        tmp_path / "run" / "checkpoints" / "4" / "clock/metadata"
    )
    assert (saved["joules"], saved["steps"]) == ({"gpu": [7]}, 3)
    assert result["seconds"] > 1e6
    assert begun == [1, 1, 2, 3]  # steps behind each window; the first is not timed
    first, *others = metrics.read(str(tmp_path / "run"))[1:]
    assert "images_per_second" not in first
    assert [row["step"] for row in others] == [3, 4]
    assert all(row["images_per_second"] > 1 for row in others)
    assert "input_wait" not in first
    assert all(0 < row["input_wait"] < 1 for row in others)


@pytest.mark.slow  # test_fields_reach_the_steps_and_the_scores has where a seed goes
def test_seeds(uninterrupted, tmp_path):
    """Another seed is another run; that the same is the same, resuming shows."""
    directory, _ = uninterrupted
    other = tiny(save_every=3)
    other.seed = 1
    train.train(other, str(tmp_path))
    kernel = weights(tmp_path / "run")["head"]["kernel"]
    assert not np.array_equal(weights(directory)["head"]["kernel"], kernel)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(global_batch_size=0), "global_batch_size must be at least 1"),
        (dict(global_batch_size=12), "12 does not divide over 8 devices"),
        (dict(accum_steps=0), "accum_steps must be at least 1"),
        (dict(evaluation=dict(batch_size=12)), "evaluation.batch_size 12"),
        (
            dict(schedule=dict(total_epochs=float("nan"))),
            "schedule.total_epochs must be finite",
        ),
        (
            dict(schedule=dict(total_epochs=-1.0)),
            "schedule.total_epochs must be at least 0",
        ),
        (
            dict(schedule=dict(warmup_epochs=9.0)),
            "warmup_epochs 9 is longer than the run",
        ),
        (dict(model=dict(heads=3)), "16 does not divide into 3 heads"),
        (dict(data=dict(source="nowhere.npz")), "no dataset file nowhere.npz"),
        (dict(init=dict(learngene="a", network="b")), "not both"),
        (dict(log_steps=0), "log_steps must be at least 1"),
        (dict(seed=2**63), "seed must be at most 4,294,967,295"),
        (dict(ema=2.0), "ema must be in"),
        (dict(name="a/b"), "name is the run's directory"),
        (dict(optimizer=dict(b1=2.0)), "optimizer.b1"),
        (dict(model=dict(mlp_ratio=0.0)), "mlp_ratio must be above 0"),
        (dict(model=dict(stages=(0, 1))), "model.stages must be at least 1"),
        (dict(data=dict(val_fraction=float("nan"))), "data.val_fraction"),
        (dict(schedule=dict(total_epochs=0.01)), "less than one step"),
        (dict(evaluation=dict(select="bset")), "'bset' is not one of last, best"),
        (dict(evaluation=dict(milestones=(-1.0,))), "milestones must be at least 0"),
    ],
)
def test_a_config_that_cannot_be_run_leaves_nothing_behind(changes, words, tmp_path):
    config = tiny()
    for name, value in changes.items():
        if isinstance(value, dict):
            config[name].update(value)
        else:
            config[name] = value
    with pytest.raises(ValueError, match=words) as caught:
        train.train(config, str(tmp_path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_non_finite_loss_stops_the_run(tmp_path):
    config = tiny(save_every=1, schedule=dict(rate=1e25, minimum=1e25))
    with pytest.raises(loop.NonFinite, match=r"at step (\d+) the loss is") as caught:
        train.train(config, str(tmp_path))
    message = str(caught.value)
    step = int(message.split("at step ")[1].split()[0])
    assert f"the checkpoint of step {step - 1} kept" in message
    assert (tmp_path / "run" / "checkpoints" / str(step - 1)).is_dir()
    assert not (tmp_path / "run" / "checkpoints" / str(step)).exists()
    assert not (tmp_path / "run" / RESULT).exists()


def save_net(path, net, params=None, **about):
    fields = dict(kind="network", stages=(), method="", **about)
    description = describe(aux_spec((1,)), net=net, **fields)
    params = params_of(net) if params is None else params
    sws_jax.save_network(str(path), sws_jax.Network(net, params, description))
    return str(path)


def distilled(path, **changes):
    soft = dict(kind="soft")
    return tiny(teacher=dict(path=str(path), **changes), loss=soft, steps=2)


def test_a_teacher_near_chance_stops_the_run(net, tmp_path, capsys):
    path = save_net(tmp_path / "teacher.safetensors", net)
    with pytest.raises(ValueError, match="near chance"):
        train.train(distilled(path), str(tmp_path))
    assert not (tmp_path / "run").exists()
    train.train(distilled(path, min_accuracy=0.0), str(tmp_path))
    assert "teacher vit_w16h2_patch4_L4, validation top-1" in capsys.readouterr().out
    kept = sws_jax.load_network(str(tmp_path / "run" / WEIGHTS))
    assert kept.description.teacher == "vit_w16h2_patch4_L4"
    data = build.dataset(tiny())
    teacher.check_scores(dict(top1=0.1, loss=1.0), data, minimum=0.0)
    teacher.check_scores(dict(top1=0.2, loss=1.0), data, minimum=-1.0)
    with pytest.raises(ValueError, match="18.0%.*near chance .10.0%.*19.0%"):
        teacher.check_scores(dict(top1=0.18, loss=1.0), data, minimum=-1.0)


def test_a_teacher_of_other_classes_is_refused(net, tmp_path):
    small = net.replace(num_classes=3)
    path = save_net(tmp_path / "t.safetensors", small, class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="has 3 classes and digits has 10"):
        train.train(distilled(path), str(tmp_path))


def test_a_teacher_answers_in_the_order_of_the_classes(net, tmp_path):
    """Of any family; names that contradict each other are refused."""
    data = build.dataset(tiny())
    images = np.stack([data.train.read(i)[0] for i in range(4)]) / np.float32(255)
    names = data.class_names[::-1]
    own = save_net(tmp_path / "own.safetensors", net)
    turned = save_net(tmp_path / "turned.safetensors", net, class_names=names)
    lines = []
    predictors = [
        build.load_teacher(distilled(path), data, "", lines.append)
        for path in (own, turned)
    ]
    plain, reversed_ = (
        np.asarray(one.logits(images, data.normalization)) for one in predictors
    )
    np.testing.assert_array_equal(plain[:, ::-1], reversed_)
    (line,) = lines
    assert "are those of digits in another order, and matched by name" in line
    mixed = (*data.class_names[1:], "zero")
    path = save_net(tmp_path / "mixed.safetensors", net, class_names=mixed)
    with pytest.raises(UserError, match="class '1' is output 0 of the teacher"):
        train.train(distilled(path), str(tmp_path))
    other = save_net(
        tmp_path / "other.safetensors", net, class_names=tuple("abcdefghij")
    )
    build.load_teacher(distilled(other), data, "", lines.append)
    assert "have other names than those of digits: 'a' there is '0' here" in lines[-1]


@pytest.mark.parametrize("family", ["levit", "regnet"])
def test_a_teacher_of_another_family_answers_in_that_order_too(family, tmp_path):
    shape = dict(image_size=16, channels=1, num_classes=10)
    net = RegNetSpec(widths=(8,), depths=(1,), group_width=8, stem_width=4, **shape)
    if family == "levit":
        net = LeViTSpec(
            widths=(8, 8), depths=(1, 1), heads=(1, 1), key_dims=(4, 4),
            attn_ratios=(1.0, 1.0), mlp_ratio=1.0, down_heads=(2,),
            down_key_dims=(4,), down_attn_ratios=(1.0,), down_mlp_ratio=1.0, **shape,
        )  # fmt: skip
    data = build.dataset(tiny())
    images = np.stack([data.train.read(i)[0] for i in range(2)]) / np.float32(255)
    names = data.class_names[::-1]
    params = trees.map_with_name(
        lambda name, leaf: leaf + name.endswith("var"), params_of(net)
    )
    path = save_net(tmp_path / "t.safetensors", net, params, class_names=names)
    turned = build.load_teacher(distilled(path), data, "", str)
    plain = dataclasses.replace(turned, order=())
    logits = jax.jit(Predictor.logits, static_argnums=2)
    one, other = (
        np.asarray(logits(each, images, data.normalization)) for each in (plain, turned)
    )
    assert np.ptp(one) > 0
    np.testing.assert_array_equal(one[:, ::-1], other)


@pytest.mark.slow
def test_a_distillation_learns_from_outputs_in_that_order(net, tmp_path):
    """A teacher whose head stands the other way round, and its names too, is the same
    teacher, but for the order of a sum."""
    data = build.dataset(tiny())
    ours = tmp_path / "ours.safetensors"
    save_net(ours, net)
    loaded = sws_jax.load_network(str(ours))
    head = {
        k: np.ascontiguousarray(v[..., ::-1]) for k, v in loaded.params["head"].items()
    }
    about = loaded.description.replace(class_names=data.class_names[::-1])
    turned = dataclasses.replace(
        loaded, params={**loaded.params, "head": head}, description=about
    )
    sws_jax.save_network(str(tmp_path / "turned.safetensors"), turned)
    for name in ("ours", "turned"):
        config = distilled(tmp_path / f"{name}.safetensors", min_accuracy=0.0)
        train.train(config, str(tmp_path / name))
    one, other = (
        metrics.read(str(tmp_path / name / "run"))[-1] for name in ("ours", "turned")
    )
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert other["val_loss"] == pytest.approx(one["val_loss"], rel=1e-4)


def test_a_head_is_inherited_whatever_the_unicode_form_of_names(tmp_path):
    data = build.dataset(tiny())
    rest, path = data.class_names[1:], str(tmp_path / "file.safetensors")
    data = dataclasses.replace(data, class_names=("\u00e9", *rest))
    origin = network_of(class_names=("e\u0301", *rest))
    sws_jax.save_network(path, origin)
    network = initial.initial_network(
        tiny(init=dict(network=path, head="auto")), data, "", str
    )
    kernel = network.params["head"]["kernel"]
    np.testing.assert_array_equal(kernel, origin.params["head"]["kernel"])


@pytest.mark.parametrize("kind", ["learngene", "network"])
@pytest.mark.parametrize("head", ["auto", "keep"])
def test_an_inherited_head_is_put_in_order(kind, head, tmp_path):
    data = build.dataset(tiny())
    path, names = str(tmp_path / "file.safetensors"), data.class_names[::-1]
    if kind == "learngene":
        gene = learngene((1, 2))
        origin = sws_jax.Learngene(
            gene.params, gene.description.replace(class_names=names)
        )
        sws_jax.save_learngene(path, origin)
        init, params = dict(learngene=path, allotment=(2, 1)), gene.params
    else:
        origin = network_of(class_names=names)
        sws_jax.save_network(path, origin)
        init, params = dict(network=path), origin.params
    lines = []
    config = tiny(init=dict(**init, head=head))
    network = initial.initial_network(config, data, "", lines.append)
    for name in ("kernel", "bias"):
        theirs = np.asarray(params["head"][name])
        np.testing.assert_array_equal(network.params["head"][name], theirs[..., ::-1])
    assert network.description.class_names == data.class_names
    assert "in another order, and matched by name" in "".join(lines)


def test_a_teacher_is_a_file_or_a_finished_run(uninterrupted, tmp_path):
    directory, _ = uninterrupted
    for path in (directory, directory / WEIGHTS):
        predictor = teacher.load_teacher(str(path))
        equal(weights(directory), predictor.network.params)
    job = teacher.load_teacher(str(directory.parent))
    equal(weights(directory), job.network.params)
    with pytest.raises(ValueError, match="no weights.safetensors: nothing is in it"):
        teacher.load_teacher(str(tmp_path))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no weights.safetensors: the run has"):
        teacher.load_teacher(str(tmp_path))


def test_a_loss_without_its_teacher_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'hard' needs a teacher"):
        train.train(tiny(loss=dict(kind="hard")), str(tmp_path))


def test_the_head_is_inherited_where_the_class_names_match(tmp_path):
    gene = learngene((1, 2))
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, gene)
    config = tiny(
        init=dict(learngene=path, allotment=(2, 1)), model=dict(drop_path=0.2)
    )
    data = build.dataset(config)
    network = initial.initial_network(config, data, "")
    equal(gene.params["head"], network.params["head"])
    assert network.spec.drop_path == 0.2
    assert network.description.plan == (0, 0, 1)
    assert network.description.class_names == data.class_names
    renamed = sws_jax.Learngene(
        gene.params, gene.description.replace(class_names=tuple("abcdefghij"))
    )
    sws_jax.save_learngene(path, renamed)
    other = initial.initial_network(config, data, "")
    assert not np.array_equal(
        gene.params["head"]["kernel"], other.params["head"]["kernel"]
    )
    equal(network.params["blocks"], other.params["blocks"])


def test_weights_of_another_channel_count_are_refused(tmp_path):
    gray = Normalization((0.3,) * 3, (0.4,) * 3)
    gene = learngene((1, 2), about=dict(normalization=gray), channels=3)
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, gene)
    config = tiny(init=dict(learngene=path), model=dict(depth=3))
    with pytest.raises(ValueError, match="3 channels, and digits has 1"):
        train.train(config, str(tmp_path))


@pytest.mark.parametrize("group, spans", [(8, False), (64, True)])
def test_groups_that_span_devices_are_said(group, spans, tmp_path, capsys):
    """64 images on 8 devices: 8 each."""
    config = tiny(steps=0, augment=dict(mixup=0.8, mix_group=group))
    train.train(config, str(tmp_path))
    text = "mixup groups of 64 images span devices"
    assert (text in capsys.readouterr().out) is spans


def start_from(network, tmp_path, **changes):
    """The network with which a run on digits starts, from a saved one."""
    path = str(tmp_path / "net.safetensors")
    sws_jax.save_network(path, network)
    config = tiny(init=dict(network=path, **changes))
    return initial.initial_network(config, build.dataset(config), "")


def network_of(dtype=np.float32, **about):
    net = specs.ViTSpec(**{**TINY, "depth": 1})
    fields = dict(kind="network", net=net, stages=(), method="")
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params_of(net))
    return sws_jax.Network(net, params, describe(aux_spec((1,)), **fields, **about))


@pytest.mark.parametrize(
    "about, head, kept, words",
    [
        (dict(), "auto", True, "head inherited: the classes of digits have the same"),
        (dict(), "fresh", False, "head fresh: as init.head says"),
        (
            dict(class_names=()),
            "auto",
            False,
            "no names to compare .--config.init.head",
        ),
        (dict(class_names=()), "keep", True, "head inherited: as init.head says"),
        (
            dict(class_names=tuple("abcdefghij")),
            "auto",
            False,
            "have other names .--config.init",
        ),
    ],
)
def test_what_becomes_of_a_head_is_said(about, head, kept, words, tmp_path, capsys):
    network = network_of(**about)
    started = start_from(network, tmp_path, head=head)
    same = np.array_equal(
        started.params["head"]["kernel"], network.params["head"]["kernel"]
    )
    assert same is kept
    assert re.search(words, capsys.readouterr().out)


def test_a_head_of_other_classes_cannot_be_kept(tmp_path):
    gene = learngene((1,), num_classes=4, about=dict(class_names=()))
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, gene)
    config = tiny(init=dict(learngene=path, head="keep"))
    with pytest.raises(UserError, match="the file has 4 classes and digits has 10"):
        initial.initial_network(config, build.dataset(config), "")
    config.init.head = "other"
    with pytest.raises(UserError, match="init.head 'other' is not one of auto, keep"):
        train.train(config, str(tmp_path))


def test_other_pixels_are_said(tmp_path, capsys):
    other = network_of(normalization=Normalization((0.5,), (0.5,)))
    start_from(other, tmp_path)
    assert "these weights have seen (0.5,) and (0.5,)" in capsys.readouterr().out


def test_half_precision_is_trained_in_float32(tmp_path):
    network = start_from(network_of(np.float16), tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(network.params)} == {
        np.dtype("float32")
    }


def test_no_run_starts_from_a_distilled_network(tmp_path):
    net = specs.ViTSpec(**{**TINY, "depth": 1, "pool": "token", "distilled": True})
    about = describe(aux_spec((1,)), kind="network", net=net, stages=())
    path = str(tmp_path / "net.safetensors")
    sws_jax.save_network(path, sws_jax.Network(net, params_of(net), about))
    config = tiny(init=dict(network=path))
    with pytest.raises(UserError, match="distillation token: .* no run starts from it"):
        initial.initial_network(config, build.dataset(config), "")


def test_a_run_goes_on_from_a_network(uninterrupted, tmp_path):
    directory, _ = uninterrupted
    config = tiny(steps=0, init=dict(network=str(directory)))
    result = train.train(config, str(tmp_path))
    equal(weights(directory), weights(tmp_path / "run"))
    assert result["steps"] == 0
    assert result["test"][0]["epochs"] == 0.0


def test_milestones_are_scored_on_their_own_weights(tmp_path):
    marks = (0.0, epochs(4))
    config = tiny(evaluation=dict(milestones=marks))
    result = train.train(config, str(tmp_path))
    assert [row["step"] for row in result["test"]] == [0, 4, 10]
    assert len({row["loss"] for row in result["test"]}) == 3
    # The run of four steps with the same curve is not the same run; the first row is
    # the untrained network, whatever follows.
    untrained = train.train(tiny(steps=0, name="untrained"), str(tmp_path))
    assert untrained["test"][0]["loss"] == result["test"][0]["loss"]


def test_the_best_on_validation_is_kept_when_asked(tmp_path, monkeypatch):
    """The second of four steps is the best: its weights are kept, scored and described.

    It fails where the last weights are written, where the last are scored on the test
    images, and where the file or the result says the last step or its accuracy.
    """
    Script(monkeypatch)
    tops = iter([0.1, 0.5, 0.4, 0.3, 0.5])  # the chosen one is scored again
    score = Task.score

    def scored(self, predictor, split):
        scores = score(self, predictor, split)
        return scores | {"top1": next(tops)} if split is self.data.val else scores

    monkeypatch.setattr(Task, "score", scored)
    kept = dict(select="best", milestones=(epochs(2),))
    config = tiny(steps=4, save_every=1, evaluation=kept)
    config.ema = 0.0
    result = train.train(config, str(tmp_path))
    network = sws_jax.load_network(str(tmp_path / "run" / WEIGHTS))
    manager = Checkpoints(str(tmp_path / "run"))
    best, last = (
        manager.restore(at, abstract(network.spec)).items["params"] for at in (2, 4)
    )
    manager.close()
    equal(best, network.params)
    with pytest.raises(AssertionError):
        equal(last, network.params)
    assert (network.description.step, network.description.accuracy) == (2, 0.5)
    assert result["val_top1"] == 0.5
    at_two, chosen = result["test"]
    assert chosen == {**at_two, "epochs": epochs(4)}
    assert chosen["step"] == 2


def stopped_after(*steps):
    """A run is asked to stop when it has done so many; the questions are counted."""
    asked = itertools.count(1)
    return lambda: next(asked) in steps


def test_fields_reach_the_steps_and_the_scores(tmp_path, monkeypatch):
    """Each of them, and not its default; update k, from 0, has the rate of step k."""
    script = Script(monkeypatch)
    config = tiny(data=dict(repeats=2, eval_crop=0.5))
    # 4 steps, and 16 in an epoch of 1,024 images.
    config.schedule.update(total_epochs=0.25, warmup_epochs=0.125, minimum=1e-4)
    config.seed = 5
    train.train(config, str(tmp_path))
    assert script.rates == pytest.approx([0.0, 5e-4, 5.5e-4, 2.318e-4], rel=1e-3)
    assert script.keys == [jax.random.key_data(jax.random.key(5)).tolist()] * 4
    assert (script.read["seed"], script.read["repeats"]) == (5, 2)
    assert {fit.crop for fit in script.fits} == {0.5}


def test_a_line_is_of_all_steps_since_the_last_one(tmp_path, monkeypatch):
    """Of those before a restart too; and the average goes on as it was saved."""
    Script(monkeypatch, losses=[1.0, 2.0, 3.0, 6.0], top1=lambda bias: bias / 100)
    config = tiny(steps=4, save_every=4)
    with pytest.raises(loop.Preempted, match="saved at step 2 of 4"):
        train.train(config, str(tmp_path), should_stop=stopped_after(2))
    train.train(config, str(tmp_path))
    (row,) = metrics.read(str(tmp_path / "run"))
    assert (row["step"], row["loss"]) == (4, 3.0)
    assert (row["val_top1"], row["val_top1_ema"]) == pytest.approx((0.04, 0.4))


def test_a_checkpoint_is_the_best_by_its_own_score(tmp_path, monkeypatch):
    """A stop saves weights that were not scored: the last score is not theirs. And the
    last weights are kept where they may be the best, whatever checkpoint.final says."""
    Script(monkeypatch, top1={2: 0.9, 3: 0.2, 4: 0.1, 6: 0.6}.get)
    best = dict(evaluation=dict(select="best"), checkpoint=dict(final=False))
    config = tiny(steps=6, save_every=2, **best)
    config.checkpoint.every_epochs = config.ema = 0.0
    with pytest.raises(loop.Preempted, match="saved at step 3 of 6"):
        train.train(config, str(tmp_path), should_stop=stopped_after(3))
    result = train.train(config, str(tmp_path))
    assert (result["val_top1"], result["test"][-1]["step"]) == (0.6, 6)


def test_the_end_is_scored_once(tmp_path, monkeypatch):
    """A milestone at the end of the run is the end."""
    Script(monkeypatch)
    marks = (epochs(2), epochs(4))
    config = tiny(steps=4, evaluation=dict(milestones=marks))
    result = train.train(config, str(tmp_path))
    assert [row["step"] for row in result["test"]] == [2, 4]


@pytest.mark.parametrize("numbers", [(1.0, np.inf), (np.nan, 1.0)])
def test_one_number_that_is_none_is_enough(numbers, tmp_path, monkeypatch):
    Script(monkeypatch, losses=[1.0, numbers])
    with pytest.raises(loop.NonFinite, match="at step 2 .*, with nothing kept"):
        train.train(tiny(steps=4), str(tmp_path))


def test_another_file_behind_the_same_path_is_refused(tmp_path):
    """A run is not taken for finished when its learngene is no longer the same."""
    path = str(tmp_path / "gene.safetensors")
    gene = learngene((1, 2))
    sws_jax.save_learngene(path, gene)
    config = tiny(steps=0, init=dict(learngene=path), model=dict(depth=2))
    result = train.train(config, str(tmp_path))
    assert train.train(config, str(tmp_path)) == result
    sws_jax.save_learngene(path, learngene((1, 2), about=dict(step=4)))
    with pytest.raises(ValueError, match="another file than init.learngene is now"):
        train.train(config, str(tmp_path))


@pytest.mark.slow
def test_a_broken_milestone_is_trained_again(tmp_path):
    config = tiny(evaluation=dict(milestones=(epochs(4),)))
    result = train.train(config, str(tmp_path))
    directory = tmp_path / "run"
    (directory / RESULT).unlink()
    for path in data_files(directory, 4):
        flip_a_bit(path)
    with pytest.raises(ValueError, match="step 4 .* goes on from the start"):
        train.train(config, str(tmp_path))
    again = train.train(config, str(tmp_path))
    assert again["test"] == result["test"]


def test_the_directory_holds_what_it_says(uninterrupted):
    directory, result = uninterrupted
    names = {path.name.split(".")[0] for path in directory.iterdir()}
    kept = {"config", "inputs", "metrics", "events", "checkpoints", "weights"}
    assert names == kept | {"result"}
    assert documents.read_json(str(directory / RESULT)) == result
    about = sws_jax.load_network(str(directory / WEIGHTS)).description
    assert about.normalization == Normalization((0.305,), (0.376,))
    assert about.class_names == tuple("0123456789")
    assert about.accuracy == pytest.approx(result["val_top1"], abs=1e-6)
    assert (about.step, about.dataset) == (10, "digits")
    assert result["params"] == trees.count(weights(directory))
    assert jax.__version__ == result["versions"]["jax"]


def official_start(tmp_path, dataset="digits"):
    """Config and data of a run that starts from an official learngene of 8 x 8 px."""
    gene = learngene(
        (1, 1), about=dict(profile="official", dataset=dataset), norm_eps=1e-5
    )
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, gene)
    config = tiny(steps=1)
    config.update(profile="official", ema_start="seed", ema=0.5)
    config.init.learngene = path
    return gene, config, build.dataset(config)


@pytest.mark.parametrize("dataset, kept", [("digits", True), ("others", False)])
def test_an_official_head_is_inherited_by_dataset(dataset, kept, tmp_path):
    """The released code looks at the dataset alone, and not at its classes."""
    gene, config, data = official_start(tmp_path, dataset)
    network = initial.initial_network(config, data, str(tmp_path))
    same = np.array_equal(
        network.params["head"]["kernel"], gene.params["head"]["kernel"]
    )
    assert same is kept
    assert (network.spec.norm_eps, network.spec.pool_order) == (1e-6, "mean_norm")
    assert network.description.profile == "official"
    assert network.description.class_names == data.class_names


def test_where_an_official_moving_average_starts(tmp_path):
    """One step on, at decay 1/2: half of the seed's weights, half of the new ones."""
    _, config, data = official_start(tmp_path)
    first = initial.initial_network(config, data, str(tmp_path))
    train.train(config, str(tmp_path))
    checkpoints = Checkpoints(str(tmp_path / "run"), keep_last=1, keep_steps=[])
    like = {name: networks.abstract_params(first.spec) for name in ("params", "ema")}
    saved = checkpoints.restore(1, like).items
    checkpoints.close()
    seeded = vit.init_params(first.spec.build(), jax.random.key(config.seed))
    like = seeded["norm"]["scale"]
    seeded["head"] = surgery.fresh_head(first.spec, config.seed, like=like)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, seeded, saved["params"])
    close(middle, saved["ema"], 1e-6)
    gene = first.params["head"]["kernel"]
    assert np.abs(seeded["head"]["kernel"] - gene).max() > 1e-2


def test_a_learngene_of_another_profile_is_refused(tmp_path):
    _, config, data = official_start(tmp_path)
    config.profile = "consistent"
    with pytest.raises(UserError, match="official profile .*profile=official"):
        initial.initial_network(config, data, str(tmp_path))
