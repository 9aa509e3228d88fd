"""Tensors of other programs: which part, names, numbers, relatives."""

import dataclasses
import pickle
import re
import warnings
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import convert, specs, trees
from sws_jax.convert import base, levit, parts, regnet, vit
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.storage import contents

from support.compare import close, equal
from support.networks import logits_of, params_of

SPEC = specs.ViTSpec(
    **dict(depth=2, width=64, heads=1, mlp_ratio=2.0, patch_size=8, channels=3),
    **dict(image_size=(32, 32), num_classes=5, pool="token"),
)


def timm(seed=0, spec=SPEC):
    return base.write(params_of(spec, seed), vit.TIMM.entries(spec))


def put(path, flat):
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(a) for k, a in flat.items()}, path
    )
    return str(path)


def prefixed(prefix, flat):
    return {prefix + name: array for name, array in flat.items()}


# What tensors do not show: with it nothing is guessed, and there are no notes.
KNOWN: dict = dict(heads=1, norm_eps=1e-6, gelu="exact")
KNOWN |= dict(mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.9)
UNKNOWN: dict = KNOWN | dict(heads=None, norm_eps=None, gelu="")


def loaded(source, **options):
    """What is read, and what is said of it."""
    notes: list[str] = []
    network, _ = convert.load(source, tell=notes.append, **{**KNOWN, **options})
    return network, notes


def refused(source, **options):
    with pytest.raises(UserError) as caught:
        convert.load(source, tell=lambda note: None, **{**KNOWN, **options})
    message = str(caught.value)
    path = "" if isinstance(source, dict) else str(source)
    assert "\n" not in message and len(message) <= 700 + len(path)
    return message


# Which part


PAIRS = [
    ("model", "model_ema"),
    ("state_dict", "state_dict_ema"),
    ("model", "state_dict"),
    ("params", "params_ema"),
    ("model_state_dict", "ema_state_dict"),
    ("teacher", "student"),
    ("net", "ema"),
]


@pytest.mark.parametrize("kept, other", PAIRS)
@pytest.mark.parametrize("form", ["memory", "file"])
def test_two_parts(form, kept, other, tmp_path):
    one, two = timm(1), timm(2)
    source = {other: two, kept: one, "optimizer": {"a": np.zeros(3)}, "epoch": 3}
    if form == "file":
        flat = prefixed(f"{other}.", two) | prefixed(f"{kept}.", one)
        source = put(tmp_path / "net.safetensors", flat)
    network, (note,) = loaded(source)
    equal(network.params, loaded(one)[0].params)
    choose = "--part" if form == "file" else "part="
    assert f"took {kept} of" in note and note.endswith(f": choose with {choose}")
    assert other in note
    assert ("optimizer" in note) == (form == "memory")
    network, notes = loaded(source, part=other)
    equal(network.params, loaded(two)[0].params)
    assert notes == []


def test_parts_inside_parts():
    one, two, three = timm(1), timm(2), timm(3)
    source = {"state_dict": {"model": one, "ema": two}, "teacher": three}
    network, (note,) = loaded(source)
    equal(network.params, loaded(one)[0].params)
    assert "took state_dict.model of" in note and "state_dict.ema, " not in note[:30]
    assert "teacher" in note and "state_dict.ema" in note
    equal(loaded(source, part="state_dict.ema")[0].params, loaded(two)[0].params)
    equal(loaded(source, part="teacher")[0].params, loaded(three)[0].params)
    assert "has no part state_dict.other: it has state_dict.model, " in refused(
        source, part="state_dict.other"
    )


def test_tensors_at_the_top_beside_a_part():
    one, two = timm(1), timm(2)
    source = {**two, "model": one}
    network, (note,) = loaded(source)
    equal(network.params, loaded(one)[0].params)
    assert (
        f"took model of what is in memory; left {len(two)} tensors at its top" in note
    )
    equal(loaded(source, part=".")[0].params, loaded(two)[0].params)


def test_parts_that_nobody_names():
    """One is taken whatever its name; of several one is asked for."""
    with pytest.raises(UserError, match="several parts, left, right: choose one"):
        parts.chosen("x.pth", {"left": timm(1), "right": timm(2)}, "")
    checkpoint = {"left": timm(1), "optimizer": timm(2)}
    top, part, notes = parts.chosen("x.pth", checkpoint, "")
    assert part == "left"
    assert (top["norm.bias"] == timm(1)["norm.bias"]).all()
    assert notes == ("took left of x.pth; left optimizer: choose with --part",)
    assert parts.chosen("x.pth", {"model": timm(1), "epoch": 3}, "")[2] == ()


