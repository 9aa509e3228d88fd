"""LeViTs: their specs, their layout, their numbers, and how files show them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_levit

from sws_jax import trees
from sws_jax.convert import base
from sws_jax.convert.levit import LAYOUTS
from sws_jax.models import levit, networks, vit
from sws_jax.specs import base as specs
from sws_jax.specs.base import Compute
from sws_jax.specs.levit import LEVITS, LeViTSpec

from support.compare import close, equal
from support.conversions import kept, shapes_of, weights_of
from support.networks import params_of

TIMM, TIMM_CONV, FACEBOOK, HUGGING_FACE = LAYOUTS
SMALL = LeViTSpec(
    **make_levit.SMALL, down_heads=(2, 4), down_key_dims=(4, 4), image_size=80
)
# No number twice, so that none can stand for another.
TINY = LeViTSpec(
    widths=(8, 20), depths=(1, 2), heads=(2, 3), key_dims=(4, 6),
    attn_ratios=(1.5, 2.0), mlp_ratio=1.5, down_heads=(5,), down_key_dims=(10,),
    down_attn_ratios=(1.1,), down_mlp_ratio=0.7, image_size=48, channels=1,
    num_classes=9,
)  # fmt: skip
# Of the networks with these names in timm.
COUNTS = {
    "levit_128s": 7_777_058,
    "levit_128": 9_213_936,
    "levit_192": 10_947_069,
    "levit_256": 18_893_876,
    "levit_384": 39_128_836,
}
by_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: x.name)


@pytest.fixture(scope="module")
def golden():
    with np.load(make_levit.PATH) as file:
        return dict(file)


def golden_network(golden):
    """Spec and parameters; the image is oblong, which no file tells."""
    spec = SMALL.replace(image_size=make_levit.IMAGE_SIZE)
    return spec, read(TIMM, spec, weights_of(golden))


def tiny():
    """Parameters of TINY, variances about 1, and images."""
    params = trees.map_with_name(
        lambda name, leaf: leaf + name.endswith("var"), params_of(TINY)
    )
    images = np.random.default_rng(1).normal(size=(2, 48, 48, 1))
    return params, images.astype(np.float32)


def read(layout, spec, flat):
    entries, abstract = layout.entries(spec), networks.abstract_params(spec)
    return base.read(flat, entries, abstract, ignored=layout.ignored)


@functools.cache
def function_of(spec, compute=Compute()):
    """Params and images to logits; compiled once for all tests."""
    module = spec.build(compute)
    return jax.jit(lambda params, images: module.apply({"params": params}, images))


def error_of(ours, theirs):
    """Largest difference over the deviation of a logit from image to image."""
    return float(np.abs(ours - theirs).max() / theirs.std(axis=0).mean())


# What a network is.


def test_every_named_levit_has_its_size():
    assert set(COUNTS) == set(LEVITS)
    for name, spec in LEVITS.items():
        leaves = trees.flatten(networks.abstract_params(spec))
        learned = [v for k, v in leaves.items() if not k.endswith(("/mean", "/var"))]
        assert (name, trees.count(learned)) == (name, COUNTS[name])


def test_names():
    for name, spec in LEVITS.items():
        assert spec.name == name
        other = dict(image_size=32, channels=1, num_classes=0, distilled=False)
        assert spec.replace(**other).name == name
    assert LeViTSpec() == LEVITS["levit_384"]
    assert TINY.name == "levit_8-20"
    assert LEVITS["levit_192"].replace(mlp_ratio=4.0).name == "levit_192-288-384"
    assert LEVITS["levit_128s"].depth == 9
    assert SMALL.replace(image_size=(80, 48)).grids == ((5, 3), (3, 2), (2, 1))


def test_a_spec_survives_json():
    data = json.loads(json.dumps(specs.to_dict(TINY)))
    assert data["family"] == "levit"
    back = specs.from_dict(LeViTSpec, data)
    assert (back, hash(back)) == (TINY, hash(TINY))
    assert back.image_size == (48, 48) and back.net is back
    assert TINY.replace(image_size=np.int64(32)).image_size == (32, 32)
    assert TINY.replace(widths=[8, 20], attn_ratios=[1.5, 2]) == TINY


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(family="vit"), "family of a LeViT is 'levit', and not 'vit'"),
        (
            dict(widths=(8, 0)),
            r"widths\[1\] must be a whole number of at least 1",
        ),
        (dict(depths=(1, True)), r"depths\[1\] must be a whole number .* True"),
        (dict(heads=2), "heads must be a sequence of whole numbers, and is 2"),
        (dict(key_dims=(4.0, 6)), r"key_dims\[0\] must be a whole number .* 4.0"),
        (dict(attn_ratios=(1.5, -2)), r"attn_ratios\[1\] must be above 0, and is -2"),
        (dict(widths=()), "widths has no value"),
        (dict(depths=(1,)), "depths has 1 values, and with 2 widths needs 2"),
        (dict(down_heads=(5, 5)), "down_heads has 2 values, .* 2 widths needs 1"),
        (dict(widths=(12, 20)), "first of the widths .* multiple of 8, and is 12"),
        (dict(attn_ratios=(1.6, 2.0)), "ratio of 1.6 .* size 4 .* size 6.4"),
        (dict(down_attn_ratios=(0.01,)), "ratio of 0.01 .* size 10 .* size 0.1"),
        (dict(mlp_ratio=0), "mlp_ratio must be above 0, and is 0"),
        (dict(mlp_ratio=float("nan")), "mlp_ratio must be a number, and is nan"),
        (dict(mlp_ratio=0.1), "MLP ratio of 0.1 leaves width 8 no hidden units"),
        (dict(down_mlp_ratio=0.04), "MLP ratio of 0.04 leaves width 20 no hidden"),
        (dict(channels="3"), "channels .* at least 1, and is '3'"),
        (dict(num_classes=-1), "num_classes .* at least 0, and is -1"),
        (dict(num_classes=False), "num_classes .* at least 0, and is False"),
        (dict(distilled=1), "distilled must be True or False, and is 1"),
        (dict(image_size=40), "multiples of 16 pixels, and those of 40 x 40"),
        (dict(image_size=0), "image_size must be at least 1, and is 0"),
        (dict(image_size=(48, 48, 1)), r"image_size .* \(48, 48, 1\) is neither"),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TINY.replace(**changes)


# What it computes.


def test_layout():
    params = networks.abstract_params(TINY.replace(depths=(1, 1)))
    shapes = {name: leaf.shape for name, leaf in trees.flatten(params).items()}
    kernels = {
        "stem/conv1": (3, 3, 1, 1),
        "stem/conv2": (3, 3, 1, 2),
        "stem/conv3": (3, 3, 2, 4),
        "stem/conv4": (3, 3, 4, 8),
        "stage_0/block_0/attn/qkv": (8, 2 * (4 + 4 + 6)),
        "stage_0/block_0/attn/proj": (2 * 6, 8),
        "stage_0/block_0/mlp/fc1": (8, 12),
        "stage_0/block_0/mlp/fc2": (12, 8),
        "stage_1/downsample/attn/q": (8, 5 * 10),
        "stage_1/downsample/attn/kv": (8, 5 * (10 + 11)),
        "stage_1/downsample/attn/proj": (5 * 11, 20),
        "stage_1/downsample/mlp/fc1": (20, 14),
        "stage_1/downsample/mlp/fc2": (14, 20),
        "stage_1/block_0/attn/qkv": (20, 3 * (6 + 6 + 12)),
        "stage_1/block_0/attn/proj": (3 * 12, 20),
        "stage_1/block_0/mlp/fc1": (20, 30),
        "stage_1/block_0/mlp/fc2": (30, 20),
    }
    norms = {name: shape[-1:] for name, shape in kernels.items()}
    expected = {f"{name}/linear/kernel": shape for name, shape in kernels.items()}
    for head in ("head", "head_dist"):
        norms[head] = (20,)
        expected[f"{head}/linear/kernel"] = (20, 9)
        expected[f"{head}/linear/bias"] = (9,)
    for name, shape in norms.items():
        leaves = ("scale", "bias", "mean", "var")
        expected |= {f"{name}/bn/{leaf}": shape for leaf in leaves}
    # Offsets of 3 x 3 tokens, twice, and of 2 x 2.
    expected["stage_0/block_0/attn/attention_biases"] = (2, 9)
    expected["stage_1/downsample/attn/attention_biases"] = (5, 9)
    expected["stage_1/block_0/attn/attention_biases"] = (3, 4)
    assert shapes == expected


@pytest.mark.parametrize("grid, stride", [((3, 3), 1), ((5, 5), 2), ((4, 4), 2)])
def test_offsets_are_numbered_as_they_first_occur(grid, stride):
    """The rule of the original, whose files this reads."""
    keys = [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    queries = [(r, c) for r, c in keys if r % stride == c % stride == 0]
    seen, table = {}, []
    for a in queries:
        offsets = [(abs(a[0] - b[0]), abs(a[1] - b[1])) for b in keys]
        table.append([seen.setdefault(offset, len(seen)) for offset in offsets])
    np.testing.assert_array_equal(levit.offset_table(grid, stride), table)
    assert len(seen) == len(keys)


def test_logits_are_those_of_timm(golden):
    spec, params = golden_network(golden)
    logits = function_of(spec)(params, golden["images"].astype(np.float32))
    assert logits.dtype == jnp.float32
    assert 0.1 < golden["logits"].std(axis=0).mean() < 3.0
    assert error_of(np.asarray(logits), golden["logits"]) < 1e-4


def test_two_heads_one_or_none():
    params, images = tiny()
    trunk = {k: v for k, v in params.items() if not k.startswith("head")}
    none, one = TINY.replace(num_classes=0), TINY.replace(distilled=False)
    assert set(networks.abstract_params(none)) == set(trunk)
    assert set(networks.abstract_params(one)) == {*trunk, "head"}
    features = np.asarray(function_of(none)(trunk, images))
    assert features.shape == (2, 20) and features.dtype == np.float32

    def classify(head):
        norm, linear = head["bn"], head["linear"]
        x = (features - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)
        x = x * norm["scale"] + norm["bias"]
        return x @ linear["kernel"] + linear["bias"]

    first, second = classify(params["head"]), classify(params["head_dist"])
    assert np.abs(first - second).max() > 0.1
    close(first, function_of(one)({**trunk, "head": params["head"]}, images))
    close((first + second) / 2, function_of(TINY)(params, images))


def test_every_tensor_matters():
    """A logit moves with each of them: none is left out or applied without effect."""
    params, images = tiny()
    logits = function_of(TINY)
    slopes = jax.jit(jax.grad(lambda params: (logits(params, images) ** 2).sum()))
    slope_of = trees.flatten(slopes(params))
    assert [
        name for name, slope in slope_of.items() if not np.abs(slope).max() > 0
    ] == []


def test_bfloat16_keeps_float32_parameters_and_logits():
    params, images = tiny()
    low = Compute(dtype="bfloat16")
    drawn = jax.eval_shape(lambda: vit.init_params(TINY.build(low), jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
    rounded, exact = (function_of(TINY, c)(params, images) for c in (low, Compute()))
    assert rounded.dtype == jnp.float32
    error = float(jnp.abs(rounded - exact).max() / jnp.abs(exact).max())
    assert 1e-4 < error < 5e-2  # it did compute in bfloat16, and not in less


def test_wrong_images_are_named():
    module = TINY.build()
    assert module.net is TINY
    with pytest.raises(ValueError, match=r"8-20 takes .* \(48, 48, 1\), and got \(9, "):
        module.apply({"params": params_of(TINY)}, np.zeros((1, 9, 9, 1)))


# What its weights are called elsewhere.


@by_layout
@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(num_classes=0),
        dict(distilled=False),
        dict(image_size=192),
        dict(mlp_ratio=0.75, attn_ratios=(0.25, 1 / 3)),
        dict(depths=(11, 1)),
        dict(
            widths=(16,), depths=(2,), heads=(1,), key_dims=(3,), attn_ratios=(7 / 3,),
            down_heads=(), down_key_dims=(), down_attn_ratios=(), down_mlp_ratio=2.0,
        ),
    ],
    ids=["tiny", "no head", "one head", "192 px", "ratios", "deep", "one stage"],
)  # fmt: skip
def test_any_levit_is_recognised(changes, layout):
    spec = TINY.replace(**changes)
    tensors = {"stem.conv1.bn.num_batches_tracked": (), **shapes_of(layout, spec)}
    assert layout.recognise(tensors) == spec


@by_layout
def test_other_files_are_not_recognised(layout, net):
    ours = {k: v.shape for k, v in trees.flatten(networks.abstract_params(net)).items()}
    assert layout.recognise(ours) is None
    assert layout.recognise({}) is None
    assert layout.recognise(dict.fromkeys(shapes_of(layout, TINY), ())) is None
    oblong = shapes_of(layout, TINY.replace(image_size=(48, 32)))
    assert layout.recognise(oblong) is None
    whole = shapes_of(layout, TINY)
    unbiased = {k: v for k, v in whole.items() if "bias" not in k}
    assert len(unbiased) < len(whole)
    assert layout.recognise(unbiased) is None


@by_layout
def test_weights_survive_a_file_bit_for_bit(layout):
    params = params_of(TINY)
    flat = base.write(params, layout.entries(TINY))
    assert all(array.flags.c_contiguous for array in flat.values())
    assert layout.recognise({k: v.shape for k, v in flat.items()}) == TINY
    back = read(layout, TINY, flat)
    equal(params, back)
    again = base.write(back, layout.entries(TINY))
    assert list(again) == list(flat)
    equal(flat, again)


def test_convolutions_are_dense_layers(golden):
    """timm's two kinds of LeViT hold the same numbers."""
    _, params = golden_network(golden)
    dense, conv = (base.write(params, x.entries(SMALL)) for x in (TIMM, TIMM_CONV))
    assert list(dense) == list(conv)
    for name, array in dense.items():
        squeezed = conv[name] if array.ndim == 4 else conv[name].squeeze()
        np.testing.assert_array_equal(squeezed, array)
    name = "stages.0.blocks.0.mlp.ln1.linear.weight"
    assert (dense[name].shape, conv[name].shape) == ((16, 8), (16, 8, 1, 1))
    assert conv["head.linear.weight"].shape == (5, 24)


