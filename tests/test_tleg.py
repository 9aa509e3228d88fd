"""TLEG is trained as what its genes expand to, and goes through the jobs of SWS."""

import csv

import jax
import numpy as np
import pytest

import sws_jax
from sws_jax import main, sharding, specs, trees
from sws_jax.errors import UserError
from sws_jax.jobs import build, commandline, phases, rows
from sws_jax.methods import learngenes, tleg
from sws_jax.methods.base import ANCESTOR
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks, vit
from sws_jax.models.description import Description
from sws_jax.training import step

from support.compare import close, equal
from support.networks import TINY, params_of
from support.steps import GREY, drawn_batch, recipe_of, teacher_of

DEPTH = 4
NET = specs.ViTSpec(depth=DEPTH, **TINY)
AUX = specs.ExpandedSpec(NET, (DEPTH,), "tleg")
SHARES = np.arange(DEPTH) / DEPTH


def expanded(params):
    """The parameters of the plain network that genes make."""
    return {**params, "blocks": tleg.expand(params["blocks"], (0,) * DEPTH)}


def test_a_whole_job(tmp_path, monkeypatch):
    """From an ancestor as it begins to the table: what tests of rows do not run."""
    monkeypatch.setattr(
        build, "mesh", lambda config: sharding.make_mesh(jax.devices()[:1])
    )
    fields = {
        "model.width": 8,
        "model.heads": 2,
        "model.depth": 2,
        "ancestor.model.depth": 2,
        "ancestor.schedule.total_epochs": 0.0,
        "ancestor.schedule.warmup_epochs": 0.0,
        "schedule.total_epochs": 2 * 64 / 1257,
        "schedule.warmup_epochs": 0.0,
        "teacher.min_accuracy": 0.0,
    }
    argv = [f"--config.{name}={value}" for name, value in fields.items()]
    config = "configs/aux_deit.py:method=tleg,depths=2-3,compare=untuned"
    assert main.main([f"--config={config}", f"--workdir={tmp_path}", *argv]) == 0
    with open(tmp_path / "results.csv") as file:
        table = {row["run"]: row for row in csv.DictReader(file)}
    descendants = ["tleg-untuned-L02", "tleg-untuned-L03"]
    assert list(table) == ["ancestor", "tleg-aux", *descendants]
    assert {table[name]["method"] for name in descendants} == {"tleg"}
    aux, same = (table[name]["test_loss"] for name in ("tleg-aux", "tleg-untuned-L02"))
    assert float(same) == pytest.approx(float(aux), rel=1e-5)
    gene = sws_jax.load_learngene(tmp_path / "tleg-learngene.safetensors")
    assert gene.description.method == "tleg"
    assert np.abs(gene.params["blocks"]["slope"]["mlp"]["fc1"]["kernel"]).max() > 0


def test_the_gradients_of_ten_steps_are_those_of_the_expanded_network():
    """Of the base they are the sum of g_l, of the slope that of (l / L) g_l."""
    recipe = recipe_of(AUX, loss=Loss("soft", tau=2.0))
    params = vit.init_params(AUX.build(), jax.random.key(1))
    state = jax.jit(step.new_state, static_argnums=0)(recipe, params)
    teacher = teacher_of()

    def gradients(spec, params, batch, logits):
        def loss_of(params):
            outputs = spec.build().apply({"params": params}, batch.images)
            return recipe.loss.of(outputs, batch.targets, logits)

        return jax.grad(loss_of)(params)

    @jax.jit
    def advance(state, batch):
        logits = teacher.logits(batch.images, GREY)
        genes = gradients(AUX, state.params, batch, logits)
        layers = gradients(NET, expanded(state.params), batch, logits)
        state, _ = step.train_step(recipe, state, batch, 0.05, teacher)
        return state, genes, layers

    first = state.params
    for number in range(10):
        after = advance(state, drawn_batch(NET, seed=number))
        state, genes, layers = jax.tree.map(np.asarray, after)
        summed = {
            "base": jax.tree.map(lambda g: g.sum(0, keepdims=True), layers["blocks"]),
            "slope": jax.tree.map(
                lambda g: np.tensordot(SHARES, g, 1)[None], layers["blocks"]
            ),
        }
        close(summed, genes["blocks"], 1e-5)
        rest = [{k: v for k, v in g.items() if k != "blocks"} for g in (genes, layers)]
        close(*rest, 1e-5)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), first, state.params)
    assert min(jax.tree.leaves(moved)) > 0  # slopes of norms and biases too


