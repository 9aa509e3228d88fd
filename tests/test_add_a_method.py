"""The methods of docs/add_a_method.md, as they stand there, through jobs and runs."""

import csv
import importlib.util
import pathlib
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sws_jax
from sws_jax import __main__, main, sharding, specs, trees
from sws_jax.errors import UserError
from sws_jax.jobs import build, commandline, rows, train
from sws_jax.methods import learngenes
from sws_jax.methods.base import Request
from sws_jax.methods.objectives import Loss
from sws_jax.models import weights
from sws_jax.models.outputs import Outputs
from sws_jax.specs import variants
from sws_jax.storage import documents
from sws_jax.storage.names import LEARNGENE_FILE, OWN, RESULT, WEIGHTS
from sws_jax.training import metrics
from sws_jax.training.loop import NonFinite

from support.compare import close, equal
from support.networks import logits_of

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "add_a_method.md").read_text()
NAMES = ("average", "hints", "lengths", "joined")
# One of each kind: parameters of the objective's own, variants, and a stitched network
# with a start that is computed.
PHASES = ("hints-aux", "lengths-aux", "joined")
STEPS, SAVED = 4, 2


def files():
    """The files that the page shows, by name; one may be shown in several parts."""
    shown = re.findall(
        r"^`sws_jax/methods/(\w+)\.py`[^\n]*:\n\n```python\n(.*?)```",
        PAGE,
        re.MULTILINE | re.DOTALL,
    )
    parts = {}
    for name, part in shown:
        parts.setdefault(name, []).append(part)
    return {name: "\n\n".join(of_file) for name, of_file in parts.items()}


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Each file, imported, and its line of the dict: nothing else is changed."""
    folder = tmp_path_factory.mktemp("methods")
    with pytest.MonkeyPatch.context() as patch:
        for name, code in files().items():
            path = folder / f"{name}.py"
            path.write_text(code)
            full = f"sws_jax.methods.{name}"
            spec = importlib.util.spec_from_file_location(full, path)
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, full, module)
            spec.loader.exec_module(module)
            patch.setitem(learngenes.METHODS, name, module.METHOD)
        yield {name: learngenes.METHODS[name] for name in files()}


def command(workdir):
    """All methods in one job of the smallest networks."""
    fields = {
        "model.width": 8,
        "model.heads": 2,
        "model.depth": 2,
        "model.drop_path": 0.0,
        "ancestor.model.depth": 2,
        "schedule.total_epochs": STEPS * 64 / 1257,
        "schedule.warmup_epochs": 0.0,
        "ancestor.schedule.total_epochs": 64 / 1257,
        "ancestor.schedule.warmup_epochs": 0.0,
        "checkpoint.every_epochs": SAVED * 64 / 1257,
        "evaluation.every_epochs": 1.0,
        "log_steps": 1,
        # With the usual one, Adam turns a gradient of rounding noise into a step.
        "optimizer.eps": 1e-3,
        "teacher.min_accuracy": 0.0,
        "compute.remat": False,
    }
    argument = f"methods={'-'.join(NAMES)},stages=1-1,depths=2,compare=untuned"
    return [
        f"--config={ROOT / 'configs' / 'aux_deit.py'}:{argument}",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def one_device(config):
    return sharding.make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def job(methods, tmp_path_factory):
    """The job, from the ancestor to the table, on one device."""
    workdir = tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "mesh", one_device)
        assert main.main(command(workdir)) == 0
    return workdir


def again(job, workdir, name, rate=None, **settings):
    """Trains one phase of the job once more, in another directory."""
    for other in ("ancestor", "joined-narrow", "joined-wide"):
        shutil.copytree(job / other, workdir / other, dirs_exist_ok=True)
    config, _ = commandline.parse(command(workdir))
    run = next(run for run in rows.runs(config) if run.name == name)
    if rate is not None:
        run.config.schedule.rate = rate
    return train.train(run.config, str(workdir), role=run.role, **settings)


def checksums(directory, step=STEPS):
    """Of every array of a checkpoint: weights, optimiser, objective's own."""
    path = directory / "checkpoints" / str(step) / "meta" / "metadata"
    return documents.read_json(str(path))["checksums"]