def test_files_hold_the_names_of_their_libraries(golden):
    """timm's and transformers' own names, and no others but the counters of batches."""
    oblong = SMALL.replace(image_size=make_levit.IMAGE_SIZE)
    timm = {k: v.shape for k, v in weights_of(golden).items()}
    assert kept(TIMM, timm) == shapes_of(TIMM, oblong)
    assert len(timm) - len(kept(TIMM, timm)) == 4 + 5 * 4 + 2 * 5 + 2  # one a norm
    lines = (str(line).split(" ", 1) for line in golden["hugging_face"])
    theirs = {name: tuple(json.loads(shape)) for name, shape in lines}
    spec = SMALL.replace(image_size=224)
    assert kept(HUGGING_FACE, theirs) == shapes_of(HUGGING_FACE, spec)
    assert HUGGING_FACE.recognise(theirs) == spec


def test_original_names():
    """Of every kind of tensor; one number runs over attention and MLPs alike."""
    shapes = shapes_of(FACEBOOK, TINY)
    norm = (".weight", ".bias", ".running_mean", ".running_var")
    linears = {
        "patch_embed.0.c": (1, 1, 3, 3),
        "patch_embed.6.c": (8, 4, 3, 3),
        "blocks.0.m.qkv.c": (28, 8),
        "blocks.0.m.proj.1.c": (8, 12),
        "blocks.1.m.0.c": (12, 8),
        "blocks.1.m.2.c": (8, 12),
        "blocks.2.q.1.c": (50, 8),
        "blocks.2.kv.c": (105, 8),
        "blocks.2.proj.1.c": (20, 55),
        "blocks.3.m.0.c": (14, 20),
        "blocks.4.m.qkv.c": (72, 20),
        "blocks.7.m.2.c": (20, 30),
        "head.l": (9, 20),
        "head_dist.l": (9, 20),
    }
    for name, shape in linears.items():
        assert shapes[f"{name}.weight"] == shape
        outer, _, last = name.rpartition(".")
        size = shape[0] if last == "c" else shape[1]
        assert [shapes[f"{outer}.bn{leaf}"] for leaf in norm] == [(size,)] * 4
    assert shapes["head.l.bias"] == shapes["head_dist.l.bias"] == (9,)
    biases = {k: v for k, v in shapes.items() if k.endswith("attention_biases")}
    assert biases == {
        "blocks.0.m.attention_biases": (2, 9),
        "blocks.2.attention_biases": (5, 9),
        "blocks.4.m.attention_biases": (3, 4),
        "blocks.6.m.attention_biases": (3, 4),
    }