def test_the_part_is_said_and_chosen_by_the_command(tmp_path, capsys):
    flat = prefixed("model.", timm(1)) | prefixed("model_ema.", timm(2))
    path, out = put(tmp_path / "net.safetensors", flat), str(tmp_path / "o.safetensors")
    assert tools.main(["convert", path, out]) == 0
    assert "note: took model of" in (output := capsys.readouterr().out)
    assert "left model_ema" in output
    assert tools.main(["convert", path, out, "--part", "model_ema"]) == 0
    assert "took" not in capsys.readouterr().out
    equal(sws_jax.load_network(out).params, loaded(timm(2))[0].params)
    assert tools.main(["convert", path, out, "--part", "best"]) == 2
    assert "has no part best: it has model, model_ema" in capsys.readouterr().err
    assert tools.main(["describe", path]) == 0
    assert re.search("note +took model of", capsys.readouterr().out)


def test_a_run_of_vision_transformer(tmp_path):
    """opt/target beside the optimizer's own state."""
    spec = SPEC.replace(gelu="tanh")
    flat = base.write(params_of(spec), vit.VISION_TRANSFORMER.entries(spec))
    both = prefixed("opt/target/", flat) | {"opt/state/step": np.asarray(3)}
    np.savez(tmp_path / "run.npz", **both)
    network, (note,) = loaded(tmp_path / "run.npz")
    equal(network.params, params_of(spec))
    assert "took opt.target of" in note and "left opt.state" in note


# Prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "net.", "encoder.", "backbone."),
        *("_orig_mod.module.", "model._orig_mod.", "module.module."),
        *("model.net._orig_mod.module.", "ema_model.module."),
    ],
)
def test_prefixes_of_any_order(prefix, tmp_path):
    flat = timm()
    source = put(tmp_path / "net.safetensors", prefixed(prefix, flat))
    network, (note,) = loaded(source)
    equal(network.params, loaded(flat)[0].params)
    assert note == f"stripped {prefix} from the names of {source}"
    broken = {**prefixed(prefix, flat), f"{prefix}norm.extra": np.zeros(3, np.float32)}
    assert f"surplus {prefix}norm.extra [3]" in refused(put(source, broken))
    message = refused(put(source, {f"{prefix}a.b": np.zeros(3, np.float32)}))
    assert f"its first names are {prefix}a.b" in message


@pytest.mark.parametrize("name", ["n_averaged", "num_updates", "step"])
def test_counters_have_no_prefix(name):
    flat = {name: np.asarray(3), **prefixed("module.", timm())}
    network, (note,) = loaded(flat)
    equal(network.params, loaded(timm())[0].params)
    assert "stripped module. from" in note


def test_a_prefix_of_some_names_is_none():
    flat = timm()
    head = {k: flat.pop(k) for k in ("head.weight", "head.bias")}
    message = refused({**prefixed("backbone.", flat), **head})
    assert "its first names are backbone.blocks.0." in message


@pytest.mark.parametrize(
    "source, part",
    [
        (lambda t, o: prefixed("backbone.", t) | prefixed("head.", o), "backbone"),
        (lambda t, o: prefixed("model.net.", t) | prefixed("criterion.", o), "model"),
        (
            lambda t, o: {
                "teacher": prefixed("module.backbone.", t) | prefixed("module.h.", o),
                "student": t,
            },
            "teacher.module.backbone",
        ),
    ],
)
def test_what_stands_under_a_prefix_is_taken_if_asked(source, part):
    """Nothing beside it is dropped without being asked to."""
    flat = timm()
    whole = source(flat, {"last.weight": np.ones((3, 64), np.float32)})
    assert f"part={part!r} takes what stands under that alone" in refused(whole)
    equal(loaded(whole, part=part)[0].params, loaded(flat)[0].params)


def test_two_networks_under_prefixes_are_both_named():
    """As MoCo has them; under three parts, and beside what is no network."""
    flat = prefixed("module.base_encoder.", timm(1))
    flat |= prefixed("module.momentum_encoder.", timm(2))
    flat["module.predictor.0.weight"] = np.ones((2, 2), np.float32)
    message = refused({"state_dict": flat})
    first, second = (
        f"part='state_dict.module.{kind}_encoder'" for kind in ("base", "momentum")
    )
    assert f"{first} and {second} each take what stands under that alone" in message
    part = "state_dict.module.momentum_encoder"
    network, _ = loaded({"state_dict": flat}, part=part)
    equal(network.params, loaded(timm(2))[0].params)


@pytest.mark.parametrize("prefix", ["backbone.", "model.features.", "head."])
def test_no_part_is_named_where_no_network_stands(prefix):
    flat = prefixed(prefix, {f"a{n}.weight": np.ones(3, np.float32) for n in range(9)})
    message = refused({**flat, "fc.weight": np.ones(3, np.float32)})
    assert "part=" not in message and "known are timm-vit" in message


