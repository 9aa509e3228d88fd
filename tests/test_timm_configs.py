"""timm's config.json beside weights: what it says is honoured or refused by name."""

import json
import os
import pathlib
import re
import warnings

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from benchmarks import peers
from sws_jax import __main__ as tools
from sws_jax import convert, specs
from sws_jax.convert import (
    base,
    documents,
    levit,
    reading,
    regnet,
    timm,
    unseen,
    vit,
)
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.specs import regnet as regnet_specs

from support import timm_transforms
from support.compare import equal
from support.networks import logits_of, params_of

ROOT = pathlib.Path(__file__).parents[1]


def spec_of(**fields):
    options = dict(depth=2, width=64, heads=2, mlp_ratio=2.0, patch_size=8, channels=3)
    options |= dict(image_size=(32, 32), num_classes=5, pool="token")
    return specs.ViTSpec(**{**options, **fields})


def tensors_of(spec, names=vit.TIMM):
    return base.write(params_of(spec, 0), names.entries(spec))


# What says of the tensors of `spec_of` all that they are.
SIZES = dict(embed_dim=64, depth=2, num_heads=2, mlp_ratio=2.0, patch_size=8)
SIZES |= dict(img_size=32)


def config_of(arguments=(), view=(), architecture="vit_tiny_patch16_224", **top):
    options = {**SIZES, **dict(arguments)}
    return dict(
        architecture=architecture,
        model_args={k: v for k, v in options.items() if v is not ...},
        pretrained_cfg=dict(view),
        **top,
    )


def folder(at, flat, config):
    at.mkdir(exist_ok=True)
    safetensors.numpy.save_file(flat, at / "model.safetensors")
    text = config if isinstance(config, str) else json.dumps(config)
    (at / "config.json").write_text(text)
    return str(at)


def load(at, flat, config, **options):
    """The network, and what was said of it."""
    notes = []
    network, _ = convert.load(folder(at, flat, config), tell=notes.append, **options)
    return network, notes


def refused(at, flat, config, **options):
    with pytest.raises(UserError) as caught:
        load(at, flat, config, **options)
    message = str(caught.value)
    assert "config.json" in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    "arguments, fields",
    [
        (dict(num_heads=4), dict(heads=4)),
        (dict(act_layer="gelu_tanh"), dict(gelu="tanh")),
        (dict(act_layer="gelu"), dict(gelu="exact")),
        (dict(global_pool="token", class_token=True), {}),
        (dict(global_pool="avg", class_token=False), dict(pool_order="mean_norm")),
        (dict(global_pool="avg", class_token=False, fc_norm=False), dict(pool="mean")),
        (dict(img_size=[128, 8]), dict(image_size=(128, 8))),
    ],
)
def test_what_is_honoured(arguments, fields, tmp_path):
    if "pool_order" in fields:
        fields = {**fields, "pool": "mean"}
    spec = spec_of(**fields)
    network, notes = load(tmp_path, tensors_of(spec), config_of(arguments))
    assert network.spec == spec
    # The name is that of a wider network.
    assert [bool(re.search("embed_dim|patch_size", note)) for note in notes] in (
        [],
        [True],
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(global_pool="avg"), "model_args.global_pool is 'avg'"),
        (dict(global_pool="avg", fc_norm=False), "model_args.global_pool is 'avg'"),
        (dict(global_pool="max"), "model_args.global_pool is 'max'"),
        (dict(global_pool="map"), "model_args.global_pool is 'map'"),
        (dict(global_pool=""), "model_args.global_pool is ''"),
        (dict(fc_norm=True), "fc_norm is True"),
        (dict(class_token=False), "class_token is False"),
        (dict(pool_include_prefix=True), "pool_include_prefix is True"),
        (dict(pre_norm=True), "pre_norm is True"),
        (dict(reg_tokens=4), "reg_tokens is 4"),
        (dict(final_norm=False), "final_norm is False"),
        (dict(qk_norm=True), "qk_norm is True"),
        (dict(qkv_bias=False), "qkv_bias is False"),
        (dict(proj_bias=False), "proj_bias is False"),
        (dict(norm_layer="rmsnorm"), "norm_layer is 'rmsnorm'"),
        (dict(mlp_layer="SwiGLU"), "mlp_layer is 'SwiGLU'"),
        (dict(block_fn="ResPostBlock"), "block_fn is 'ResPostBlock'"),
        (dict(act_layer="quick_gelu"), "act_layer: the activation 'quick_gelu'"),
        (dict(act_layer="relu"), "act_layer: the activation 'relu'"),
        (dict(features_only=True), "features_only is True"),
        (dict(num_heads=3), "divide into 3 heads"),
        (dict(num_heads=True), "num_heads is True, and must be a whole number"),
        (dict(num_heads="2"), "num_heads is '2', and must be a whole number"),
        (dict(patch_size=[8, 4]), "patch_size is .8, 4., and must be square"),
        (dict(embed_dim=1024), "another network .* model_args.embed_dim is 1024"),
        (dict(depth=24), "another network .* model_args.depth is 24"),
        (dict(patch_size=16), "another network .* model_args.patch_size is 16"),
        (dict(mlp_ratio=4.0), "another network .* model_args.mlp_ratio is 4.0"),
        (dict(in_chans=1), "another network .* model_args.in_chans is 1"),
        (dict(num_classes=7), "another network .* model_args.num_classes is 7"),
        (dict(img_size=64), "another network .* model_args.img_size is 64 x 64"),
        (dict(img_size=[128, 16]), "another network .* model_args.img_size is 128 x"),
    ],
)
def test_what_is_refused(arguments, words, tmp_path):
    assert re.search(
        words, refused(tmp_path, tensors_of(spec_of()), config_of(arguments))
    )


@pytest.mark.parametrize("pool", ["max", "avgmax", "token", "prr"])
def test_pooling_of_patches_alone(pool, tmp_path):
    """Without a class token there is one pooling here."""
    flat = tensors_of(spec_of(pool="mean"))
    options = dict(global_pool=pool, class_token=False, fc_norm=False)
    assert f"global_pool is {pool!r}" in refused(tmp_path, flat, config_of(options))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(drop_rate=0.1, drop_path_rate=0.2, attn_drop_rate=0.3, pos_drop_rate=0.1),
        dict(weight_init="moco", fix_init=True, strict_img_size=False),
        dict(dynamic_img_pad=True, norm_layer="layernorm", init_values=None),
    ],
)
def test_what_has_no_effect(arguments, tmp_path):
    network, notes = load(tmp_path, tensors_of(spec_of()), config_of(arguments))
    assert network.spec == spec_of()
    assert not any("not known" in note for note in notes)


@pytest.mark.parametrize("where", ["", "model_args", "pretrained_cfg"])
def test_a_key_that_is_in_no_row_is_told(where, tmp_path):
    config = config_of()
    (config[where] if where else config)["window_size"] = 7
    _, notes = load(tmp_path, tensors_of(spec_of()), config)
    name = f"{where}.window_size" if where else "window_size"
    assert any(f"not known here, and left out: {name}" in note for note in notes)


