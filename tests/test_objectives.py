"""Objectives with parameters of their own: trained, split, kept and measured."""

import dataclasses
import functools
import os
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import sharding, trees
from sws_jax.errors import UserError
from sws_jax.estimate import flops, sizing
from sws_jax.methods import base
from sws_jax.methods.objectives import Loss
from sws_jax.specs import variants
from sws_jax.storage.names import CHECKPOINTS
from sws_jax.training import ending, evaluation, hooks, loop, metrics, step
from sws_jax.training.checkpoints import Checkpoints
from sws_jax.training.optim import Optimizer
from sws_jax.training.picks import Picks

from support.compare import close, equal
from support.learngenes import describe
from support.networks import aux_spec, params_of
from support.runs import Script
from support.steps import (
    BATCH,
    WIDE,
    drawn_batch,
    mapped_recipe,
    no_key_bias,
    recipe_of,
    run,
    teacher_of,
)
from support.tasks import begin, task_of, train

AUX = aux_spec((1, 2))
TEACHER = teacher_of(**WIDE)
ONE_STEP = jax.jit(step.train_step, static_argnums=0)


# Of the tests that make a step, so that they share its program.
BY_HAND = Optimizer(weight_decay=0.1, clip_norm=0.5, eps=1e-2)


def one_step(recipe, rate=0.1):
    """A state and batch, and what a step makes of them."""
    state = step.new_state(recipe, params_of(recipe.spec), seed=4)
    batch = drawn_batch(recipe.spec)
    return state, batch, *ONE_STEP(recipe, state, batch, jnp.float32(rate), TEACHER)