def log(directory):
    """The rows of a run's log, without its speed."""
    timed = ("images_per_second", "seconds")
    rows = metrics.read(str(directory))
    return [{n: v for n, v in row.items() if n not in timed} for row in rows]


def tree_of(directory):
    """The weights or the learngene that a run has left."""
    paths = (directory / name for name in (WEIGHTS, LEARNGENE_FILE))
    (path,) = (path for path in paths if path.exists())
    return weights.load(str(path))[0]


def test_the_page_shows_a_method_of_each_kind():
    """And a line of the dict, like those that are there."""
    assert tuple(files()) == NAMES
    assert '`"average": average.METHOD,`' in PAGE
    assert not learngenes.METHODS.keys() & set(NAMES)


def test_the_whole_chain_has_its_table(job):
    with open(job / "results.csv") as file:
        table = {row["run"]: row for row in csv.DictReader(file)}
    phases = ["ancestor", "average-gene", "hints-aux", "lengths-aux"]
    phases += ["joined-narrow", "joined-wide", "joined"]
    assert list(table) == phases + [f"{name}-untuned-L02" for name in NAMES]
    for name in NAMES:
        row = table[f"{name}-untuned-L02"]
        assert (row["role"], row["method"], row["depth"]) == ("untuned", name, "2")
    # What is the same function has the same score.
    for trained, descendant in (
        ("hints-aux", "hints-untuned-L02"),
        ("lengths-aux", "lengths-untuned-L02"),
        ("joined", "joined-untuned-L02"),
        ("ancestor", "average-gene"),
    ):
        losses = [float(table[name]["test_loss"]) for name in (trained, descendant)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert set(log(job / "hints-aux")[0]) >= {"loss", "hints"}
    assert set(log(job / "lengths-aux")[0]) >= {"loss", "gap"}


def test_what_is_left_is_read_again(job, capsys):
    """Learngenes, weights and the objective's own, by the library and by commands."""
    files = [job / f"{name}-{LEARNGENE_FILE}" for name in NAMES]
    files += [job / "joined-narrow" / WEIGHTS, job / "joined-untuned-L02" / WEIGHTS]
    for path, name in zip(files, NAMES, strict=False):
        assert sws_jax.load_learngene(str(path)).description.method == name
    for path in files:
        assert __main__.main(["describe", str(path)]) == 0
        assert "digits" in capsys.readouterr().out
    own, about = weights.load(str(job / "hints-aux" / OWN))
    assert own["maps"]["kernel"].shape == (2, 8, 8)
    assert about.spec.name == "aux_vit_w8h2_patch4_1-1"
    for name in set(PHASES) - {"hints-aux"}:
        assert not (job / name / OWN).exists()
    joined = job / "joined-untuned-L02"
    assert __main__.main(["evaluate", str(joined), "--batch-size=400"]) == 0
    result = documents.read_json(str(joined / RESULT))
    top1 = result["test"][-1]["top1"]
    assert f"{top1:.1%}" in capsys.readouterr().out


class Killed(Exception):
    """The process ends, and has saved nothing since its last checkpoint."""


@pytest.mark.parametrize("name", PHASES)
def test_stopped_and_resumed_is_bitwise_uninterrupted(name, job, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "mesh", one_device)
    asked = []

    def kill():
        asked.append(None)
        if len(asked) == SAVED + 1:
            raise Killed
        return False

    with pytest.raises(Killed):
        again(job, tmp_path, name, should_stop=kill)
    directory = tmp_path / name
    assert not (directory / RESULT).exists()
    again(job, tmp_path, name)
    expected = checksums(job / name)
    assert checksums(directory) == expected != checksums(job / name, SAVED)
    assert ("own" in expected) == (name == "hints-aux")
    equal(tree_of(job / name), tree_of(directory))
    rows = log(job / name)
    assert log(directory) == rows and [row["step"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "name",
    [
        "hints-aux",
        pytest.param("lengths-aux", marks=pytest.mark.slow),
        pytest.param("joined", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_are_one(name, job, tmp_path):
    again(job, tmp_path, name)
    close(tree_of(job / name), tree_of(tmp_path / name), 2e-5)
    if (tmp_path / name / OWN).exists():
        own = [weights.load(str(d / name / OWN))[0] for d in (job, tmp_path)]
        close(*own, 2e-5)
    for row, same in zip(log(job / name), log(tmp_path / name), strict=True):
        assert row["loss"] == pytest.approx(same["loss"], rel=2e-5)


@pytest.mark.parametrize(
    "name, words",
    [
        ("hints-aux", "hints is"),
        ("lengths-aux", "gap is"),
        ("joined", "the gradient's norm"),
    ],
)
def test_what_is_no_number_stops_a_phase(name, words, job, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "mesh", one_device)
    with pytest.raises(NonFinite, match=words) as error:
        again(job, tmp_path, name, rate=1e30)
    assert "at step 2 the loss is nan" in str(error.value)
    assert not (tmp_path / name / RESULT).exists()


def test_a_start_that_is_no_number_is_refused(job, tmp_path, monkeypatch):
    module = sys.modules["sws_jax.methods.joined"]
    nan = {"kernel": np.full((4, 8), np.nan), "bias": np.zeros(8)}
    monkeypatch.setattr(module, "linear_map", lambda given, wanted: nan)
    with pytest.raises(UserError, match="the start of phase joined holds values in st"):
        again(job, tmp_path, "joined")
    nan["kernel"] = np.zeros((4, 7))
    with pytest.raises(UserError, match="! stitch_0/kernel"):
        again(job, tmp_path, "joined")


def test_each_gene_of_average_is_a_mean(job):
    ancestor = sws_jax.load_network(str(job / "ancestor" / WEIGHTS))
    gene = sws_jax.load_learngene(str(job / f"average-{LEARNGENE_FILE}"))
    assert gene.description.stages == (2,)
    net = sws_jax.expand(gene, depth=3, num_classes=5, image_size=16)
    means = jax.tree.map(lambda leaf: leaf.mean(axis=0), ancestor.params["blocks"])
    for block in trees.unstack(net.params["blocks"]):
        close(means, block)
    assert net.plan == (0, 0, 0) and net.params["head"]["kernel"].shape == (8, 5)


def test_the_maps_of_hints_start_from_the_seed(methods):
    aux = specs.AuxViTSpec(specs.ViTSpec(depth=3, width=8, heads=2), (1, 2))
    objective = methods["hints"].phases(aux.net, Request((1, 2)), ())[0].objective
    teacher = specs.ViTSpec(depth=2, width=12, heads=2)
    first, same, other = (
        objective.init(jax.random.key(seed), aux, teacher)["maps"]["kernel"]
        for seed in (0, 0, 1)
    )
    assert first.shape == (3, 8, 12)
    equal(first, same)
    assert not np.array_equal(first, other)
    with pytest.raises(UserError, match="hints are those of a ViT"):
        objective.init(jax.random.key(0), aux, specs.LEVITS["levit_128s"])


def test_hints_hold_each_block_against_its_teacher(methods):
    """Two blocks learn from the second and the fourth of four."""
    net = specs.ViTSpec(depth=2, width=1, heads=1)
    objective = methods["hints"].phases(net, Request((1, 1)), ())[0].objective
    logits = jnp.zeros((1, 2))

    def outputs(*blocks):
        tokens = jnp.asarray(blocks, jnp.float32).reshape(-1, 1, 1, 1)
        return Outputs(logits, {"blocks": tokens})

    own = {"maps": {"kernel": jnp.asarray([2.0, 3.0]).reshape(2, 1, 1)}}
    targets = jnp.asarray([[1.0, 0.0]])
    teacher = outputs(9.0, 5.0, 9.0, 7.0)
    loss, measured = objective(own, (outputs(1.0, 2.0),), targets, teacher)
    gap = ((2 - 5) ** 2 + (6 - 7) ** 2) / 2
    assert float(measured["hints"]) == gap
    assert float(loss) == pytest.approx(np.log(2) + 0.1 * gap, rel=1e-6)


def test_lengths_pick_their_own_plan_and_another(methods):
    net = specs.ViTSpec(depth=4, width=8, heads=2)
    (phase,) = methods["lengths"].phases(net, Request((1, 2, 1)), ())
    lengths = [variant.stages for variant in phase.variants]
    assert lengths == [(1, 2, 1), (2, 3, 2), (3, 4, 3)]
    assert len({c.form for c in variants.computations(phase.variants)}) == 1
    picks = [phase.pick(0, step) for step in range(100)]
    assert picks == [phase.pick(0, step) for step in range(100)]
    assert {first for first, _ in picks} == {0}
    assert {other for _, other in picks} == {1, 2}
    assert picks != [phase.pick(1, step) for step in range(100)]


def test_the_other_lengths_teach_nothing_to_their_own(methods):
    """The gap's gradient reaches the second variant alone."""
    net = specs.ViTSpec(depth=2, width=8, heads=2)
    objective = methods["lengths"].phases(net, Request((1, 1)), ())[0].objective
    targets = jnp.asarray([[0.0, 1.0]])

    def loss(logits, other):
        return objective({}, (Outputs(logits), Outputs(other)), targets, None)[0]

    at = jnp.asarray([[1.0, 2.0]]), jnp.asarray([[2.0, 1.0]])
    own = jax.grad(lambda logits: Loss().of(logits, targets))(at[0])
    first, second = jax.grad(loss, argnums=(0, 1))(*at)
    close(own, first)
    p = jax.nn.softmax(at[0])
    close(jax.nn.softmax(at[1]) - p, second)


def test_the_map_of_joined_is_the_least_squares_one(methods):
    module = sys.modules["sws_jax.methods.joined"]
    random = np.random.default_rng(0)
    given, kernel = random.normal(size=(50, 3)), random.normal(size=(3, 5))
    found = module.linear_map(given, given @ kernel + 2.0)
    close({"kernel": kernel, "bias": np.full(5, 2.0)}, found)


def test_joined_of_other_depths(job):
    gene = sws_jax.load_learngene(str(job / f"joined-{LEARNGENE_FILE}"))
    net = sws_jax.expand(gene, depth=5, num_classes=3, image_size=16)
    assert net.plan == (0, 0, 0, 1, 1)
    assert [s.depth for s in net.spec.segments] == [3, 2]
    images = np.ones((1, 16, 16, 1), np.float32)
    assert logits_of(net.spec, net.params, images).shape == (1, 3)
    for plan in ((1, 1), (1, 0)):
        with pytest.raises(UserError, match=r"is no plan of joined"):
            sws_jax.expand(gene, plan=plan)


def test_the_commands_of_the_page_are_those_of_a_job(methods, job, monkeypatch):
    (text,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    _, _, _, *arguments = text.replace("\\\n", " ").split()
    monkeypatch.chdir(ROOT)
    config, _ = commandline.parse(arguments)
    names = [run.name for run in rows.runs(config)]
    assert names == ["ancestor", "average-gene", "average-des-L03", "average-des-L06"]
    (lines,) = re.findall(r"```python\n(gene = .*?)```", PAGE, re.DOTALL)
    shown = {"sws_jax": sws_jax}
    exec(lines.replace("runs/average", str(job)), shown)
    assert shown["network"].spec.depth == 6
