"""The training step: sharding, accumulation, teachers, and its random keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import sharding, specs
from sws_jax.jobs.teacher import load_teacher
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks, vit
from sws_jax.models.networks import Network
from sws_jax.specs import Compute
from sws_jax.training import step
from sws_jax.training.optim import Optimizer

from support.compare import close, equal
from support.learngenes import describe
from support.networks import TINY, aux_spec, params_of
from support.steps import (
    BATCH,
    GREY,
    PLAIN,
    drawn_batch,
    make_batch,
    no_key_bias,
    raw_batch,
    recipe_of,
    run,
    teacher_of,
)

SLOW = pytest.mark.slow


@pytest.fixture
def aux():
    """Two stages, one of them repeated: enough, and quick to compile."""
    return aux_spec((1, 2))


def test_sharded_equals_unsharded(aux):
    """Drop-path on; Aux-Net and teacher; accumulation in two parts on the sharded side.

    What devices do to augmentation is in test_augment, and in the marked tests below.
    """
    teacher = teacher_of()
    recipe = recipe_of(aux, augment=PLAIN, loss=Loss(kind="soft", alpha=0.5, tau=2.0))
    losses, state = run(recipe, 1, teacher=teacher)
    sharded, sharded_state = run(
        dataclasses.replace(recipe, accum_steps=2), 8, teacher=teacher
    )
    np.testing.assert_allclose(sharded, losses, rtol=2e-5)
    close(no_key_bias(state.params), no_key_bias(sharded_state.params), 1e-4)
    close(no_key_bias(state.ema), no_key_bias(sharded_state.ema), 1e-4)
    assert int(sharded_state.step) == 3


@pytest.mark.parametrize(
    "sizes, kind",
    [
        *(
            pytest.param(sizes, kind, marks=SLOW)
            for sizes, kind in (
                ((2, 2, 2), "soft"),
                ((2, 2, 2), "descendant"),
                ((1, 8, 1), "none"),
                ((4, 1, 2), "soft"),
                ((1, 1, 8), "soft"),  # 2 heads over 8: replicated
                ((2, 1, 4), "descendant"),
            )
        ),
    ],
    ids=str,
)
def test_every_mesh_is_one_device(sizes, kind, aux):
    """Weights, optimiser and teacher split too; drop-path, mixup and cutmix on."""
    spec = aux.net if kind == "descendant" else aux
    teacher = teacher_of() if kind == "soft" else None
    loss = Loss(kind="soft" if teacher else "none", alpha=0.5, tau=2.0)
    recipe = recipe_of(spec, loss=loss)
    losses, state = run(recipe, 1, teacher=teacher)
    named = dict(zip(sharding.AXES, sizes, strict=True))
    sharded, sharded_state = run(recipe, 8, teacher=teacher, sizes=named)
    np.testing.assert_allclose(sharded, losses, rtol=2e-5)
    close(no_key_bias(state.params), no_key_bias(sharded_state.params), 1e-4)
    close(no_key_bias(state.ema), no_key_bias(sharded_state.ema), 1e-4)


new_state = jax.jit(step.new_state, static_argnums=0)


def logits_of(teacher, view=GREY):
    return jax.jit(lambda images: teacher.logits(images, view))


def gradients(recipe, params, batch, teacher=None):
    def loss(params, part):
        masks = None if part.drop_path is None else jnp.moveaxis(part.drop_path, 0, -1)
        logits = recipe.spec.build().apply({"params": params}, part.images, masks)
        taught = teacher and teacher.logits(part.images, recipe.normalization)
        return recipe.loss.of(logits, part.targets, taught)

    return step.accumulate(jax.value_and_grad(loss), params, batch, recipe.accum_steps)


def test_accumulated_gradients_equal_the_large_batch(net):
    recipe = recipe_of(net.replace(depth=2), loss=Loss("soft", 0.7, 2.0, "per_class"))
    batch = drawn_batch(recipe.spec)
    assert (np.asarray(batch.drop_path) == 0).any()
    params, teacher = params_of(recipe.spec), teacher_of()
    compute = jax.jit(gradients, static_argnums=0)
    whole = compute(recipe, params, batch, teacher)
    parts = dataclasses.replace(recipe, accum_steps=4)
    close(whole, compute(parts, params, batch, teacher))


def test_a_step_against_adamw_by_hand(net):
    """Loss, AdamW, decay by name and average in numpy, of one batch with a teacher."""
    recipe = recipe_of(
        net,
        loss=Loss("soft", alpha=0.5),
        # The usual eps makes steps of gradients that are hardly more than rounding.
        optimizer=Optimizer(weight_decay=0.1, eps=1e-5),
    )
    random = np.random.default_rng(0)
    batch = step.Batch(
        images=random.normal(size=(4, 8, 8, 1)).astype(np.float32),
        targets=np.full((4, 10), 0.1, np.float32),
    )
    state, teacher = new_state(recipe, params_of(net)), teacher_of()
    loss, grads = jax.jit(gradients, static_argnums=0)(
        recipe, state.params, batch, teacher
    )
    after, metrics = jax.jit(step.train_step, static_argnums=0)(
        recipe, state, batch, jnp.float32(0.01), teacher
    )
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    squares = sum(
        (np.asarray(g, np.float64) ** 2).sum() for g in jax.tree.leaves(grads)
    )
    np.testing.assert_allclose(metrics["grad_norm"], squares**0.5, rtol=1e-5)

    def by_hand(path, p, g):
        p, g = np.asarray(p, np.float64), np.asarray(g, np.float64)
        m, v = 0.1 * g / (1 - 0.9), 0.001 * g**2 / (1 - 0.999)
        decay = 0.1 if path[-1].key == "kernel" else 0.0
        return p - 0.01 * (m / (np.sqrt(v) + 1e-5) + decay * p)

    expected = jax.tree_util.tree_map_with_path(by_hand, state.params, grads)
    close(no_key_bias(expected), no_key_bias(after.params), 1e-5)
    average = jax.tree.map(lambda p, q: 0.9 * p + 0.1 * q, state.params, expected)
    close(no_key_bias(average), no_key_bias(after.ema), 1e-5)
    assert int(after.step) == 1


def test_the_step_is_a_function_of_seed_and_step(aux):
    recipe = recipe_of(aux)
    batches = {
        (seed, number): make_batch(
            recipe, jax.random.key(seed), jnp.int32(number), raw_batch()
        )
        for seed, number in ((0, 0), (0, 1), (1, 0))
    }
    again = make_batch(recipe, jax.random.key(0), jnp.int32(1), raw_batch())
    equal(batches[0, 1], again)
    for other in ((0, 0), (1, 0)):
        assert not np.array_equal(batches[other].images, again.images)
        assert not np.array_equal(batches[other].drop_path, again.drop_path)


def test_augmentation_and_stochastic_depth_have_keys_of_their_own(aux):
    """What one of them draws says nothing of the other."""
    recipe, key = recipe_of(aux), jax.random.key(0)
    batch = make_batch(recipe, key, jnp.int32(7), raw_batch())
    augment_key, drop_key = step.keys(key, 7)
    assert not np.array_equal(*map(jax.random.key_data, (augment_key, drop_key)))
    masks = vit.drop_path_masks(drop_key, aux.net.drop_path_rates, BATCH)
    equal(np.moveaxis(masks, -1, 0), batch.drop_path)
    raw = raw_batch()
    augment = jax.jit(recipe.augment, static_argnums=(3, 4))
    images, _ = augment(augment_key, raw["image"], raw["label"], 10, GREY)
    close(images, batch.images)


def test_a_teacher_resizes_as_its_file_says(tmp_path):
    """Bilinear, by hand: every pixel is 3/4 of the near one and 1/4 of the next."""
    spec = specs.ViTSpec(depth=1, **{**TINY, "image_size": 16})
    about = describe(aux_spec((1,)), kind="network", net=spec, stages=(), method="")
    path = str(tmp_path / "teacher.safetensors")
    params = params_of(spec)
    about = about.replace(interpolation="bilinear")
    networks.save_network(path, Network(spec, params, about))
    teacher = load_teacher(path)
    small = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    large = small
    for axis in (1, 2):
        before = np.concatenate([large.take([0], axis), large], axis)
        after = np.concatenate([large, large.take([-1], axis)], axis)
        left = large * 0.75 + before.take(range(8), axis) * 0.25
        right = large * 0.75 + after.take(range(1, 9), axis) * 0.25
        shape = [n * (1 + (i == axis)) for i, n in enumerate(large.shape)]
        large = np.stack([left, right], axis + 1).reshape(shape)
    expected = jax.jit(spec.build().apply)({"params": params}, large)
    close(expected, logits_of(teacher, teacher.normalization)(small))


def test_the_teacher_sees_the_students_batch(aux):
    """Mapped to its own normalisation and size, in its own dtype, no gradient."""
    teacher = teacher_of(image_size=16)
    pixels = np.asarray(raw_batch()["image"][:3])
    student_view = (pixels / 255.0 - 0.3) / 0.4
    own_view = (pixels / 255.0 - 0.5) / 0.2
    resize = jax.jit(jax.image.resize, static_argnums=(1, 2, 3))
    own_view = resize(own_view, (3, 16, 16, 1), "bicubic", True)
    net = teacher.network
    expected = jax.jit(net.spec.build().apply)({"params": net.params}, own_view)
    logits = logits_of(teacher)(jnp.asarray(student_view, jnp.float32))
    close(expected, logits, 1e-5)
    low = dataclasses.replace(teacher, compute=Compute(dtype="bfloat16"))
    error = np.abs(logits_of(low)(jnp.asarray(student_view, jnp.float32)) - expected)
    assert 1e-5 < error.max() / np.abs(expected).max() < 5e-2
    gradient = jax.jit(jax.grad(lambda x: teacher.logits(x, GREY).sum()))(
        jnp.asarray(student_view)
    )
    assert not np.asarray(gradient).any()


def test_compiled_steps_are_shared_between_equal_recipes(net):
    mesh = sharding.make_mesh()
    first = step.compiled_step(recipe_of(net), mesh)
    assert step.compiled_step(recipe_of(net.replace()), mesh) is first
    assert step.compiled_step(recipe_of(net, ema=0.0), mesh) is not first


def test_ema_starts_from_the_given_weights(net):
    params = params_of(net)
    state = step.new_state(recipe_of(net), params)
    equal(params, state.ema)
    assert step.new_state(recipe_of(net, ema=0.0), params).ema is None


@pytest.mark.parametrize("size, micro_batches", [(12, 1), (8, 2), (0, 1)])
def test_a_batch_that_does_not_divide_is_refused(size, micro_batches):
    with pytest.raises(
        ValueError, match=f"batch {size} does not divide over 8 devices"
    ):
        sharding.check_batch("batch", size, sharding.make_mesh(), micro_batches)
