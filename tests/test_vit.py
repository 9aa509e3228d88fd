"""Vision Transformers: scan and loop, layout, numbers, and dropped blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sws_jax import sharding, specs, trees
from sws_jax.models import loop, networks, vit
from sws_jax.specs import Compute

from support.compare import close, equal
from support.networks import aux_spec, logits_of, params_of


def masks(spec, batch, seed=0):
    key = jax.random.key(seed)
    return vit.drop_path_masks(key, spec.net.drop_path_rates, batch)


def outputs(spec, params, images, drop_path, compute=None):
    """Logits, and the gradient of their squares."""

    def loss(params):
        module = spec.build(compute or Compute())
        logits = module.apply({"params": params}, images, drop_path)
        return (logits**2).sum(), logits

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return logits, gradient


@pytest.mark.parametrize(
    "stages, training",
    [
        # Without masks, test_function_against_numpy stands for it by default.
        pytest.param(None, False, marks=pytest.mark.slow),
        (None, True),
        # Of a stage that is applied twice and one that is not, the last has both.
        pytest.param((2,), True, marks=pytest.mark.slow),
        ((1, 2), True),
    ],
)
def test_scan_equals_loop(stages, training, net, images):
    spec = aux_spec(stages) if stages else net.replace(depth=2)
    params = params_of(spec)
    keep = masks(spec, len(images)) if training else None

    def loss(params):
        logits = loop.LoopViT(spec).apply({"params": params}, images, keep)
        return (logits**2).sum(), logits

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    scanned, scanned_gradient = outputs(spec, params, images, keep)
    close(logits, scanned)
    close(gradient, scanned_gradient, 1e-4)


def test_the_loop_shows_every_block(aux, images):
    seen = {}
    module = loop.LoopViT(aux, watch=lambda name, x: seen.update({name: np.asarray(x)}))
    module.apply({"params": params_of(aux)}, images)
    assert list(seen) == [f"block_{i}" for i in range(5)]
    assert seen["block_4"].shape == (6, 4, 16)


def test_how_it_is_run_changes_neither_layout_nor_result(images):
    """Of a stage that is shorter than what is unrolled, and one that leaves a rest."""
    aux = aux_spec((1, 3))
    params = params_of(aux)
    keep = masks(aux, len(images))
    plain = outputs(aux, params, images, keep)
    compute = Compute(remat=True, unroll=2)
    shapes = jax.eval_shape(
        lambda: vit.init_params(aux.build(compute), jax.random.key(0))
    )
    assert trees.difference(networks.abstract_params(aux), shapes) == []
    close(plain, outputs(aux, params, images, keep, compute))


def test_layout(net):
    params = networks.abstract_params(net)
    shapes = {name: leaf.shape for name, leaf in trees.flatten(params).items()}
    assert shapes == {
        "patch_embed/proj/kernel": (4, 4, 1, 16),
        "patch_embed/proj/bias": (16,),
        "pos_embed": (1, 4, 16),
        "blocks/norm1/scale": (4, 16),
        "blocks/norm1/bias": (4, 16),
        "blocks/attn/qkv/kernel": (4, 16, 3, 2, 8),
        "blocks/attn/qkv/bias": (4, 3, 2, 8),
        "blocks/attn/proj/kernel": (4, 2, 8, 16),
        "blocks/attn/proj/bias": (4, 16),
        "blocks/norm2/scale": (4, 16),
        "blocks/norm2/bias": (4, 16),
        "blocks/mlp/fc1/kernel": (4, 16, 64),
        "blocks/mlp/fc1/bias": (4, 64),
        "blocks/mlp/fc2/kernel": (4, 64, 16),
        "blocks/mlp/fc2/bias": (4, 16),
        "norm/scale": (16,),
        "norm/bias": (16,),
        "head/kernel": (16, 10),
        "head/bias": (10,),
    }


def reference(spec, params, images):
    """The same function in numpy, written from the papers."""
    from math import erf

    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    n, size = len(images), spec.patch_size
    rows, columns = spec.grid

    def norm(x, w):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + spec.norm_eps) * w["scale"] + w["bias"]

    def gelu(x):
        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))

    kernel = p["patch_embed"]["proj"]["kernel"]
    x = np.zeros((n, rows * columns, spec.width))
    for r in range(rows):
        for c in range(columns):
            at = (slice(None), slice(r * size, r * size + size))
            patch = images[(*at, slice(c * size, c * size + size))]
            x[:, r * columns + c] = np.einsum("bhwc,hwcd->bd", patch, kernel)
    x = x + p["patch_embed"]["proj"]["bias"]
    if spec.pool == "token":
        first = [p[name] for name in ("cls_token", "dist_token") if name in p]
        x = np.concatenate([*(np.repeat(token, n, 0) for token in first), x], axis=1)
    x = x + p["pos_embed"]
    for layer in range(spec.depth):
        b = jax.tree.map(lambda w, i=layer: w[i], p["blocks"])
        y, attention = norm(x, b["norm1"]), np.zeros_like(x)
        for h in range(spec.heads):
            w, bias = b["attn"]["qkv"]["kernel"][:, :, h], b["attn"]["qkv"]["bias"]
            q, k, v = (y @ w[:, i] + bias[i, h] for i in range(3))
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(spec.head_size)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            attention += weights @ v @ b["attn"]["proj"]["kernel"][h]
        x = x + attention + b["attn"]["proj"]["bias"]
        y, mlp = norm(x, b["norm2"]), b["mlp"]
        y = gelu(y @ mlp["fc1"]["kernel"] + mlp["fc1"]["bias"])
        x = x + y @ mlp["fc2"]["kernel"] + mlp["fc2"]["bias"]
    if spec.pool == "token":
        x = norm(x, p["norm"])
        logits = x[:, 0] @ p["head"]["kernel"] + p["head"]["bias"]
        if "head_dist" in p:
            second = x[:, 1] @ p["head_dist"]["kernel"] + p["head_dist"]["bias"]
            logits = (logits + second) / 2
        return logits
    elif spec.pool_order == "norm_mean":
        x = norm(x, p["norm"]).mean(1)
    else:
        x = norm(x.mean(1), p["norm"])
    return x @ p["head"]["kernel"] + p["head"]["bias"]


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(pool_order="mean_norm"),
        dict(pool="token"),
        dict(pool="token", distilled=True),
        dict(pool="token", distilled=True, dist_head=False),
        dict(norm_eps=1e-2, mlp_ratio=2.0),
        dict(image_size=(8, 12), channels=3),
    ],
    ids=["norm_mean", "mean_norm", "token", "two heads", "one head", "eps", "oblong"],
)
def test_function_against_numpy(changes, net):
    spec = net.replace(depth=2, **changes)
    params = params_of(spec)
    shape = (3, *spec.image_size, spec.channels)
    images = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    logits = logits_of(spec, params, images)
    close(reference(spec, params, images), logits, 1e-4)


def test_features_without_classes(net, images):
    spec = net.replace(num_classes=0)
    params = params_of(spec)
    assert "head" not in params
    features = jax.eval_shape(spec.build().apply, {"params": params}, images)
    assert features.shape == (6, 16)


def test_bfloat16_keeps_float32_parameters_and_logits(net, images):
    params = params_of(net)
    low = net.build(Compute(dtype="bfloat16"))
    drawn = vit.init_params(low, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
    compiled = jax.jit(lambda x: low.apply({"params": params}, x))
    logits = compiled(images)
    assert logits.dtype == jnp.float32
    exact = logits_of(net, params, images)
    error = float(jnp.abs(logits - exact).max() / jnp.abs(exact).max())
    assert 1e-5 < error < 5e-2  # it did compute in bfloat16, and not in less
    text = compiled.lower(images).as_text()
    # Softmax and the norms' statistics are float32: no exponential or reciprocal
    # root of bfloat16.
    for line in text.splitlines():
        if "stablehlo.exponential" in line or "stablehlo.rsqrt" in line:
            assert "bf16" not in line


def test_one_qkv_product_per_block(net, images):
    """Patch embedding, head, and in the scan's body four dense layers and two of
    attention."""
    params = params_of(net)
    jaxpr = jax.make_jaxpr(lambda x: net.build().apply({"params": params}, x))(images)
    assert str(jaxpr).count("dot_general") == 2 + 6


def test_drop_path_masks():
    rates = np.asarray([0.0, 0.25, 0.5], np.float32)
    drawn = np.asarray(vit.drop_path_masks(jax.random.key(0), rates, 4000))
    assert drawn.shape == (3, 2, 4000)
    np.testing.assert_array_equal(drawn[0], 1.0)
    for layer, rate in ((1, 0.25), (2, 0.5)):
        values = np.unique(drawn[layer])
        np.testing.assert_allclose(values, [0.0, 1 / (1 - rate)], rtol=1e-6)
        assert abs((drawn[layer] == 0).mean() - rate) < 0.03
        assert (drawn[layer, 0] != drawn[layer, 1]).any()  # branches apart


def test_a_dropped_block_is_the_identity(net, images):
    params = params_of(net)
    nothing = jnp.zeros((4, 2, len(images)))
    base = net.replace(depth=1)
    one = {**params, "blocks": jax.tree.map(lambda leaf: leaf[:1], params["blocks"])}
    close(
        net.build().apply({"params": params}, images, nothing),
        base.build().apply({"params": one}, images, nothing[:1]),
    )


def test_wrong_images_are_named(net):
    with pytest.raises(ValueError, match=r"\(8, 8, 1\), and got \(9, 9, 1\)"):
        net.build().apply({"params": params_of(net)}, np.zeros((1, 9, 9, 1)))


@pytest.mark.parametrize("which", ["net", "aux"])
def test_every_parameter_axis_is_named(which, request):
    spec = request.getfixturevalue(which)
    boxed = networks.abstract_params(dataclasses.replace(spec), boxed=True)
    known = set(sharding.RULES)
    specs_found = jax.tree.leaves(
        nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, tuple)
    )
    plain = jax.tree.leaves(nn.meta.unbox(boxed))
    assert len(specs_found) == len(plain)
    for names, leaf in zip(specs_found, plain, strict=True):
        assert len(names) == leaf.ndim
        assert {n for n in names if n} <= known
    qkv = boxed["blocks" if which == "net" else "stage_0"]["attn"]["qkv"]["kernel"]
    names = ("embed", "qkv", "heads", "head")
    assert qkv.names == (("layers", *names) if which == "net" else names)


def test_same_seed_same_parameters(net):
    a, b, c = (vit.init_params(net.build(), jax.random.key(s)) for s in (1, 1, 2))
    equal(a, b)
    assert not np.array_equal(a["pos_embed"], c["pos_embed"])


def test_the_bias_of_patches_as_pytorch_starts_it():
    """Uniform in 1/sqrt(fan in); no other parameter is drawn otherwise for it."""
    sizes = dict(width=768, heads=12, mlp_ratio=1 / 256)  # many biases, little else
    spec = specs.ViTSpec(depth=1, image_size=16, num_classes=2, **sizes)
    usual, drawn = (
        vit.init_params(spec.replace(patch_bias_init=kind).build(), jax.random.key(3))
        for kind in ("zeros", "uniform")
    )
    bias = np.asarray(drawn["patch_embed"]["proj"]["bias"])
    assert np.abs(bias).max() <= 768**-0.5
    assert float(bias.std()) == pytest.approx(0.0208, rel=0.05)
    assert abs(bias.mean()) < 0.003  # four standard errors
    zeros = np.zeros_like(bias)
    equal(usual["patch_embed"]["proj"]["bias"], zeros)
    drawn["patch_embed"]["proj"]["bias"] = zeros
    equal(usual, drawn)


def test_initial_scale():
    wide = specs.ViTSpec(depth=2, width=128, heads=4, num_classes=10, image_size=16)

    def drawn(spec):
        params = vit.init_params(spec.build(), jax.random.key(0))
        return jax.tree.map(np.asarray, params)

    params = drawn(wide)
    kernel = params["blocks"]["mlp"]["fc1"]["kernel"]
    assert float(kernel.std()) == pytest.approx(0.02, rel=0.05)
    assert not np.array_equal(kernel[0], kernel[1])
    fan_in = wide.replace(weight_init="fan_in")
    params = drawn(fan_in)
    for name, size in (("fc1", 128), ("fc2", 512)):
        kernel = params["blocks"]["mlp"][name]["kernel"]
        assert float(kernel.std()) == pytest.approx(size**-0.5, rel=0.05)
    qkv = params["blocks"]["attn"]["qkv"]["kernel"]
    assert float(qkv.std()) == pytest.approx(128**-0.5, rel=0.05)
