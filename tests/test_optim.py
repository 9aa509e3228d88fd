"""Which parameters decay, AdamW against numpy, and learning rates step by step."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import specs, trees
from sws_jax.errors import UserError
from sws_jax.methods import learngenes
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.pixels import default_normalization
from sws_jax.training import optim
from sws_jax.training.optim import Optimizer, Schedule


def decayed_and_not(spec):
    params = networks.abstract_params(spec)
    flags = trees.flatten(optim.decay_mask(params))
    totals = {True: 0, False: 0}
    for name, leaf in trees.flatten(params).items():
        totals[flags[name]] += math.prod(leaf.shape)
    return totals[True], totals[False]


def test_both_halves_of_a_tleg_gene_decay():
    """Kernels of base and slope, although each has a gene axis; no bias, no norm."""
    about = Description(
        kind="learngene",
        net=specs.named("vit_small_patch16_L12"),
        stages=(12,),
        method="tleg",
        normalization=default_normalization(3),
    )
    params = learngenes.abstract_learngene(about).params
    names = [n for n in trees.leaf_names(params) if optim.decays(n)]
    modules = ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")
    assert sorted(names) == sorted(
        [f"blocks/{half}/{m}/kernel" for half in ("base", "slope") for m in modules]
        + ["patch_embed/proj/kernel", "head/kernel"]
    )


def test_what_the_published_run_decays():
    spec = specs.named("aux_vit_small_patch16_3-3-4-3-3")
    assert decayed_and_not(spec) == (9_526_272, 102_376)


def test_stacked_layers_are_decayed_alike():
    """Counted by hand; twelve stacked layers, whose biases have two axes."""
    d, m = 384, 4 * 384
    kernels = 16 * 16 * 3 * d + 12 * (d * 3 * d + d * d + 2 * d * m) + d * 1000
    others = d + 196 * d + 12 * (4 * d + 3 * d + d + m + d) + 2 * d + 1000
    spec = specs.named("vit_small_patch16_L12")
    assert decayed_and_not(spec) == (kernels, others)


@pytest.mark.parametrize("which", ["net", "aux"])
def test_only_kernels_are_decayed(which, request):
    spec = request.getfixturevalue(which)
    mask = trees.flatten(optim.decay_mask(networks.abstract_params(spec)))
    stages = ["blocks"] if which == "net" else ["stage_0", "stage_1", "stage_2"]
    layers = ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")
    expected = {"patch_embed/proj/kernel", "head/kernel"}
    expected |= {f"{stage}/{layer}/kernel" for stage in stages for layer in layers}
    assert {name for name, decayed in mask.items() if decayed} == expected


def test_a_class_token_is_not_decayed(net):
    params = networks.abstract_params(net.replace(pool="token"))
    mask = trees.flatten(optim.decay_mask(params))
    assert mask["cls_token"] is False
    assert mask["pos_embed"] is False


def adamw(params, gradients, rate, *, decay, b1=0.9, b2=0.999, eps=1e-8):
    """1711.05101, algorithm 2, one tensor and one gradient after another."""
    p = np.asarray(params, np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, gradient in enumerate(gradients, start=1):
        g = np.asarray(gradient, np.float64)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        ahead = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - rate * (ahead + decay * p)
    return p


def updated(optimizer, params, gradients, rate):
    """As the train step applies it: the rate multiplies what `build` gives."""
    transformation = optimizer.build()
    state = transformation.init(params)
    for gradient in gradients:
        update, state = transformation.update(gradient, state, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, update)
    return params


@pytest.mark.parametrize(
    "fields", [dict(), dict(weight_decay=0.3, b1=0.5, b2=0.7, eps=0.1)]
)
@pytest.mark.parametrize("steps", [1, 3])
def test_adamw_against_numpy(fields, steps):
    random = np.random.default_rng(0)
    shapes = {
        "blocks": {"kernel": (2, 3, 4), "bias": (2, 4), "scale": (2, 4)},
        "pos_embed": (1, 2, 4),
    }

    def draw():
        return jax.tree.map(
            lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32),
            shapes,
            is_leaf=lambda node: isinstance(node, tuple),
        )

    params, gradients = draw(), [draw() for _ in range(steps)]
    after = trees.flatten(updated(Optimizer(**fields), params, gradients, 0.01))
    settings = dict(fields)
    decay = settings.pop("weight_decay", 0.05)
    for name, start in trees.flatten(params).items():
        expected = adamw(
            start,
            [trees.flatten(gradient)[name] for gradient in gradients],
            0.01,
            decay=decay if name == "blocks/kernel" else 0.0,
            **settings,
        )
        np.testing.assert_allclose(after[name], expected, atol=1e-6)


@pytest.mark.parametrize(
    "clip_norm, update",
    [
        # eps 1 and one step: the update is g / (|g| + 1).
        (0.0, [3 / 4, 4 / 5]),
        (10.0, [3 / 4, 4 / 5]),
        (1.0, [0.6 / 1.6, 0.8 / 1.8]),
    ],
)
def test_clipping_is_by_the_norm_of_all_gradients(clip_norm, update):
    optimizer = Optimizer(clip_norm=clip_norm, eps=1.0, weight_decay=0.0)
    params = {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)}
    gradient = {"kernel": jnp.asarray([3.0]), "bias": jnp.asarray([4.0])}
    after = updated(optimizer, params, [gradient], 1.0)
    both = [-float(after[name][0]) for name in ("kernel", "bias")]
    assert both == pytest.approx(update, rel=1e-5)


def test_cosine_goes_step_by_step():
    schedule = Schedule(
        peak=1.0, total_steps=8, warmup_steps=2, warmup_rate=0.1, minimum=0.2
    )
    root = math.sqrt(0.5)
    expected = {
        0: 0.1,
        1: 0.55,
        2: 0.2 + 0.4 * (1 + root),  # the cosine began at step 0
        4: 0.6,
        6: 0.2 + 0.4 * (1 - root),
        8: 0.2,
        9: 0.2,
    }
    assert {step: schedule(step) for step in expected} == pytest.approx(expected)


def test_cosine_without_warm_up_starts_at_the_peak():
    schedule = Schedule(peak=2.0, total_steps=4)
    rates = [schedule(step) for step in range(5)]
    fall = math.sqrt(0.5)
    assert rates == pytest.approx([2.0, 1 + fall, 1.0, 1 - fall, 0.0])


@pytest.mark.parametrize("images", [64, 192, 666, 700])
@pytest.mark.parametrize(
    "warmup, rates",
    [
        # Epoch e at value(e - 1), and epoch 0 as epoch 1. After the warm-up the
        # value is the cosine's at t / 6, as if there had been none.
        (0, [1, 1, 0.5 + 0.25 * math.sqrt(3), 0.75, 0.5, 0.25]),
        (2, [0.1, 0.1, 0.55, 0.75, 0.5, 0.25]),
    ],
)
def test_the_published_curve(images, warmup, rates):
    """Epochs begin where their images do, in the middle of a step or not."""
    steps = round(6 * images / 64)
    schedule = Schedule(
        kind="cosine_per_epoch",
        peak=1.0,
        total_steps=steps,
        warmup_steps=round(warmup * images / 64),
        warmup_rate=0.1,
        steps_per_epoch=Fraction(images, 64),
    )
    curve = [schedule(step) for step in range(steps)]
    expected = [rates[step * 64 // images] for step in range(steps)]
    assert curve == pytest.approx(expected)


def test_the_published_run():
    """150 epochs of 2,502 steps, of which five warm up, peak 5e-4, minimum 1e-5."""
    schedule = Schedule(
        kind="cosine_per_epoch",
        peak=5e-4,
        total_steps=150 * 2502,
        warmup_steps=5 * 2502,
        warmup_rate=1e-6,
        minimum=1e-5,
        steps_per_epoch=2502,
    )

    def value(t):
        if t < 5:
            return 1e-6 + (5e-4 - 1e-6) * t / 5
        return 1e-5 + (5e-4 - 1e-5) * (1 + math.cos(math.pi * t / 150)) / 2

    expected = [value(0)] + [value(epoch - 1) for epoch in range(1, 150)]
    for offset in (0, 2501):
        curve = [schedule(2502 * epoch + offset) for epoch in range(150)]
        assert curve == pytest.approx(expected, rel=1e-9)


def test_constant_stays_after_warm_up():
    schedule = Schedule(
        kind="constant", peak=0.4, total_steps=9, warmup_steps=2, minimum=0.1
    )
    rates = [schedule(step) for step in range(9)]
    assert rates == pytest.approx([0.0, 0.2] + [0.4] * 7)


@pytest.mark.parametrize(
    "batch, per, rate", [(512, 512, 5e-4), (1024, 512, 1e-3), (64, 256, 1.25e-4)]
)
def test_the_rate_grows_with_the_batch(batch, per, rate):
    assert optim.scaled_rate(5e-4, batch, per) == pytest.approx(rate, rel=1e-12)


def test_the_rate_is_left_alone():
    assert optim.scaled_rate(5e-4, 1024, 0) == 5e-4


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(kind="linear"), "'linear' is not one of cosine, cosine_per_epoch, const"),
        (dict(warmup_steps=11), "warm-up of 11 steps is longer than the run of 10"),
    ],
)
def test_impossible_schedules_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        Schedule(peak=1.0, total_steps=10, **fields)
