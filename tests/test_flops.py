"""Costs of networks, against formulas by hand, published figures and XLA's count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import specs
from sws_jax.estimate import flops
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.models.loop import LoopViT

from support.formulas import (
    NANO,
    PLAIN,
    REMAT,
    S12,
    block_flops,
    formula,
    forward,
    patch_flops,
)

AUX = specs.AuxViTSpec(NANO, (1, 1))


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, np.float32)


# Networks


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(pool="token", distilled=True, num_classes=7, mlp_ratio=3.0),
        dict(pool="token", distilled=True, dist_head=False),
        dict(image_size=(32, 64), patch_size=8, channels=1, depth=3),
    ],
)
def test_forward_by_hand(changes):
    net = S12.replace(**changes)
    assert flops.forward_flops(net) == forward(net)


@pytest.mark.parametrize(
    "spec, billions",
    [
        # DeiT-Ti, -S and -B, with their class token (2012.12877).
        (specs.named("vit_tiny_patch16_L12", pool="token"), 1.3),
        (specs.named("vit_small_patch16_L12", pool="token"), 4.6),
        (specs.named("vit_base_patch16_L12", pool="token"), 17.6),
        (specs.LEVITS["levit_384"], 2.35),  # 2104.01136: 2353 M
        (specs.REGNETS["regnety_160"], 15.9),  # 2003.13678
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_published_multiply_adds(spec, billions):
    digits = len(str(billions).split(".")[1])
    assert round(flops.forward_flops(spec) / 2e9, digits) == billions


@pytest.mark.parametrize(
    "spec", [NANO, specs.AuxViTSpec(NANO.replace(depth=3), (1, 2))]
)
def test_a_scan_counts_as_the_loop_that_it_replaces(spec):
    def loop(params, images):
        return LoopViT(spec).apply({"params": params}, images)

    images = shape(1, 32, 32, 3)
    counted = flops.flops(loop, networks.abstract_params(spec), images)
    assert counted == flops.forward_flops(spec) == forward(spec.net)


def test_an_aux_net_costs_what_its_expansion_costs_but_in_parameters():
    assert flops.params(AUX) == formula(AUX)
    assert flops.forward_flops(AUX) == flops.forward_flops(NANO)
    assert flops.step_flops(AUX) == flops.step_flops(NANO)
    assert flops.activation_bytes(AUX) == flops.activation_bytes(NANO)


def test_a_step_is_three_forwards_but_for_the_pixels_gradient():
    step = flops.step_flops(S12)
    assert step == 3 * forward(S12) - patch_flops(S12)


def test_rematerialisation_adds_a_forward_of_the_blocks():
    """But for the last product of each: no gradient needs what it gives."""
    last = 2 * S12.tokens * S12.width * S12.hidden
    added = flops.step_flops(S12, REMAT) - flops.step_flops(S12)
    assert added == S12.depth * (block_flops(S12) - last)


def test_what_is_not_trained_has_no_step():
    teacher = specs.LEVITS["levit_128s"]
    for call, words in (
        (lambda: flops.step_flops(teacher), "levit_128s is a teacher here"),
        (lambda: flops.activation_bytes(teacher), "levit_128s is a teacher here"),
        (lambda: flops.step_flops(NANO.replace(num_classes=0)), "has no classes"),
        (
            lambda: flops.step_flops(NANO.replace(num_classes=7), teacher=teacher),
            "num_classes of vit_nano_patch8_L2 is 7, and of its teacher levit_128s",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# The counting itself


def product(x, w):
    return x @ w


def grouped(x, w):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )


def repeated(x, w):
    def inner(x, _):
        return x @ w, None

    def outer(x, _):
        return jax.lax.scan(inner, x, length=3)[0], None

    return jax.lax.scan(outer, x, length=5)[0]


def branches(x, w):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)


@jax.custom_vjp
def custom(x, w):
    return jax.jit(product)(x, w)


custom.defvjp(lambda x, w: (custom(x, w), (x, w)), lambda kept, g: (g, g))

# [4, 6] by [6, 6]: 4 x 6 sums of 6.
X, W, ONCE = shape(4, 6), shape(6, 6), 2 * 4 * 6 * 6


@pytest.mark.parametrize(
    "function, arguments, expected",
    [
        (product, (X, W), ONCE),
        (product, (shape(3, 4, 6), shape(3, 6, 5)), 2 * 3 * 4 * 5 * 6),
        # 4 x 4 places of 6 channels, each a sum over 3 x 3 and half of 8 channels.
        (grouped, (shape(2, 8, 8, 8), shape(3, 3, 4, 6)), 2 * 2 * 16 * 6 * 9 * 4),
        (repeated, (X, W), 3 * 5 * ONCE),
        (branches, (X, W), 2 * ONCE),
        (custom, (X, W), ONCE),
        (jax.checkpoint(product), (X, W), ONCE),
        (lambda x, w: jax.nn.softmax(jnp.exp(x) * 2) + w.sum(), (X, W), 0),
    ],
)
def test_flops_of_small_programs(function, arguments, expected):
    assert flops.flops(function, *arguments) == expected


def test_products_in_a_loop_of_unknown_length_are_refused():
    def until(x, w):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)

    with pytest.raises(ValueError, match="matrix products in a while loop"):
        flops.flops(until, X, W)
    assert flops.flops(lambda x: jax.lax.while_loop(jnp.all, lambda x: x, x), X) == 0


# Memory


def activations(depth, compute=PLAIN):
    return flops.activation_bytes(NANO.replace(depth=depth), compute)


def test_activations_grow_by_the_same_for_each_block():
    block = activations(2) - activations(1)
    assert activations(8) - activations(1) == 7 * block > 0.8 * activations(8)


def test_rematerialised_blocks_keep_their_input_alone():
    """And one of them, at a time, all that it computes again."""
    kept = activations(8, REMAT) - activations(2, REMAT)
    assert kept == 6 * 4 * NANO.tokens * NANO.width
    block = activations(2) - activations(1)
    assert block < activations(8, REMAT) < 2 * block


@pytest.mark.parametrize("compute", [PLAIN, REMAT])
def test_activations_are_most_of_the_memory_that_xla_sets_aside(compute):
    module, batch = NANO.build(compute), 64

    def loss(params, images, targets):
        return Loss().of(module.apply({"params": params}, images), targets)

    arguments = shape(batch, 32, 32, 3), shape(batch, NANO.num_classes)
    lowered = jax.jit(jax.grad(loss)).lower(networks.abstract_params(NANO), *arguments)
    account = lowered.compile().memory_analysis()
    if account is None:
        pytest.skip("this XLA keeps no account")
    share = account.temp_size_in_bytes / batch / flops.activation_bytes(NANO, compute)
    assert 1.0 < share < 1.5
