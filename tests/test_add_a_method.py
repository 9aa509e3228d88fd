"""The methods of docs/add_a_method.md, as they stand there, through jobs and runs."""

import csv
import functools
import importlib.util
import itertools
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
from sws_jax.methods.base import Request, Trained
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks, weights
from sws_jax.models.outputs import Outputs
from sws_jax.specs import variants
from sws_jax.storage import documents
from sws_jax.storage.names import LEARNGENE_FILE, OWN, RESULT, WEIGHTS
from sws_jax.training import metrics
from sws_jax.training.loop import NonFinite

from support.compare import close, equal
from support.digits import network_of
from support.networks import TINY, logits_of

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "add_a_method.md").read_text()
NAMES = ("average", "hints", "lengths", "joined")
SOME, OTHERS = NAMES[:2], NAMES[2:]
# A phase of each kind, and the methods of its job: parameters of the objective's own,
# variants, and a stitched network with a start that is computed.
PHASES = [
    (SOME, "hints-aux"),
    pytest.param(OTHERS, "lengths-aux", marks=pytest.mark.slow),
    pytest.param(OTHERS, "joined", marks=pytest.mark.slow),
]
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


def test_the_page_names_the_parameters_of_a_vit():
    """Each by its name, and with as many axes."""
    table = PAGE.split("| name | shape |\n|---|---|\n")[1].split("\n\n")[0]
    shown = {}
    for line in table.splitlines():
        names, shapes = line.strip("| ").split(" | ")
        axes = [shape.count(",") + 1 for shape in re.findall(r"\[(.*?)\]", shapes)]
        leaves = []
        for name in re.findall("`(.*?)`", names):
            parts = [re.split(", ", part.strip("{}")) for part in name.split("/")]
            leaves += ["/".join(leaf) for leaf in itertools.product(*parts)]
        if len(axes) == 1:  # of all of them
            axes *= len(leaves)
        shown |= zip(leaves, axes, strict=True)
    spec = specs.ViTSpec(depth=2, **{**TINY, "pool": "token"})
    flat = trees.flatten(networks.abstract_params(spec))
    assert shown == {name: leaf.ndim for name, leaf in flat.items()}


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


def command(workdir, names):
    """A job of some methods, of the smallest networks."""
    fields = {
        "model.width": 8,
        "model.heads": 2,
        "model.depth": 2,
        "model.drop_path": 0.0,
        "ancestor.model.depth": 2,
        "schedule.total_epochs": STEPS * 64 / 1257,
        "schedule.warmup_epochs": 0.0,
        "ancestor.schedule.total_epochs": 0.0,  # as it begins: nothing is compiled
        "ancestor.schedule.warmup_epochs": 0.0,
        "checkpoint.every_epochs": SAVED * 64 / 1257,
        "evaluation.every_epochs": 1.0,
        "log_steps": 1,
        # With the usual one, Adam turns a gradient of rounding noise into a step.
        "optimizer.eps": 1e-3,
        "teacher.min_accuracy": 0.0,
        "compute.remat": False,
    }
    argument = f"methods={'-'.join(names)},stages=1-1,depths=2,compare=untuned"
    return [
        f"--config={ROOT / 'configs' / 'aux_deit.py'}:{argument}",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def one_device(config):
    return sharding.make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def jobs(methods, tmp_path_factory):
    """Does a job, from the ancestor to the table, on one device, and each once."""

    @functools.cache
    def done(*names):
        workdir = tmp_path_factory.mktemp("job")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "mesh", one_device)
            assert main.main(command(workdir, names)) == 0
        return workdir

    return done


def again(job, workdir, names, phase, rate=None, **settings):
    """Trains one phase of a job once more, in another directory."""
    for other in ("ancestor", "joined-narrow", "joined-wide"):
        if (job / other).exists():
            shutil.copytree(job / other, workdir / other, dirs_exist_ok=True)
    config, _ = commandline.parse(command(workdir, names))
    run = next(run for run in rows.runs(config) if run.name == phase)
    if rate is not None:
        run.config.schedule.rate = rate
    return train.train(run.config, str(workdir), role=run.role, **settings)


def checksums(directory, step=STEPS):
    """Of every array of a checkpoint: weights, optimiser, objective's own."""
    path = directory / "checkpoints" / str(step) / "meta" / "metadata"
    return documents.read_json(str(path))["checksums"]


