"""Specs of networks: counts of parameters, names, JSON and refusals."""

import jax
import pytest

from sws_jax import specs, trees
from sws_jax.errors import UserError
from sws_jax.models import aux_vit, levit, networks, regnet, stitched, vit

from support.formulas import formula

# Parameters with 1000 classes at 224 px and no class token. The Aux-Nets' and the
# 12-layer descendants' are those of the published networks.
COUNTS = {
    "vit_nano_patch16_L12": 726_696,
    "vit_tiny_patch16_L12": 5_717_032,
    "vit_small_patch16_L12": 22_049_896,
    "vit_base_patch16_L12": 86_566_120,
    "aux_vit_nano_patch16_3-3-4-3-3": 376_808,
    "aux_vit_tiny_patch16_3-3-4-3-3": 2_602_984,
    "aux_vit_small_patch16_3-3-4-3-3": 9_628_648,
    "aux_vit_base_patch16_3-3-4-3-3": 36_951_016,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    spec = specs.named(name)
    assert spec.name == name
    assert trees.count(networks.abstract_params(spec)) == formula(spec)
    assert formula(spec) == COUNTS[name]


def test_every_named_size_is_counted():
    assert {name.removeprefix("aux_").split("_")[1] for name in COUNTS} == set(
        specs.SIZES
    )


def test_one_layer_of_the_published_sizes():
    for size, layer in (("small", 1_774_464), ("base", 7_087_872)):
        nets = [specs.named(f"vit_{size}_patch16_L{d}") for d in (6, 7)]
        counts = [trees.count(networks.abstract_params(net)) for net in nets]
        assert counts[1] - counts[0] == layer


def test_specs_survive_json():
    spec = specs.named("aux_vit_small_patch16_1-2-3-2", drop_path=0.1)
    assert specs.from_dict(specs.AuxViTSpec, specs.to_dict(spec)) == spec
    assert hash(spec) == hash(specs.from_dict(specs.AuxViTSpec, specs.to_dict(spec)))


def test_specs_of_older_files_lack_fields():
    """What a spec has gained since is then as it was without it."""
    data = specs.to_dict(specs.named("vit_small_patch16_L12"))
    for field in ("dist_head", "patch_bias_init"):
        del data[field]
    spec = specs.from_dict(specs.ViTSpec, data)
    assert spec == specs.named("vit_small_patch16_L12")
    assert (spec.dist_head, spec.patch_bias_init) == (True, "zeros")
    with pytest.raises(UserError, match="ViTSpec has no field colour"):
        specs.from_dict(specs.ViTSpec, {**data, "colour": "red"})


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(width=50, heads=4), "width 50 does not divide into 4 heads"),
        (dict(image_size=30), "30 x 30 pixels does not divide into patches of 16"),
        (dict(depth=0), "depth must be a whole number"),
        (dict(drop_path=1.0), "drop_path must be in"),
        (dict(pool="max"), "mean, token"),
        (dict(pool="token", pool_order="mean_norm"), "needs pool 'mean'"),
        (dict(num_classes=-1), "num_classes"),
        (dict(dist_head=False), "dist_head=False says .* needs distilled=True"),
        (dict(patch_bias_init="ones"), "'ones' is not one of zeros, uniform"),
    ],
)
def test_impossible_networks_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        specs.ViTSpec(**changes)


@pytest.mark.parametrize(
    "name", ["vit_huge_patch16_L12", "vit_small_L12", "resnet", "vit_small_patch16_3-3"]
)
def test_unknown_names_show_the_forms(name):
    with pytest.raises(ValueError, match="vit_small_patch16_L12"):
        specs.named(name)


def test_stages_must_add_up():
    net = specs.ViTSpec(depth=5)
    with pytest.raises(ValueError, match="2-2 apply 4 blocks.*depth of 5"):
        specs.AuxViTSpec(net, (2, 2))
    assert specs.AuxViTSpec(net, (2, 3)).plan == (0, 0, 1, 1, 1)


def test_an_aux_net_is_changed_as_its_net_is():
    net = specs.ViTSpec(depth=5)
    spec = specs.AuxViTSpec(net, (2, 3))
    assert spec.replace() == spec
    assert spec.replace(num_classes=7) == specs.AuxViTSpec(
        net.replace(num_classes=7), (2, 3)
    )
    with pytest.raises(ValueError, match="2-3 apply 5 blocks.*depth of 6"):
        spec.replace(depth=6)
    assert (spec.stages, net.stages) == ((2, 3), ())


def test_networks_that_are_trained_are_made_of_vits():
    """The others only teach; what is asked of any is answered by all."""
    net = specs.ViTSpec(depth=2)
    trained = [net, specs.AuxViTSpec(net, (2,)), specs.StitchedSpec((net, net))]
    trained.append(specs.ExpandedSpec(net, (2,), "tleg"))
    teachers = [specs.LEVITS["levit_128s"], specs.REGNETS["regnety_002"]]
    for spec in trained + teachers:
        assert spec.trainable == isinstance(spec, specs.Trained) == (spec in trained)
        assert spec.drop_path_rates.shape == (spec.depth,)
        smaller = spec.replace(image_size=32, channels=1, num_classes=7)
        assert (smaller.image_size, smaller.channels) == ((32, 32), 1)
        assert smaller.num_classes == 7
    for spec in trained:
        assert (spec.stem, spec.tail) == (spec.vits[0], spec.vits[-1])
        assert sum(vit.depth for vit in spec.vits) == spec.depth


def test_drop_path_rises_linearly_over_applied_blocks():
    spec = specs.named("aux_vit_small_patch16_3-3-4-3-3", drop_path=0.15)
    rates = spec.net.drop_path_rates
    assert len(rates) == 16
    assert rates[[0, 1, 15]].tolist() == pytest.approx([0.0, 0.01, 0.15])
    assert jax.tree.leaves(specs.ViTSpec(depth=1).drop_path_rates)[0].tolist() == [0.0]


@pytest.mark.parametrize(
    "spec, network",
    [
        (specs.ViTSpec(depth=1), vit.ViT),
        (specs.AuxViTSpec(specs.ViTSpec(depth=2), (1, 1)), aux_vit.AuxViT),
        (specs.StitchedSpec((specs.ViTSpec(depth=1),)), stitched.StitchedViT),
        (specs.LEVITS["levit_128s"], levit.LeViT),
        (specs.REGNETS["regnety_002"], regnet.RegNet),
    ],
)
def test_a_spec_builds_the_network_of_its_family(spec, network):
    compute = specs.Compute(dtype="bfloat16")
    module = spec.build(compute)
    assert type(module) is network
    assert (module.spec, module.compute) == (spec, compute)


def test_shapes_are_the_callers_own(net):
    """A network is traced once, and whoever asks may change what it gets."""
    first = networks.abstract_params(net)
    expected = trees.flatten(first)
    first.clear()
    assert trees.flatten(networks.abstract_params(net)) == expected