@pytest.mark.parametrize(
    "prefix", ["timm_model.", "vit.", "visual.trunk.", "encoder_q.", "0.", "m.1.net."]
)
def test_any_prefix_is_stripped_where_a_network_is_known_without_it(prefix, tmp_path):
    source = put(tmp_path / "net.safetensors", prefixed(prefix, timm()))
    network, (note,) = loaded(source)
    equal(network.params, loaded(timm())[0].params)
    assert note == f"stripped {prefix} from the names of {source}"
    broken = {**prefixed(prefix, timm()), f"{prefix}norm.extra": np.zeros(3, "f")}
    assert f"surplus {prefix}norm.extra [3]" in refused(broken)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."]
)
def test_what_torch_puts_inside_names_is_removed(wrapper):
    flat = {k.replace("blocks.1.", f"blocks.1.{wrapper}"): a for k, a in timm().items()}
    network, (note,) = loaded(flat)
    equal(network.params, loaded(timm())[0].params)
    assert note == f"removed {wrapper} from inside the names of what is in memory"
    flat[f"blocks.1.{wrapper}norm1.extra"] = np.zeros(3, np.float32)
    assert f"surplus blocks.1.{wrapper}norm1.extra [3]" in refused(flat)


@pytest.mark.parametrize(
    "name", ["checkpoint", "swa_state_dict", "momentum_encoder", "best_model"]
)
def test_a_lone_part_in_memory_is_taken_whatever_its_name(name):
    network, _ = loaded({name: timm(1), "epoch": 3})
    equal(network.params, loaded(timm(1))[0].params)
    message = refused({name: timm(1), "other_one": timm(2)})
    assert f"several parts, {name}, other_one: choose one with part=" in message


@pytest.mark.parametrize(
    "source, words",
    [
        (lambda t: {"state": t, "epoch": 3}, "it has state, of which one is chosen"),
        (lambda t: {"models": [t]}, "chosen with part='models.0'"),
        (lambda t: {"optimizer": {"state": t}}, "it has optimizer, of which"),
        (lambda t: {"shadow": list(t.values())}, "tensors in a list have no names"),
    ],
)
def test_parts_that_no_network_is_known_to_be_in_are_named(source, words):
    assert words in refused(source(timm()))


def test_a_part_of_a_list_is_taken_if_asked():
    network, _ = loaded({"models": [timm(1), timm(2)]}, part="models.1")
    equal(network.params, loaded(timm(2))[0].params)


def test_averages_in_a_list_are_left_and_said():
    ema = {"decay": 0.9, "shadow_params": list(timm(2).values())}
    network, (note,) = loaded({"model": timm(1), "ema": ema})
    equal(network.params, loaded(timm(1))[0].params)
    assert note == "took model of what is in memory; left ema: choose with part="


def test_flat_names_of_flax_are_joined():
    tree = trees.to_host(params_of(SPEC))
    flat = {tuple(name.split("/")): a for name, a in trees.flatten(tree).items()}
    equal(loaded(flat)[0].params, tree)
    equal(loaded({"params": flat, "step": 3})[0].params, tree)


def _deleted():
    array = jax.numpy.ones(64)
    array.delete()
    return array


@pytest.mark.parametrize(
    "value, words",
    [
        ([0.0] * 64, "norm.bias is a list, and no array"),
        ((0.0,) * 64, "norm.bias is a tuple, and no array"),
        (np.ma.masked_array(np.zeros(64), mask=[1] + [0] * 63), "norm.bias has a mask"),
        (jax.ShapeDtypeStruct((64,), "float32"), "norm.bias has a shape and no values"),
        (_deleted, "norm.bias has no values here (Array has been deleted"),
    ],
)
def test_what_has_no_values_is_named(value, words):
    message = refused({**timm(), "norm.bias": value() if callable(value) else value})
    assert f"what is in memory: {words}" in message


@pytest.mark.parametrize("first", ["self", "zz"])
def test_what_holds_itself_or_is_too_deep_is_a_sentence(first):
    circle: dict = {"epoch": 3}
    circle[first] = circle
    words = "what is in memory is nested too deeply, or holds itself"
    with pytest.raises(UserError, match=words):
        convert.load(circle)
    deep: dict = timm()
    for _ in range(3000):
        deep = {"m": deep}
    with pytest.raises(UserError, match=words):
        convert.load(deep)


def test_a_part_that_is_a_flax_tree():
    spec = SPEC
    tree = trees.to_host(params_of(spec))
    for source, options in (
        ({"params": tree}, {}),
        ({"params": tree, "opt_state": {"m": tree}}, {}),
        ({"params": tree, "ema": timm(2)}, dict(part="params")),
    ):
        equal(loaded(source, **options)[0].params, tree)


# Kinds of numbers


