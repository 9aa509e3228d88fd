"""Taps: what networks return besides logits, and that it costs nothing unasked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import pixels, sharding
from sws_jax.errors import UserError
from sws_jax.models import loop, networks
from sws_jax.models.outputs import TAPS, Outputs
from sws_jax.pixels import Normalization
from sws_jax.specs import Compute
from sws_jax.specs.levit import LEVITS
from sws_jax.specs.regnet import REGNETS

from support.compare import close, equal
from support.networks import aux_spec, params_of


def random_masks(depth, batch):
    return np.random.default_rng(3).uniform(0.5, 2, (depth, 2, batch)).astype("f4")


@pytest.mark.parametrize("which", ["net", "aux"])
def test_taps_are_what_blocks_return_and_attention_adds(which, request, images):
    spec = request.getfixturevalue(which)
    params, keep = params_of(spec), random_masks(spec.depth, len(images))
    keep[:, 1] = 0  # Blocks add their attention alone, ...
    keep[2, 0] = 0  # ... and one of them nothing.
    seen = []
    shown = loop.LoopViT(spec, watch=lambda _, x: seen.append(np.asarray(x)))
    shown.apply({"params": params}, images, keep)
    module = spec.build()
    result = jax.jit(lambda p: module.apply({"params": p}, images, keep, TAPS))(params)
    assert isinstance(result, Outputs) and set(result.taps) == set(TAPS)
    close(np.stack(seen), result.taps["blocks"])
    close(module.apply({"params": params}, images, keep), result.logits)
    attention = np.asarray(result.taps["attention"])
    # Stochastic depth comes behind the tap.
    added = attention[1:] * keep[1:, 0, :, None, None]
    close(np.diff(np.stack(seen), axis=0), added)
    assert np.abs(attention[2]).max() > 0.1


@pytest.mark.parametrize(
    "stages, compute",
    [
        (None, Compute()),
        ((1, 2), Compute(remat=True, unroll=2)),
        # One of each by default: stages, and how blocks are run, are apart in the code.
        pytest.param(None, Compute(remat=True, unroll=2), marks=pytest.mark.slow),
        pytest.param((1, 2), Compute(), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_taps_and_their_gradients_equal_those_of_a_loop(stages, compute, net, images):
    spec = aux_spec(stages) if stages else net.replace(depth=2)
    params, keep = params_of(spec), random_masks(spec.depth, len(images))

    def gradient_of(module):
        def loss(params):
            result = module.apply({"params": params}, images, keep, TAPS)
            squares = [(tap**2 * (2 + i)).mean() for i, tap in enumerate(taps(result))]
            return sum(squares), result

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    def taps(result):
        return [result.taps[name] for name in TAPS]

    gradient, result = gradient_of(loop.LoopViT(spec))
    scanned_gradient, scanned = gradient_of(spec.build(compute))
    close(result, scanned)
    close(gradient, scanned_gradient, 1e-4)
    assert np.abs(gradient["pos_embed"]).max() > 0


def test_taps_have_the_dtype_of_the_computation(net, images):
    params, low = params_of(net), net.build(Compute(dtype="bfloat16"))
    exact = net.build().apply({"params": params}, images, taps=TAPS)
    result = low.apply({"params": params}, images, taps=TAPS)
    for name in TAPS:
        assert result.taps[name].dtype == jnp.bfloat16
        close(exact.taps[name], result.taps[name].astype(jnp.float32), 5e-2)


@pytest.mark.parametrize("remat", [False, True])
def test_nothing_is_stacked_that_nobody_asks_for(remat, net, images):
    module, params = net.build(Compute(remat=remat)), params_of(net)

    def text(**taps):
        def apply(params):
            return module.apply({"params": params}, images, **taps)

        return jax.jit(apply).lower(params).as_text()

    plain, stacked = text(), "tensor<4x6x4x16xf32>"  # [layers, batch, tokens, width]
    assert text(taps=()) == plain
    assert stacked not in plain
    assert stacked in text(taps=("attention",))


def test_taps_on_a_mesh_equal_those_of_one_device(aux):
    params = params_of(aux)
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    mesh = sharding.make_mesh(sizes={"data": 2, "fsdp": 2, "tensor": 2})

    def apply(params, images):
        return aux.build().apply({"params": params}, images, taps=TAPS)

    def apply_there(params, images):
        with sharding.constrained(mesh):
            return apply(params, images)

    boxed = networks.abstract_params(aux, boxed=True)
    split = sharding.tree_shardings(boxed, mesh), sharding.batch_sharding(mesh)
    result = jax.jit(apply_there, in_shardings=split)(params, images)
    close(jax.jit(apply)(params, images), result, 2e-5)
    # Each device keeps those of its images, and of no others.
    assert result.taps["blocks"].addressable_shards[0].data.shape == (5, 2, 4, 16)


def test_an_unknown_tap_is_refused_with_those_that_are_known(net, images):
    with pytest.raises(UserError, match="'mlp' is not one of blocks, attention"):
        net.build().apply({"params": params_of(net)}, images, taps=("mlp",))


@pytest.mark.parametrize(
    "spec", [LEVITS["levit_128s"], REGNETS["regnety_160"]], ids=["levit", "regnet"]
)
def test_networks_of_other_blocks_have_none(spec):
    params = networks.abstract_params(spec)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    predictor = networks.Predictor(
        networks.Network(spec, params), Normalization((0.5,) * 3, (0.5,) * 3)
    )

    def outputs(images):
        return predictor.outputs(images, predictor.normalization, ("blocks",))

    with pytest.raises(UserError, match=f"{spec.name} has no taps, .* for blocks"):
        jax.eval_shape(outputs, images)


def test_outputs_of_a_predictor(net, images):
    """Of images that it wants in its own way; the order is that of its classes."""
    spec, theirs = net.replace(depth=1, image_size=12), Normalization((0.3,), (0.4,))
    network, own = (
        networks.Network(spec, params_of(spec)),
        Normalization((0.5,), (0.2,)),
    )
    plain = networks.Predictor(network, own)
    ordered = networks.Predictor(network, own, order=(4, 2))

    @jax.jit
    def by_hand(params, images):
        x = pixels.renormalize(images, theirs, own)
        x = jax.image.resize(x, (6, 12, 12, 1), "cubic", antialias=True)
        return spec.build().apply({"params": params}, x, taps=TAPS)

    def outputs(predictor, images, taps=()):
        return predictor.outputs(images, theirs, taps)

    def sum_of(images):
        result = outputs(plain, images, TAPS)
        return sum(x.sum() for x in jax.tree.leaves(result)), result

    expected = by_hand(network.params, images)
    gradient, result = jax.jit(jax.grad(sum_of, has_aux=True))(images)
    close(expected, result)
    assert not np.any(gradient)
    compute = jax.jit(outputs, static_argnums=2)
    result = compute(ordered, images, TAPS)
    close(expected.logits[:, [4, 2]], result.logits)
    close(expected.taps, result.taps)
    without = compute(ordered, images)
    close(result.logits, without.logits, 1e-6)
    assert without.taps == {}
    equal(without.logits, jax.jit(ordered.logits, static_argnums=1)(images, theirs))
