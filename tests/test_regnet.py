"""RegNets: their specs, their layout, their numbers, and how files show them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_regnet

from sws_jax import trees
from sws_jax.convert import base
from sws_jax.convert.regnet import LAYOUTS
from sws_jax.models import networks, vit
from sws_jax.specs import base as specs
from sws_jax.specs.base import Compute
from sws_jax.specs.regnet import REGNETS, RegNetSpec

from support.compare import equal
from support.conversions import kept, shapes_of, weights_of
from support.networks import params_of

TIMM, HUGGING_FACE = LAYOUTS
SMALL = RegNetSpec(**make_regnet.SMALL)
TINY = RegNetSpec(
    widths=(8, 24), depths=(1, 2), group_width=12, stem_width=4, image_size=8,
    channels=1, num_classes=3,
)  # fmt: skip
# Of the networks with these names in timm.
COUNTS = {
    "regnety_002": 3_162_996,
    "regnety_004": 4_344_144,
    "regnety_006": 6_055_160,
    "regnety_008": 6_263_168,
    "regnety_016": 11_202_430,
    "regnety_032": 19_436_338,
    "regnety_040": 20_646_656,
    "regnety_064": 30_583_252,
    "regnety_080": 39_180_068,
    "regnety_120": 51_822_544,
    "regnety_160": 83_590_140,
}
by_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: x.name)


@pytest.fixture(scope="module")
def golden():
    with np.load(make_regnet.PATH) as file:
        return dict(file)


def drawn(spec):
    """Parameters with no zeros, and variances above 0."""
    params = params_of(spec)
    return trees.map_with_name(
        lambda name, x: abs(x) + 0.5 if name.endswith("/var") else x, params
    )


def converted(layout, flat, image_size):
    """Spec and parameters of a file's tensors, as a reader of files would do it."""
    spec = layout.recognise({k: v.shape for k, v in flat.items()})
    abstract = networks.abstract_params(spec)
    params = base.read(flat, layout.entries(spec), abstract, ignored=layout.ignored)
    return spec.replace(image_size=image_size), params


def logits_of(spec, params, images, compute=Compute()):
    return jax.jit(spec.build(compute).apply)({"params": params}, images)


# What a network is.


@pytest.mark.parametrize(
    "name",
    [
        # Two of them, unless all are asked for: tracing one takes a second.
        pytest.param(
            name, marks=() if name.endswith(("_002", "_008")) else pytest.mark.slow
        )
        for name in REGNETS
    ],
)
def test_every_named_regnet_has_its_size(name):
    assert set(COUNTS) == set(REGNETS)
    leaves = trees.flatten(networks.abstract_params(REGNETS[name]))
    learned = [v for k, v in leaves.items() if not k.endswith(("/mean", "/var"))]
    assert trees.count(learned) == COUNTS[name]


def test_names():
    for name, spec in REGNETS.items():
        assert spec.name == name
        other = spec.replace(image_size=288, channels=1, num_classes=10)
        assert other.name == name
    assert TINY.name == "regnety_w8-24_d1-2_g12"
    assert REGNETS["regnety_160"].replace(stem_width=16).name != "regnety_160"
    assert REGNETS["regnety_160"].depth == 18


def test_blocks():
    (first,), (second, third) = TINY.stages
    assert dataclasses.astuple(first) == (4, 8, 1, 1, 2)  # narrower than a group
    assert dataclasses.astuple(second) == (8, 24, 2, 2, 2)
    assert dataclasses.astuple(third) == (24, 24, 2, 6, 1)


def test_a_spec_survives_json():
    data = json.loads(json.dumps(specs.to_dict(TINY)))
    assert data["family"] == "regnet"
    back = specs.from_dict(RegNetSpec, data)
    assert (back, hash(back)) == (TINY, hash(TINY))
    assert back.image_size == (8, 8) and back.net is back
    assert TINY.replace(image_size=np.int64(9)).image_size == (9, 9)
    assert TINY.replace(image_size=[9, 7]).image_size == (9, 7)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(family="vit"), "family of a RegNet is regnet, not 'vit'"),
        (dict(widths=()), "widths are empty, and there is one for each stage"),
        (dict(widths=(8, 0)), r"widths\[1\] must be a whole number .* 0"),
        (dict(depths=(1, True)), r"depths\[1\] must be a whole number .* True"),
        (dict(depths=3), "depths must be a sequence of whole numbers, and is 3"),
        (dict(depths=(1,)), r"of 2 stages and depths \(1,\) of 1"),
        (dict(group_width=0), "group_width .* at least 1, and is 0"),
        (dict(group_width=32), r"groups of 32 .* wider than every stage .* \(8, 24\)"),
        (dict(group_width=7), "width 8 does not divide into groups of 7 channels"),
        (dict(se_ratio=0.0), "se_ratio must be above 0, and is 0.0"),
        (dict(se_ratio=float("nan")), "se_ratio .* nan"),
        (dict(se_ratio=0.1), "se_ratio 0.1 of width 4 leaves no hidden units"),
        (dict(stem_width=1.5), "stem_width .* 1.5"),
        (dict(channels="3"), "channels .* '3'"),
        (dict(num_classes=-1), "num_classes .* at least 0, and is -1"),
        (dict(num_classes=False), "num_classes .* at least 0, and is False"),
        (dict(image_size=0), "image_size must be at least 1, and is 0"),
        (dict(image_size=(8, 8, 3)), r"image_size .* \(8, 8, 3\) is neither"),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TINY.replace(**changes)