@pytest.mark.parametrize(
    "name, kind",
    [
        ("blocks.0.attn.qkv.weight", np.int8),
        ("head.weight", np.bool_),
        ("head.bias", np.int64),
        ("blocks.1.norm1.weight", np.uint8),
    ],
)
def test_whole_numbers_are_no_weights(name, kind, tmp_path, capsys):
    flat = timm()
    flat[name] = (flat[name] * 20).astype(kind)
    path = put(tmp_path / "net.safetensors", flat)
    assert f"{path}: {name} holds {np.dtype(kind)}, and weights are no" in refused(path)
    assert tools.main(["describe", path]) == 0
    assert re.search(f"initialises +nothing: .*{name} holds", capsys.readouterr().out)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_that_are_no_numbers(value, prefix, tmp_path, capsys):
    flat = timm()
    flat["blocks.1.mlp.fc2.bias"][3] = value
    path = put(tmp_path / "net.safetensors", prefixed(prefix, flat))
    words = f"{prefix}blocks.1.mlp.fc2.bias holds 1 numbers that are NaN or infinite"
    assert words in refused(path)
    assert tools.main(["describe", path]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "surplus",
    [
        "blocks.0.attn.qkv.weight_scale",
        "blocks.0.attn.qkv.SCB",
        "blocks.0.attn.qkv.qweight",
        "blocks.0.attn.qkv.weight_scale_inv",
        "blocks.0.attn.qkv.weight.absmax",
    ],
)
def test_quantised_files_are_told(surplus):
    message = refused({**timm(), surplus: np.zeros(64, np.float32)})
    assert f"is quantised ({surplus})" in message


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "C64"])
def test_numbers_that_no_network_here_has(kind, tmp_path):
    size = 8 if kind == "C64" else 1
    header = f'{{"a.b":{{"dtype":"{kind}","shape":[1],"data_offsets":[0,{size}]}}}}'
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(size))
    assert "a.b holds" in refused(path)
    odd = np.zeros(3, ml_dtypes.float8_e4m3fn if size == 1 else np.complex64)
    message = refused({**timm(), "norm.bias": odd})
    assert "norm.bias holds" in message and "float16, bfloat16, float32" in message


@pytest.mark.parametrize(
    "kinds, joint",
    [
        ((np.float16, ml_dtypes.bfloat16), np.float32),
        ((np.float16, np.float16), np.float16),
        ((ml_dtypes.bfloat16, np.float32), np.float32),
        ((np.float32, np.float64), np.float64),
    ],
)
def test_mixed_halves_keep_every_digit(kinds, joint, tmp_path):
    flat = timm()
    for layer, kind in enumerate(kinds):
        name = f"blocks.{layer}.mlp.fc1.weight"
        flat[name] = flat[name].astype(kind)
    network, _ = loaded(put(tmp_path / "net.safetensors", flat))
    kernel = network.params["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.dtype == joint
    for layer in range(2):
        wanted = flat[f"blocks.{layer}.mlp.fc1.weight"].T.astype(np.float64)
        np.testing.assert_array_equal(kernel[layer].astype(np.float64), wanted)


def test_whole_numbers_that_are_left_out_are_fine():
    spec = specs.LEVITS["levit_128s"]
    layout = next(x for x in levit.LAYOUTS if x.key == "facebook-levit")
    shapes = base.shapes(layout.entries(spec), networks.abstract_params(spec))
    flat = {k: np.zeros(s, np.float32) for k, s in shapes.items()}
    flat |= {
        k.replace("attention_biases", "attention_bias_idxs"): np.zeros(3, np.int64)
        for k in shapes
        if k.endswith("attention_biases")
    }
    flat["head.bn.num_batches_tracked"] = np.asarray(4)
    assert loaded(flat, **UNKNOWN)[0].spec == spec


# Networks without numbers


def broken(tmp_path):
    params = trees.to_host(params_of(SPEC, 0))
    params["head"]["bias"] = np.full(5, np.nan, np.float32)
    about = loaded(timm())[0].description
    path = str(tmp_path / "nan.safetensors")
    sws_jax.save_network(path, networks.Network(SPEC, params, about))
    return path


def test_predict_says_that_there_are_no_numbers(tmp_path, capsys):
    from PIL import Image

    path, image = broken(tmp_path), str(tmp_path / "image.png")
    Image.new("RGB", (32, 32)).save(image)
    assert tools.main(["predict", path, image]) == 2
    out, err = capsys.readouterr()
    assert f"{path} gives no numbers for {image}" in err and "nan%" not in out


def test_evaluate_says_that_there_are_no_numbers(tmp_path, capsys):
    path = broken(tmp_path)
    images = np.zeros((10, 32, 32, 3), np.uint8)
    labels = np.arange(10) % 5
    arrays = dict(class_names=np.asarray(list("abcde")))
    for split in ("train", "test"):
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "set.npz", **arrays)
    data = str(tmp_path / "set.npz")
    assert tools.main(["evaluate", path, "--data", data, "--batch-size", "8"]) == 2
    assert f"{path} gives no numbers (NaN or infinite)" in capsys.readouterr().err


def test_numbers_beyond_float32_are_no_weights(tmp_path, capsys):
    flat = {k: a.astype(np.float64) for k, a in timm().items()}
    assert loaded(flat)[0].params["norm"]["bias"].dtype == np.float64
    flat["head.bias"][1] = -3.5e38
    words = "head.bias holds 1 numbers (of 5) that are too large for float32"
    assert words in refused(flat)
    path = put(tmp_path / "net.safetensors", flat)
    assert tools.main(["describe", path]) == 0
    assert f"nothing: {path}: {words}" in capsys.readouterr().out


