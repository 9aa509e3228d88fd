"""timm's config.json beside weights: what it says is honoured or refused by name."""

import json
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
from sws_jax.convert import base, documents, levit, regnet, timm, vit
from sws_jax.errors import UserError

from support import timm_transforms
from support.compare import equal
from support.networks import logits_of, params_of

ROOT = pathlib.Path(__file__).parents[1]


def spec_of(**fields):
    given = dict(depth=2, width=64, heads=2, mlp_ratio=2.0, patch_size=8, channels=3)
    given |= dict(image_size=(32, 32), num_classes=5, pool="token")
    return specs.ViTSpec(**{**given, **fields})


def tensors_of(spec, names=vit.TIMM):
    return base.write(params_of(spec, 0), names.entries(spec))


# What says of the tensors of `spec_of` all that they are.
SIZES = dict(embed_dim=64, depth=2, num_heads=2, mlp_ratio=2.0, patch_size=8)
SIZES |= dict(img_size=32)


def config_of(arguments=(), view=(), architecture="vit_tiny_patch16_224", **top):
    given = {**SIZES, **dict(arguments)}
    return dict(
        architecture=architecture,
        model_args={k: v for k, v in given.items() if v is not ...},
        pretrained_cfg=dict(view),
        **top,
    )


def folder(at, flat, config):
    at.mkdir(exist_ok=True)
    safetensors.numpy.save_file(flat, at / "model.safetensors")
    text = config if isinstance(config, str) else json.dumps(config)
    (at / "config.json").write_text(text)
    return str(at)


def load(at, flat, config, **given):
    """The network, and what was said of it."""
    notes = []
    found, _ = convert.load(folder(at, flat, config), tell=notes.append, **given)
    return found, notes


def refused(at, flat, config, **given):
    with pytest.raises(UserError) as caught:
        load(at, flat, config, **given)
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
    found, notes = load(tmp_path, tensors_of(spec), config_of(arguments))
    assert found.spec == spec
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
    given = dict(global_pool=pool, class_token=False, fc_norm=False)
    assert f"global_pool is {pool!r}" in refused(tmp_path, flat, config_of(given))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(drop_rate=0.1, drop_path_rate=0.2, attn_drop_rate=0.3, pos_drop_rate=0.1),
        dict(weight_init="moco", fix_init=True, strict_img_size=False),
        dict(dynamic_img_pad=True, norm_layer="layernorm", init_values=None),
    ],
)
def test_what_has_no_effect(arguments, tmp_path):
    found, notes = load(tmp_path, tensors_of(spec_of()), config_of(arguments))
    assert found.spec == spec_of()
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
    found, _ = load(tmp_path, tensors_of(spec_of()), config)
    about = found.description
    assert about.normalization.mean == (0.1, 0.2, 0.3)
    assert (about.eval_crop, about.interpolation) == (0.9, "bilinear")
    assert about.class_names == tuple("abcde")
    # Flags come before it, also where it is wrong.
    config["pretrained_cfg"]["mean"] = [0.5]
    found, _ = load(tmp_path, tensors_of(spec_of()), config, mean=(0.5,) * 3)
    assert found.description.normalization.mean == (0.5,) * 3


@pytest.mark.parametrize("where", ["top", "pretrained_cfg", "labels", "numbers"])
def test_names_of_classes(where, tmp_path):
    names = list("vwxyz")
    config = {
        "top": config_of(label_names=names, view=dict(label_names=list("abcde"))),
        "pretrained_cfg": config_of(view=dict(label_names=names)),
        "labels": config_of(labels=names),
        "numbers": config_of(label_names={str(i): names[i] for i in (3, 1, 0, 2, 4)}),
    }[where]
    found, _ = load(tmp_path, tensors_of(spec_of()), config)
    assert found.description.class_names == tuple(names)


@pytest.mark.parametrize(
    "number", ["1e400", "Infinity", "-Infinity", "NaN", "2.5", "0"]
)
@pytest.mark.parametrize("key", ["num_heads", "img_size", "mlp_ratio", "crop_pct"])
def test_numbers_that_are_none(number, key, tmp_path, capsys):
    within = "pretrained_cfg" if key == "crop_pct" else "model_args"
    if (number, key) == ("2.5", "mlp_ratio"):
        pytest.skip("is one")
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
    found, _ = load(tmp_path, tensors_of(spec), config)
    assert found.spec == spec
    there, _ = load(tmp_path, tensors_of(spec), config, image_size=(32, 32))
    ours = spec.replace(image_size=(32, 32))
    want = convert._at_size(found, convert.LAYOUTS[0], (32, 32))
    assert there.spec == ours
    np.testing.assert_array_equal(there.params["pos_embed"], want.params["pos_embed"])