@pytest.mark.parametrize(
    "view, words",
    [
        (dict(mean=[0.5]), "mean has 1 numbers, and the network takes 3"),
        (dict(std=[0.5] * 4), "std has 4 numbers, and the network takes 3"),
        (dict(mean=[0.5, 0.5, "x"]), "mean is .*, and must be a number"),
        (dict(crop_pct=0), r"crop_pct is 0, and must be in \(0, 1\]"),
        (dict(crop_pct="0.9"), "crop_pct is '0.9', and must be a number"),
        (
            dict(crop_mode="border"),
            "crop_mode is 'border', and must be center or squash",
        ),
        (
            dict(interpolation="hamming"),
            "interpolation is 'hamming', and must be one of",
        ),
        (dict(input_size=[3, 48, 48]), "input_size has images of 48 x 48 pixels"),
        (dict(input_size=[3, 48]), "input_size is .*, and must be channels, height"),
        (dict(input_size=[1, 32, 32]), "another network .* pretrained_cfg.input_size"),
        (dict(num_classes=1000), "another network .* pretrained_cfg.num_classes"),
        (dict(label_names="cat"), "label_names is 'cat', and must be a list"),
        (dict(label_names={"1": "a", "2": "b"}), "numbered from 0 without gaps"),
    ],
)
def test_views_that_are_refused(view, words, tmp_path):
    flat = tensors_of(spec_of())
    assert re.search(words, refused(tmp_path, flat, config_of(view=view)))


def test_views(tmp_path):
    view = dict(mean=[0.1, 0.2, 0.3], std=[0.5] * 3, crop_pct=0.9, test_crop_pct=1.0)
    view |= dict(interpolation="bilinear", test_input_size=[3, 64, 64])
    view |= dict(input_size=[3, 32, 32], label_names=list("abcde"), num_classes=1000)
    config = config_of(view=view, num_classes=5)
    network, _ = load(tmp_path, tensors_of(spec_of()), config)
    about = network.description
    assert about.normalization.mean == (0.1, 0.2, 0.3)
    assert (about.eval_crop, about.interpolation) == (0.9, "bilinear")
    assert about.class_names == tuple("abcde")
    # Flags come before it, also where it is wrong.
    config["pretrained_cfg"]["mean"] = [0.5]
    network, _ = load(tmp_path, tensors_of(spec_of()), config, mean=(0.5,) * 3)
    assert network.description.normalization.mean == (0.5,) * 3


@pytest.mark.parametrize("where", ["top", "pretrained_cfg", "labels", "numbers"])
def test_names_of_classes(where, tmp_path):
    names = list("vwxyz")
    config = {
        "top": config_of(label_names=names, view=dict(label_names=names)),
        "pretrained_cfg": config_of(view=dict(label_names=names)),
        "labels": config_of(labels=names),
        "numbers": config_of(label_names={str(i): names[i] for i in (3, 1, 0, 2, 4)}),
    }[where]
    network, _ = load(tmp_path, tensors_of(spec_of()), config)
    assert network.description.class_names == tuple(names)


@pytest.mark.parametrize(
    "one, other", [("", "pretrained_cfg."), ("", ""), ("pretrained_cfg.", "")]
)
def test_names_that_say_two_things(one, other, tmp_path):
    config = config_of()
    for within, key, names in (
        (one, "label_names", "vwxyz"),
        (other, "labels", "abcde"),
    ):
        (config["pretrained_cfg"] if within else config)[key] = list(names)
    message = refused(tmp_path, tensors_of(spec_of()), config)
    assert "name the classes in two ways: take one of them out" in message
    assert f"{one}label_names" in message and f"{other}labels" in message


def test_a_processor_beside_timm_s_config_is_told(tmp_path):
    """timm reads none."""
    at = tmp_path / "preprocessor_config.json"
    at.write_text(json.dumps(dict(image_mean=[0.1] * 3, do_rescale=False)))
    network, (note,) = load(tmp_path, tensors_of(spec_of()), config_of())
    assert f"preprocessor_config.json beside {tmp_path / 'config.json'} are not" in note
    assert network.description.normalization.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "key, number",
    [
        (key, number)
        for key in ("num_heads", "img_size", "mlp_ratio", "crop_pct")
        for number in ("1e400", "Infinity", "-Infinity", "NaN", "2.5", "0")
        if (key, number) != ("mlp_ratio", "2.5")  # which is one
    ],
)
def test_numbers_that_are_none(key, number, tmp_path, capsys):
    within = "pretrained_cfg" if key == "crop_pct" else "model_args"
    config = f'{{"architecture": "vit", "{within}": {{"{key}": {number}}}}}'
    at = folder(tmp_path / "net", tensors_of(spec_of()), config)
    assert tools.main(["convert", at, str(tmp_path / "out.safetensors")]) == 2
    message = capsys.readouterr().err
    assert "config.json" in message and key in message and message.count("\n") == 1


@pytest.mark.parametrize(
    "config",
    [
        '{"architecture": 3}',
        '{"architecture": "vit", "model_args": 5}',
        '{"pretrained_cfg": "x"}',
    ],
)
def test_other_kinds_of_values(config, tmp_path):
    assert " is " in refused(tmp_path, tensors_of(spec_of()), config)


@pytest.mark.parametrize("grid, size", [((4, 4), (16, 64)), ((8, 2), (64, 16))])
def test_sizes_of_images_from_input_size(grid, size, tmp_path):
    """And what is resized is resized from there."""
    spec = spec_of(image_size=size)
    view = dict(input_size=[3, *size])
    config = config_of(dict(img_size=...), view)
    network, _ = load(tmp_path, tensors_of(spec), config)
    assert network.spec == spec
    there, _ = load(tmp_path, tensors_of(spec), config, image_size=(32, 32))
    ours = spec.replace(image_size=(32, 32))
    want = reading.at_size(network, convert.LAYOUTS[0], (32, 32))
    assert there.spec == ours
    np.testing.assert_array_equal(there.params["pos_embed"], want.params["pos_embed"])


def test_a_square_that_is_assumed_is_said(tmp_path):
    safetensors.numpy.save_file(tensors_of(spec_of()), tmp_path / "net.safetensors")
    notes = []
    path, options = str(tmp_path / "net.safetensors"), dict(heads=2, tell=notes.append)
    convert.load(path, image_size=(64, 32), **options)
    assert len(notes) == 1 and "as if it were square, 32x32 pixels" in notes[0]
    convert.load(path, image_size=(64, 16), **options)  # which its positions fit
    convert.load(path, **options)
    assert len(notes) == 1


@pytest.mark.parametrize("register", [False, True])
def test_positions_of_patches_alone(register, tmp_path):
    """timm's no_embed_class: positions of zeros are none, on any grid."""
    spec = spec_of(image_size=(16, 64))
    if register:
        spec = spec.replace(distilled=True, dist_head=False)
    asked = dict(no_embed_class=True, img_size=[16, 64], reg_tokens=int(register))
    flat, options = tensors_of(spec), config_of(asked)
    flat["pos_embed"][:, : 1 + register] = 0
    assert "no_embed_class is True" in refused(tmp_path / "a", flat, options)
    whole, _ = load(tmp_path / "a", flat, config_of({**asked, "no_embed_class": False}))
    flat["pos_embed"] = flat["pos_embed"][:, 1 + register :].copy()
    alone, notes = load(tmp_path / "b", flat, options)
    assert alone.spec == whole.spec == spec
    equal(alone.params, whole.params)
    assert "have no position: they have one of zeros" in notes[0] and len(notes) == 1


@pytest.mark.parametrize("size", [33, [39, 32], [35, 36]])
def test_pixels_that_timm_leaves_out(size, tmp_path):
    """As of 384 pixels in patches of 14."""
    message = refused(tmp_path, tensors_of(spec_of()), config_of(dict(img_size=size)))
    assert "pixels, which do not divide into patches of 8" in message


# What names imply