def _regnet():
    spec = specs.RegNetSpec(
        widths=(8, 16), depths=(1, 1), group_width=8, stem_width=8, num_classes=3
    )
    (layout,) = (one for one in regnet.LAYOUTS if one.key == "timm-regnet")
    params = params_of(spec)
    return base.write(params, layout.entries(spec))


def _levit():
    spec = specs.levit.LeViTSpec(
        widths=(8, 20), depths=(1, 1), heads=(2, 3), key_dims=(4, 6),
        attn_ratios=(1.5, 2.0), mlp_ratio=1.5, down_heads=(5,), down_key_dims=(10,),
        down_attn_ratios=(1.1,), down_mlp_ratio=0.7, image_size=48, num_classes=3,
    )  # fmt: skip
    (layout,) = (one for one in levit.LAYOUTS if one.key == "timm-levit")
    params = networks.abstract_params(spec)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    return base.write(zeros, layout.entries(spec))


@pytest.mark.parametrize("network", [_regnet, _levit])
def test_a_variance_is_not_negative(network):
    flat = network()
    options = UNKNOWN
    names = [name for name in flat if name.endswith("running_var")]
    loaded({**flat, **{name: np.abs(flat[name]) for name in names}}, **options)
    flat |= {name: -np.abs(flat[name]) - 1 for name in names[:1]}
    count = flat[names[0]].size
    assert f"{names[0]} holds {count} negative numbers" in refused(flat, **options)


# Relatives


LAYER_SCALE = {
    f"blocks.{layer}.ls{n}.gamma": np.ones(64, np.float32)
    for layer in (0, 1)
    for n in (1, 2)
}


def registers(count):
    return {"reg_token": np.zeros((1, count, 64), np.float32)}


def rows(count):
    return {"pos_embed": np.ones((1, count, 64), np.float32)}


@pytest.mark.parametrize(
    "changes, words",
    [
        (LAYER_SCALE, ["ls1.gamma", "layer scale"]),
        (LAYER_SCALE | rows(16), ["ls1.gamma", "layer scale"]),
        (LAYER_SCALE | rows(16) | registers(4), ["reg_token", "registers"]),
        (rows(21) | registers(4), ["reg_token", "registers"]),
        (rows(16) | registers(4), ["reg_token", "registers"]),
        ({"blocks.0.attn.q_norm.weight": np.ones(64)}, ["norms of queries and keys"]),
        ({"decoder_embed.weight": np.ones((8, 64))}, ["a decoder (MAE's)"]),
        ({"mask_token": np.ones((1, 64))}, ["DINOv2"]),
        ({"norm_pre.weight": np.ones(64)}, ["CLIP"]),
        ({"blocks.0.attn.qkv.lora_A": np.ones((4, 64))}, ["LoRA"]),
        ({"head.mlp.0.weight": np.ones((4, 64))}, ["DINO's"]),
    ],
)
@pytest.mark.parametrize("size", [{}, dict(image_size=32)])
def test_relatives_are_refused_by_what_they_have(
    changes, words, size, tmp_path, capsys
):
    path = put(tmp_path / "net.safetensors", {**timm(), **changes})
    message = refused(path, **size)
    for word in words:
        assert word in message
    assert "give its image size" not in message
    assert tools.main(["describe", path]) in (0, 2)
    out, err = capsys.readouterr()
    assert words[0] in out + err and "after python" not in out


def test_without_biases_of_queries():
    flat = {k: a for k, a in timm().items() if not k.endswith("qkv.bias")}
    message = refused(flat)
    assert "missing blocks.{0..1}.attn.qkv.bias [192]" in message
    assert "no bias of queries, keys and values" in message


@pytest.mark.parametrize(
    "names, kind",
    [
        (("visual.transformer.resblocks.0.ln_1.weight",), "CLIP's"),
        (("embeddings.class_embedding", "pre_layrnorm.bias"), "CLIP's"),
        (("vision_model.embeddings.patch_embedding.bias",), "SigLIP's"),
        (("layer.0.attention.k_proj.weight", "layer.0.layer_scale1.lambda1"), "DINOv3"),
        (("blocks.0.attn.relative_position_bias_table",), "BEiT's"),
        (
            ("layers.0.blocks.0.attn.relative_position_bias_table",),
            "Swin's",
        ),
        (("data2vec_vision.embeddings.cls_token",), "data2vec's"),
        (("blocks.0.attn.rel_pos.mlp.fc1.weight",), "a ViT's of relative positions"),
        (("blocks.0.attns.0.attn.qkv.bias",), "a ViT's of parallel blocks"),
        (("blocks.0.mlp.fc1_g.weight",), "a ViT's of a gated MLP (SwiGLU)"),
        (("blocks.0.attn.qkv.weight", "patch_embed.proj.weight"), "a ViT's without p"),
        (("base_model.model.vit.x.query.lora_A.weight",), "an adapter's, LoRA's"),
        (("resnet.encoder.stages.0.layers.0.layer.0.normalization.bias",), "a ResNet"),
        (("s1.b1.norm1.weight", "s1.b1.conv1.weight"), "a RegNet's whose norms stand"),
        (("s1.b1.se.fc1.bias", "s1.b1.conv1.bn.bias"), "a RegNetY's of which a part"),
        (("stages.0.blocks.0.attn.qkv.weight", "stem.conv1.weight"), "a LeViT's whose"),
        (
            ("ijepa.embeddings.patch_embeddings.projection.bias",),
            "those of ijepa, a mo",
        ),
        (("vision_model.encoder.layers.0.layer_norm1.weight",), "CLIP's"),
        (("encoder.layer.0.layer_scale1.lambda1",), "DINOv2's of transformers"),
        (("layer1.0.conv1.weight", "conv1.weight"), "a ResNet's"),
        (("s1.b1.conv1.bn.bias", "head.fc.bias"), "a RegNet's that is no RegNetY"),
        (("trunk_output.block1.block1-0.proj.0.weight",), "torchvision's of a RegNet"),
    ],
)
def test_files_of_other_networks_are_named(names, kind):
    message = refused({name: np.ones(3, np.float32) for name in names})
    assert f"they look like {kind}" in message


