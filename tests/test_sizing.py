"""The sheet of a step against what its arrays really take."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from sws_jax import sharding, specs, trees
from sws_jax.estimate import sizing
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.specs import Compute
from sws_jax.training import step

from support.networks import TINY, params_of
from support.steps import (
    AUX,
    BATCH,
    PLAIN,
    placed,
    raw_batch,
    recipe_of,
    teacher_of,
)


def mesh_of(*sizes):
    return sharding.make_mesh(sizes=dict(zip(sharding.AXES, sizes, strict=True)))


def on_first(tree):
    """Bytes of the shards of a tree that the first device holds."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_a_sheet_is_what_the_arrays_take_and_the_program_runs():
    """On 2 x 2 x 2; the state's buffers are donated, and one compilation is all."""
    mesh = mesh_of(2, 2, 2)
    recipe = recipe_of(AUX, loss=Loss("soft"), augment=PLAIN)
    teacher = placed(teacher_of(), mesh)
    sheet = sizing.sheet(recipe, mesh, BATCH, teacher)
    places = step.state_shardings(recipe, mesh)
    params = jax.device_put(params_of(AUX), places.params)
    state = jax.jit(lambda p: step.new_state(recipe, p), out_shardings=places)(params)
    raw = sharding.to_global(mesh, BATCH, trees.to_host(raw_batch()))
    assert sheet.parameters == on_first(state.params)
    assert sheet.optimizer == on_first(state.opt) + 4  # and the number of the step
    assert sheet.ema == sheet.parameters
    assert sheet.teacher == on_first(teacher.network.params)
    assert sheet.batch == on_first(raw) == BATCH * (64 + 4) / 4
    assert sheet.activations > 0 and sheet.uncounted == 0
    assert sheet.total == sum(
        getattr(sheet, name)
        for name in ("parameters", "optimizer", "ema", "teacher", "batch")
    ) + (sheet.activations)

    # Gradients are summed over data and fsdp, activations over tensor.
    over = {(traffic.kind, traffic.axes) for traffic in sheet.traffic}
    assert ("all-reduce", ("tensor",)) in over
    assert ("all-gather", ("fsdp",)) in over
    assert {axes for kind, axes in over if kind == "all-gather"} == {("fsdp",)}
    for words in (
        "parameters, ",
        " teacher, ",
        " in all; a step sends ",
        "over tensor",
    ):
        assert words in str(sheet)

    kept = sheet.parameters + sheet.optimizer + sheet.ema
    replayed = sizing.sheet(recipe, mesh, BATCH, teacher, replayed=True)
    assert replayed == dataclasses.replace(sheet, replay=kept)
    assert replayed.total == sheet.total + kept == sheet.total + on_first(state)
    assert " state to replay a step from;" in str(replayed)
    assert "replay" not in str(sheet)

    program = step.program(recipe, mesh, BATCH, teacher)
    key = jax.device_put(jax.random.key(3), sharding.replicated(mesh))
    for _ in range(2):
        before = state
        state, metrics = program(state, key, raw, np.float32(0.01), teacher)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert np.isfinite(float(metrics["loss"]))
    assert step.compiled_step(recipe, mesh)._cache_size() == 0
    again = dataclasses.replace(recipe, ema=recipe.ema)
    assert step.program(again, mesh, BATCH, placed(teacher_of(), mesh)) is program


@pytest.mark.slow
def test_bytes_of_data_parallelism_by_hand():
    """Gradients, loss and norms: an all-reduce sends 7/4 of them on eight devices."""
    recipe = recipe_of(AUX, augment=PLAIN)
    sheet = sizing.sheet(recipe, mesh_of(8, 1, 1), BATCH, None)
    assert {traffic.axes for traffic in sheet.traffic} == {("data",)}
    shapes = trees.flatten(networks.abstract_params(AUX))
    # A stage's weights are shared: their gradient is summed at every application.
    numbers = sum(
        math.prod(leaf.shape) * (2 if name.startswith("stage_1") else 1)
        for name, leaf in shapes.items()
    )
    assert 1 <= sheet.sent / (7 / 4 * 4 * numbers) < 1.01
    assert sheet.teacher == 0 and "teacher" not in str(sheet)


@pytest.mark.slow
def test_blocks_that_are_computed_again_take_less():
    net = specs.ViTSpec(**{**TINY, "width": 64, "image_size": 32, "depth": 8})
    plain, again = (
        sizing.sheet(recipe_of(net, compute=compute), mesh_of(8, 1, 1), 128, None)
        for compute in (Compute(), Compute(remat=True))
    )
    assert again.activations < 0.8 * plain.activations
    assert again.parameters == plain.parameters


def test_what_exceeds_a_device_is_said():
    sheet = sizing.Sheet(2**30, 2**31, 0, 0, 0, None, (), 0)
    assert str(sheet) == (
        "1 GiB parameters, 2 GiB optimiser; 3 GiB in all without activations; "
        "a step sends nothing"
    )
    assert sizing.warning(sheet, None) == sizing.warning(sheet, 3 * 2**30) == ""
    assert "more than the 2 GiB of a device" in sizing.warning(sheet, 2**31)


@pytest.mark.parametrize("spec", [AUX, specs.ViTSpec(depth=3, **TINY)])
def test_an_estimate_is_the_sheet_but_for_what_a_compiler_decides(spec):
    """The arguments agree to the byte; nothing is compiled for it."""
    mesh = mesh_of(2, 2, 2)
    recipe = recipe_of(spec, augment=PLAIN, ema=0.9)
    before = step._program.cache_info().misses
    estimate = sizing.estimate(recipe, mesh, BATCH, None)
    assert step._program.cache_info().misses == before
    sheet = sizing.sheet(recipe, mesh, BATCH, None)
    unknown = dict(activations=None, traffic=(), uncounted=0)
    assert dataclasses.replace(estimate, **unknown) == dataclasses.replace(
        sheet, **unknown
    )


def test_an_estimate_grows_with_the_images_of_a_device():
    recipe = recipe_of(AUX, augment=PLAIN)

    def kept(mesh, size, **changes):
        estimate = sizing.estimate(
            dataclasses.replace(recipe, **changes), mesh_of(*mesh), size, None
        )
        return estimate.activations - estimate.parameters

    one = kept((8, 1, 1), 8)
    assert one > 0
    assert kept((8, 1, 1), 64) == 8 * one
    assert kept((4, 2, 1), 64) == 8 * one
    assert kept((8, 1, 1), 64, accum_steps=4) == 2 * one
    assert kept((4, 1, 2), 32) == 8 * one // 2
