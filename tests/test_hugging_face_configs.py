"""transformers' configs beside weights: honoured, or refused by name; and labels."""

import json
import math
import os
import pathlib
import re

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from sws_jax import __main__ as tools
from sws_jax import convert, specs
from sws_jax.convert import base, documents, hugging_face, processors
from sws_jax.convert import timm as timm_configs
from sws_jax.data import transforms
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.pixels import Normalization

from support import checkpoints_of_transformers as public
from support.networks import logits_of, params_of

ROOT = pathlib.Path(__file__).parents[1]
LAYOUTS = {layout.key: layout for layout in convert.LAYOUTS}
VIT = LAYOUTS["hugging-face-vit-file"]
HALVES = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)


def spec_of(**fields):
    options = dict(depth=2, width=64, heads=2, mlp_ratio=2.0, patch_size=8, channels=3)
    options |= dict(image_size=(32, 32), num_classes=5, pool="token", norm_eps=1e-12)
    return specs.ViTSpec(**{**options, **fields})


def config_of(**changes):
    """Of the tensors of `spec_of`; what is ... is left out."""
    options = dict(model_type="vit", hidden_size=64, num_hidden_layers=2)
    options |= dict(num_attention_heads=2, intermediate_size=128, hidden_act="gelu")
    options |= dict(layer_norm_eps=1e-12, image_size=32, patch_size=8, num_channels=3)
    options |= dict(qkv_bias=True, architectures=["ViTForImageClassification"])
    options |= {name: value for name, value in changes.items()}
    return {name: value for name, value in options.items() if value is not ...}


def processor_of(kind="Bit", **changes):
    options = dict(image_processor_type=f"{kind}ImageProcessor", do_resize=True)
    options |= dict(size=dict(shortest_edge=36), do_center_crop=True, crop_size=32)
    options |= dict(resample=3, do_rescale=True, rescale_factor=1 / 255)
    options |= dict(do_normalize=True, **HALVES)
    options |= changes
    return {name: value for name, value in options.items() if value is not ...}


def folder(at, spec, config=None, processor=None, layout=VIT, **others):
    at.mkdir(exist_ok=True)
    flat = base.write(params_of(spec, 0), layout.entries(spec))
    safetensors.numpy.save_file(flat, at / "model.safetensors")
    others |= dict(config=config, preprocessor_config=processor)
    for name, value in others.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            (at / f"{name}.json").write_text(text)
    return str(at)


def load(at, spec, *beside, **others):
    """The network, and what was said of it."""
    notes = []
    options = {name: others.pop(name) for name in ("mean", "std") if name in others}
    network, _ = convert.load(
        folder(at, spec, *beside, **others), tell=notes.append, **options
    )
    return network, notes


def read(config, spec=None, processor=None, layout=VIT):
    """As `load`, of the configs alone."""
    spec = spec or spec_of()
    options = dict(processor_path="preprocessor_config.json", processor=processor)
    return hugging_face.read("config.json", config, layout, spec, **options)


def look(config, family="vit", channels=3):
    path = "preprocessor_config.json"
    return processors.preprocessing(path, config, family, channels)


def refusal(call, *args, **options):
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# config.json


@pytest.mark.parametrize(
    "changes, fields",
    [
        ({}, {}),
        (dict(num_attention_heads=4), dict(heads=4)),
        (dict(hidden_act="gelu_new"), dict(gelu="tanh")),
        (dict(hidden_act="gelu_pytorch_tanh"), dict(gelu="tanh")),
        (dict(hidden_act="gelu_python"), dict(gelu="exact")),
        (dict(hidden_act=...), dict(gelu="exact")),
        (dict(layer_norm_eps=1e-6), dict(norm_eps=1e-6)),
        (dict(layer_norm_eps=...), dict(norm_eps=1e-12)),
        (dict(image_size=[128, 8]), dict(image_size=(128, 8))),
        (dict(patch_size=[8, 8]), {}),
        (dict(head_dim=32), {}),
        (dict(num_labels=5), {}),
    ],
)
def test_what_is_honoured(changes, fields, tmp_path):
    spec = spec_of(**fields)
    network, notes = load(tmp_path, spec, config_of(**changes))
    assert network.spec == spec and not notes


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(hidden_act="relu"), "hidden_act: the activation 'relu' is not one of"),
        (dict(hidden_act="quick_gelu"), "hidden_act: the activation 'quick_gelu'"),
        (dict(hidden_act=["gelu"]), "hidden_act: the activation .'gelu'. is not"),
        (dict(qkv_bias=False), "qkv_bias is False, and leaves biases"),
        (dict(quantization_config={"bits": 4}), "quantization_config is .*quantised"),
        (dict(pruned_heads={"0": [1]}), "pruned_heads is .*lacks some"),
        (dict(auto_map={"AutoModel": "x.Y"}), "auto_map is .*code of its own"),
        (dict(hidden_size=1024), "another network .*hidden_size is 1024"),
        (dict(num_hidden_layers=24), "another network .*num_hidden_layers is 24"),
        (dict(intermediate_size=4096), "another network .*intermediate_size is 4096"),
        (dict(patch_size=16), "another network .*patch_size is 16"),
        (dict(patch_size=[8, 4]), "patch_size is .*must be square"),
        (dict(num_channels=1), "another network .*num_channels is 1"),
        (dict(num_labels=7), "another network .*num_labels is 7"),
        (dict(head_dim=64), "another network .*head_dim is 64"),
        (dict(model_type="deit"), "another network .*model_type is 'deit'"),
        (dict(model_type="regnet"), "another network .*model_type is 'regnet'"),
        (dict(model_type="swin"), "model_type is 'swin', and networks here are those"),
        (dict(model_type="dinov2"), "model_type is 'dinov2', and networks here"),
        (dict(model_type=["vit"]), "model_type is .*vit.*, and networks here"),
        (dict(num_attention_heads="2"), "num_attention_heads is '2', and must be a"),
        (dict(num_attention_heads=True), "num_attention_heads is True, and must be"),
        (dict(num_attention_heads=2.5), "num_attention_heads is 2.5, and must be"),
        (dict(layer_norm_eps="1e-6"), "layer_norm_eps is '1e-6', and must be a num"),
        (dict(problem_type="x"), "problem_type is 'x', and must be one of"),
        (dict(num_attention_heads=...), "nothing of num_attention_heads, which are 12"),
    ],
)
def test_what_is_refused(changes, words):
    message = refusal(read, config_of(**changes))
    assert re.search(words, message) and "config.json" in message


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(num_attention_heads=3), "config.json: .*divide into 3 heads"),
        (dict(layer_norm_eps=-1.0), "config.json: norm_eps must be above 0"),
        (dict(image_size=64), "another network .*image_size is 64 x 64 pixels"),
        (dict(image_size=[128, 16]), "another network .*image_size is 128 x 16"),
        (dict(image_size=39), "do not divide into patches of 8"),
    ],
)
def test_what_does_not_fit_the_tensors(changes, words, tmp_path):
    assert re.search(words, refusal(load, tmp_path, spec_of(), config_of(**changes)))