def test_an_average_beside_a_class_token():
    flat = {
        k.replace("norm.", "fc_norm.", k[:5] == "norm."): a for k, a in timm().items()
    }
    message = refused(flat)
    assert "an average of patches beside a class token, or a norm of that" in message
    assert "(fc_norm), which no network here has" in message


def test_half_of_what_an_mlp_gives():
    flat = timm()
    for layer in (0, 1):
        name = f"blocks.{layer}.mlp.fc2.weight"
        flat[name] = flat[name][:, ::2]
    assert "so that it has a gated MLP" in refused(flat)


def test_a_network_that_is_no_relative_is_chosen():
    """One of timm under the name that CLIP's have in front."""
    flat = prefixed("visual.trunk.", timm()) | {"logit": np.ones((2, 2), np.float32)}
    message = refused(flat)
    assert "CLIP" not in message
    assert "part='visual' takes what stands under that alone" in message


def test_a_refusal_is_short():
    flat = timm()
    for stage in range(4):
        for block in range(6):
            for part in ("conv1", "conv2", "norm1"):
                name = f"patch_embed.backbone.stages.{stage}.blocks.{block}.{part}.w"
                flat[name] = np.zeros(stage + block + 1, np.float32)
    message = refused(flat)
    assert re.search(r"surplus patch_embed.backbone.* and \d+ more", message)
    assert "a hybrid" in message
    shuffled = {k.replace("norm", "n" * 300): a for k, a in timm().items()}
    assert "missing" in refused(shuffled)
    long = {f"{'a' * 500}.{n}": np.zeros(3, np.float32) for n in range(5)}
    assert "its first names are aaa" in refused(long)


def test_a_class_token_without_a_position(tmp_path):
    """FlexiViT's: a zero is added to it, whatever the prefix."""
    flat = timm()
    flat["pos_embed"][:, 0] = 0
    whole, _ = loaded(flat)
    without = {**flat, "pos_embed": flat["pos_embed"][:, 1:]}
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    wanted = logits_of(whole.spec, whole.params, images)
    for source in (without, prefixed("module.", without)):
        message = refused(source)
        assert "pos_embed has 16 rows, which are those of 4 x 4 patches" in message
        network, notes = loaded(source, image_size=32)
        assert network.spec == whole.spec
        close(wanted, logits_of(network.spec, network.params, images))
        assert any("have no position" in note for note in notes)
    wide = {**flat, "pos_embed": np.ones((1, 8, 64), np.float32)}
    network, _ = loaded(wide, image_size=(16, 32))
    assert network.spec.image_size == (16, 32)
    assert not network.params["pos_embed"][:, 0].any()
    assert loaded(flat)[1] == []  # and where it has one, nothing is added or said


# Base models of transformers


def test_base_models_without_their_prefix(tmp_path):
    spec = SPEC.replace(num_classes=0, norm_eps=1e-12)
    memory = next(x for x in vit.LAYOUTS if x.key == "hugging-face-vit-in-memory")
    for entries in (vit.HF_VIT.entries(spec), memory.entries(spec)):
        flat = base.write(params_of(spec), entries)
        bare = {k.removeprefix("vit."): a for k, a in flat.items()}
        network, notes = loaded(bare, norm_eps=1e-12)
        assert (network.spec, notes) == (spec, [])
        equal(network.params, params_of(spec))
        pooler = {"pooler.dense.weight": np.ones((64, 64), np.float32)}
        network, (note,) = loaded({**bare, **pooler})
        equal(network.params, params_of(spec))
        assert "left the pooler" in note
        bare["embeddings.odd"] = bare.pop("layernorm.bias")
        message = refused(bare)
        assert "missing layernorm.bias" in message and "vit." not in message