def test_a_square_that_is_assumed_is_said(tmp_path):
    safetensors.numpy.save_file(tensors_of(spec_of()), tmp_path / "net.safetensors")
    notes = []
    path, given = str(tmp_path / "net.safetensors"), dict(heads=2, tell=notes.append)
    convert.load(path, image_size=(64, 32), **given)
    assert len(notes) == 1 and "as if it were square, 32x32 pixels" in notes[0]
    convert.load(path, image_size=(64, 16), **given)  # which its positions fit
    convert.load(path, **given)
    assert len(notes) == 1


@pytest.mark.parametrize("register", [False, True])
def test_positions_of_patches_alone(register, tmp_path):
    """timm's no_embed_class: positions of zeros are none, on any grid."""
    spec = spec_of(image_size=(16, 64))
    if register:
        spec = spec.replace(distilled=True, dist_head=False)
    asked = dict(no_embed_class=True, img_size=[16, 64], reg_tokens=int(register))
    flat, given = tensors_of(spec), config_of(asked)
    flat["pos_embed"][:, : 1 + register] = 0
    assert "no_embed_class is True" in refused(tmp_path / "a", flat, given)
    whole, _ = load(tmp_path / "a", flat, config_of({**asked, "no_embed_class": False}))
    flat["pos_embed"] = flat["pos_embed"][:, 1 + register :].copy()
    alone, notes = load(tmp_path / "b", flat, given)
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
        said = timm.read("config.json", config, convert.LAYOUTS[0], spec)
        assert (said.fields["heads"], said.fields["gelu"]) == (heads, "exact")
        assert said.size in (None, ("", (side, side)))
    tanh = [k for k, row in timm.names().items() if "gelu_tanh" in str(row)]
    assert any("siglip" in name for name in tanh)
    spec = spec.replace(width=1152, depth=27, mlp_ratio=4304 / 1152)
    config = dict(architecture="vit_so400m_patch16_siglip_gap_256", num_classes=0)
    said = timm.read("config.json", config, convert.LAYOUTS[0], spec)
    assert (said.fields["heads"], said.fields["gelu"]) == (16, "tanh")


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
    said = timm.read("config.json", right, regnet.LAYOUTS[0], spec)
    assert said.size == ("pretrained_cfg.input_size", (288, 288)) and not said.notes


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
    found, notes = load(tmp_path, tensors_of(whole), config)
    assert found.spec == whole and not notes


# Without a config