def test_what_names_imply():
    """Heads and activations that neither tensors nor arguments show, and sizes."""
    spec = spec_of(width=768, depth=12, heads=1, mlp_ratio=4.0, patch_size=16)
    spec = spec.replace(image_size=224, pool="mean", num_classes=0)
    for name, heads, side in (
        ("vit_base_patch16_gap_224", 16, 224),
        ("vit_base_patch16_siglip_gap_224.v2_webli", 12, 224),
        ("vit_base_patch16_siglip_gap_256", 12, 256),
    ):
        config = dict(architecture=name, num_classes=0, pretrained_cfg={})
        sidecar = timm.read("config.json", config, convert.LAYOUTS[0], spec)
        assert (sidecar.fields["heads"], sidecar.fields["gelu"]) == (heads, "exact")
        assert sidecar.size in (None, ("", (side, side)))
    tanh = [k for k, row in timm.names().items() if "gelu_tanh" in str(row)]
    assert any("siglip" in name for name in tanh)
    spec = spec.replace(width=1152, depth=27, mlp_ratio=4304 / 1152)
    config = dict(architecture="vit_so400m_patch16_siglip_gap_256", num_classes=0)
    sidecar = timm.read("config.json", config, convert.LAYOUTS[0], spec)
    assert (sidecar.fields["heads"], sidecar.fields["gelu"]) == (16, "tanh")


@pytest.mark.parametrize(
    "name, words",
    [
        ("vit_base_patch16_rpn_224", "block_fn is 'ResPostBlock'"),
        ("vit_base_patch16_clip_224", "pre_norm is True"),
        ("vit_base_patch16_clip_quickgelu_224", "act.*quick_gelu|pre_norm is True"),
        ("vit_base_patch16_siglip_224", "global_pool .* is 'map'"),
        ("vit_large_patch16_224", "another network .*embed_dim"),
        ("vit_small_patch16_224", "another network .*embed_dim"),
        ("levit_128s", "another network .*architecture is 'levit_128s'"),
        ("regnety_002", "another network .*architecture is 'regnety_002'"),
    ],
)
def test_names_of_networks_that_are_none_of_those(name, words):
    spec = spec_of(width=768, depth=12, heads=12, mlp_ratio=4.0, patch_size=16)
    spec = spec.replace(image_size=224, num_classes=0)
    config = dict(architecture=name, num_classes=0, pretrained_cfg={})
    if "siglip" in name:
        spec = spec.replace(pool="mean")
    with pytest.raises(UserError, match=words):
        timm.read("config.json", config, convert.LAYOUTS[0], spec)


@pytest.mark.parametrize(
    "name, arguments, words",
    [
        ("levit_256d", {}, "act_layer is 'silu'"),
        ("levit_512", {}, "act_layer is 'silu'"),
        ("levit_384", dict(act_layer="silu"), "model_args.act_layer is 'silu'"),
        ("levit_384", dict(down_op=""), "model_args.down_op is ''"),
        ("levit_384", dict(global_pool=""), "model_args.global_pool is ''"),
        ("levit_192", {}, "another network .*embed_dim"),
        ("regnetz_005", {}, "another network"),
    ],
)
def test_levits(name, arguments, words):
    spec = specs.LEVITS["levit_384"]
    config = dict(architecture=name, model_args=arguments, pretrained_cfg={})
    with pytest.raises(UserError, match=words):
        timm.read("config.json", config, levit.LAYOUTS[0], spec)
    right = dict(architecture="levit_384", pretrained_cfg=dict(crop_pct=0.9))
    assert timm.read("config.json", right, levit.LAYOUTS[0], spec).view.crop == 0.9


@pytest.mark.parametrize(
    "name, arguments, words",
    [
        ("regnety_002", dict(act_layer="silu"), "model_args.act_layer is 'silu'"),
        ("regnety_002", dict(output_stride=16), "model_args.output_stride is 16"),
        ("regnety_002", dict(preact=True), "model_args.preact is True"),
        ("regnety_160", {}, "another network .*(widths|depths)"),
    ],
)
def test_regnets(name, arguments, words):
    spec = specs.REGNETS["regnety_002"]
    config = dict(architecture=name, model_args=arguments, pretrained_cfg={})
    with pytest.raises(UserError, match=words):
        timm.read("config.json", config, regnet.LAYOUTS[0], spec)
    view = dict(input_size=[3, 288, 288])
    right = dict(architecture="regnety_002", pretrained_cfg=view)
    sidecar = timm.read("config.json", right, regnet.LAYOUTS[0], spec)
    assert (
        sidecar.size == ("pretrained_cfg.input_size", (288, 288)) and not sidecar.notes
    )


def test_a_name_in_no_table_is_told(tmp_path):
    _, notes = load(tmp_path, tensors_of(spec_of()), config_of(architecture="vit_mine"))
    assert any("'vit_mine' is no name known here" in note for note in notes)
    bare = dict(architecture="vit_mine", pretrained_cfg={})
    _, notes = load(tmp_path, tensors_of(spec_of()), bare)
    assert any("how many heads" in note for note in notes)


def test_test_vit_has_two_heads(tmp_path):
    assert timm.names()["test_vit"]["num_heads"] == 2
    config = dict(architecture="test_vit", num_classes=5, pretrained_cfg={})
    # Of another depth than its name says, it is none.
    message = refused(tmp_path, tensors_of(spec_of()), config)
    assert "depth of its architecture 'test_vit' is 6" in message
    whole = spec_of(depth=6, mlp_ratio=3.0, patch_size=16, image_size=(160, 160))
    network, notes = load(tmp_path, tensors_of(whole), config)
    assert network.spec == whole and not notes


# Without a config


IMAGES: dict = dict(mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.9)


def test_what_is_guessed_in_memory():
    flat = tensors_of(spec_of())
    with pytest.raises(UserError, match="no published network is 64 wide: give heads="):
        convert.load(flat)
    usual = tensors_of(spec_of(width=192, heads=3))
    with pytest.warns(
        UserWarning, match="3 heads, LayerNorm epsilon 1e-06, exact GELU"
    ):
        convert.load(usual, **IMAGES)
    with pytest.warns(UserWarning, match="taken: LayerNorm epsilon 1e-06, exact GELU"):
        convert.load(usual, heads=6, **IMAGES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network, _ = convert.load(flat, heads=2, norm_eps=1e-6, gelu="exact", **IMAGES)
    assert network.spec == spec_of()
    with pytest.warns(UserWarning, match="how its images are: mean .0.5.* crop 0.875"):
        convert.load(
            flat, heads=2, norm_eps=1e-6, gelu="exact", **{**IMAGES, "crop": None}
        )


@pytest.mark.parametrize("width", [64, 192])
def test_published_widths_are_quiet_on_disk(width, tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    flat = tensors_of(spec_of(width=width, heads=1))
    safetensors.numpy.save_file(flat, path)
    assert tools.main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 0
    out = capsys.readouterr().out
    assert ("note: " in out) == (width < 192)
    assert ("--heads" in out) == (width < 192)


def test_the_gelu_is_said_by_an_argument_or_a_flag(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    flat = tensors_of(spec_of(width=192, heads=3))
    safetensors.numpy.save_file(flat, path)
    for gelu in ("exact", "tanh"):
        network, _ = convert.load(flat, heads=3, norm_eps=1e-6, gelu=gelu, **IMAGES)
        assert network.spec.gelu == gelu
        out = str(tmp_path / f"{gelu}.safetensors")
        assert tools.main(["convert", str(path), out, "--gelu", gelu]) == 0
        assert f"class token, {gelu} GELU" in capsys.readouterr().out
    assert tools.main(["convert", str(path), str(tmp_path), "--gelu", "relu"]) == 2
    config = config_of(dict(act_layer="gelu_tanh"))
    network, _ = load(tmp_path / "net", tensors_of(spec_of()), config, gelu="exact")
    assert network.spec.gelu == "exact"


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(pool="token"), "exact GELU, the class token is classified"),
        (dict(pool="mean"), "patches are averaged .norm, then mean"),
        (
            dict(pool="mean", pool_order="mean_norm"),
            "patches are averaged .mean, then norm",
        ),
    ],
)
def test_pooling_is_named_among_what_is_guessed(fields, words):
    flat, notes = tensors_of(spec_of(width=192, heads=3, **fields)), []
    for options in ({}, dict(heads=3), dict(heads=3, norm_eps=1e-6)):
        convert.load(flat, tell=notes.append, **options, **IMAGES)
        assert re.search(words, notes.pop()) and not notes
    known = dict(heads=3, norm_eps=1e-6, gelu="exact", **IMAGES)
    convert.load(flat, tell=notes.append, **known)
    assert not notes


