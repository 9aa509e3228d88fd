"""timm's ``config.json``: what it says of weights, and what timm needs for ours."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from typing import Any

from sws_jax.convert import keys, labels
from sws_jax.convert.base import Layout, View
from sws_jax.convert.keys import Beside, Key, refused
from sws_jax.data.base import INTERPOLATIONS, default_normalization
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.specs import LeViTSpec, RegNetSpec, ViTSpec

Plain = ViTSpec | LeViTSpec | RegNetSpec
# What the names of timm's networks imply; written by tests/support/timm_names.py.
NAMES = os.path.join(os.path.dirname(__file__), "timm_names.json")
# Where timm normalises after pooling unless it is told otherwise.
AFTER = ("avg", "avgmax", "max")
# What holds in each family where neither a name nor an argument says otherwise, in the
# words of timm's own arguments; `norm_eps`, `widths` and `depths` are of the table of
# names alone.
USUAL: dict[str, dict[str, Any]] = {
    "vit": dict(
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_heads=12,
        mlp_ratio=4.0,
        global_pool="token",
        class_token=True,
        reg_tokens=0,
        no_embed_class=False,
        pool_include_prefix=False,
        pre_norm=False,
        final_norm=True,
        dynamic_img_size=False,
        embed_layer="PatchEmbed",
        pos_embed="learn",
        block_fn="Block",
        norm_layer="LayerNorm",
        norm_eps=1e-6,
        attn_layer="Attention",
        qk_norm=False,
        scale_attn_norm=False,
        scale_mlp_norm=False,
        init_values=None,
        qkv_bias=True,
        proj_bias=True,
        mlp_layer="Mlp",
        act_layer="gelu",
    ),
    "levit": dict(
        act_layer="hard_swish", stem_type="s16", use_conv=False, global_pool="avg"
    ),
    "regnet": dict(
        act_layer="relu",
        preact=False,
        linear_out=False,
        num_features=0,
        downsample="conv1x1",
        global_pool="avg",
    ),
}
_SHOWN = "the tensors show it"
_LAYER_NORMS = ("LayerNorm", "layernorm", "LayerNormFp32", "layernormfp32")


def _rates(*names: str) -> tuple[Key, ...]:
    return tuple(Key(name, "of training alone") for name in names)


def _input(value: Any) -> tuple[int, int, int]:
    """Channels, height and width."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("channels, height and width")
    channels, high, wide = map(keys.whole(), value)
    return channels, high, wide


def _interpolation(value: Any) -> str:
    if value == "random":  # which is of training
        return "bicubic"
    if value not in INTERPOLATIONS:
        raise ValueError(f"one of {', '.join(INTERPOLATIONS)}")
    return value


def _crop_mode(value: Any) -> str:
    if value not in ("center", "squash"):
        raise ValueError(
            "center or squash: borders are not put around images here, so choose one "
            "of those and see whether accuracy holds"
        )
    return value