# What it computes.


def test_layout():
    params = networks.abstract_params(TINY.replace(widths=(24,), depths=(2,)))
    shapes = {name: leaf.shape for name, leaf in trees.flatten(params).items()}
    kernels = {
        "stem/conv/kernel": (3, 3, 1, 4),
        "s1/b1/conv1/conv/kernel": (1, 1, 4, 24),
        "s1/b1/conv2/conv/kernel": (3, 3, 12, 24),
        "s1/b1/conv3/conv/kernel": (1, 1, 24, 24),
        "s1/b1/downsample/conv/kernel": (1, 1, 4, 24),
        "s1/b2/conv1/conv/kernel": (1, 1, 24, 24),
        "s1/b2/conv2/conv/kernel": (3, 3, 12, 24),
        "s1/b2/conv3/conv/kernel": (1, 1, 24, 24),
    }
    norms = {
        f"{name.removesuffix('conv/kernel')}bn/{leaf}": shape[-1:]
        for name, shape in kernels.items()
        for leaf in ("scale", "bias", "mean", "var")
    }
    biased = {
        "s1/b1/se/fc1": (1, 1, 24, 1),
        "s1/b1/se/fc2": (1, 1, 1, 24),
        "s1/b2/se/fc1": (1, 1, 24, 6),
        "s1/b2/se/fc2": (1, 1, 6, 24),
        "head": (24, 3),
    }
    rest = {f"{name}/kernel": shape for name, shape in biased.items()}
    rest |= {f"{name}/bias": shape[-1:] for name, shape in biased.items()}
    assert shapes == {**kernels, **norms, **rest}


def test_logits_are_those_of_timm(golden):
    spec, params = converted(TIMM, weights_of(golden), make_regnet.IMAGE_SIZE)
    assert spec == SMALL.replace(image_size=make_regnet.IMAGE_SIZE)
    logits = logits_of(spec, params, golden["images"])
    assert 0.5 < golden["logits"].std() < 5.0
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-4)


def test_every_tensor_matters():
    """A logit moves with each of them: none is left out or applied without effect."""
    spec = TINY.replace(stem_width=16, widths=(16, 24), group_width=8)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1))

    def loss(params):
        return (spec.build().apply({"params": params}, images) ** 2).sum()

    slopes = trees.flatten(jax.jit(jax.grad(loss))(drawn(spec)))
    assert [name for name, slope in slopes.items() if not np.abs(slope).max() > 0] == []