@pytest.mark.parametrize("names, stages", [(vit.SWS, (1, 2)), (vit.TLEG, (4,))])
def test_heads_of_aux_nets_are_asked_for_or_told(names, stages):
    def tensors(spec):
        shapes = base.shapes(
            names.entries(spec.replace(depth=len(stages))), _genes(spec, stages, names)
        )
        return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}

    with pytest.raises(UserError, match="how many heads .* give heads="):
        convert.load(tensors(spec_of()), stages=stages)
    notes = []
    wide = tensors(spec_of(width=192, heads=3))
    convert.load(wide, stages=stages, tell=notes.append)
    assert re.search("3 heads, LayerNorm epsilon 1e-05, exact GELU", notes[0])


def _genes(spec, stages, names):
    from sws_jax.methods import learngenes
    from sws_jax.models.description import Description
    from sws_jax.pixels import default_normalization

    method = {id(vit.SWS): "sws", id(vit.TLEG): "tleg"}[id(names)]
    about = Description(
        kind="learngene",
        net=spec.replace(depth=sum(stages)),
        method=method,
        profile="official",
        stages=stages,
        normalization=default_normalization(3),
    )
    return learngenes.abstract_learngene(about).params


def zeros_of(spec, layout):
    shapes = base.shapes(layout.entries(spec), networks.abstract_params(spec))
    return {name: np.ones(shape, np.float16) for name, shape in shapes.items()}


SMALL_LEVIT = specs.LeViTSpec(
    widths=(16, 24, 32), depths=(1, 1, 1), heads=(2, 3, 4), key_dims=(4, 4, 4),
    attn_ratios=(2.0,) * 3, down_heads=(4, 6), down_key_dims=(4, 4),
    down_attn_ratios=(4.0, 4.0), image_size=64, num_classes=5,
)  # fmt: skip
SMALL_REGNET = specs.RegNetSpec(
    widths=(8, 16), depths=(1, 2), group_width=8, stem_width=8, image_size=32
)


@pytest.mark.parametrize(
    "spec, layout, words",
    [
        (SMALL_LEVIT, levit.LAYOUTS[0], "hard swish, the mean over patches, a stride"),
        (SMALL_LEVIT, levit.LAYOUTS[1], "hard swish, the mean over patches, a stride"),
        (SMALL_LEVIT, levit.LAYOUTS[3], "hard swish, the mean over patches, a stride"),
        (SMALL_REGNET, regnet.LAYOUTS[0], "ReLU, the mean over pixels, a stride of 32"),
        (SMALL_REGNET, regnet.LAYOUTS[1], "ReLU, the mean over pixels, a stride of 32"),
    ],
)
def test_what_no_tensor_of_a_levit_or_regnet_shows(
    spec, layout, words, tmp_path, capsys
):
    flat, notes = zeros_of(spec, layout), []
    convert.load(flat, tell=notes.append, **IMAGES)
    assert len(notes) == 1 and words in notes[0] and "what is in memory" in notes[0]
    path = str(tmp_path / "net.safetensors")
    safetensors.numpy.save_file(flat, path)
    for command in (["describe", path], ["convert", path, path + ".safetensors"]):
        assert tools.main(command) == 0
        assert words in capsys.readouterr().out
    for options, named in (
        (dict(gelu="tanh"), "gelu is of ViTs"),
        (dict(heads=2, norm_eps=1e-6), "heads, norm_eps are of ViTs"),
    ):
        with pytest.raises(UserError, match=named):
            convert.load(path, **options)