_COMMON = (
    Key("in_chans", "must be the channels of the tensors", keys.whole()),
    Key("num_classes", "must be the classes of the tensors' head", keys.whole(0)),
    *_rates("drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"),
    Key("pretrained_strict", "how timm loads what it downloads"),
    Key("device", "where timm makes it"),
    Key("dtype", "the tensors show it"),
    refused("features_only", "gives the features of several blocks", False),
)
ARGUMENTS: dict[str, tuple[Key, ...]] = {
    "vit": (
        Key("img_size", "height and width that its positions are for", keys.sides),
        Key("patch_size", "must be that of the tensors", keys.square),
        Key("embed_dim", "must be the width of the tensors", keys.whole()),
        Key("depth", "must be the blocks of the tensors", keys.whole()),
        Key("num_heads", "the attention heads", keys.whole()),
        Key("mlp_ratio", "must give the hidden units of the tensors", keys.number),
        Key("act_layer", "gelu, or gelu_tanh; others are refused", keys.gelu),
        Key(
            "global_pool",
            "token with a class token, avg without one; others are refused",
            keys.text,
        ),
        Key("class_token", "must be what the tensors have", keys.truth),
        Key("fc_norm", "must be what the tensors have, as fc_norm or norm", keys.truth),
        *_COMMON,
        refused("pool_include_prefix", "averages prefix tokens too", False),
        refused("pre_norm", "normalises before the blocks", False),
        refused("final_norm", "leaves the last norm out", True),
        refused("qk_norm", "normalises queries and keys", False),
        refused("scale_attn_norm", "normalises within attention", False),
        refused("scale_mlp_norm", "normalises within MLPs", False),
        refused("qkv_bias", "leaves biases of attention out", True),
        refused("proj_bias", "leaves biases out", True),
        refused("pos_embed", "leaves positions out", "learn"),
        refused("norm_layer", "is another norm", *_LAYER_NORMS),
        refused("embed_norm_layer", "normalises patches"),
        refused("embed_layer", "embeds patches in another way", "PatchEmbed"),
        refused("block_fn", "has blocks of another kind", "Block"),
        refused("attn_layer", "has attention of another kind", "Attention", "attn"),
        refused("mlp_layer", "has MLPs of another kind", "Mlp", "mlp"),
        refused("use_naflex", "takes images of any shape", False),
        Key("init_values", "layer scale, which the tensors show"),
        refused("reg_tokens", "has more registers than one", 0, 1),
        Key("no_embed_class", "which tokens have positions, which the tensors show"),
        Key("dynamic_img_size", "images are of one size here"),
        Key("dynamic_img_pad", "no image here needs a border to divide into patches"),
        Key("strict_img_size", "images are of one size here"),
        *_rates(
            "pos_drop_rate",
            "patch_drop_rate",
            "proj_drop_rate",
            "attn_drop_rate",
            "weight_init",
            "fix_init",
        ),
    ),
    "levit": (
        Key("img_size", "must be that of the tensors", keys.sides),
        Key("embed_dim", "must be the widths of the tensors", keys.wholes),
        Key("depth", "must be the blocks of the tensors", keys.wholes),
        Key("num_heads", "must be the heads of the tensors", keys.wholes),
        *_COMMON,
        refused("act_layer", "is another activation", "hard_swish"),
        refused("attn_act_layer", "is another activation", "hard_swish"),
        refused("stem_type", "is another stem", "s16"),
        refused("stem_backbone", "is another stem"),
        refused("stem_stride", "is another stem", 16),
        refused("down_op", "halves stages in another way", "subsample"),
        refused("global_pool", "leaves the mean over patches out", "avg"),
        Key("key_dim", _SHOWN),
        Key("attn_ratio", _SHOWN),
        Key("mlp_ratio", _SHOWN),
        Key("use_conv", _SHOWN),
        Key("distilled", _SHOWN),
    ),
    "regnet": (
        *_COMMON,
        refused("act_layer", "is another activation", "relu"),
        refused("norm_layer", "is another norm", "batchnorm"),
        refused("preact", "normalises before convolutions", False),
        refused("linear_out", "leaves activations after blocks out", False),
        refused("num_features", "has a further convolution", 0),
        refused("downsample", "has other shortcuts", "conv1x1"),
        refused("output_stride", "keeps more pixels", 32),
        refused("global_pool", "is another pooling", "avg"),
        refused("bottle_ratio", "has bottlenecks", 1, 1.0),
        *(
            Key(name, _SHOWN)
            for name in ("depth", "w0", "wa", "wm", "group_size", "group_min_ratio")
        ),
        Key("se_ratio", _SHOWN),
        Key("stem_width", _SHOWN),
    ),
}
_FOUND = "where timm finds weights"
_TEXTS = "for people"
PRETRAINED = (
    Key("input_size", "channels, height and width of the images", _input),
    Key("fixed_input_size", "images are of one size here"),
    Key("mean", "of pixels from 0 to 1, a number a channel", keys.numbers),
    Key("std", "likewise", keys.numbers),
    Key("crop_pct", "share of the shorter side", keys.within_unit),
    Key("crop_mode", "center or squash; border is refused", _crop_mode),
    Key("interpolation", f"{', '.join(INTERPOLATIONS)}; others are refused; random is "
        f"of training, and bicubic here", _interpolation),
    Key("num_classes", "must be the classes of the head, unless it stands above, as "
        "for timm", keys.whole(0)),
    Key("label_names", "names of the classes, unless they stand above", labels.listed),
    Key("labels", "as label_names", labels.listed),
    Key("architecture", "unless it stands above", keys.text),
    Key("label_descriptions", _TEXTS),
    Key("label_offset", "the tensors show the classes"),
    *(
        Key(name, "timm's own evaluation takes it when asked to (--use-test-size)")
        for name in ("test_input_size", "test_crop_pct")
    ),
    *(
        Key(name, "of loading weights for another task")
        for name in ("pool_size", "test_pool_size", "min_input_size", "first_conv",
                     "classifier", "custom_load")
    ),
    *(
        Key(name, _FOUND)
        for name in ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "tag",
                     "state_dict")
    ),
    *(
        Key(name, _TEXTS)
        for name in ("license", "description", "origin_url", "paper_name",
                     "paper_ids", "notes")
    ),
)  # fmt: skip
TOP = (
    Key("architecture", "the network, and what its name implies (timm_names.json) "
        "where model_args does not say otherwise", keys.text),
    Key("model_args", "as below", keys.object_of),
    Key("pretrained_cfg", "as below; without it, its keys may stand here",
        keys.object_of),
    Key("num_classes", "must be the classes of the tensors' head", keys.whole(0)),
    Key("global_pool", "must be how the network pools", keys.text),
    Key("label_names", "names of the classes", labels.listed),
    Key("labels", "as label_names", labels.listed),
    Key("label_descriptions", _TEXTS),
    Key("num_features", _SHOWN),
    Key("license", _TEXTS),
    Key("tags", _TEXTS),
)  # fmt: skip