def test_bfloat16_keeps_float32_parameters_and_logits(golden):
    spec, params = converted(TIMM, weights_of(golden), make_regnet.IMAGE_SIZE)
    low = Compute(dtype="bfloat16")
    start = jax.eval_shape(lambda: vit.init_params(spec.build(low), jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(start)} == {jnp.dtype("float32")}
    logits = logits_of(spec, params, golden["images"], low)
    assert logits.dtype == jnp.float32
    error = np.abs(logits - golden["logits"]).max() / np.abs(golden["logits"]).max()
    assert 1e-4 < error < 5e-2  # it did compute in bfloat16, and not in less


def test_features_without_classes():
    spec = TINY.replace(num_classes=0, image_size=(5, 7))
    params = vit.init_params(spec.build(), jax.random.key(0))
    assert "head" not in params
    features = logits_of(spec, params, np.ones((2, 5, 7, 1), np.float32))
    assert features.shape == (2, 24) and np.isfinite(features).all()


def test_wrong_images_are_named():
    module = TINY.build()
    assert module.net is TINY
    with pytest.raises(ValueError, match=r"g12 takes .* \(8, 8, 1\), and got \(9, 9,"):
        module.apply({"params": drawn(TINY)}, np.zeros((1, 9, 9, 1)))


# What its weights are called elsewhere.


@by_layout
@pytest.mark.parametrize(
    "changes",
    [
        dict(num_classes=0),
        dict(channels=4),
        dict(se_ratio=0.5),
        dict(se_ratio=1 / 6, stem_width=6, widths=(12, 36)),
        dict(group_width=8),
        dict(widths=(24,), depths=(11,)),
    ],
    ids=str,
)
def test_any_regnet_is_recognised(changes, layout):
    spec = TINY.replace(**changes, image_size=224)
    counters = {"stem.bn.num_batches_tracked": ()}
    assert layout.recognise(counters | shapes_of(layout, spec)) == spec


@by_layout
def test_other_files_are_not_recognised(layout, net):
    ours = {k: v.shape for k, v in trees.flatten(networks.abstract_params(net)).items()}
    assert layout.recognise(ours) is None
    assert layout.recognise({}) is None
    whole = shapes_of(layout, TINY)
    without = {k: v for k, v in whole.items() if ".se." not in k and "attent" not in k}
    assert len(without) < len(whole)
    assert layout.recognise(without) is None  # RegNetX
    assert layout.recognise(dict.fromkeys(whole, ())) is None


@by_layout
def test_weights_survive_a_file_bit_for_bit(layout):
    params = params_of(SMALL)
    flat = base.write(params, layout.entries(SMALL))
    assert all(array.flags.c_contiguous for array in flat.values())
    spec, back = converted(layout, flat, 224)
    assert spec == SMALL
    equal(params, back)
    again = base.write(back, layout.entries(spec))
    assert list(again) == list(flat)
    equal(flat, again)


def test_files_hold_the_names_of_their_libraries(golden):
    """timm's and transformers' own names, and no others but the counters of batches."""

    timm = {k: v.shape for k, v in weights_of(golden).items()}
    assert kept(TIMM, timm) == shapes_of(TIMM, SMALL)
    assert len(timm) - len(kept(TIMM, timm)) == 1 + 3 * 6 + 4  # one for each norm
    lines = (str(line).split(" ", 1) for line in golden["hugging_face"])
    theirs = {name: tuple(json.loads(v)) for name, v in lines}
    assert kept(HUGGING_FACE, theirs) == shapes_of(HUGGING_FACE, SMALL)
    assert HUGGING_FACE.recognise(theirs) == SMALL


@by_layout
@pytest.mark.parametrize("block", [(3, 1, ".conv2"), (2, 1, "")], ids=str)
def test_missing_tensors_are_named(block, layout):
    spec = SMALL.replace(depths=(1, 1, 3, 2))
    stage, number, part = block
    if layout is TIMM:
        lost = f"s{stage + 1}.b{number + 1}{part}."
    else:
        lost = f"regnet.encoder.stages.{stage}.layers.{number}{part and '.layer.1'}."
    flat = base.write(params_of(spec), layout.entries(spec))
    kept = {name: array for name, array in flat.items() if not name.startswith(lost)}
    with pytest.raises(base.Mismatch) as caught:
        converted(layout, kept, 224)
    assert set(caught.value.missing) == set(flat) - set(kept) != set()
    assert not caught.value.surplus and not caught.value.reshaped


# Against the libraries themselves, where they are installed.

live = pytest.mark.slow
quiet = pytest.mark.filterwarnings("ignore")  # theirs are not ours to mend


def compare(layout, model, size, expected, tmp_path):
    """The same logits here and there; the weights pass through a file of theirs."""
    import torch
    from safetensors.numpy import load_file
    from safetensors.torch import save_file

    images = np.random.default_rng(1).normal(size=(2, size, size, 3))
    images = images.astype(np.float32)
    make_regnet.randomise(model, images)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    spec, params = converted(layout, load_file(path), size)
    assert spec == expected.replace(image_size=size)
    theirs = make_regnet.logits(model, images)
    ours = np.asarray(logits_of(spec, params, images))
    error = np.abs(ours - theirs).max()
    print(f"{layout.name} {spec.name} {size} px: logits of standard deviation "
          f"{theirs.std():.2f}, largest difference {error:.1e}")  # fmt: skip
    assert 0.3 < theirs.std() < 5.0
    assert error < 1e-4
    written = base.write(params, layout.entries(spec))
    model.load_state_dict(
        {k: torch.from_numpy(v) for k, v in written.items()}, strict=False
    )
    np.testing.assert_array_equal(make_regnet.logits(model, images), theirs)


@live
@quiet
@pytest.mark.parametrize("name", ["regnety_002", "regnety_160"])
def test_live_timm(name, with_timm, tmp_path):
    model = make_regnet.named_timm(name)
    compare(TIMM, model, 224, REGNETS[name], tmp_path)


@live
@quiet
def test_live_hugging_face(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    spec = REGNETS["regnety_004"]
    fields = {field: getattr(spec, field) for field in make_regnet.SMALL}
    model = make_regnet.hugging_face(**fields)
    compare(HUGGING_FACE, model, 224, spec, tmp_path)