@pytest.mark.parametrize(
    "layouts, prefix, spec",
    [
        (levit.LAYOUTS, "levit.", specs.LEVITS["levit_128s"]),
        (regnet.LAYOUTS, "regnet.", next(iter(specs.REGNETS.values()))),
    ],
)
def test_base_models_of_other_families(layouts, prefix, spec):
    spec = dataclasses.replace(spec, num_classes=0)
    layout = layouts[-1]
    shapes = base.shapes(layout.entries(spec), networks.abstract_params(spec))
    flat = {k.removeprefix(prefix): np.zeros(s, np.float16) for k, s in shapes.items()}
    file = convert.identify(flat)
    assert file.layout is layout and file.description.net == spec
    assert convert.refusal(file) == ""


# Files that are not what their ending says


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 346293852\n"


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pth", ".bin"])
@pytest.mark.parametrize(
    "start, words",
    [
        (POINTER, "git lfs pull"),
        (b"", "it is empty"),
        (b"\x89HDF\r\n\x1a\n....", "HDF5"),
        (b"<!doctype html>", "a page of the web"),
        (b"\x1f\x8b\x08....", "gzip"),
        (b"\n <!DOCTYPE html>", "a page of the web"),
        (b"\x89PNG\r\n\x1a\n....", "an image (PNG)"),
        (b"BZh91AY&SY..", "compressed with bzip2"),
        (b"\xfd7zXZ\0....", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd......", "compressed with zstd"),
        (b"7z\xbc\xaf'\x1c....", "an archive of 7-Zip"),
        (b"x" * 257 + b"ustar  \0", "a tar archive"),
        (b'{"error": "gone"}', 'its first bytes are \'{"error": "gone"\''),
        (b"Entry not found", "its first bytes are 'Entry not found', with which no"),
        (b"\0" * 1000, "its first bytes are '\\x00\\x00"),
    ],
)
@pytest.mark.parametrize("command", ["convert", "describe"])
def test_files_that_are_something_else(command, start, words, ending, tmp_path, capsys):
    path = tmp_path / f"net{ending}"
    path.write_bytes(start)
    out = [str(tmp_path / "out.safetensors")] if command == "convert" else []
    assert tools.main([command, str(path), *out]) == 2
    err = capsys.readouterr().err
    assert str(path) in err and words in err and err.count("\n") == 1


def test_a_pointer_is_no_network_of_ours(tmp_path):
    (tmp_path / "net.safetensors").write_bytes(POINTER)
    with pytest.raises(UserError, match="git lfs pull"):
        sws_jax.load_network(str(tmp_path / "net.safetensors"))


def test_files_under_other_endings(tmp_path):
    path = put(tmp_path / "good.safetensors", timm())
    with open(path, "rb") as file:
        whole = file.read()
    for ending in (".pth", ".npz", ".bin"):
        (tmp_path / f"net{ending}").write_bytes(whole)
        message = refused(tmp_path / f"net{ending}")
        assert "it is a .safetensors file under another ending" in message
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.npz").read_bytes())
    assert "it is a .npz file under another ending" in refused(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("photo.jpg", "")
    assert "a zip archive without weights" in refused(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", "")
        archive.writestr("a/constants.pkl", "")
    assert "TorchScript" in refused(tmp_path / "a.pth")


@pytest.mark.parametrize("ending", ["", ".weights", ".pkl"])
def test_a_file_of_another_ending_is_told_what_it_is(ending, tmp_path):
    path = tmp_path / f"net{ending}"
    put(path, timm())
    assert "it holds what a .safetensors file does" in refused(path)
    with open(path, "wb") as file:
        np.savez(file, **timm())
    assert "it holds what a .npz file does" in refused(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "it holds what a .pth file does" in refused(path)
    path.write_text("text")
    assert refused(path).endswith(".pth.tar, .ckpt, .th")


def test_an_npz_with_two_arrays_of_one_name(tmp_path):
    path = tmp_path / "net.npz"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)
        for value in (1, 2, 3):
            with archive.open("a.npy", "w") as file:
                np.save(file, np.full(3, value))
    assert "it holds two arrays called a.npy" in refused(path)


def test_a_cut_npz_is_to_be_copied_again(tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, **timm())
    whole = path.read_bytes()
    for content in (whole[:100], whole[:-1], whole[:5000] + b"!" + whole[5001:]):
        path.write_bytes(content)
        message = refused(path)
        assert message.endswith("; if it is cut off or damaged, copy it again")


def _archive(path, *members):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)
        for name, content in members:
            archive.writestr(name, content)


def test_damage_of_an_archive_of_pytorch(tmp_path, monkeypatch):
    """Its checksums, and what it would unpack to, are looked at before it is read."""
    path = tmp_path / "net.pth"
    _archive(path, ("net/data.pkl", b"\x80\x02}."), ("net/data/0", b"numbers"))
    assert contents.damage(str(path)) == ""
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"numbers", b"nombers"))
    damage = contents.damage(str(path))
    assert damage.startswith("net/data/0 in it does not have the checksum")
    assert "copy it again; or, if" in damage and "set_crc32_options(False)" in damage
    _archive(path, ("net/data.pkl", b"."), ("net/data.pkl", b"."))
    assert "two members of one name" in contents.damage(str(path))
    monkeypatch.setattr(contents, "_LARGEST_PICKLE", 100)
    _archive(path, ("net/data.pkl", b"\x80\x02" + b"N" * 200 + b"."))
    assert "unpacks to 203 bytes" in contents.damage(str(path))
    with open(path, "wb") as file:
        file.write(b"\x80\x02}.")
    assert contents.damage(str(path)) == ""


