"""Variants of a network in the steps of a run: picked, compiled once, resumed."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import sharding
from sws_jax.errors import UserError
from sws_jax.estimate import flops, sizing
from sws_jax.specs import variants
from sws_jax.training import hooks, metrics, step
from sws_jax.training.optim import Optimizer
from sws_jax.training.picks import Picks

from support.compare import close, equal
from support.networks import aux_spec, params_of
from support.steps import (
    BATCH,
    PLAIN,
    Summed,
    drawn_batch,
    make_batch,
    no_key_bias,
    raw_batch,
    recipe_of,
)
from support.tasks import begin, task_of, train

STAGES = ((2, 2), (1, 2), (2, 1))
SPECS = tuple(map(aux_spec, STAGES))
VARIANTS = variants.computations(SPECS)
RECIPE = recipe_of(SPECS[0], loss=Summed(), augment=PLAIN)


def all_in_turn(seed, step):
    """The reference, and another one besides."""
    return (0, 1 + (seed + step) % 2)


def one_or_two(seed, step):
    return (0,) if step % 2 else (1, 2)


def picks_of(pick, recipe=RECIPE):
    return Picks(recipe, VARIANTS, pick, 3)


def test_programs_are_those_of_forms():
    """Variants that differ in which blocks run have one; another number is another."""
    form = SPECS[0]
    (recipe, students), *others = picks_of(all_in_turn).programs(6)
    assert not others and recipe.forms == (form, form)
    np.testing.assert_array_equal(students[0].ranges, [[0, 2], [0, 2]])
    np.testing.assert_array_equal(students[1].ranges, [[0, 2], [0, 1]])
    assert students[1].rates.shape == (4,) and students[1].rates[3] == 0
    forms = [r.forms for r, _ in picks_of(one_or_two).programs(6)]
    assert forms == [(form, form), (form,)]
    assert Picks(RECIPE, (), variants.pick_first, 3).programs(6) == [(RECIPE, ())]


@pytest.mark.parametrize("pick", [(), (3,), (0, -1)], ids=str)
def test_a_pick_of_nothing_is_refused(pick):
    with pytest.raises(
        UserError, match="step 5 picks .* of 3 variants: .* from 0 to 2"
    ):
        picks_of(lambda seed, step: pick).at(5)


def test_a_form_without_weights_is_refused():
    wide = variants.computations((aux_spec((2, 2), width=32),))
    picks = Picks(RECIPE, (*VARIANTS, *wide), variants.pick_first, 3)
    with pytest.raises(UserError, match="is no variant of aux_.*! patch_embed/proj"):
        picks.programs(6)


def laid_out(masks, spec, form):
    """Masks of a variant's blocks at their places among those of its form."""
    whole, at = np.ones((BATCH, form.depth, 2), np.float32), 0
    for stage, (length, longest) in enumerate(
        zip(spec.stages, form.stages, strict=True)
    ):
        start = sum(form.stages[:stage])
        whole[:, start : start + length] = masks[:, at : at + length]
        assert length <= longest
        at += length
    return whole


def test_a_step_of_a_variant_is_that_of_its_network():
    """Of each of two students, with stochastic depth: gradients are summed."""
    optimizer = Optimizer(eps=1e-3)
    recipe, students = picks_of(lambda *_: (1, 2)).at(0)
    recipe = dataclasses.replace(recipe, optimizer=optimizer)
    params = params_of(SPECS[0])
    plain = [recipe_of(spec, optimizer=optimizer) for spec in SPECS[1:]]
    batches = [drawn_batch(spec) for spec in SPECS[1:]]
    batches[1] = batches[1]._replace(images=batches[0].images)
    batches[1] = batches[1]._replace(targets=batches[0].targets)

    @jax.jit
    def by_hand(state):
        def loss_of(params):
            total = 0.0
            for r, batch in zip(plain, batches, strict=True):
                masks = jnp.moveaxis(batch.drop_path, 0, -1)
                logits = r.spec.build().apply({"params": params}, batch.images, masks)
                total += r.loss.of(logits, batch.targets)
            return total

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        update, _ = optimizer.build().update(grads, state.opt, state.params)
        return loss, jax.tree.map(lambda p, u: p - 0.1 * u, state.params, update)

    masks = tuple(
        laid_out(batch.drop_path, spec, SPECS[0])
        for batch, spec in zip(batches, SPECS[1:], strict=True)
    )
    batch = batches[0]._replace(drop_path=masks)
    state = jax.jit(step.new_state, static_argnums=0)(recipe, params)
    after, measured = jax.jit(step.train_step, static_argnums=0)(
        recipe, state, batch, jnp.float32(0.1), None, students
    )
    loss, expected = by_hand(state)
    np.testing.assert_allclose(measured["loss"], loss, rtol=1e-6)
    close(no_key_bias(expected), no_key_bias(after.params), 1e-5)