def test_genes_begin_as_the_recipe_and_the_paper_have_them():
    wide = NET.replace(width=256, heads=4)  # enough numbers for their deviations
    spec = specs.ExpandedSpec(wide, (DEPTH,), "tleg")
    params, plain = (
        jax.tree.map(np.asarray, vit.init_params(one.build(), jax.random.key(0)))
        for one in (spec, wide.replace(depth=1))
    )
    shapes = networks.abstract_params(spec)
    assert trees.leaf_names(params) == trees.leaf_names(shapes)
    for name, leaf in trees.flatten(params["blocks"]["slope"]).items():
        base = trees.flatten(params["blocks"]["base"])[name]
        recipe = trees.flatten(plain["blocks"])[name]
        assert leaf.shape == base.shape == recipe.shape == (1, *recipe.shape[1:])
        if name.endswith("kernel"):
            assert leaf.std() == pytest.approx(0.02, rel=0.02), name
            assert base.std() == pytest.approx(float(recipe.std()), rel=0.02), name
        else:
            assert not leaf.any(), name
            equal(base, recipe)


@pytest.mark.parametrize("profile, eps", [("consistent", 1e-6), ("official", 1e-5)])
def test_the_phase_of_a_config(profile, eps):
    arg = f"method=tleg,variant=S/16,dataset=DATA,teacher=TEACHER,profile={profile}"
    config = commandline.load(f"configs/aux_deit.py:{arg}")
    run, *descendants = rows.runs(config)
    assert (run.name, run.role, run.publishes) == (
        "tleg-aux", "aux", "tleg-learngene.safetensors"
    )  # fmt: skip
    images = dict(image_size=(224, 224), channels=3, num_classes=1000)
    phase = phases.find(run.config, images)
    assert phase.spec.depth == 12 and phase.spec.stages == (12,)
    assert phase.spec.net.norm_eps == eps and phase.teacher == ANCESTOR
    assert not phase.spec.drop_path_rates.any() and run.config.model.drop_path
    assert trees.count(networks.abstract_params(phase.spec)) == 4_305_256
    assert phase.objective == Loss("soft", reduction=run.config.loss.reduction)
    assert run.config.teacher.path == "TEACHER" and run.config.loss.kind == "soft"
    assert run.config.schedule.total_epochs == 150
    assert {d.name[:13] for d in descendants} == {"tleg-untuned-"}
    assert {d.config.init.learngene for d in descendants} == {"run:tleg-aux"}


def test_two_methods_share_what_they_can():
    config = commandline.load("configs/aux_deit.py:methods=sws-tleg,depths=3-6")
    names = [run.name for run in rows.runs(config)]
    assert names == [
        "ancestor", "aux", "tleg-aux",
        "des-L03", "tleg-des-L03", "scratch-L03-5ep", "scratch-L03-40ep",
        "des-L06", "tleg-des-L06", "scratch-L06-5ep", "scratch-L06-40ep",
    ]  # fmt: skip
    alone = [
        {
            run.name: run
            for run in rows.runs(commandline.load(f"configs/aux_deit.py:{m}"))
        }
        for m in ("method=sws,depths=3-6", "method=tleg,depths=3-6")
    ]
    for run in rows.runs(config):  # each is the run that a job of one method has
        (same, *_) = [job[run.name] for job in alone if run.name in job]
        assert same == run


def test_its_learngene_as_a_file_of_any_version(tmp_path):
    fields = dict(normalization=GREY, class_names=tuple("0123456789"))
    network = networks.Network(AUX, params_of(AUX), learngenes.describe(AUX, **fields))
    assert network.description.kind == "aux_net"
    gene = sws_jax.extract(network)
    path = str(tmp_path / "gene.safetensors")
    sws_jax.save_learngene(path, gene)
    back = sws_jax.load_learngene(path)
    assert back.description == gene.description and back.description.spec == AUX
    equal(back.params, gene.params)
    older = {k: v for k, v in gene.description.to_dict().items() if k != "source"}
    assert Description.from_dict(older) == gene.description
    with pytest.raises(UserError, match="from an Aux-Net"):
        sws_jax.extract(learngenes.auxiliary(gene))


def test_an_unknown_method_lists_the_known():
    config = commandline.load("configs/aux_deit.py:method=tlge")
    with pytest.raises(UserError, match="'tlge'; the known ones are sws, tleg"):
        rows.runs(config)