OLD = dict(
    _name_or_path="google/vit-base-patch16-224", torchscript=False, use_bfloat16=False,
    torch_dtype="float16", transformers_version="4.26.0", chunk_size_feed_forward=0,
    output_attentions=False, return_dict=True, is_decoder=False,
    is_encoder_decoder=False, add_cross_attention=False, tie_word_embeddings=True,
    max_length=20, num_beams=1, pruned_heads={}, finetuning_task=None,
    problem_type="single_label_classification",
    hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, initializer_range=0.02,
    encoder_stride=16, pooler_act="tanh", pooler_output_size=64, tf_legacy_loss=False,
    exponential_decay_length_penalty=None, cross_attention_hidden_size=None,
)  # fmt: skip


def test_what_has_no_effect():
    """All that versions 4 wrote of every network."""
    sidecar = read(config_of(**OLD))
    assert (sidecar.fields, sidecar.notes) == (read(config_of()).fields, ())


def test_a_key_that_is_in_no_row_is_told():
    (note,) = read(config_of(window_size=7)).notes
    assert "not known here, and left out: window_size" in note
    sidecar = read(config_of(), processor=processor_of(window=7))
    assert re.search("preprocessor_config.json .*left out: window", sidecar.notes[0])


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_outputs_that_are_no_choice_of_one_class_are_told(kind):
    (note,) = read(config_of(problem_type=kind)).notes
    assert f"problem_type is {kind}, so its outputs are no choice" in note


def test_heads_that_are_not_said():
    """Twelve, as transformers has, of the width that it has; else they are guessed."""
    bare = dict(model_type="vit")
    assert read(bare, spec_of(width=768, heads=12)).fields["heads"] == 12
    assert read(bare, spec_of(width=192, heads=3)).fields.get("heads") is None
    config = config_of(hidden_size=192, intermediate_size=384, num_attention_heads=...)
    assert read(config, spec_of(width=192, heads=3)).fields["heads"] == 12


NONE = ["1e400", "Infinity", "-Infinity", "NaN", "-1", '"8"', "true", "[]", "{}"]


@pytest.mark.parametrize("number", NONE)
@pytest.mark.parametrize(
    "key", ["num_attention_heads", "hidden_size", "image_size", "layer_norm_eps"]
)
def test_numbers_that_are_none(number, key, tmp_path, capsys):
    config = f'{{"model_type": "vit", "{key}": {number}}}'
    at = folder(tmp_path / "net", spec_of(), config)
    assert tools.main(["convert", at, str(tmp_path / "out.safetensors")]) == 2
    message = capsys.readouterr().err
    words = key.removeprefix("layer_") if number == "-1" else key
    assert "config.json" in message and words in message and message.count("\n") == 1


@pytest.mark.parametrize("number", NONE)
@pytest.mark.parametrize(
    "key", ["resample", "size", "crop_size", "crop_pct", "rescale_factor", "image_std"]
)
def test_numbers_of_processors_that_are_none(number, key):
    config = json.loads(f'{{"{key}": {number}}}')
    message = refusal(look, config)
    assert f"preprocessor_config.json: {key} is " in message and "must be" in message


LEVIT = dict(
    model_type="levit", hidden_sizes=[128, 256, 384], num_attention_heads=[4, 6, 8],
    depths=[2, 3, 4], key_dim=[16, 16, 16], attention_ratio=[2, 2, 2], stride=2,
    mlp_ratio=[2, 2, 2], image_size=224, patch_size=16, kernel_size=3, padding=1,
    down_ops=[["Subsample", 16, 8, 4, 2, 2], ["Subsample", 16, 16, 4, 2, 2], [""]],
    drop_path_rate=0, num_channels=3, initializer_range=0.02,
)  # fmt: skip
REGNET = dict(
    model_type="regnet", embedding_size=32, hidden_sizes=[24, 56, 152, 368],
    depths=[1, 1, 4, 7], groups_width=8, layer_type="y", hidden_act="relu",
    downsample_in_first_stage=True, num_channels=3,
)  # fmt: skip
FAMILIES = {
    "levit": (LAYOUTS["hugging-face-levit"], specs.LEVITS["levit_128s"], LEVIT),
    "regnet": (LAYOUTS["hugging-face-regnet"], specs.REGNETS["regnety_002"], REGNET),
}


def read_family(family, **changes):
    layout, spec, config = FAMILIES[family]
    return read({**config, **changes}, spec, layout=layout)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families(family):
    sidecar = read_family(family)
    assert sidecar.fields == {} and not sidecar.notes
    assert sidecar.size == {"levit": ("image_size", (224, 224)), "regnet": None}[family]


@pytest.mark.parametrize(
    "family, changes, words",
    [
        ("levit", dict(hidden_sizes=[256, 384, 512]), "hidden_sizes is .256"),
        ("levit", dict(num_attention_heads=[4, 8, 12]), "num_attention_heads is"),
        ("levit", dict(depths=[4, 4, 4]), "depths is .4, 4, 4"),
        ("levit", dict(key_dim=[32] * 3), "key_dim is .32"),
        ("levit", dict(attention_ratio=[4, 2, 2]), "attention_ratio is .4"),
        ("levit", dict(mlp_ratio=[2, 2, 4]), "mlp_ratio is"),
        ("levit", dict(down_ops=LEVIT["down_ops"][:1]), "down_ops is"),
        ("levit", dict(down_ops=[["AvgPool", 1, 1, 1, 1, 1]]), 'must be steps of "Sub'),
        ("levit", dict(patch_size=8), "patch_size is 8, and has another stem"),
        ("levit", dict(kernel_size=5), "kernel_size is 5, and has another stem"),
        ("levit", dict(num_labels=5), "num_labels is 5"),
        ("levit", dict(model_type="vit"), "model_type is 'vit', and theirs is 'levit'"),
        ("regnet", dict(embedding_size=16), "embedding_size is 16"),
        ("regnet", dict(hidden_sizes=[24, 56, 152]), "hidden_sizes is"),
        ("regnet", dict(depths=[1, 1, 4, 8]), "depths is"),
        ("regnet", dict(groups_width=16), "groups_width is 16"),
        ("regnet", dict(layer_type="x"), "layer_type is 'x', and has no squeeze"),
        ("regnet", dict(hidden_act="silu"), "hidden_act is 'silu'"),
        ("regnet", dict(downsample_in_first_stage=False), "keeps more pixels"),
        ("regnet", dict(model_type="resnet"), "model_type is 'resnet'"),
    ],
)
def test_other_families_that_are_refused(family, changes, words):
    message = refusal(read_family, family, **changes)
    assert re.search(words, message) and message.startswith("config.json")