def config_of(about: Description, spec: ViTSpec) -> dict[str, Any]:
    """``config.json`` of a folder that ``timm.create_model("local-dir:...")`` loads.

    Raises:
      UserError: timm has no such network.
    """
    if spec.norm_eps != 1e-6:
        raise UserError(
            f"timm's ViTs have LayerNorms of epsilon 1e-6, and this one has "
            f"{spec.norm_eps:g}: it would compute something else"
        )
    two_heads = spec.distilled and spec.dist_head
    kind = "deit_tiny_distilled" if two_heads else "vit_tiny"
    arguments: dict[str, Any] = dict(
        img_size=list(spec.image_size),
        patch_size=spec.patch_size,
        in_chans=spec.channels,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=spec.mlp_ratio,
    )
    if spec.gelu == "tanh":
        arguments["act_layer"] = "gelu_tanh"
    if spec.distilled and not two_heads:
        arguments["reg_tokens"] = 1  # a token that no head reads
    if spec.pool == "mean":
        after = spec.pool_order == "mean_norm"
        arguments |= dict(class_token=False, global_pool="avg", fc_norm=after)
    return {
        "architecture": f"{kind}_patch16_224",
        "num_classes": spec.num_classes,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [spec.channels, *spec.image_size],
            "mean": list(about.normalization.mean),
            "std": list(about.normalization.std),
            "crop_pct": about.eval_crop,
            # (timm knows one centre.)
            "crop_mode": about.crop_mode.removesuffix("_down"),
            "interpolation": about.interpolation,
            "num_classes": spec.num_classes,
            "label_names": list(about.class_names) or None,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if two_heads else "head",
        },
    }


@functools.cache
def names() -> dict[str, dict[str, Any]]:
    """What the names of timm's networks imply, by name, and timm's version as timm."""
    with open(NAMES) as file:
        return json.load(file)