def _levits(widths, depths, heads, key=32):
    return specs.LEVITS["levit_256"].replace(
        widths=widths, depths=depths, heads=heads, key_dims=(key,) * 3,
        down_key_dims=(key,) * 2,
        down_heads=tuple(width // key for width in widths[:-1]),
    )  # fmt: skip


@pytest.mark.parametrize("layout", [levit.LAYOUTS[0], levit.LAYOUTS[1]])
@pytest.mark.parametrize(
    "name, spec",
    [
        ("levit_256d", _levits((256, 384, 512), (4, 8, 6), (4, 6, 8))),
        ("levit_512,", _levits((512, 768, 1024), (4, 4, 4), (8, 12, 16), 64)),
        ("levit_512d", _levits((512, 640, 768), (4, 8, 6), (8, 10, 12), 64)),
    ],
)
def test_sizes_that_timm_has_with_another_activation_alone(name, spec, layout):
    names, activation = timm.unusual(spec)
    assert name.strip(",") in names and activation == "silu"
    for on_disk, words in ((False, "into a folder"), (True, "beside it")):
        with pytest.raises(UserError, match=f"timm's {name}.* silu .*json.* {words}"):
            unseen.of_others("x", spec, on_disk)
    for usual in (*specs.LEVITS.values(), *specs.REGNETS.values()):
        assert timm.unusual(usual) == ([], "")


@pytest.mark.parametrize(
    "width, depth, hidden, patch, unusual",
    [
        (1152, 27, 4304, 16, True),
        (1536, 40, 6144, 16, True),
        (768, 12, 3072, 32, True),
        (768, 12, 3072, 16, False),
        (1024, 24, 4096, 14, False),
    ],
)
def test_vits_that_timm_has_with_another_gelu_alone(
    width, depth, hidden, patch, unusual
):
    spec = spec_of(
        width=width, depth=depth, heads=1, mlp_ratio=hidden / width, patch_size=patch,
        image_size=patch, pool="mean",
    )  # fmt: skip
    assert (timm.unusual(spec)[1] == "gelu_tanh") == unusual
    assert timm.unusual(spec.replace(pool="token"))[1] == ""
    layout = convert.LAYOUTS[0]
    if not unusual:
        assert not unseen.of_vit("x", layout, spec, {}, True)
        return
    assert "--gelu" in unseen.of_vit("x", layout, spec, {}, True)[0]
    assert not unseen.of_vit("x", layout, spec, dict(gelu="tanh"), True)
    with pytest.raises(UserError, match="timm's vit_.* gelu_tanh, .*: give gelu="):
        unseen.of_vit("x", layout, spec, {}, False)


# Sizes


@pytest.mark.parametrize(
    "missing, words",
    [
        ("embed_dim", "embed_dim of its architecture 'vit_tiny_patch16_224' is 192"),
        ("depth", "depth of its architecture 'vit_tiny_patch16_224' is 12"),
        ("mlp_ratio", "mlp_ratio of its architecture .* is 4.0, and theirs is 2.0"),
        ("patch_size", "patch_size of its architecture .* is 16, and theirs is 8"),
    ],
)
def test_what_arguments_do_not_say_is_the_name_s(missing, words, tmp_path):
    config = config_of({missing: ..., "num_heads": ...})
    message = refused(tmp_path, tensors_of(spec_of()), config)
    assert re.search(f"another network .* {words}", message)
    # With its heads, all is said or seen.
    config["model_args"]["num_heads"] = 2
    network, notes = load(tmp_path, tensors_of(spec_of()), config)
    assert network.spec == spec_of() and len(notes) == 1
    assert re.search(f"its architecture .* has {missing} .*the tensors", notes[0])
    config["architecture"] = "vit_of_mine"  # which implies nothing
    assert load(tmp_path, tensors_of(spec_of()), config)[0].spec == spec_of()


def test_heads_of_a_network_of_another_width():
    """Are no sign that a config is of the tensors beside it."""
    spec = spec_of(width=768, heads=12, mlp_ratio=4.0, patch_size=16, image_size=32)
    options = dict(depth=2, img_size=32, num_heads=6)
    config = dict(architecture="vit_small_patch16_224", pretrained_cfg={})
    config |= dict(model_args=options)
    with pytest.raises(UserError, match="embed_dim of its architecture .* is 384"):
        timm.read("config.json", config, convert.LAYOUTS[0], spec)
    options["num_heads"] = 12
    assert timm.read("config.json", config, convert.LAYOUTS[0], spec).notes


def test_null_is_a_value_of_timm_s_own(tmp_path):
    """Of layer scale and norms: not that of the name."""
    spec = spec_of(
        width=384, heads=6, mlp_ratio=4.0, depth=2, patch_size=14, image_size=28
    )
    flat = tensors_of(spec)
    known = dict(depth=2, img_size=28, init_values=None)
    config = dict(architecture="vit_small_patch14_dinov2", pretrained_cfg={})
    config |= dict(model_args=known, num_classes=5)
    assert load(tmp_path, flat, config)[0].spec.heads == 6
    del known["init_values"]
    message = refused(tmp_path, flat, config)
    assert "init_values of its architecture" in message and "is 1e-05" in message


@pytest.mark.parametrize(
    "width, hidden, ratio",
    [
        (208, 480, 2.31),
        (112, 230, 2.06),
        (720, 3136, 4.3556),
        (304, 1106, 3.64),
        (352, 960, 2.73),
        (64, 128, 2.0),
    ],
)
def test_hidden_units_are_exact(width, hidden, ratio):
    spec = spec_of(width=width, heads=2, depth=1, mlp_ratio=ratio)
    assert spec.hidden == hidden
    for names in (vit.TIMM, vit.HF_VIT, vit.UNSTACKED, vit.BIG_VISION):
        assert names.recognise(shapes_of(spec, names)).hidden == hidden
    seen = vit.TIMM.recognise(shapes_of(spec, vit.TIMM))
    config = config_of(dict(embed_dim=width, depth=1, mlp_ratio=ratio))
    sidecar = timm.read("config.json", config, convert.LAYOUTS[0], seen)
    assert seen.replace(**sidecar.fields) == spec


@pytest.mark.parametrize("width, ratio", [(208, 2.31), (112, 2.06)])
def test_exact_hidden_units_are_read_again(width, ratio, tmp_path):
    spec = spec_of(width=width, heads=2, depth=1, mlp_ratio=ratio)
    known = dict(heads=2, norm_eps=1e-6, gelu="exact", **IMAGES)
    network, _ = convert.load(tensors_of(spec), **known)
    convert.save(str(tmp_path / "timm"), network, "timm")
    again, _ = convert.load(str(tmp_path / "timm"))
    assert again.spec == network.spec
    equal(again.params, network.params)


def shapes_of(spec, names):
    return base.shapes(names.entries(spec), networks.abstract_params(spec))


@pytest.mark.parametrize("ratio", [2.3, 2.6, 3.3, 1.7, 2.0])
def test_levits_whose_hidden_units_are_cut(ratio):
    layout = levit.LAYOUTS[0]
    shapes = shapes_of(SMALL_LEVIT.replace(mlp_ratio=ratio), layout)
    sizes = [shapes[f"stages.{i}.blocks.0.mlp.ln1.linear.weight"] for i in range(3)]
    assert sizes == [(int(n * ratio), n) for n in (16, 24, 32)]
    spec = layout.recognise(shapes)
    assert shapes_of(spec, layout) == shapes
    options = dict(embed_dim=[16, 24, 32], depth=[1, 1, 1], num_heads=[2, 3, 4])
    options |= dict(key_dim=4, mlp_ratio=ratio, img_size=64)
    config = dict(architecture="levit_128s", model_args=options, pretrained_cfg={})
    timm.read("config.json", config, layout, spec)
    for name, value in (
        ("mlp_ratio", ratio + 0.5),
        ("key_dim", 8),
        ("attn_ratio", 3),
        ("num_heads", 4),
        ("num_heads", [2, 3, 5]),
        ("use_conv", True),
        ("distilled", False),
    ):
        moved = {**config, "model_args": {**options, name: value}}
        with pytest.raises(UserError, match=f"another network .*model_args.{name} is"):
            timm.read("config.json", moved, layout, spec)
    options["mlp_ratio"] = [ratio] * 3
    timm.read("config.json", config, layout, spec)
    options["mlp_ratio"] = [ratio, 4, 5]
    with pytest.raises(UserError, match="mlp_ratio is .* have one for all stages"):
        timm.read("config.json", config, layout, spec)


@pytest.mark.parametrize("ratio", [0.2, 0.3, 0.7, 0.25, 1 / 3])
def test_squeezed_widths_of_regnets(ratio):
    layout = regnet.LAYOUTS[0]
    named = specs.RegNetSpec(
        widths=(24, 56, 152, 368), depths=(1,) * 4, group_width=8, se_ratio=ratio
    )
    shapes = {}
    for stage, (block,) in enumerate(named.stages, 1):
        name, width = f"s{stage}.b1", block.width
        shapes[f"{name}.conv2.conv.weight"] = (width, 8, 3, 3)
        shapes[f"{name}.conv3.conv.weight"] = (width, width, 1, 1)
        shapes[f"{name}.se.fc1.weight"] = (block.squeeze, width, 1, 1)
    shapes["stem.conv.weight"] = (32, 3, 3, 3)
    shapes["head.fc.weight"] = (1000, 368)
    spec = layout.recognise(shapes)
    assert spec.replace(se_ratio=ratio) == named and spec.stages == named.stages
    config = dict(architecture="regnety_of_mine", pretrained_cfg={})
    config["model_args"] = dict(se_ratio=ratio)
    timm.read("config.json", config, layout, spec)
    config["model_args"]["se_ratio"] = ratio / 2
    with pytest.raises(UserError, match="another network .*model_args.se_ratio is"):
        timm.read("config.json", config, layout, spec)


def test_regnets_of_other_numbers(tmp_path):
    """Of which a part is said, and the name says the others, as for timm."""
    cases = [dict(depth=10), dict(w0=32), dict(group_size=16, depth=12),
             dict(group_size=24), dict(wa=40.0)]  # fmt: skip
    usual = timm.names()["regnety_002"]
    for options in cases:
        numbers = {k: {**usual, **options}[k] for k in ("w0", "wa", "wm", "depth")}
        group = {**usual, **options}["group_size"]
        widths, depths = regnet_specs.quantised(**numbers, group_width=group)
        spec = specs.RegNetSpec(
            widths=widths, depths=depths, group_width=group, num_classes=5
        )
        config = dict(architecture="regnety_002", pretrained_cfg={}, num_classes=5)
        config["model_args"] = options
        sidecar = timm.read("config.json", config, regnet.LAYOUTS[0], spec)
        assert not sidecar.notes
        for wrong in (dict(depth=11), dict(w0=64), dict(stem_width=8), {}):
            config["model_args"] = {**options, **wrong} if wrong else {}
            if not wrong and widths == tuple(usual["widths"]):
                continue
            with pytest.raises(
                UserError, match="another network .*(widths|depths|ste)"
            ):
                timm.read("config.json", config, regnet.LAYOUTS[0], spec)


def test_the_numbers_of_regnets_give_their_widths():
    checked = 0
    for name, implied in timm.names().items():
        row = {**timm.USUAL["regnet"], **implied}
        if row["family"] != "regnet" or row["bottle_ratio"] != 1:
            continue
        if not row["group_min_ratio"]:
            options = {k: row[k] for k in ("w0", "wa", "wm", "depth")}
            got = regnet_specs.quantised(**options, group_width=row["group_size"])
            assert got == (tuple(row["widths"]), tuple(row["depths"])), name
            checked += 1
    assert checked > 20


# Other networks, other spellings


@pytest.mark.parametrize(
    "name, module",
    [("resnet50", "resnet"), ("swin_tiny_patch4_window7_224", "swin_transformer"),
     ("cait_xxs24_224.fb_dist_in1k", "cait"), ("beit_base_patch16_224", "beit"),
     ("eva02_tiny_patch14_224", "eva"), ("convnext_tiny", "convnext"),
     ("vit_small_patch16_rope_224", "eva"), ("vit_relpos_small_patch16_224",
     "vision_transformer_relpos")],
)  # fmt: skip
def test_names_of_timm_s_other_families(name, module, tmp_path):
    config = config_of(architecture=name)
    message = refused(tmp_path, tensors_of(spec_of()), config)
    assert f"another network than the tensors beside it: architecture is '{name}" in (
        message.replace(".fb_dist_in1k", "").replace("'cait_xxs24_224'", f"'{name}'")
    )
    assert f"in its module {module}," in message
    with pytest.raises(UserError, match=f"module {module}"):
        timm.read("config.json", config, regnet.LAYOUTS[0], SMALL_REGNET)


def test_architectures_that_are_keys_of_the_table(tmp_path):
    for name in ("timm", "names", "others", "family"):
        _, notes = load(tmp_path, tensors_of(spec_of()), config_of(architecture=name))
        assert any("is no name known here" in note for note in notes)


@pytest.mark.parametrize(
    "name, words",
    [
        ("deit_tiny_distilled_patch16_224", "distilled of its architecture .* is True"),
        ("deit3_small_patch16_224", "init_values of its architecture .* is 1e-05"),
        ("vit_small_patch14_reg4_dinov2", "reg_tokens of its architecture .* is 4"),
        ("flexivit_small", "no_embed_class of its architecture .* is True"),
    ],
)
def test_names_that_imply_what_tensors_lack(name, words, tmp_path):
    flat = tensors_of(spec_of())
    assert re.search(words, refused(tmp_path, flat, config_of(architecture=name)))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(reg_tokens=1), "model_args.reg_tokens is 1, and theirs is 0"),
        (dict(init_values=0.1), "model_args.init_values is 0.1"),
        (dict(no_embed_class=True), "model_args.no_embed_class is True"),
        (dict(mlp_ratio=1e308), "mlp_ratio is 1e.308, and must be a number that flo"),
        (dict(mlp_ratio=1e30), "mlp_ratio is 1e.30, and must be above 0, and at most"),
        (dict(num_heads=3.0), "divide into 3 heads"),
        (dict(num_heads=10**400), "num_heads is 1000.*, and must be at most"),
        (dict(depth=1e308), "depth is 1e.308, and must be at most"),
        (dict(act_layer="gelu_new"), "'gelu_new' is not one of gelu, gelu_tanh"),
        (dict(act_layer=["gelu"]), "act_layer is .'gelu'., and must be a text"),
        (dict(act_layer="x\n" * 10**6), "the activation 'x.nx.n"),
        (dict(global_pool="y" * 10**6), "global_pool is 'yyy"),
    ],
)
def test_values_that_are_refused(arguments, words, tmp_path):
    message = refused(tmp_path, tensors_of(spec_of()), config_of(arguments))
    assert re.search(words, message) and len(message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "view, words",
    [
        (dict(std=[1e-320, 1, 1]), "std is .*, and must be a number that float32"),
        (dict(std=[1e-40, 1, 1]), "std is .*, and must be a number that float32"),
        (dict(mean=[1e308, 0, 0]), "mean is .*, and must be a number that float32"),
        (dict(std=[0, 1, 1]), "std is .*, and must be above 0"),
        (dict(crop_pct=10**400), "crop_pct is 1000.*, and must be a number that"),
        (dict(interpolation=["bicubic"]), "interpolation is .*, and must be a text"),
        (dict(label_names={"9" * 4000: "a"}), "label_names is .*by whole numbers"),
        (dict(label_names=["a", None, "c", "d", "e"]), "class 1 has no name"),
        (dict(label_names=[["a"], {}, "c", "d", "e"]), "class 0 has ..a..?, which is"),
        (dict(label_names=list("abcd")), "names 4 classes, and they have 5"),
    ],
)
def test_views_and_labels_that_are_refused(view, words, tmp_path):
    message = refused(tmp_path, tensors_of(spec_of()), config_of(view=view))
    assert re.search(words, message) and len(message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "arguments, fields",
    [
        (dict(norm_layer="LAYERNORM", act_layer="GELU"), {}),
        (dict(norm_layer="layer_norm", act_layer=""), {}),
        (dict(norm_layer="Layer_Norm_FP32", act_layer="Gelu_Tanh"), dict(gelu="tanh")),
        (dict(norm_layer="", num_heads=4.0), dict(heads=4)),
    ],
)
def test_spellings_that_timm_reads(arguments, fields, tmp_path):
    network, notes = load(tmp_path, tensors_of(spec_of()), config_of(arguments))
    assert network.spec == spec_of(**fields) and not notes
    assert isinstance(network.spec.heads, int)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("levit_128s", dict(act_layer="HardSwish")),
        ("levit_128s", dict(act_layer="hard_swish", attn_act_layer="")),
        ("levit_128s", dict(down_op="avgpool")),
        ("regnety_002", dict(act_layer="ReLU", norm_layer="BatchNorm2d")),
        ("regnety_002", dict(norm_layer="batch_norm", global_pool="fast")),
        ("regnety_002", dict(global_pool="FastAvg")),
    ],
)
def test_spellings_of_levits_and_regnets(name, arguments):
    spec = {**specs.LEVITS, **specs.REGNETS}[name]
    layout = levit.LAYOUTS[0] if name in specs.LEVITS else regnet.LAYOUTS[0]
    config = dict(architecture=name, model_args=arguments, pretrained_cfg={})
    assert not timm.read("config.json", config, layout, spec).notes
    for key in arguments:
        config["model_args"] = {key: "softmax"}
        if key == "down_op":
            config["model_args"] = {key: ""}
        with pytest.raises(UserError, match=f"model_args.{key} is "):
            timm.read("config.json", config, layout, spec)