def test_groups_of_stages_that_are_narrower():
    """As of transformers: at least one."""
    layout, spec, config = FAMILIES["regnet"]
    spec = spec.replace(group_width=56, widths=(24, 56, 112, 168))
    options = {**config, "hidden_sizes": list(spec.widths), "groups_width": 56}
    assert not read(options, spec, layout=layout).notes
    with pytest.raises(UserError, match="groups_width is 28"):
        read({**options, "groups_width": 28}, spec, layout=layout)


JUNK = [
    *(0, -1, 1.5, 10**400, math.inf, math.nan, True, "", "x", [], [[]], {}, {"a": 1}),
    *([None], ["Subsample"], [["Subsample", 1, 2, 3, 4, "x"]], {"0": {}}, "9" * 5000),
]


@pytest.mark.parametrize("family", ["vit", *FAMILIES])
def test_any_value_of_any_key_is_taken_or_a_sentence(family):
    layout, spec, config = FAMILIES.get(family, (VIT, spec_of(), config_of()))
    for row in hugging_face.CONFIGS[family]:
        for value in JUNK:
            try:
                read({**config, row.name: value}, spec, layout=layout)
            except UserError as error:
                message = str(error)
                assert row.name in message and message.startswith("config.json")
                assert "\n" not in message and len(message) < 500


def test_any_value_of_any_key_of_a_processor_is_taken_or_a_sentence():
    for kind in ("ViT", "Levit", "ConvNext", "Bit", "Other"):
        for row in processors.KEYS:
            for value in JUNK:
                try:
                    view, size, _ = look({**processor_of(kind), row.name: value})
                except UserError as error:
                    message = str(error)
                    assert message.startswith("preprocessor_config.json")
                    assert "\n" not in message and len(message) < 500
                else:
                    assert 0 < view.crop <= 1 and min(size) > 0
                    assert all(map(math.isfinite, (*view.mean, *view.std)))


# Processors


@pytest.mark.parametrize(
    "kind, options, mode, scaled, images",
    [
        ("ViT", dict(size=dict(height=64, width=48)), "squash", (64, 48), (64, 48)),
        ("ViT", dict(size=224), "squash", (224, 224), (224, 224)),
        ("ViT", {}, "squash", (224, 224), (224, 224)),
        ("ViT", dict(size=[32, 32]), "squash", (32, 32), (32, 32)),
        ("DeiT", {}, "squash", (256, 256), (224, 224)),
        ("DeiT", dict(size=438, crop_size=384), "squash", (438, 438), (384, 384)),
        ("DeiT", dict(do_center_crop=False), "squash", (256, 256), (256, 256)),
        ("DeiT", dict(size=75, crop_size=64), "squash_down", (75, 75), (64, 64)),
        ("Levit", {}, "center_down", (256, 256), (224, 224)),
        ("Levit", dict(size=384, crop_size=384), "center_down", (438, 438), (384, 384)),
        ("Levit", dict(size=dict(height=80, width=80), crop_size=64), "squash",
         (80, 80), (64, 64)),
        ("ConvNext", {}, "squash", (384, 384), (384, 384)),
        ("ConvNext", dict(size=224), "center_down", (256, 256), (224, 224)),
        ("ConvNext", dict(size=224, crop_pct=0.9), "center_down", (248, 248),
         (224, 224)),
        ("ConvNext", dict(size=dict(shortest_edge=288), crop_pct=0.95), "center_down",
         (303, 303), (288, 288)),
        ("ConvNext", dict(size=400, crop_pct=0.9), "squash", (400, 400), (400, 400)),
        ("Bit", {}, "center_down", (224, 224), (224, 224)),
        ("Bit", dict(size=dict(shortest_edge=248)), "center_down", (248, 248),
         (224, 224)),
        ("CLIP", dict(size=256), "center_down", (256, 256), (224, 224)),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name", ["ImageProcessor", "ImageProcessorFast", "FeatureExtractor", "old"]
)
def test_what_is_seen_of_an_image(kind, options, mode, scaled, images, name):
    """By the class, what its file says and what it does not."""
    key = "feature_extractor_type" if name == "old" else "image_processor_type"
    name = "FeatureExtractor" if name == "old" else name
    view, seen, notes = look({key: kind + name, **options})
    assert (view.crop_mode, seen, notes) == (mode, images, ())
    # As `Fit` scales.
    assert tuple(math.floor(side / view.crop) for side in images) == scaled


@pytest.mark.parametrize(
    "family, kind",
    [("vit", "ViT"), ("deit", "DeiT"), ("levit", "Levit"), ("regnet", "ConvNext")],
)
def test_a_processor_without_a_name_is_that_of_the_family(family, kind):
    named = look({"image_processor_type": f"{kind}ImageProcessor"})
    assert look({"do_resize": True}, family) == named


def test_defaults_of_pixels():
    means = {}
    for name in processors.PROCESSORS:
        view, _, _ = look({"image_processor_type": name})
        means[name.removesuffix("ImageProcessor")] = view.mean[0], view.interpolation
    assert means == dict(
        ViT=(0.5, "bilinear"),
        DeiT=(0.5, "bicubic"),
        Levit=(0.485, "bicubic"),
        ConvNext=(0.5, "bicubic"),
        Bit=(0.48145466, "bicubic"),
        CLIP=(0.48145466, "bicubic"),
    )


@pytest.mark.parametrize(
    "options, mean, std",
    [
        ({}, 0.5, 0.5),
        (
            dict(do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3),
            0.5,
            0.5,
        ),
        (
            dict(rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1] * 3),
            0.5,
            0.5,
        ),
        (
            dict(rescale_factor=1, image_mean=[51.0] * 3, image_std=[102.0] * 3),
            0.2,
            0.4,
        ),
        (dict(image_mean=0.25, image_std=0.125), 0.25, 0.125),
        (dict(do_normalize=False), 0.0, 1.0),
        (dict(do_normalize=False, do_rescale=False), 0.0, 1 / 255),
        (dict(do_normalize=False, rescale_factor=1 / 127.5), 0.0, 0.5),
    ],
)
def test_pixels_are_folded_into_mean_and_deviation(options, mean, std):
    view, _, _ = look(processor_of(**options))
    np.testing.assert_allclose(view.mean, (mean,) * 3, rtol=1e-12)
    np.testing.assert_allclose(view.std, (std,) * 3, rtol=1e-12)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(do_resize=False), "do_resize is False"),
        (dict(do_pad=True), "do_pad is True"),
        (dict(rescale_offset=True), "rescale_offset is True"),
        (dict(do_flip_channel_order=True), "do_flip_channel_order is True"),
        (dict(auto_map={"AutoImageProcessor": "x.Y"}), "auto_map is"),
        (dict(resample=4), r"resample is 4, and must be .*no other \(box\)"),
        (dict(resample=5), r"resample is 5, and must be .*no other \(hamming\)"),
        (dict(resample="bicubic"), "resample is 'bicubic', and must be"),
        (dict(size=[64, 32]), "size is .64, 32., and must be height and width by name"),
        (dict(size=dict(longest_edge=64)), "size is .*, and must be one whole number"),
        (dict(size=dict(shortest_edge=36, longest_edge=64)), "size is .*must be one"),
        (dict(size=dict(min_pixels=3, max_pixels=4)), "size is .*must be one"),
        (dict(crop_size=dict(shortest_edge=32)), "crop_size is .*must be one"),
        (dict(crop_size=48), "crop_size is 48 x 48 pixels, more than size leaves"),
        (
            dict(crop_size=dict(height=32, width=16)),
            "is no square is cut out in another",
        ),
        (dict(do_center_crop=False), "do_center_crop is False|do_center_crop is false"),
        (dict(do_center_crop=1), "do_center_crop is 1, and must be true or false"),
        (dict(image_std=[0.5, 0, 0.5]), "image_std is .*, and must be above 0"),
        (dict(rescale_factor=0), "rescale_factor is 0, and must be above 0"),
        (dict(rescale_factor=1e-320), "must be a number that float32 can hold"),
        (dict(rescale_factor=1e38), "rescale_factor is .*no numbers of pixels"),
        (dict(crop_pct=1.5), r"crop_pct is 1.5, and must be in \(0, 1\]"),
        (dict(image_processor_type=3), "image_processor_type is 3, and must be a text"),
    ],
)
def test_processors_that_are_refused(options, words):
    message = refusal(look, processor_of(**options))
    assert re.search(words, message)
    assert message.startswith("preprocessor_config.json")