def test_masks_of_the_first_student_are_those_without_variants():
    """Every student has its own; a block that does not run has none."""
    recipe, students = picks_of(lambda *_: (0, 1, 1)).at(0)
    key, number = jax.random.key(0), jnp.int32(5)
    batch = make_batch(recipe, key, number, raw_batch(), students)
    alone = make_batch(RECIPE, key, number, raw_batch())
    first, second, third = batch.drop_path
    equal(alone.drop_path, first)
    equal(alone.images, batch.images)
    assert (np.asarray(second) == 0).any() and not np.array_equal(second, third)
    np.testing.assert_array_equal(np.asarray(second)[:, 1], 1)


def task(directory, pick=all_in_turn):
    return task_of(directory, RECIPE, variants=VARIANTS, pick=pick)


def test_killed_and_resumed_is_bitwise_uninterrupted(tmp_path, capsys):
    """One program for all picks, as was said; hooks go on at their steps."""
    seen = []
    before = step._program.cache_info().misses
    own = [hooks.every(3, seen.append, last=6)]
    whole = train(task(tmp_path / "whole"), hooks=own)
    train(task(tmp_path / "killed"), killed_at=5, hooks=own)
    resumed = train(task(tmp_path / "killed"), hooks=own)
    assert step._program.cache_info().misses == before + 1
    assert capsys.readouterr().out.count("run: 3 variants in 1 program\n") == 3
    assert resumed.first == 4
    assert seen == [3, 6, 3, 6]
    equal(whole.state, resumed.state)
    rows = metrics.read(str(tmp_path / "whole"))
    same = metrics.read(str(tmp_path / "killed"))
    assert [row["last"] for row in rows] == [row["last"] for row in same]


def another_at_the_fourth(seed, step):
    return (0,) if step == 3 else (1, 2)


@pytest.mark.slow
def test_several_programs_in_one_run(tmp_path, capsys, monkeypatch):
    """Each is compiled when it is first needed, while the clock stands still."""
    compile_step, speeds = step.program, []
    training = begin(task(tmp_path, another_at_the_fourth))

    def program(*arguments):
        clock = training.history.clock
        before = clock.steps_per_second
        time.sleep(0.01)
        speeds.append((training.done, before, clock.steps_per_second))
        return compile_step(*arguments)

    monkeypatch.setattr(step, "program", program)
    training.open()
    training.steps()
    training.close(all_ended_alike=True)
    assert "run: 3 variants in 2 programs\n" in capsys.readouterr().out
    (*first, _), (done, before, after) = speeds
    assert first == [0, None]
    assert done == 3 and before == after is not None


def test_a_sheet_is_of_the_largest_program():
    mesh = sharding.make_mesh(jax.devices()[:1])
    two, one = programs = picks_of(one_or_two).programs(2)
    small, large = (
        sizing.estimate(recipe, mesh, BATCH, None, students)
        for recipe, students in (one, two)
    )
    assert large.activations > 1.5 * small.activations
    assert large.parameters == small.parameters
    assert sizing.largest(programs) == sizing.largest(programs[::-1]) == two


def test_flops_of_all_students():
    """A mean over the steps; a block that a variant leaves out is not counted."""
    alone = [flops.step_flops(spec) for spec in SPECS]
    assert flops.mean_step_flops(picks_of(all_in_turn), 1) == alone[0] + alone[2]
    assert flops.mean_step_flops(picks_of(one_or_two), 4) == sum(alone) / 2