def test_what_a_pickle_wants_is_looked_for_in_a_bounded_part(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    data = b"\x80\x02cposix\nsystem\n" + b"N" * 1000 + b"cposix\nlate\n."
    for write in (lambda: _archive(path, ("a/data.pkl", data)), None):
        write() if write else path.write_bytes(data)
        assert contents.wants(str(path)) == ["posix.system", "posix.late"]
    monkeypatch.setattr(contents, "_LARGEST_PICKLE", 100)
    _archive(path, ("a/data.pkl", data))
    assert contents.wants(str(path)) == ["posix.system"]


@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("protocol", range(6))
def test_the_protocol_of_a_pickle(protocol, archived, tmp_path):
    path, data = tmp_path / "net.pth", pickle.dumps({"a": [1, 2]}, protocol=protocol)
    _archive(path, ("net/data.pkl", data)) if archived else path.write_bytes(data)
    assert contents.protocol(str(path)) == (protocol if protocol > 1 else 0)
    path.write_bytes(b"no pickle")
    assert contents.protocol(str(path)) == 2


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("archived", [True, False])
def test_what_a_pickle_wants_to_run(archived, protocol, tmp_path):
    path = str(tmp_path / "hostile.pth")
    data = pickle.dumps({"a": Hostile(), "b": Hostile()}, protocol=protocol)
    if archived:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", data)
    else:
        with open(path, "wb") as file:
            file.write(data)
    (name,) = contents.wants(path)
    assert name.endswith("builtin__.exec" if protocol < 3 else "builtins.exec")


def test_numbers_are_taken_without_a_word(tmp_path):
    """What is plain warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert.load(put(tmp_path / "net.safetensors", timm()), heads=1)


# With PyTorch


@pytest.mark.slow
def test_checkpoints_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    one, two = timm(1), timm(2)

    def kept(flat, kind=torch.float32):
        return {k: torch.tensor(v).to(kind) for k, v in flat.items()}

    path = str(tmp_path / "net.pth")
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{}]}
    torch.save(
        {"model": kept(one), "model_ema": kept(two), "o": 1, "optimizer": optimizer},
        path,
    )
    network, (note,) = loaded(path)
    equal(network.params, loaded(one)[0].params)
    assert "left model_ema" in note and "--part" in note
    equal(loaded(path, part="model_ema")[0].params, loaded(two)[0].params)
    torch.save({"n_averaged": torch.tensor(3), **prefixed("module.", kept(one))}, path)
    equal(loaded(path)[0].params, loaded(one)[0].params)
    for protocol, number in ((0, "0 or 1"), (4, "4"), (5, "5")):
        for zipped in (True, False):
            torch.save(
                kept(one), path, pickle_protocol=protocol,
                _use_new_zipfile_serialization=zipped,
            )  # fmt: skip
            assert f"saved with pickle_protocol={number}, which is not" in refused(path)
    torch.save({k: t.to("meta") for k, t in kept(one).items()}, path)
    assert f"{path}: pos_embed is on the device meta, where" in refused(path)
    torch.save(kept(one), path, _use_new_zipfile_serialization=False)
    with open(path, "rb") as file:
        whole = file.read()
    for size in (1, 10, 1000, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        assert "copy it again" in refused(tmp_path / "cut.pth")
    torch.save(kept(one), path)
    with open(path, "rb") as file:
        whole = file.read()
    numbers = one["norm.bias"].tobytes()
    assert numbers in whole
    (tmp_path / "cut.pth").write_bytes(whole.replace(numbers, numbers[::-1]))
    assert "does not have the checksum that was written" in refused(
        tmp_path / "cut.pth"
    )
    for ending in (".pth.tar", ".ckpt", ".th", ".TH"):
        (tmp_path / f"net{ending}").write_bytes(whole)
        network = loaded(tmp_path / f"net{ending}")[0]
        equal(network.params, loaded(one)[0].params)
    torch.save(kept(one, torch.float8_e4m3fn), path)
    assert "float8_e4m3fn" in refused(path)
    torch.save(kept(one, torch.complex64), path)
    assert "complex64" in refused(path)
    torch.save([torch.zeros(3)], path)
    assert "holds a builtins.list, and no tensors by name" in refused(path)
    torch.save(torch.nn.Linear(2, 2), path)
    assert "it wants to run or build torch.nn.modules.linear.Linear" in refused(path)
    torch.save({"a": Hostile()}, path)
    assert re.search(r"it wants to run or build \w+\.exec", refused(path))
    torch.save({"a": Hostile()}, path, _use_new_zipfile_serialization=False)
    assert re.search(r"it wants to run or build \w+\.exec", refused(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that files of it remain
        torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    assert "TorchScript" in refused(path)