@pytest.mark.parametrize(
    "kind, options, words",
    [
        ("ConvNext", dict(size=dict(height=64, width=64)), "takes a shortest_edge"),
        ("ConvNext", dict(size=64, do_center_crop=True, crop_size=32), "cuts 32 x 32"),
        ("ConvNext", dict(size=64, do_center_crop=True, crop_size=...), "crop_size"),
        ("ViT", dict(size=64, do_center_crop=True, crop_size=...), "crop_size: put it"),
        ("ViT", dict(size=dict(height=64, width=48),
                     crop_size=dict(height=48, width=32)), "one share of both sides"),
    ],
)  # fmt: skip
def test_processors_that_are_refused_by_class(kind, options, words):
    assert words in refusal(look, processor_of(kind, **options))


@pytest.mark.parametrize("name", ["PoolFormer", "MobileViT", "EfficientNet", "x" * 900])
def test_a_processor_that_is_not_known(name):
    """It may say all that decides here, and do something else besides."""
    message = refusal(look, processor_of(name))
    assert f"image_processor_type is '{name[:9]}" in message
    assert "put one of ViTImageProcessor, " in message and len(message) < 400


def test_colours_of_one_channel():
    grey = processor_of(image_mean=[0.5], image_std=[0.5], do_convert_rgb=True)
    assert "do_convert_rgb is true" in refusal(look, grey, channels=1)
    view, _, _ = look({**grey, "do_convert_rgb": False}, channels=1)
    assert view.mean == (0.5,)
    one = look(processor_of(image_mean=0.5, image_std=0.25), channels=1)[0]
    assert (one.mean, one.std) == ((0.5,), (0.25,))