def read(path: str, config: Mapping[str, Any], layout: Layout, spec: Plain) -> Beside:
    """What a ``config.json`` of timm says of tensors.

    Args:
      path: of the file, for messages.
      config: what it holds.
      layout: of the tensors; its view holds where the file says nothing.
      spec: that the tensors show.

    Raises:
      UserError: it is of another network, or of one that is none of those here.
    """
    flat = "pretrained_cfg" not in config
    table = (*TOP, *(row for row in PRETRAINED if flat and row.name not in _AT_TOP))
    top, notes = keys.taken(path, table, config)
    below: dict[str, Any] = top
    more: tuple[str, ...] = ()
    if not flat:
        below, more = keys.taken(
            path, PRETRAINED, top["pretrained_cfg"], within="pretrained_cfg."
        )
    given = top.get("model_args", {})
    given = {name: value for name, value in given.items() if value is not None}
    named = top.get("architecture", below.get("architecture", "")).split(".")[0]
    family, row = _family(spec), dict(names().get(named, {}))
    if row and row.pop("family") != family:
        keys.agree(path, [("architecture", named, layout.name)])
    usual = USUAL[family]
    said, also = keys.taken(path, ARGUMENTS[family], given, within="model_args.")
    implied = {name: v for name, v in row.items() if name not in given}
    shown = {name: implied.pop(name) for name in _NO_ARGUMENTS if name in implied}
    meant = f"architecture is {named!r}, whose "
    by_name, _ = keys.taken(path, ARGUMENTS[family], implied, within=meant)
    by_name |= shown
    notes = (*notes, *more, *also)
    if not row:
        notes += (_unknown(path, named, family),)
    pool = top.get("global_pool")
    whole = {**usual, **row, **given}
    if pool is not None and pool != whole["global_pool"]:
        raise UserError(
            f"{path}: global_pool is {pool!r}, and by its other keys the network pools "
            f"by {whole['global_pool']!r}: say which in model_args"
        )
    classes = "num_classes"
    pairs = [(classes, top.get(classes)), (f"model_args.{classes}", said.get(classes))]
    if classes not in top:
        pairs.append((f"pretrained_cfg.{classes}", below.get(classes)))
    pairs.append(("model_args.in_chans", said.get("in_chans")))
    if "in_chans" not in said and "input_size" in below:
        pairs.append(("the first of pretrained_cfg.input_size", below["input_size"][0]))
    keys.agree(
        path,
        [
            (key, value, spec.num_classes if classes in key else spec.channels)
            for key, value in pairs
            if value is not None
        ],
    )
    fields = {}
    if isinstance(spec, ViTSpec):
        fields = _vit(path, spec, said, by_name, whole, named if row else "")
    keys.agree(
        path, [(f"model_args.{k}", *pair) for k, pair in _sizes(spec, said).items()]
    )
    other = {}
    if row:
        other = _sizes(spec, {**usual, **by_name})
        other = {k: v for k, v in other.items() if k not in said and v[0] != v[1]}
    if not set(said) & _SIZING:
        whose = f" of its architecture {named!r}"
        keys.agree(path, [(k + whose, *pair) for k, pair in other.items()])
    elif other:
        sizes = ", ".join(f"{k} {v[0]} (here {v[1]})" for k, v in other.items())
        notes += (f"{path}: its architecture {named!r} has {sizes}, and tensors hold",)
    key, given_names = next(
        ((k, d[k]) for d in (top, below) for k in _LABELS if k in d), ("", ())
    )
    named_classes, left = labels.counted(path, key, given_names, spec.num_classes)
    notes += left
    usual_look: Any = layout.view
    if len(usual_look.mean) != spec.channels:
        usual_look = default_normalization(spec.channels)
    return Beside(
        View(
            mean=below.get("mean", usual_look.mean),
            std=below.get("std", usual_look.std),
            crop=below.get("crop_pct", layout.view.crop),
            interpolation=below.get("interpolation", layout.view.interpolation),
            crop_mode=below.get("crop_mode", "center"),
        ),
        fields,
        named_classes,
        _size(path, said, by_name, below, family),
        notes=notes,
    )