def test_a_step_over_both_by_hand():
    """One gradient with one norm for clipping, and decay by the names of the leaves."""
    recipe = mapped_recipe(AUX, optimizer=BY_HAND)
    state, batch, after, measured = one_step(recipe)

    @jax.jit
    def gradients(params, own):
        def loss_of(params, own):
            masks = jnp.moveaxis(batch.drop_path, 0, -1)
            student = AUX.build().apply(
                {"params": params}, batch.images, masks, taps=("blocks",)
            )
            taught = TEACHER.outputs(batch.images, recipe.normalization, ("blocks",))
            return recipe.loss(own, (student,), batch.targets, taught)

        return jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(params, own)

    (loss, parts), grads = gradients(state.params, state.own)
    np.testing.assert_allclose(measured["loss"], loss, rtol=1e-6)
    close(parts, {name: measured[name] for name in ("error", "labels")}, 1e-6)
    squares = sum((np.asarray(g, float) ** 2).sum() for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(measured["grad_norm"], squares**0.5, rtol=1e-5)
    assert squares**0.5 > 0.5

    def by_hand(path, p, g):
        p = np.asarray(p, np.float64)
        g = np.asarray(g, np.float64) * 0.5 / squares**0.5
        decay = 0.1 if path[-1].key == "kernel" else 0.0
        return p - 0.1 * (g / (np.abs(g) + 1e-2) + decay * p)

    before = (state.params, state.own)
    expected = jax.tree_util.tree_map_with_path(by_hand, before, grads)
    close(expected[1], after.own, 1e-5)
    close(no_key_bias(expected[0]), no_key_bias(after.params), 1e-5)


def test_what_an_objective_begins_with_is_of_the_seed():
    recipe, params = mapped_recipe(AUX), params_of(AUX)
    first, again, other = (
        step.new_state(recipe, params, seed=seed).own for seed in (1, 1, 2)
    )
    equal(first, again)
    assert not np.array_equal(first["map"]["kernel"], other["map"]["kernel"])
    assert step.new_state(recipe_of(AUX), params).own is None


@pytest.mark.slow  # by default, test_step accumulates the gradients of a network
def test_accumulated_steps_equal_the_whole_batch():
    recipe = mapped_recipe(AUX, optimizer=BY_HAND)
    *_, whole, measured = one_step(recipe)
    *_, parts, same = one_step(dataclasses.replace(recipe, accum_steps=4))
    close(measured, same, 1e-5)
    close(whole.own, parts.own, 1e-5)
    close(no_key_bias(whole.params), no_key_bias(parts.params), 1e-5)


@pytest.mark.parametrize(
    "sizes",
    [(2, 2, 2), (8, 1, 1), (1, 8, 1), (1, 1, 8)],
    ids=str,
)
@pytest.mark.slow
def test_every_mesh_is_one_device(sizes):
    """The kernel of the map is split by the names in its box; its bias has none."""
    recipe = mapped_recipe(AUX)
    sizes = dict(zip(sharding.AXES, sizes, strict=True))
    own = step.state_shardings(recipe, sharding.make_mesh(sizes=sizes)).own["map"]
    assert own["kernel"].spec == jax.sharding.PartitionSpec("fsdp", "tensor")
    assert own["bias"].spec == jax.sharding.PartitionSpec()
    losses, state = run(recipe, 1, teacher=TEACHER)
    sharded, sharded_state = run(recipe, 8, teacher=TEACHER, sizes=sizes)
    np.testing.assert_allclose(sharded, losses, rtol=2e-5)
    close(state.own, sharded_state.own, 2e-5)
    close(no_key_bias(state.params), no_key_bias(sharded_state.params), 1e-4)


def taught(directory, **changes):
    return task_of(directory, mapped_recipe(AUX), teacher=TEACHER, **changes)


@pytest.mark.slow  # by default, one on the page that adds methods is
def test_killed_and_resumed_is_bitwise_uninterrupted(tmp_path):
    """Network, own parameters and optimiser; what is measured is in the log."""
    whole = train(taught(tmp_path / "whole"))
    train(taught(tmp_path / "killed"), killed_at=5)
    resumed = train(taught(tmp_path / "killed"))
    assert resumed.first == 4
    equal(whole.state, resumed.state)
    before = step.new_state(whole.task.recipe, params_of(AUX), seed=3).own
    moved = np.abs(
        before["map"]["kernel"] - np.asarray(whole.state.own["map"]["kernel"])
    )
    assert moved.min() > 0
    rows, same = (
        [
            {
                k: v
                for k, v in row.items()
                if k not in ("images_per_second", "input_wait")
            }
            for row in metrics.read(str(tmp_path / name))
        ]
        for name in ("whole", "killed")
    )
    assert rows == same
    names = ["step", "loss", "grad_norm", "error", "labels", "rate", "epoch"]
    assert list(rows[0])[: len(names)] == names


@pytest.mark.slow
def test_a_run_ends_with_the_parameters_of_the_weights_that_it_keeps(
    tmp_path, monkeypatch
):
    """Of the best checkpoint, where that is asked for."""
    tops = {2: 0.5, 4: 0.9, 6: 0.1}
    kept = {}

    def score(predictor, *_, **__):
        top1 = tops.get(training.done, 0.0)
        return {"top1": top1, "top5": 1.0, "loss": 1.0, "count": 16.0, "skipped": 0.0}

    def remember(done):
        kept[done] = trees.to_host(training.state.own)

    monkeypatch.setattr(evaluation, "evaluate", score)
    task = taught(tmp_path, score_every=2, select_best=True, keep_last=4)
    training = begin(task, hooks=[hooks.every(2, remember, last=6)])
    training.open()
    training.steps()
    finished = ending.finish(training)
    training.close(all_ended_alike=True)
    assert finished.network.description.step == 4
    equal(kept[4], finished.own)
    assert not np.array_equal(kept[6]["map"]["bias"], finished.own["map"]["bias"])


def test_an_ordinary_checkpoint_has_nothing_more(tmp_path, monkeypatch):
    """One of older software goes on, and none has an item for parameters of nothing."""
    Script(monkeypatch, top1=lambda bias: 0.1)  # the older one stays the best
    task = task_of(tmp_path, recipe_of(AUX))
    params = params_of(AUX)
    older = Checkpoints(str(tmp_path))
    older.save(
        2,
        {
            "params": params,
            "opt": task.recipe.optimizer.build().init(params),
            "ema": params,
        },
        clock={"seconds": 1.5, "steps": 1},
        description=describe(AUX),
        val_top1=0.5,
    )
    older.close()
    training = train(task)
    assert (training.first, training.done) == (2, 6)
    of_older, own = (
        sorted(os.listdir(tmp_path / CHECKPOINTS / str(at))) for at in (2, 6)
    )
    assert of_older == own


def test_a_number_that_is_none_is_named(tmp_path, monkeypatch):
    def program(*_):
        numbers = {"loss": 1.0, "grad_norm": 2.0, "labels": 1.0, "error": np.nan}
        return lambda state, *arguments: (state, numbers)

    monkeypatch.setattr(step, "program", program)
    words = (
        "step 1 the loss is 1.0 .* norm 2.0, and error is nan; stopped, with nothing"
    )
    with pytest.raises(loop.NonFinite, match=words):
        train(taught(tmp_path))


@dataclasses.dataclass(frozen=True)
class Odd(Loss):
    """Measures something that cannot be logged."""

    name: str = "odd"
    size: int = 0
    taps: ClassVar = ()

    def __call__(self, own, students, targets, teacher):
        loss, _ = super().__call__(own, students, targets, teacher)
        return loss, {self.name: jnp.ones(self.size) if self.size else loss}


@pytest.mark.parametrize(
    "objective, words",
    [
        (Odd(name="loss"), "'loss', which is the name of another column"),
        (Odd(name="val_top1"), "'val_top1', which is the name of another column"),
        (Odd(size=3), r"'odd' of shape \(3,\), and the log takes scalars"),
    ],
)
def test_what_cannot_be_logged_is_refused(objective, words):
    recipe = recipe_of(AUX, loss=objective)
    with pytest.raises(UserError, match=words):
        jax.eval_shape(functools.partial(one_step, recipe))


@dataclasses.dataclass(frozen=True)
class Listed(Odd):
    """Makes parameters that no file holds."""

    made: str = "[]"

    def init(self, key, student, teacher):
        return {"[]": [jnp.ones(2)], "a/b": {"a/b": jnp.ones(2)}}[self.made]


@pytest.mark.parametrize("made", ["[]", "a/b"])
def test_own_parameters_that_no_file_holds_are_refused_before_a_step(made):
    recipe = recipe_of(AUX, loss=Listed(made=made))
    with pytest.raises(UserError, match="what the objective Listed makes .* nested"):
        jax.eval_shape(functools.partial(one_step, recipe))


def test_one_derived_from_the_usual_loss_is_none():
    """It may have taps and parameters of its own, which have to be counted."""
    assert base.is_usual(Loss("soft")) and not base.is_usual(Odd("soft"))
    plain, mapped = (recipe_of(AUX, loss=loss) for loss in (Loss(), Tapped()))
    assert flops.step_bytes(mapped) > flops.step_bytes(plain)


@dataclasses.dataclass(frozen=True)
class Tapped(Loss):
    taps: ClassVar = ("blocks",)

    def __call__(self, own, students, targets, teacher):
        loss, measured = super().__call__(own, students, targets, teacher)
        return loss + jnp.square(students[0].taps["blocks"]).mean(), measured


def test_products_with_own_parameters_are_counted():
    """2 FLOPs for a multiply-add: forward, and the gradients of blocks and kernel."""
    spec = TEACHER.network.spec
    mapped = flops.mean_step_flops(
        Picks(mapped_recipe(AUX), (), variants.pick_first, 0), 1
    )
    plain = flops.step_flops(AUX, teacher=spec)
    assert mapped - plain == 3 * 2 * AUX.net.tokens * AUX.net.width * 24


def test_own_parameters_are_on_the_sheet():
    mesh = sharding.make_mesh(jax.devices()[:1])
    plain, mapped = (
        sizing.estimate(recipe, mesh, BATCH, None)
        for recipe in (recipe_of(AUX), mapped_recipe(AUX))
    )
    own = 4 * (16 * 24 + 24)
    assert mapped.parameters - plain.parameters == own
    assert mapped.optimizer - plain.optimizer == 2 * own
    assert mapped.ema == plain.ema