@pytest.mark.parametrize("layout", [FACEBOOK, HUGGING_FACE], ids=lambda x: x.name)
def test_tables_of_offsets_are_left_behind(layout):
    flat = base.write(params_of(TINY), layout.entries(TINY))
    tables = {
        name.replace("attention_biases", "attention_bias_idxs"): np.zeros((9, 9), int)
        for name in flat
        if name.endswith("attention_biases")
    }
    assert len(tables) == 4
    everything = {**flat, **tables}
    assert layout.recognise({k: v.shape for k, v in everything.items()}) == TINY
    equal(read(layout, TINY, everything), read(layout, TINY, flat))


@by_layout
def test_missing_tensors_are_named(layout):
    flat = base.write(params_of(TINY), layout.entries(TINY))
    lost = list(flat)[-30:-24]
    some = {name: array for name, array in flat.items() if name not in lost}
    spec = layout.recognise({k: v.shape for k, v in some.items()})
    with pytest.raises(base.Mismatch) as caught:
        read(layout, spec, some)
    assert list(caught.value.missing) == lost
    assert not caught.value.surplus and not caught.value.reshaped


# Against the libraries themselves, where they are installed.

live = pytest.mark.slow
quiet = pytest.mark.filterwarnings("ignore")  # theirs are not ours to mend