_LABELS = ("label_names", "labels")
_AT_TOP = {row.name for row in TOP}
# What is in the table of names and no argument of timm's.
_NO_ARGUMENTS = ("norm_eps", "widths", "depths")
# Arguments without which a network is as large as its name says.
_SIZING = {"embed_dim", "depth", "num_heads", "w0"}


def _family(spec: Plain) -> str:
    if isinstance(spec, RegNetSpec):
        return "regnet"
    return "vit" if isinstance(spec, ViTSpec) else "levit"


def _unknown(path: str, named: str, family: str) -> str:
    """Of an architecture that is in no table."""
    what = {"vit": "exact GELU, epsilon 1e-06", "levit": "hard swish", "regnet": "ReLU"}
    return (
        f"{path}: architecture {named!r} is no name known here (of timm "
        f"{names()['timm']}), so what it says nothing of is taken as usual: "
        f"{what[family]}"
    )


def _vit(path, spec: ViTSpec, said, by_name, whole, named: str) -> dict[str, Any]:
    """Fields of a ViT, whose tokens are read as its tensors do."""
    token = spec.pool == "token"
    pool, where = whole["global_pool"], "model_args.global_pool"
    if "global_pool" not in said:
        where = f"global_pool of its architecture {named!r}" if named else "global_pool"
    if "class_token" in said:
        keys.agree(path, [("model_args.class_token", said["class_token"], token)])
    elif named and bool(whole["class_token"]) != token:
        where = f"class_token of its architecture {named!r}"
        keys.agree(path, [(where, whole["class_token"], token)])
    if pool != ("token" if token else "avg"):
        kind = "with a class token" if token else "without a class token"
        raise UserError(
            f"{path}: {where} is {pool!r}, and networks here {kind} "
            f"{'read it' if token else 'average their patches'}: it would be another "
            f"function, so it cannot be converted"
        )
    after = whole.get("fc_norm")
    after = pool in AFTER if after is None else after
    if after != (spec.pool_order == "mean_norm"):
        raise UserError(
            f"{path}: fc_norm is {after}, and the tensors have "
            f"{'norm' if after else 'fc_norm'}: put their own config there, or move "
            f"this one away"
        )
    # (An activation has been parsed where it was read, and the usual one has not.)
    gelu = {**{"act_layer": "exact"}, **by_name, **said}["act_layer"]
    fields = {"norm_eps": whole["norm_eps"], "gelu": gelu}
    if named or "num_heads" in said:
        fields["heads"] = whole["num_heads"]
    return fields


def _sizes(spec: Plain, said: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is said of sizes, by name, each with what the tensors have."""
    said = dict(said)
    if isinstance(spec, ViTSpec):
        seen: dict[str, Any] = {
            "embed_dim": spec.width,
            "depth": spec.depth,
            "patch_size": spec.patch_size,
        }
        if "mlp_ratio" in said:
            ratio = said["mlp_ratio"]
            seen["mlp_ratio"] = spec.mlp_ratio
            if int(spec.width * ratio) == spec.hidden:  # which is how it is rounded
                said["mlp_ratio"] = spec.mlp_ratio
    elif isinstance(spec, RegNetSpec):
        seen = {"widths": list(spec.widths), "depths": list(spec.depths)}
    else:
        seen = {
            "embed_dim": spec.widths,
            "depth": spec.depths,
            "num_heads": spec.heads,
        }
    return {k: (said[k], value) for k, value in seen.items() if k in said}


def _size(
    path: str, said, by_name, below, family: str
) -> tuple[str, tuple[int, int]] | None:
    """Height and width of the images, with the key that says it."""
    images = below["input_size"][1:] if "input_size" in below else None
    if "img_size" in said:
        size = said["img_size"]
        if images and images != size:
            raise UserError(
                f"{path}: pretrained_cfg.input_size has images of {images[0]} x "
                f"{images[1]} pixels and model_args.img_size {size[0]} x {size[1]}: "
                f"make them the same (its positions are for one size)"
            )
        return "model_args.img_size", size
    if images:
        return "pretrained_cfg.input_size", images
    if family != "regnet" and "img_size" in by_name:
        return "", by_name["img_size"]
    return None