def test_what_is_guessed_in_memory():
    flat = tensors_of(spec_of())
    with pytest.raises(UserError, match="no published network is 64 wide: give heads="):
        convert.load(flat)
    usual = tensors_of(spec_of(width=192, heads=3))
    with pytest.warns(
        UserWarning, match="3 heads, LayerNorm epsilon 1e-06, exact GELU"
    ):
        convert.load(usual)
    with pytest.warns(UserWarning, match="taken: LayerNorm epsilon 1e-06, exact GELU"):
        convert.load(usual, heads=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = convert.load(flat, heads=2, norm_eps=1e-6, gelu="exact")
    assert found.spec == spec_of()


@pytest.mark.parametrize("width", [64, 128, 192, 384])
def test_published_widths_are_quiet_on_disk(width, tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    flat = tensors_of(spec_of(width=width, heads=1))
    safetensors.numpy.save_file(flat, path)
    assert tools.main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 0
    out = capsys.readouterr().out
    assert ("note: " in out) == (width < 192)
    assert ("--heads" in out) == (width < 192)


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
    assert '"sws_jax.convert" = ["timm_names.json"]' in text
    assert len(timm.names()) > 250


# Beside timm itself

SMALL = dict(SIZES, num_classes=5)
LEVIT = dict(embed_dim=(32, 48, 64), key_dim=8, depth=(1, 1, 1), num_heads=(2, 3, 4))
MOVED = [
    *(
        ("vit_tiny_patch16_224", SMALL, given, {})
        for given in (
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
        ("deit_tiny_distilled_patch16_224", SMALL, given, {})
        for given in ({}, dict(num_heads=4), dict(act_layer="gelu_tanh"),
                      dict(num_classes=3), dict(img_size=(16, 64)))
    ),
    *(
        ("levit_128s", dict(LEVIT, num_classes=5), given, {})
        for given in ({}, dict(img_size=256), dict(act_layer="silu"), dict(key_dim=16),
                      dict(down_op="avgpool"), dict(mlp_ratio=3.0),
                      dict(attn_ratio=1.0), dict(distilled=False), dict(in_chans=1),
                      dict(attn_act_layer="relu"), dict(stem_type="s8"))
    ),
    *(
        ("regnety_002", dict(num_classes=5), given, {})
        for given in ({}, dict(act_layer="silu"), dict(se_ratio=0.5),
                      dict(preact=True), dict(linear_out=True), dict(num_features=48),
                      dict(output_stride=16), dict(group_size=4),
                      dict(bottle_ratio=2.0), dict(downsample="avg"),
                      dict(stem_width=16), dict(global_pool="max"),
                      dict(global_pool="avgmax"), dict(drop_path_rate=0.5))
    ),
]  # fmt: skip
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
    "name, usual, given, view", MOVED, ids=lambda x: str(x)[:60].replace(" ", "")
)
def test_the_same_function_or_a_refusal(
    name, usual, given, view, with_timm, transformed, tmp_path
):
    """Written by timm's own writer; logits of one image file, from its pixels on."""
    import torch

    with peers.without_torchvision():
        import timm as theirs
        from timm.data import config as looks
        from timm.models import save_for_hf

    torch.manual_seed(0)
    model = theirs.create_model(name, **{**usual, **given}).eval()
    with torch.no_grad():
        for leaf in model.parameters():
            leaf += (
                0.3 * torch.randn_like(leaf) * (leaf.ndim < 4) / leaf.shape[-1] ** 0.3
            )
    model.pretrained_cfg.update({"crop_pct": 0.9, **view})
    save_for_hf(model, tmp_path / "net", safe_serialization=True)
    said = json.loads((tmp_path / "net" / "config.json").read_text())["pretrained_cfg"]
    notes = []
    try:
        found, _ = convert.load(str(tmp_path / "net"), tell=notes.append)
    except UserError as error:
        moved = {**given, **view}
        assert moved, error
        words = "|".join(SHOWN.get(key, key) for key in moved)
        assert re.search(words, str(error)), error
        return
    assert not any("not known here" in note for note in notes), notes
    channels = found.spec.channels
    draw = np.random.default_rng(1).integers(0, 256, (9, 13, channels), np.uint8)
    image = PIL.Image.fromarray(draw.squeeze()).resize((170, 110))
    image.save(tmp_path / "image.png")
    look = looks.resolve_model_data_config(model, pretrained_cfg=said)
    pixels = torch.from_numpy(transformed(look, tmp_path / "image.png"))
    with torch.no_grad():
        want = model(pixels[None]).numpy()
    got = logits_of(found.spec, found.params, _pixels(found, tmp_path / "image.png"))
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(got / scale, want / scale, atol=1e-4)


def _pixels(network, path):
    """As `predict` prepares the image of a file."""
    from sws_jax.data import transforms

    about = network.description
    given = dict(crop=about.eval_crop, interpolation=about.interpolation)
    given["crop_mode"] = about.crop_mode
    image = np.asarray(PIL.Image.open(path))
    image = image if image.ndim == 3 else image[..., None]
    image = transforms.Fit(network.spec.image_size, **given)(image)
    look = about.normalization
    return ((image / 255 - look.mean) / look.std).astype(np.float32)[None]


@pytest.mark.slow
def test_the_table_of_names_is_timms(with_timm):
    """But for names that the installed timm lacks."""
    import timm as theirs

    from support import timm_names

    rows = timm_names.rows()
    table = timm.names()
    if theirs.__version__ == timm.version():
        assert rows.keys() == table.keys()
        assert timm_names.others() == timm.others()
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
        taken = {name for made in makers for name in inspect.signature(made).parameters}
        assert taken - {"cfg", "kwargs"} <= known