@pytest.mark.parametrize("key", ["image_mean", "image_std"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_means_of_another_number_of_channels(key, count, tmp_path):
    processor = processor_of(**{key: [0.5] * count})
    message = refusal(load, tmp_path, spec_of(), config_of(), processor)
    name = key.removeprefix("image_")
    assert f"{name} has {count} numbers, and the network takes 3" in message
    assert "preprocessor_config.json: " in message
    network, _ = load(
        tmp_path, spec_of(), config_of(), processor, mean=[0.1] * 3, std=[0.2] * 3
    )
    assert network.description.normalization == Normalization((0.1,) * 3, (0.2,) * 3)


@pytest.mark.parametrize("where", ["preprocessor_config", "processor_config", "both"])
def test_where_a_processor_stands(where, tmp_path):
    """What is nested comes first, as for transformers."""
    one, other = processor_of(resample=2), processor_of(resample=1)
    files = {
        "preprocessor_config": dict(preprocessor_config=one),
        "processor_config": dict(processor_config=dict(image_processor=one)),
        "both": dict(
            preprocessor_config=other, processor_config=dict(image_processor=one)
        ),
    }[where]
    folder(tmp_path, spec_of(), config_of())
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    network, _ = convert.load(str(tmp_path))
    assert network.description.interpolation == "bilinear"
    if where != "preprocessor_config":
        wrong = dict(image_processor={**one, "resample": 4})
        (tmp_path / "processor_config.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="[/]processor_config.json: resample is 4"):
            convert.load(str(tmp_path))
        (tmp_path / "processor_config.json").write_text('{"image_processor": 3}')
        with pytest.raises(UserError, match="image_processor is 3, and must be an obj"):
            convert.load(str(tmp_path))


def test_a_processor_without_a_config(tmp_path):
    options = dict(heads=2, norm_eps=1e-12)
    path = folder(tmp_path, spec_of(), None, processor_of(image_mean=[0.1] * 3))
    network, _ = convert.load(path, **options)
    assert network.description.normalization.mean == (0.1,) * 3
    (tmp_path / "config.json").write_text('{"name": "mine"}')
    notes = []
    network, _ = convert.load(path, tell=notes.append, **options)
    assert network.description.normalization.mean == (0.1,) * 3
    assert any("says neither model_type" in note for note in notes)


def test_images_of_another_size_than_the_network():
    """As of a config and the processor of another checkpoint."""
    processor = processor_of(size=72, crop_size=64)
    message = refusal(read, config_of(), processor=processor)
    assert "preprocessor_config.json makes images of 64 x 64 pixels" in message
    assert "image_size in config.json is 32 x 32" in message
    layout, spec, config = FAMILIES["levit"]
    message = refusal(read, config, spec, processor, layout)
    assert "image_size in config.json is 224 x 224" in message
    del (config := dict(config))["image_size"]
    message = refusal(read, config, spec, processor, layout)
    assert "that of the tensors is 224 x 224" in message
    layout, spec, config = FAMILIES["regnet"]  # which takes any
    assert read(config, spec, processor, layout).size == ("", (64, 64))


def test_an_image_size_that_the_processor_alone_says(tmp_path):
    config, processor = config_of(image_size=...), processor_of()
    network, _ = load(tmp_path, spec_of(), config, processor)
    assert network.spec.image_size == (32, 32)
    processor = processor_of(size=72, crop_size=64)
    message = refusal(load, tmp_path, spec_of(), config, processor)
    assert "the size of images in" in message and "is 64 x 64 pixels" in message


# Rounding, both ways


def described(spec, **fields):
    fields = (
        dict(eval_crop=0.9, normalization=Normalization((0.5,) * 3, (0.5,) * 3))
        | fields
    )
    return Description(kind="network", net=spec, **fields)


@pytest.mark.parametrize("side", [32, 160, 224, 288, 384, 518, 999])
def test_every_size_is_read_as_the_crop_that_scales_to_it(side):
    """Also those whose quotient is rounded up."""
    for scaled in range(side, 2 * side + 1, 1 if side < 300 else 7):
        view, _, _ = look(processor_of(size=dict(shortest_edge=scaled), crop_size=side))
        assert math.floor(side / view.crop) == scaled


@pytest.mark.parametrize(
    "side, crop",
    [(224, 0.9), (384, 0.875), (32, 0.875), (224, 0.95), (384, 1.0), (240, 0.7)],
)
def test_a_crop_is_written_as_it_is_done_and_read_back(side, crop):
    spec = spec_of(image_size=side, patch_size=16)
    written = hugging_face.configs_of(described(spec, eval_crop=crop), spec)
    processor = written["preprocessor_config.json"]
    whole = math.floor(side / crop)
    assert processor["size"] == {"shortest_edge": whole}
    view, images, _ = look(processor)
    assert (view.crop, images) == (crop, (side, side))
    squeezed = described(spec, eval_crop=crop, crop_mode="squash")
    written = hugging_face.configs_of(squeezed, spec)
    processor = written["preprocessor_config.json"]
    assert processor["size"] == {"height": whole, "width": whole}
    view, images, _ = look(processor)
    assert (view.crop, images) == (crop, (side, side))
    assert view.crop_mode.startswith("squash")


@pytest.mark.parametrize("wide", range(32, 40))
def test_an_odd_rest_is_cut_as_each_library_does(wide):
    """Of 3 pixels timm leaves 2 out before the centre, transformers 1."""
    image = np.random.default_rng(0).integers(0, 256, (32, wide, 3), np.uint8)
    rest = wide - 32
    for mode, before in (("center", round(rest / 2)), ("center_down", rest // 2)):
        kept = transforms.Fit((32, 32), crop_mode=mode)(image)
        np.testing.assert_array_equal(kept, image[:, before : before + 32])
    # The share that scales to so many.
    share = 32 / wide
    image = np.random.default_rng(0).integers(0, 256, (wide, wide, 3), np.uint8)
    for mode, before in (("squash", round(rest / 2)), ("squash_down", rest // 2)):
        kept = transforms.Fit((32, 32), share, crop_mode=mode)(image)
        part = slice(before, before + 32)
        np.testing.assert_array_equal(kept, image[part, part])


def test_a_mode_of_transformers_is_kept_and_timm_is_told_its_own():
    spec = spec_of(norm_eps=1e-6)
    for mode, theirs in (("center_down", "center"), ("squash_down", "squash")):
        about = described(spec, crop_mode=mode)
        assert Description.from_json(about.to_json()).crop_mode == mode
        config = timm_configs.config_of(about, spec)
        assert config["pretrained_cfg"]["crop_mode"] == theirs


# Names of classes


@pytest.mark.parametrize(
    "names, words",
    [
        ({"0": "a", "10": "c", "2": "b"}, "from 0 without gaps, and 1 is missing"),
        ({"1": "a", "2": "b", "3": "c"}, "from 0 without gaps, and 0 is missing"),
        ({"-1": "a", "0": "b", "1": "c"}, "must be names by whole numbers from 0"),
        ({"a": 0, "b": 1, "c": 2}, "must be names by whole numbers from 0"),
        ({"0": "a", "1": "b", "01": "x"}, "class 1 has two names"),
        ({"0": None, "1": "b", "2": "c"}, "class 0 has no name"),
        ({"0": "a", "1": "", "2": "c"}, "class 1 has an empty name"),
        ({"0": "a", "1": "b", "2": " \t"}, "class 2 has an empty name"),
        ({"0": "a", "1": True, "2": "c"}, "class 1 has True, which is no name"),
        ({"0": "a", "1": ["b"], "2": "c"}, "class 1 has .*, which is no name"),
        ({"0": "a", "1": "b"}, "names 2 classes, and they have 3"),
        ({str(i): f"LABEL_{i}" for i in range(4)}, "names 4 classes, and they have 3"),
        ({str(i): str(i) for i in range(1000)}, "names 1000 classes, and they have 3"),
        ("abc", "must be a list of names"),
        (3, "must be a list of names"),
    ],
)
@pytest.mark.parametrize("library", ["transformers", "timm", "timm below"])
def test_names_that_are_refused(names, words, library):
    spec = spec_of(num_classes=3)
    if library == "transformers":
        message = refusal(read, config_of(id2label=names), spec)
        assert "id2label" in message
    else:
        config = dict(architecture="vit_mine", pretrained_cfg={})
        (config["pretrained_cfg"] if "below" in library else config)["labels"] = names
        read_timm = timm_configs.read
        message = refusal(read_timm, "config.json", config, LAYOUTS["timm-vit"], spec)
        assert "labels" in message
    assert re.search(words, message) and message.startswith("config.json")


@pytest.mark.parametrize(
    "options, names",
    [
        (dict(id2label={"0": "a", "2": "c", "1": "b"}), "abc"),
        (dict(id2label={"0": "a", "1": "a", "2": "b"}), "aab"),
        (dict(id2label=["a", "b", "c"]), "abc"),
        (dict(id2label={"0": 5, "1": 7, "2": 9}), "579"),
        (dict(id2label={"0": "a", "1": "b", "2": "c"},
              label2id={"a": 0, "b": "1", "c": 2}), "abc"),
        (dict(id2label={"0": "a", "1": "a", "2": "b"},
              label2id={"a": 1, "b": 2}), "aab"),
        (dict(id2label={"0": "a", "1": "b", "2": "c"}, label2id=None), "abc"),
        # What is called LABEL_0 has no name, and the other may say more.
        (dict(id2label={str(i): f"LABEL_{i}" for i in range(3)}), ""),
        (dict(id2label={str(i): f"LABEL_{i}" for i in range(3)},
              label2id={f"LABEL_{i}": i for i in range(3)}), ""),
        (dict(id2label={"0": "a", "1": "b", "2": "c"},
              label2id={f"LABEL_{i}": i for i in range(3)}), "abc"),
        (dict(id2label={str(i): f"LABEL_{i}" for i in range(3)},
              label2id={"b": 1, "c": 2, "a": 0}), "abc"),
        (dict(label2id={"b": 1, "c": 2, "a": 0}), "abc"),
        (dict(label2id={f"LABEL_{i}": i for i in range(3)}), ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_names(options, names):
    sidecar = read(config_of(**options), spec_of(num_classes=3))
    assert (sidecar.labels, sidecar.notes) == (tuple(names), ())


@pytest.mark.parametrize(
    "by_name, words",
    [
        ({"a": 1, "b": 0, "c": 2}, "label2id calls class 1 'a', and id2label .* 'b'"),
        ({"a": 0, "b": 1, "x": 2}, "label2id calls class 2 'x', and id2label .* 'c'"),
        ({"a": 0, "b": 1, "c": 2, "d": 3}, "calls class 3 'd', .*gives it no name"),
        ({"a": "x"}, "label2id is .*must be names by whole numbers"),
        (["a"], "label2id is .*must be an object of numbers by name"),
    ],
)
def test_numbers_that_say_something_else(by_name, words):
    options = dict(id2label={"0": "a", "1": "b", "2": "c"}, label2id=by_name)
    message = refusal(read, config_of(**options), spec_of(num_classes=3))
    assert re.search(words, message) and message.startswith("config.json")


@pytest.mark.parametrize(
    "by_name, words",
    [
        ({"a": 0, "b": 0, "c": 1}, "label2id gives two names to one class"),
        ({"a": 0, "b": 1, "c": 3}, "label2id: .*without gaps, and 2 is missing"),
        ({"a": 0, "b": 1}, "label2id names 2 classes, and they have 3"),
    ],
)
def test_numbers_alone_that_are_refused(by_name, words):
    config = config_of(label2id=by_name)
    assert re.search(words, refusal(read, config, spec_of(num_classes=3)))


def test_usual_names_are_none_for_timm_too():
    """As transformers writes them of timm's networks."""
    config = dict(architecture="vit_mine", pretrained_cfg={})
    for names, labels in ((["LABEL_0", "LABEL_1"], ()), (["LABEL_0", "b"],) * 2):
        config["label_names"] = names
        layout, spec = LAYOUTS["timm-vit"], spec_of(num_classes=2)
        sidecar = timm_configs.read("config.json", config, layout, spec)
        assert sidecar.labels == tuple(labels)


def test_names_without_a_head_are_told():
    spec = spec_of(num_classes=0)
    sidecar = read(config_of(id2label={"0": "a", "1": "b"}), spec)
    assert (
        sidecar.labels == () and "id2label names 2 classes, and the" in sidecar.notes[0]
    )
    usual = {str(i): f"LABEL_{i}" for i in range(9)}
    assert not read(config_of(id2label=usual, num_labels=9), spec).notes
    config = dict(architecture="vit_mine", pretrained_cfg=dict(label_names=["a"]))
    sidecar = timm_configs.read("config.json", config, LAYOUTS["timm-vit"], spec)
    assert any("label_names names 1 classes, and the" in note for note in sidecar.notes)


@pytest.mark.parametrize("to", ["hugging-face", "timm"])
@pytest.mark.parametrize("names", ["abcde", "aabbc", "aaaaa", ""])
def test_names_are_read_as_they_were_written(names, to, tmp_path):
    spec = spec_of(norm_eps=1e-6)
    about = described(spec, class_names=tuple(names))
    network = networks.Network(spec, params_of(spec, 0), about)
    convert.save(tmp_path / "net", network, to)
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    if to == "hugging-face":
        assert len(config["id2label"]) == 5
        numbers = config["label2id"]
        assert (numbers is None) == (0 < len(set(names)) < 5)
        assert numbers is None or sorted(numbers.values()) == [0, 1, 2, 3, 4]
    converted, _ = convert.load(str(tmp_path / "net"))
    assert converted.description.class_names == tuple(names)
    assert converted.description.normalization == about.normalization


# The tables, and the documents


def test_every_key_is_in_one_row():
    for table in (processors.KEYS, *hugging_face.CONFIGS.values()):
        rows = [row.name for row in table]
        assert len(rows) == len(set(rows))
        assert all(row.why for row in table)


def test_the_document_has_the_tables():
    text = documents.text()
    assert (ROOT / "docs" / "convert.md").read_text() == text
    for name in ("num_attention_heads", "groups_width", "key_dim", "rescale_factor"):
        assert f"| `{name}` | honoured" in text
    assert "| `LevitImageProcessor` | shorter side 224 (256/224 of" in text


# Beside transformers itself


SMALL = {
    "vit": dict(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=128, image_size=32, patch_size=8,
    ),
    "levit": dict(
        hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 2, 1],
        key_dim=[8, 8, 8], image_size=64,
    ),
    "regnet": dict(
        embedding_size=16, hidden_sizes=[16, 24, 32, 40], depths=[1, 2, 1, 1],
        groups_width=8,
    ),
}  # fmt: skip
SMALL["deit"] = SMALL["vit"]
CLASSES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassificationWithTeacher",
    "levit": "LevitForImageClassificationWithTeacher",
    "regnet": "RegNetForImageClassification",
}
SQUARE = dict(size=dict(height=32, width=32), crop_size=dict(height=32, width=32))
LOOKS = {
    "vit": ("ViT", SQUARE),
    "deit": ("DeiT", {**SQUARE, "size": dict(height=36, width=36)}),
    "levit": ("Levit", dict(size=dict(shortest_edge=64), crop_size=64)),
    "regnet": ("ConvNext", dict(size=dict(shortest_edge=64))),
}
# Of a network: family and what is moved from its small one. With a class of its own,
# the key class_name.
MOVED = [
    *(
        ("vit", options)
        for options in (
            {},
            dict(hidden_size=96),
            dict(num_hidden_layers=3),
            dict(num_attention_heads=4),
            dict(intermediate_size=192),
            dict(hidden_act="gelu_new"),
            dict(hidden_act="gelu_fast"),
            dict(hidden_act="gelu_python"),
            dict(hidden_act="gelu_pytorch_tanh"),
            dict(hidden_act="gelu_python_tanh"),
            dict(hidden_act="gelu_accurate"),
            dict(hidden_act="gelu_10"),
            dict(hidden_act="quick_gelu"),
            dict(hidden_act="relu"),
            dict(hidden_act="silu"),
            dict(layer_norm_eps=1e-2),
            dict(image_size=48),
            dict(image_size=[16, 64]),
            dict(patch_size=4),
            dict(patch_size=[8, 4]),
            dict(num_channels=1),
            dict(qkv_bias=False),
            dict(num_labels=3),
            dict(num_labels=2),
            dict(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5),
            dict(initializer_range=0.5, encoder_stride=8, chunk_size_feed_forward=1),
            dict(pooler_act="relu", pooler_output_size=32),
            dict(output_hidden_states=True),
            dict(output_attentions=True, attn_implementation="eager"),
            dict(id2label={i: f"name {i}" for i in range(5)}),
            dict(id2label={i: "one" for i in range(5)}),
            dict(problem_type="single_label_classification"),
            dict(head_dim=16),
        )
    ),
    *(
        ("deit", options)
        for options in (
            {},
            dict(num_attention_heads=4),
            dict(hidden_act="gelu_new"),
            dict(layer_norm_eps=1e-2),
            dict(image_size=[16, 64]),
            dict(class_name="DeiTForImageClassification"),
            dict(num_labels=3),
        )
    ),
    *(
        ("levit", options)
        for options in (
            {},
            dict(image_size=96),
            dict(num_channels=1),
            dict(kernel_size=5, padding=2),
            dict(stride=1, image_size=32, patch_size=2),
            dict(hidden_sizes=[48, 64, 96]),
            dict(num_attention_heads=[4, 4, 4]),
            dict(depths=[2, 1, 1]),
            dict(key_dim=[8, 4, 16]),
            dict(attention_ratio=[4, 2, 1]),
            dict(mlp_ratio=[4, 4, 4]),
            dict(drop_path_rate=1, initializer_range=0.5),
            dict(class_name="LevitForImageClassification"),
            dict(num_labels=3),
            dict(down_ops=[["Subsample", 4, 2, 2, 3, 2], ["Subsample", 8, 6, 4, 3, 2]]),
        )
    ),
    *(
        ("regnet", options)
        for options in (
            {},
            dict(num_channels=1),
            dict(embedding_size=24),
            dict(hidden_sizes=[8, 24, 48, 64]),
            dict(depths=[2, 1, 3, 1]),
            dict(groups_width=4),
            dict(groups_width=16, hidden_sizes=[16, 32, 48, 64]),
            dict(layer_type="x"),
            dict(hidden_act="silu"),
            dict(hidden_act="gelu"),
            dict(downsample_in_first_stage=False),
            dict(num_labels=3),
        )
    ),
]
# What the tensors refuse before their config is read, or both say.
SHOWN = {
    "layer_type": "no network that is known",
    "kernel_size": "no network that is known|kernel_size",
    "image_size": "stride|image_size|positions|no network that is known",
    "head_dim": "no network that is known|head_dim|looks like",
    "patch_size": "patch_size|no network that is known",
}
LOOKED = [
    *(
        ("vit", "ViT", options)
        for options in (
            {},
            dict(resample=0),
            dict(resample=1),
            dict(resample=3),
            dict(resample=4),
            dict(resample=5),
            dict(do_resize=False),
            dict(do_rescale=False),
            dict(rescale_factor=1 / 127.5),
            dict(do_normalize=False),
            dict(do_normalize=False, do_rescale=False),
            dict(image_mean=[0.1, 0.2, 0.3]),
            dict(image_std=[0.3, 0.2, 0.1]),
            dict(image_mean=0.25, image_std=0.5),
            dict(do_convert_rgb=True),
            dict(do_pad=True),
            dict(size=dict(height=48, width=40), do_center_crop=True, crop_size=32),
            dict(size=dict(height=43, width=43), do_center_crop=True, crop_size=32),
            dict(size=dict(shortest_edge=39), do_center_crop=True, crop_size=32),
            dict(size=40, do_center_crop=True, crop_size=32, default_to_square=False),
            dict(size=dict(shortest_edge=32)),
            dict(size=dict(longest_edge=32)),
            dict(size=dict(height=64, width=64)),
        )
    ),
    *(
        ("deit", "DeiT", {**LOOKS["deit"][1], **options})
        for options in (
            {},
            dict(size=dict(height=37, width=37)),
            dict(size=dict(height=43, width=43)),
            dict(do_center_crop=False, size=dict(height=32, width=32)),
            dict(size=dict(height=24, width=24)),
        )
    ),
    *(
        ("levit", "Levit", {**LOOKS["levit"][1], **options})
        for options in (
            {},
            dict(size=dict(shortest_edge=56)),
            dict(size=dict(shortest_edge=65)),
            dict(size=dict(height=70, width=70)),
            dict(size=dict(shortest_edge=48)),
        )
    ),
    *(
        ("regnet", "ConvNext", {**LOOKS["regnet"][1], **options})
        for options in (
            {},
            dict(crop_pct=0.9),
            dict(crop_pct=0.95),
            dict(size=dict(shortest_edge=384)),
            dict(do_center_crop=True, crop_size=64),
            dict(do_center_crop=True, crop_size=32),
        )
    ),
    *(
        ("regnet", "Bit", options)
        for options in (
            dict(size=dict(shortest_edge=71), crop_size=64),
            dict(size=dict(shortest_edge=64), crop_size=64),
            dict(size=dict(shortest_edge=48), crop_size=64),
            dict(size=dict(shortest_edge=71), crop_size=dict(height=64, width=48)),
            dict(do_center_crop=False),
        )
    ),
]


@pytest.fixture
def theirs(with_timm):
    """transformers, without a word of what its processors run on."""
    library = pytest.importorskip(
        "transformers", reason="transformers is not installed"
    )
    library.logging.set_verbosity_error()
    return library


def built(theirs, family, class_name="", **options):
    """A network of transformers, all of whose numbers matter."""
    import torch

    torch.manual_seed(0)
    kind = class_name or CLASSES[family]
    config = getattr(theirs, kind.split("For")[0] + "Config")
    usual = {} if "id2label" in options else dict(num_labels=5)
    model = getattr(theirs, kind)(
        config(**{**SMALL[family], **usual, **options})
    ).eval()
    return drawn(model)


def drawn(model):
    import torch

    with torch.no_grad():
        for name, leaf in (*model.named_parameters(), *model.named_buffers()):
            if leaf.is_floating_point():
                noise = torch.rand_like if "var" in name else torch.randn_like
                leaf += 0.3 * noise(leaf) * (leaf.ndim < 4) / leaf.shape[-1] ** 0.3
    return model


def image_of(at, channels, size=(170, 111)):
    draw = np.random.default_rng(1).integers(0, 256, (9, 13, channels), np.uint8)
    image = PIL.Image.fromarray(draw.squeeze()).resize(size)
    image.save(at)
    return image


def largest_difference(model, processor, network, path):
    """Of the logits of one image file, relative to the largest; each by its own."""
    import torch

    options = processor(PIL.Image.open(path), return_tensors="pt")
    with torch.no_grad():
        outputs = model(pixel_values=options["pixel_values"].float(), return_dict=True)
    features = getattr(outputs, "last_hidden_state", None)
    want = (outputs.logits if features is None else features[:, 0]).numpy()
    about, image = network.description, np.asarray(PIL.Image.open(path))
    how = about.eval_crop, about.interpolation, about.crop_mode
    image = image if image.ndim == 3 else image[..., None]
    image = transforms.Fit(network.spec.image_size, *how)(image)
    look = about.normalization
    pixels = ((image / 255 - look.mean) / look.std).astype(np.float32)[None]
    got = np.asarray(logits_of(network.spec, network.params, pixels))
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))


def converted(at, model, processor):
    """What is made of a folder that transformers wrote, or why nothing is."""
    model.save_pretrained(at)
    processor.save_pretrained(at)
    notes = []
    try:
        network, _ = convert.load(str(at), tell=notes.append)
    except UserError as error:
        return str(error)
    assert not any("not known here" in note for note in notes), notes
    return network


# What is never refused, wherever it is moved to above.
HONOURED = {
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("layer_norm_eps", "image_size", "num_channels", "num_labels", "id2label"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"),
    *("encoder_stride", "chunk_size_feed_forward", "pooler_act", "pooler_output_size"),
    *("output_hidden_states", "output_attentions", "attn_implementation"),
    *("problem_type", "depths", "hidden_sizes", "embedding_size", "key_dim"),
    *("mlp_ratio", "attention_ratio", "groups_width", "drop_path_rate"),
}


def ids(value):
    return str(value)[:70].replace(" ", "")


@pytest.mark.slow
@pytest.mark.parametrize("family, options", MOVED, ids=ids)
def test_the_same_function_or_a_refusal(family, options, theirs, tmp_path):
    """Written by transformers' own writers; logits of one image file."""
    model = built(theirs, family, **options)
    kind, look = LOOKS[family]
    channels, size = options.get("num_channels", 3), options.get("image_size")
    look = dict(look, do_convert_rgb=channels == 3)
    if channels != 3:
        look |= dict(image_mean=[0.4] * channels, image_std=[0.3] * channels)
    if size is not None and family in ("vit", "deit"):
        high, wide = size if isinstance(size, list) else (size, size)
        look |= dict(size=dict(height=high, width=wide), do_center_crop=False)
    elif size is not None:
        look |= dict(size=dict(shortest_edge=size), crop_size=size)
    processor = getattr(theirs, f"{kind}ImageProcessorPil")(**look)
    network = converted(tmp_path / "net", model, processor)
    if isinstance(network, str):
        options.pop("class_name", None)
        assert not options.keys() <= HONOURED, network
        words = "|".join(SHOWN.get(key, key) for key in options)
        assert re.search(words, network), network
        return
    names = tuple(model.config.id2label.values())
    assert network.description.class_names == (() if "LABEL_0" in names else names)
    image_of(tmp_path / "image.png", channels)
    assert largest_difference(model, processor, network, tmp_path / "image.png") < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family, kind, look", LOOKED, ids=ids)
def test_the_same_view_or_a_refusal(family, kind, look, theirs, tmp_path):
    """Also of an image whose rest around the centre has no middle."""
    model = built(theirs, family)
    processor = getattr(theirs, f"{kind}ImageProcessorPil")
    processor = processor(**({**LOOKS["vit"][1], **look} if kind == "ViT" else look))
    network = converted(tmp_path / "net", model, processor)
    if isinstance(network, str):
        assert look and "preprocessor_config.json" in network
        assert re.search("|".join(look), network), network
        return
    for number, size in enumerate(
        [(170, 111), (111, 170), (67, 64), (96, 96), (33, 32)]
    ):
        path = tmp_path / f"{number}.png"
        image_of(path, 3, size)
        assert largest_difference(model, processor, network, path) < 1e-4, size


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["center_down", "squash", "squash_down"])
@pytest.mark.parametrize("names", ["abcde", "aabbc", ""])
def test_transformers_sees_what_is_written_for_it(names, mode, theirs, tmp_path):
    spec = spec_of(norm_eps=1e-6)
    about = described(spec, class_names=tuple(names), crop_mode=mode, eval_crop=0.8)
    network = networks.Network(spec, params_of(spec, 0), about)
    convert.save(tmp_path / "net", network, "hugging-face")
    model = theirs.ViTForImageClassification.from_pretrained(tmp_path / "net").eval()
    called = [model.config.id2label[number] for number in range(5)]
    assert called == (list(names) or [f"LABEL_{number}" for number in range(5)])
    processor = theirs.AutoImageProcessor.from_pretrained(tmp_path / "net")
    image_of(tmp_path / "image.png", 3)
    path = tmp_path / "image.png"
    assert largest_difference(model, processor, network, path) < 1e-4


@pytest.mark.slow
def test_defaults_are_those_of_transformers(theirs):
    for name, kind in processors.PROCESSORS.items():
        maker = getattr(theirs, f"{name}Pil")
        size = dict(maker.size)
        assert set(size.values()) == {kind.size}
        assert ("shortest_edge" in size) == kind.shortest
        assert (not maker.default_to_square) == kind.shortest
        assert bool(getattr(maker, "do_center_crop", False)) == kind.crop
        if kind.crop:
            assert set(dict(maker.crop_size).values()) == {processors.CROP}
        assert int(maker.resample) == kind.resample
        assert tuple(maker.image_mean) == kind.mean
        assert tuple(maker.image_std) == kind.std
        assert maker.do_resize and maker.do_rescale and maker.do_normalize
        assert maker.rescale_factor == 1 / 255


@pytest.mark.slow
def test_no_key_that_transformers_writes_is_in_no_row(theirs):
    """Of configs of networks just built, and of all that a processor takes."""
    for family in CLASSES:
        model = built(theirs, family, output_attentions=True)
        keys_of = set(model.config.to_dict()) | set(model.config.to_diff_dict())
        assert keys_of <= {row.name for row in hugging_face.CONFIGS[family]}
    known = {row.name for row in processors.KEYS}
    for name in processors.PROCESSORS:
        maker = getattr(theirs, f"{name}Pil")
        assert set(maker.valid_kwargs.__annotations__) <= known
        assert set(maker().to_dict()) <= known


def outcome(name, theirs, at):
    """Of a public checkpoint: the largest difference, or why it is refused."""
    import torch

    kind, fields, look, names = public.CHECKPOINTS[name]
    torch.manual_seed(0)
    maker = getattr(theirs, kind)
    named = isinstance(names, list)
    fields = dict(fields, id2label=dict(enumerate(names))) if named else dict(fields)
    if not named and names:
        fields["num_labels"] = names
    model = drawn(maker(maker.config_class(**fields)).eval())
    model.save_pretrained(at)
    (at / "preprocessor_config.json").write_text(json.dumps(look))
    try:
        network, _ = convert.load(str(at), tell=lambda note: None)
    except UserError as error:
        return str(error)
    assert network.description.class_names == (tuple(names) if named else ())
    processor = theirs.AutoImageProcessor.from_pretrained(at)
    image_of(at / "image.png", 3, (301, 400))
    return largest_difference(model, processor, network, at / "image.png")


# All of them are tried where this is set: two thirds are as these, and larger.
LARGE = os.environ.get("SWS_JAX_TEST_LARGE") == "1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", public.CHECKPOINTS if LARGE else (*public.SMALL, *public.REFUSED)
)
def test_public_checkpoints(name, theirs, tmp_path):
    result = outcome(name, theirs, tmp_path)
    if isinstance(result, str):
        assert re.search(public.REFUSED[name], result), result
    else:
        assert name not in public.REFUSED and result < 1e-4