def log(directory):
    """The rows of a run's log, without its speed."""
    timed = ("images_per_second", "input_wait", "seconds")
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


TABLES = {
    SOME: ["ancestor", "average-gene", "hints-aux"],
    OTHERS: ["ancestor", "lengths-aux", "joined-narrow", "joined-wide", "joined"],
}
# Of each method a run of which the untuned descendant is the same function.
SAME = {"hints": "hints-aux", "lengths": "lengths-aux", "joined": "joined"}


@pytest.mark.parametrize("names", [SOME, pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_the_whole_chain(names, jobs, capsys):
    """It has its table, and what it has left is read again, by commands too."""
    job = jobs(*names)
    with open(job / "results.csv") as file:
        table = {row["run"]: row for row in csv.DictReader(file)}
    assert list(table) == TABLES[names] + [f"{name}-untuned-L02" for name in names]
    for name in names:
        row = table[f"{name}-untuned-L02"]
        assert (row["role"], row["method"], row["depth"]) == ("untuned", name, "2")
        if name in SAME:
            trained = float(table[SAME[name]]["test_loss"])
            assert float(row["test_loss"]) == pytest.approx(trained, rel=1e-5)
        path = str(job / f"{name}-{LEARNGENE_FILE}")
        assert sws_jax.load_learngene(path).description.method == name
        assert __main__.main(["describe", path]) == 0
        assert name in capsys.readouterr().out
    assert __main__.main(["describe", str(job / f"{names[-1]}-untuned-L02")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("names", [SOME, OTHERS])
def test_a_descendant_is_scored_alone(names, jobs, capsys):
    descendant = jobs(*names) / f"{names[-1]}-untuned-L02"
    assert __main__.main(["evaluate", str(descendant), "--batch-size=400"]) == 0
    top1 = documents.read_json(str(descendant / RESULT))["test"][-1]["top1"]
    assert f"{top1:.2%}" in capsys.readouterr().out


class Killed(Exception):
    """The process ends, and has saved nothing since its last checkpoint."""


@pytest.mark.parametrize("names, phase", PHASES)
def test_stopped_and_resumed_is_bitwise_uninterrupted(
    names, phase, jobs, tmp_path, monkeypatch
):
    job = jobs(*names)
    monkeypatch.setattr(build, "mesh", one_device)
    asked = []

    def kill():
        asked.append(None)
        if len(asked) == SAVED + 1:
            raise Killed
        return False

    with pytest.raises(Killed):
        again(job, tmp_path, names, phase, should_stop=kill)
    assert not (tmp_path / phase / RESULT).exists()
    again(job, tmp_path, names, phase)
    expected = checksums(job / phase)
    assert checksums(tmp_path / phase) == expected != checksums(job / phase, SAVED)
    equal(tree_of(job / phase), tree_of(tmp_path / phase))
    assert ("own" in expected) == (phase == "hints-aux")
    if "own" in expected:
        own, _ = weights.load(str(tmp_path / phase / OWN))
        equal(weights.load(str(job / phase / OWN))[0], own)
        assert own["maps"]["kernel"].shape == (2, 8, 8)
    lines = log(job / phase)
    assert log(tmp_path / phase) == lines
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("names, phase", PHASES)
def test_eight_devices_are_one(names, phase, jobs, tmp_path):
    job = jobs(*names)
    again(job, tmp_path, names, phase)
    close(tree_of(job / phase), tree_of(tmp_path / phase), 2e-5)
    if phase == "hints-aux":
        own = [weights.load(str(d / phase / OWN))[0] for d in (job, tmp_path)]
        close(*own, 2e-5)
    for line, same in zip(log(job / phase), log(tmp_path / phase), strict=True):
        assert line["loss"] == pytest.approx(same["loss"], rel=2e-5)


@pytest.mark.parametrize("names, phase", PHASES)
def test_what_is_no_number_stops_a_phase(names, phase, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "mesh", one_device)
    with pytest.raises(NonFinite, match="at step 2 the loss is nan") as error:
        again(jobs(*names), tmp_path, names, phase, rate=1e30)
    measured = {"hints-aux": "and hints is", "lengths-aux": "and gap is", "joined": ""}
    assert measured[phase] in str(error.value)
    assert not (tmp_path / phase / RESULT).exists()


@pytest.mark.slow
def test_a_start_that_is_no_number_is_refused(jobs, tmp_path, monkeypatch):
    module = sys.modules["sws_jax.methods.joined"]
    stitch = {"kernel": np.full((4, 8), np.nan), "bias": np.zeros(8)}
    monkeypatch.setattr(module, "linear_map", lambda given, wanted: stitch)
    job = jobs(*OTHERS)
    with pytest.raises(UserError, match="the start of phase joined holds values in st"):
        again(job, tmp_path, OTHERS, "joined")
    stitch["kernel"] = np.zeros((4, 7))
    with pytest.raises(
        UserError, match="the start of phase joined .*! stitch_0/kernel"
    ):
        again(job, tmp_path, OTHERS, "joined")


@pytest.mark.slow
def test_no_learngene_is_made_of_files_that_were_replaced(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "mesh", one_device)
    replaced = tmp_path / "joined-narrow" / WEIGHTS

    def replace():
        shutil.copyfile(jobs(*OTHERS) / "joined-wide" / WEIGHTS, replaced)
        return False

    with pytest.raises(UserError, match="narrow has changed while joined read it"):
        again(jobs(*OTHERS), tmp_path, OTHERS, "joined", should_stop=replace)
    assert not (tmp_path / "joined" / LEARNGENE_FILE).exists()


def test_each_gene_of_average_is_a_mean(methods):
    ancestor = network_of(specs.ViTSpec(depth=3, **TINY))
    gene = methods["average"].extract(
        {"average-gene": Trained(ancestor, {})}, ancestor.spec
    )
    assert gene.description.stages == (2, 1)
    net = sws_jax.expand(gene, depth=3, num_classes=5, image_size=16)
    assert net.plan == (0, 0, 1)
    blocks, wanted = (
        trees.unstack(tree["blocks"]) for tree in (net.params, ancestor.params)
    )
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *wanted[:2])
    close([mean, mean, wanted[2]], blocks)
    assert net.params["head"]["kernel"].shape == (16, 5)


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


def test_a_network_joined_with_itself_is_that_network(methods, images):
    """The map is the identity, where the tokens are those that the next block had."""
    network = network_of(specs.ViTSpec(depth=2, **TINY))
    module = sys.modules["sws_jax.methods.joined"]
    both = dict.fromkeys((module.NARROW, module.WIDE), Trained(network, {}))
    # As many tokens as the least squares need, and none like another.
    many = np.random.default_rng(0).normal(size=(16, 8, 8, 1))
    params = module.join(both, jnp.asarray(many, jnp.float32))
    spec = specs.StitchedSpec((network.spec.replace(depth=1),) * 2)
    close(np.eye(16), params["stitch_0"]["kernel"], 1e-3)
    expected = logits_of(network.spec, network.params, images)
    close(expected, logits_of(spec, params, images), 1e-4)


def test_joined_of_other_depths(methods):
    wide = specs.ViTSpec(depth=2, **TINY)
    spec = specs.StitchedSpec((wide.replace(depth=1, width=8), wide))
    network = network_of(spec)
    gene = methods["joined"].extract({"joined": Trained(network, {})}, wide)
    own = sws_jax.expand(gene, depth=3)
    assert (own.plan, own.spec) == ((0, 1, 1), spec)
    equal(network.params, own.params)
    net = sws_jax.expand(gene, depth=6, num_classes=3, image_size=16)
    assert net.plan == (0, 0, 0, 1, 1, 1)
    taken = jax.tree.map(lambda leaf: leaf[::2], net.params["segment_1"])
    equal(network.params["segment_1"], taken)
    abstract = networks.abstract_params(net.spec)
    assert trees.difference(abstract, net.params) == []
    for plan in ((1, 1), (1, 0)):
        with pytest.raises(UserError, match="is no plan of joined"):
            sws_jax.expand(gene, plan=plan)


def test_the_commands_of_the_page_are_those_of_a_job(jobs, monkeypatch):
    (text,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    _, _, _, *arguments = text.replace("\\\n", " ").split()
    monkeypatch.chdir(ROOT)
    config, _ = commandline.parse(arguments)
    names = [run.name for run in rows.runs(config)]
    assert names == ["ancestor", "average-gene", "average-des-L03", "average-des-L06"]
    (lines,) = re.findall(r"```python\n(gene = .*?)```", PAGE, re.DOTALL)
    shown = {"sws_jax": sws_jax}
    exec(lines.replace("runs/average", str(jobs(*SOME))), shown)
    assert shown["network"].spec.depth == 6