def compare(layout, model, expected, tmp_path):
    """Differences of logits, the weights passing through a file of theirs and back."""
    torch = pytest.importorskip("torch")
    from safetensors.numpy import load_file
    from safetensors.torch import save_file

    images = make_levit.draw_images(4, expected.image_size, seed=1)
    make_levit.randomise(model, images)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    flat = load_file(path)
    spec = layout.recognise({k: v.shape for k, v in flat.items()})
    assert spec == expected
    params = read(layout, spec, flat)
    theirs = make_levit.logits(model, images)
    ours = np.asarray(function_of(spec)(params, images))
    largest, relative = np.abs(ours - theirs).max(), error_of(ours, theirs)
    figures = f"{largest:.1e}, {largest / theirs.std():.1e}, {relative:.1e}"
    # Absolute, over the deviation of all logits, and of a logit between images.
    print(f"\n{layout.name}, {spec.name}, {spec.image_size[0]} px: {figures}")
    assert 0.03 < theirs.std(axis=0).mean() < 5.0
    assert relative < 1e-4
    written = base.write(params, layout.entries(spec))
    model.load_state_dict(
        {k: torch.from_numpy(v) for k, v in written.items()}, strict=False
    )
    np.testing.assert_array_equal(make_levit.logits(model, images), theirs)


@live
@quiet
@pytest.mark.parametrize("name", ["levit_128s", "levit_384"])
def test_live_timm(name, with_timm, tmp_path):
    compare(TIMM, make_levit.named_timm(name), LEVITS[name], tmp_path)


@live
@quiet
def test_live_timm_of_convolutions(with_timm, tmp_path):
    model = make_levit.named_timm("levit_conv_128s")
    compare(TIMM_CONV, model, LEVITS["levit_128s"], tmp_path)


@live
@quiet
def test_live_timm_of_one_head(with_timm, tmp_path):
    fields = dict(distilled=False, num_classes=10, img_size=160)
    model = make_levit.named_timm("levit_192", **fields)
    spec = LEVITS["levit_192"]
    spec = spec.replace(distilled=False, num_classes=10, image_size=160)
    compare(TIMM, model, spec, tmp_path)


@live
@quiet
@pytest.mark.parametrize("distilled", [True, False])
def test_live_hugging_face(distilled, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    spec = LEVITS["levit_128s"].replace(distilled=distilled)
    fields = {field: getattr(spec, field) for field in make_levit.SMALL}
    model = make_levit.hugging_face(**fields, distilled=distilled)
    compare(HUGGING_FACE, model, spec, tmp_path)