def test_one_number_of_heads_for_all_stages():
    spec = SMALL_LEVIT.replace(heads=(2, 2, 2))
    options = dict(embed_dim=[16, 24, 32], depth=[1, 1, 1], num_heads=2, key_dim=4)
    config = dict(architecture="levit_128s", model_args=options, pretrained_cfg={})
    config["num_classes"] = 5
    assert not timm.read("config.json", config, levit.LAYOUTS[0], spec).notes


def test_the_pooling_that_only_the_top_level_says(tmp_path):
    """Of a name that is not known."""
    flat = tensors_of(spec_of(pool="mean", pool_order="mean_norm"))
    config = config_of(architecture="vit_mine", global_pool="avg")
    network, notes = load(tmp_path, flat, config)
    assert network.spec.pool == "mean" and len(notes) == 1
    flat = tensors_of(spec_of())
    message = refused(tmp_path, flat, config)
    assert "global_pool is 'avg', and networks here with a class token read it" in (
        message
    )
    config = dict(architecture="mine", global_pool="max", pretrained_cfg={})
    with pytest.raises(UserError, match="global_pool is 'max', and is another pooling"):
        timm.read("config.json", config, regnet.LAYOUTS[0], SMALL_REGNET)


def test_registers_without_a_class_token(tmp_path):
    flat = tensors_of(spec_of(pool="mean"))
    flat["reg_token"] = np.zeros((1, 1, 64), np.float32)
    flat["pos_embed"] = np.zeros((1, 17, 64), np.float32)
    options = dict(reg_tokens=1, class_token=False, global_pool="avg", fc_norm=False)
    with pytest.raises(UserError, match="has registers .* and no class token"):
        load(tmp_path, flat, config_of(options))
    with pytest.raises(UserError, match="has registers .* and no class token"):
        convert.load(flat, heads=2)


