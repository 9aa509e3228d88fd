"""Tensors of other programs: which part, names, numbers, relatives."""

import dataclasses
import pickle
import re
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import contents, convert, networks, specs, trees
from sws_jax.convert import base, levit, regnet, tensors, vit
from sws_jax.errors import UserError

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


# What tensors do not show: where it is given, nothing is guessed, and nothing told.
KNOWN = dict(heads=1, norm_eps=1e-6)
UNKNOWN: dict = dict.fromkeys(KNOWN)


def loaded(source, **given):
    """What is read, and what is said of it."""
    notes: list[str] = []
    found, _ = convert.load(source, tell=notes.append, **{**KNOWN, **given})
    return found, notes


def refused(source, **given):
    with pytest.raises(UserError) as caught:
        convert.load(source, tell=lambda note: None, **{**KNOWN, **given})
    message = str(caught.value)
    assert "\n" not in message and len(message) <= 600 + len(str(source))
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
    found, (note,) = loaded(source)
    equal(found.params, loaded(one)[0].params)
    choose = "--part" if form == "file" else "part="
    assert f"took {kept} of" in note and note.endswith(f": choose with {choose}")
    assert other in note
    assert ("optimizer" in note) == (form == "memory")
    found, notes = loaded(source, part=other)
    equal(found.params, loaded(two)[0].params)
    assert notes == []


def test_parts_inside_parts():
    one, two, three = timm(1), timm(2), timm(3)
    source = {"state_dict": {"model": one, "ema": two}, "teacher": three}
    found, (note,) = loaded(source)
    equal(found.params, loaded(one)[0].params)
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
    found, (note,) = loaded(source)
    equal(found.params, loaded(one)[0].params)
    assert (
        f"took model of what is in memory; left {len(two)} tensors at its top" in note
    )
    equal(loaded(source, part=".")[0].params, loaded(two)[0].params)


def test_parts_that_nobody_names():
    """One is taken whatever its name; of several one is asked for."""
    with pytest.raises(UserError, match="several parts, left, right: choose one"):
        tensors._part("x.pth", {"left": timm(1), "right": timm(2)}, "")
    checkpoint = {"left": timm(1), "optimizer": timm(2)}
    top, part, notes = tensors._part("x.pth", checkpoint, "")
    assert part == "left"
    assert (top["norm.bias"] == timm(1)["norm.bias"]).all()
    assert notes == ("took left of x.pth; left optimizer: choose with --part",)
    assert tensors._part("x.pth", {"model": timm(1), "epoch": 3}, "")[2] == ()


def test_the_part_is_said_and_chosen_by_the_command(tmp_path, capsys):
    flat = prefixed("model.", timm(1)) | prefixed("model_ema.", timm(2))
    path, out = put(tmp_path / "net.safetensors", flat), str(tmp_path / "o.safetensors")
    assert tools.main(["convert", path, out]) == 0
    assert "note: took model of" in (said := capsys.readouterr().out)
    assert "left model_ema" in said
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
    found, (note,) = loaded(tmp_path / "run.npz")
    equal(found.params, params_of(spec))
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
    found, (note,) = loaded(source)
    equal(found.params, loaded(flat)[0].params)
    assert note == f"stripped {prefix} from the names of {source}"
    broken = {**prefixed(prefix, flat), f"{prefix}norm.extra": np.zeros(3, np.float32)}
    assert f"surplus {prefix}norm.extra [3]" in refused(put(source, broken))
    message = refused(put(source, {f"{prefix}a.b": np.zeros(3, np.float32)}))
    assert f"its first names are {prefix}a.b" in message


@pytest.mark.parametrize("name", ["n_averaged", "num_updates", "step"])
def test_counters_have_no_prefix(name):
    flat = {name: np.asarray(3), **prefixed("module.", timm())}
    found, (note,) = loaded(flat)
    equal(found.params, loaded(timm())[0].params)
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


def test_a_part_that_is_a_flax_tree():
    spec = SPEC
    tree = trees.to_host(params_of(spec))
    for source, given in (
        ({"params": tree}, {}),
        ({"params": tree, "opt_state": {"m": tree}}, {}),
        ({"params": tree, "ema": timm(2)}, dict(part="params")),
    ):
        equal(loaded(source, **given)[0].params, tree)


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
    found, _ = loaded(put(tmp_path / "net.safetensors", flat))
    kernel = found.params["blocks"]["mlp"]["fc1"]["kernel"]
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
    for source, given in (
        (without, {}),
        (without, dict(image_size=32)),
        (prefixed("module.", without), {}),
    ):
        found, notes = loaded(source, **given)
        assert found.spec == whole.spec
        close(wanted, logits_of(found.spec, found.params, images))
        assert any("have no position" in note for note in notes)
    wide = {**flat, "pos_embed": np.ones((1, 8, 64), np.float32)}
    found, _ = loaded(wide, image_size=(16, 32))
    assert found.spec.image_size == (16, 32)
    assert not found.params["pos_embed"][:, 0].any()
    assert loaded(flat)[1] == []  # and where it has one, nothing is added or said


# Base models of transformers


def test_base_models_without_their_prefix(tmp_path):
    spec = SPEC.replace(num_classes=0, norm_eps=1e-12)
    memory = next(x for x in vit.LAYOUTS if x.key == "hugging-face-vit-in-memory")
    for entries in (vit.HF_VIT.entries(spec), memory.entries(spec)):
        flat = base.write(params_of(spec), entries)
        bare = {k.removeprefix("vit."): a for k, a in flat.items()}
        found, notes = loaded(bare, norm_eps=1e-12)
        assert (found.spec, notes) == (spec, [])
        equal(found.params, params_of(spec))
        pooler = {"pooler.dense.weight": np.ones((64, 64), np.float32)}
        found, (note,) = loaded({**bare, **pooler})
        equal(found.params, params_of(spec))
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
    found = convert.identify(flat)
    assert found.layout is layout and found.description.net == spec
    assert convert.refusal(found) == ""


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
    found, (note,) = loaded(path)
    equal(found.params, loaded(one)[0].params)
    assert "left model_ema" in note and "--part" in note
    equal(loaded(path, part="model_ema")[0].params, loaded(two)[0].params)
    torch.save({"n_averaged": torch.tensor(3), **prefixed("module.", kept(one))}, path)
    equal(loaded(path)[0].params, loaded(one)[0].params)
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