def test_layer_scale_that_is_there_is_not_said_to_be_another_network(tmp_path):
    flat = tensors_of(spec_of())
    for layer in range(2):
        for part in (1, 2):
            flat[f"blocks.{layer}.ls{part}.gamma"] = np.ones(64, np.float32)
    with pytest.raises(UserError, match="ls1.gamma"):
        load(tmp_path, flat, config_of(dict(init_values=0.1)))
    message = refused(tmp_path, flat, config_of(dict(init_values=None)))
    assert "model_args.init_values is 0.0, and theirs is 'layer scale'" in message


def test_texts_in_notes_and_labels_are_short_and_on_one_line(tmp_path, capsys):
    config = config_of(architecture="v\n" * 10**5)
    config["k\x1b[31m" * 10**5] = 1
    config["label_names"] = ["a\nx\x1b[31m", "b" * 10**5, *"cde"]
    at = folder(tmp_path / "net", tensors_of(spec_of()), json.dumps(config))
    notes = []
    network, _ = convert.load(at, tell=notes.append)
    assert notes and all(note.isprintable() and len(note) < 400 for note in notes)
    assert network.description.class_names[0] == "a\\nx\\x1b[31m"
    config["label_names"] = ["a" * 10**6, *"bcde"]
    folder(tmp_path / "net", tensors_of(spec_of()), json.dumps(config))
    assert tools.main(["describe", at]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and len(out) < 6000


def test_what_transformers_writes_around_timm_s_networks(tmp_path):
    """Its config; names LABEL_0 and so on are none."""
    usual = [f"LABEL_{number}" for number in range(5)]
    more = dict(model_type="timm_wrapper", do_pooling=True, dtype="float32")
    more |= dict(architectures=["TimmWrapperForImageClassification"])
    more |= dict(initializer_range=0.02, transformers_version="5.23.0")
    config = config_of(view=dict(mean=[0.1, 0.2, 0.3]), label_names=usual, **more)
    network, notes = load(tmp_path, tensors_of(spec_of()), config)
    assert network.spec == spec_of() and not notes
    assert network.description.class_names == ()
    assert network.description.normalization.mean == (0.1, 0.2, 0.3)
    config["model_type"] = "vit"
    _, notes = load(tmp_path, tensors_of(spec_of()), config)
    assert "model_type is 'vit', and architecture is there too" in notes[0]


# The table, and the documents


def test_every_key_is_in_one_row():
    for table in (timm.TOP, timm.PRETRAINED, *timm.ARGUMENTS.values()):
        rows = [row.name for row in table]
        assert len(rows) == len(set(rows))
        assert all(row.why for row in table)


def test_the_document_is_printed_from_the_code():
    """``python -m sws_jax.convert.documents`` rewrites it."""
    assert (ROOT / "docs" / "convert.md").read_text() == documents.text()


def test_the_table_of_names_is_in_the_wheel():
    text = (ROOT / "pyproject.toml").read_text()
    assert '"sws_jax.convert.timm" = ["timm_names.json"]' in text
    assert len(timm.names()) > 250


# Beside timm itself

SMALL = dict(SIZES, num_classes=5)
LEVIT = dict(embed_dim=(32, 48, 64), key_dim=8, depth=(1, 1, 1), num_heads=(2, 3, 4))
MOVED = [
    *(
        ("vit_tiny_patch16_224", SMALL, options, {})
        for options in (
            {},
            dict(num_heads=4),
            dict(embed_dim=96),
            dict(depth=3),
            dict(mlp_ratio=3.0),
            dict(patch_size=4),
            dict(img_size=(48, 32)),
            dict(in_chans=1),
            dict(num_classes=3),
            dict(num_classes=0),
            dict(act_layer="gelu_tanh"),
            dict(act_layer="quick_gelu"),
            dict(act_layer="relu"),
            dict(norm_layer="rmsnorm"),
            dict(norm_layer="layernorm"),
            dict(global_pool="avg"),
            dict(global_pool="avg", fc_norm=False),
            dict(global_pool="max", fc_norm=False),
            dict(global_pool="avgmax", fc_norm=False),
            dict(global_pool="map"),
            dict(global_pool="avg", class_token=False),
            dict(global_pool="avg", class_token=False, fc_norm=False),
            dict(global_pool="max", class_token=False, fc_norm=False),
            dict(global_pool="avg", fc_norm=False, pool_include_prefix=True),
            dict(fc_norm=True),
            dict(pre_norm=True),
            dict(final_norm=False),
            dict(no_embed_class=True),
            dict(reg_tokens=1),
            dict(reg_tokens=4),
            dict(init_values=0.1),
            dict(qk_norm=True),
            dict(qkv_bias=False),
            dict(proj_bias=False),
            dict(scale_attn_norm=True),
            dict(scale_mlp_norm=True),
            dict(pos_embed="none"),
            dict(dynamic_img_size=True),
            dict(dynamic_img_pad=True),
            dict(drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5),
            dict(pos_drop_rate=0.5, drop_path_rate=0.5, patch_drop_rate=0.5),
            dict(weight_init="jax", fix_init=True),
        )
    ),
    *(
        ("vit_tiny_patch16_224", SMALL, {}, view)
        for view in (
            dict(crop_pct=0.7),
            dict(crop_pct=1.0),
            dict(interpolation="bilinear"),
            dict(interpolation="lanczos"),
            dict(interpolation="hamming"),
            dict(mean=(0.1, 0.2, 0.3)),
            dict(std=(0.5, 0.6, 0.7)),
            dict(crop_mode="squash"),
            dict(crop_mode="border"),
        )
    ),
    *(
        ("deit_tiny_distilled_patch16_224", SMALL, options, {})
        for options in ({}, dict(num_heads=4), dict(act_layer="gelu_tanh"),
                      dict(num_classes=3), dict(img_size=(16, 64)))
    ),
    *(
        ("levit_128s", dict(LEVIT, num_classes=5), options, {})
        for options in ({}, dict(img_size=256), dict(act_layer="silu"),
                      dict(key_dim=16), dict(down_op="avgpool"), dict(mlp_ratio=3.0),
                      dict(attn_ratio=1.0), dict(distilled=False), dict(in_chans=1),
                      dict(attn_act_layer="relu"), dict(stem_type="s8"),
                      dict(img_size=(64, 256)), dict(mlp_ratio=2.3))
    ),
    *(
        ("regnety_002", dict(num_classes=5), options, {})
        for options in ({}, dict(act_layer="silu"), dict(se_ratio=0.3), dict(depth=10),
                      dict(preact=True), dict(linear_out=True), dict(num_features=48),
                      dict(output_stride=16), dict(group_size=4),
                      dict(bottle_ratio=2.0), dict(downsample="avg"),
                      dict(stem_width=16), dict(global_pool="max"),
                      dict(global_pool="avgmax"), dict(drop_path_rate=0.5))
    ),
]  # fmt: skip
# What is never refused, wherever it is moved to above.
HONOURED = {
    *("num_heads", "embed_dim", "depth", "mlp_ratio", "patch_size", "img_size"),
    *("in_chans", "num_classes", "crop_pct", "mean", "std", "no_embed_class"),
    *("key_dim", "attn_ratio", "group_size", "stem_width", "se_ratio", "weight_init"),
    *("fix_init", "dynamic_img_pad", "drop_rate", "proj_drop_rate", "attn_drop_rate"),
    *("pos_drop_rate", "drop_path_rate", "patch_drop_rate"),
}
# Of each kind of public checkpoint one that is quickly built; and of those that no
# network here computes, by what they say.
CONVERTED = (
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch16_384.augreg_in21k_ft_in1k",
    "vit_small_patch16_224.dino",
    "vit_base_patch32_224.augreg_in1k",
    "vit_base_patch16_siglip_gap_224.v2_webli",
    "test_vit.r160_in1k",
    "deit_tiny_patch16_224.fb_in1k",
    "deit_tiny_distilled_patch16_224.fb_in1k",
    "levit_128s.fb_dist_in1k",
    "levit_conv_128.fb_dist_in1k",
    "regnety_004.tv2_in1k",
)
REFUSED = {
    "vit_small_patch14_dinov2.lvd142m": "init_values|ls1",
    "deit3_small_patch16_224.fb_in22k_ft_in1k": "init_values|ls1",
    "vit_base_patch16_clip_224.openai": "pre_norm",
    "vit_base_patch16_siglip_224.webli": "global_pool",
    "vit_base_patch16_rpn_224.sw_in1k": "block_fn|position",
    "vit_relpos_small_patch16_224.sw_in1k": "no network that is known",
    "levit_512": "act_layer",
    "regnetx_002.pycls_in1k": "RegNet",
    "regnetz_005": "act_layer",
}
# Where tensors say it, by their names or their number, as no key would.
SHOWN = {
    "init_values": "ls1",
    "pos_embed": "no network that is known",
    "preact": "no network that is known",
    "dynamic_img_size": "pretrained_cfg.input_size",
}


@pytest.fixture(scope="module")
def transformed():
    with timm_transforms.transforms() as pixels:
        if pixels is None:
            pytest.skip("torchvision is not installed, which timm prepares images with")
        yield pixels


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, usual, options, view", MOVED, ids=lambda x: str(x)[:60].replace(" ", "")
)
def test_the_same_function_or_a_refusal(
    name, usual, options, view, with_timm, transformed, tmp_path
):
    """Written by timm's own writer; logits of one image file, from its pixels on."""
    model = built(name, **{**usual, **options})
    model.pretrained_cfg.update({"crop_pct": 0.9, **view})
    result = outcome(model, transformed, tmp_path)
    if isinstance(result, str):
        moved = {**options, **view}
        assert not moved.keys() <= HONOURED, result
        assert re.search("|".join(SHOWN.get(key, key) for key in moved), result), result
    else:
        assert result < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CONVERTED, *REFUSED])
def test_public_checkpoints(name, with_timm, transformed, tmp_path):
    """With timm's own configs of them; weights are drawn, and depths of ViTs cut."""
    cut = {} if name.startswith(("levit", "regnet")) else dict(depth=2)
    result = outcome(built(name, **cut), transformed, tmp_path)
    if name in REFUSED:
        assert re.search(REFUSED[name], result), result
    else:
        assert not isinstance(result, str) and result < 1e-4, result


def built(name, **options):
    """A network of timm with no parameter as it started."""
    import torch

    with peers.without_torchvision():
        import timm as theirs

    torch.manual_seed(0)
    model = theirs.create_model(name, **options).eval()
    with torch.no_grad():
        for leaf in model.parameters():
            spread = 0.3 * (leaf.ndim < 4) / leaf.shape[-1] ** 0.3
            leaf += spread * torch.randn_like(leaf)
    return model


def outcome(model, transformed, folder):
    """Why it is refused, or how far the logits of an image file are from timm's."""
    import torch

    with peers.without_torchvision():
        from timm.data import config as looks
        from timm.models import save_for_hf

    save_for_hf(model, folder / "net", safe_serialization=True)
    pretrained = json.loads((folder / "net" / "config.json").read_text())[
        "pretrained_cfg"
    ]
    notes = []
    try:
        network, _ = convert.load(str(folder / "net"), tell=notes.append)
    except UserError as error:
        return str(error)
    assert not any("not known here" in note for note in notes), notes
    channels = network.spec.net.channels
    draw = np.random.default_rng(1).integers(0, 256, (9, 13, channels), np.uint8)
    image = PIL.Image.fromarray(draw.squeeze()).resize((170, 110))
    image.save(folder / "image.png")
    look = looks.resolve_model_data_config(model, pretrained_cfg=pretrained)
    pixels = torch.from_numpy(transformed(look, folder / "image.png"))
    with torch.no_grad():
        want = model(pixels[None]).numpy()
    got = logits_of(
        network.spec, network.params, _pixels(network, folder / "image.png")
    )
    return float(np.abs(got - want).max()) / max(1.0, float(np.abs(want).max()))


def _pixels(network, path):
    """As `predict` prepares the image of a file."""
    from sws_jax.data import transforms

    about = network.description
    options = dict(crop=about.eval_crop, interpolation=about.interpolation)
    options["crop_mode"] = about.crop_mode
    image = np.asarray(PIL.Image.open(path))
    image = image if image.ndim == 3 else image[..., None]
    image = transforms.Fit(network.spec.image_size, **options)(image)
    look = about.normalization
    return ((image / 255 - look.mean) / look.std).astype(np.float32)[None]


# All names are compared where this is set, which takes four times as long.
LARGE = os.environ.get("SWS_JAX_TEST_LARGE") == "1"


@pytest.mark.slow
def test_the_table_of_names_is_timms(with_timm):
    """But for names that the installed timm lacks."""
    with peers.without_torchvision():
        import timm as theirs

    from support import timm_names

    rows = timm_names.rows(every=1 if LARGE else 4)
    table = timm.names()
    if theirs.__version__ == timm.version():
        assert rows.keys() <= table.keys()
        assert not LARGE or rows.keys() == table.keys()
        assert timm_names.others(table) == timm.others()
    for name in rows.keys() & table.keys():
        assert json.loads(json.dumps(rows[name])) == table[name], name


@pytest.mark.slow
def test_no_key_that_timm_writes_is_in_no_row(with_timm):
    """Arguments of its constructors, and fields of what describes weights."""
    import dataclasses
    import inspect

    with peers.without_torchvision():
        from timm.models import _pretrained, levit, regnet, vision_transformer

    fields = {field.name for field in dataclasses.fields(_pretrained.PretrainedCfg)}
    assert fields <= {row.name for row in timm.PRETRAINED}
    arguments = {
        "vit": [vision_transformer.VisionTransformer],
        "levit": [levit.Levit],
        "regnet": [regnet.RegNet, regnet.RegNetCfg],
    }
    for family, makers in arguments.items():
        known = {row.name for row in timm.ARGUMENTS[family]}
        taken = {
            name for maker in makers for name in inspect.signature(maker).parameters
        }
        assert taken - {"cfg", "kwargs"} <= known
