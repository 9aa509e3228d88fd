"""timm's ``config.json``: what it says of weights, and what timm needs for ours."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from sws_jax.convert import keys, labels, vit
from sws_jax.convert.base import Layout, Plain, View
from sws_jax.convert.keys import Beside, Key, refused, shown
from sws_jax.errors import UserError
from sws_jax.models.description import Description
from sws_jax.pixels import INTERPOLATIONS
from sws_jax.specs import LeViTSpec, RegNetSpec, ViTSpec
from sws_jax.specs import levit as specs_levit
from sws_jax.specs import regnet as specs_regnet
from sws_jax.specs.base import MAX_DEPTH

# What the names of timm's networks imply; written by tests/support/timm_names.py.
NAMES = os.path.join(os.path.dirname(__file__), "timm_names.json")
# Where timm normalises after pooling unless it is told otherwise.
AFTER = ("avg", "avgmax", "max")
# What holds in each family where neither a name nor an argument says otherwise, in the
# words of timm's own arguments; what is none of those is of the table of names alone.
USUAL: dict[str, dict[str, Any]] = {
    "vit": dict(
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_heads=12,
        mlp_ratio=4.0,
        distilled=False,
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
        act_layer="hard_swish",
        stem_type="s16",
        use_conv=False,
        global_pool="avg",
        key_dim=32,
        attn_ratio=2.0,
        mlp_ratio=2.0,
        distilled=True,
    ),
    "regnet": dict(
        group_min_ratio=0.0,
        bottle_ratio=1.0,
        se_ratio=0.25,
        stem_width=32,
        act_layer="relu",
        preact=False,
        linear_out=False,
        num_features=0,
        downsample="conv1x1",
        global_pool="avg",
    ),
}
_SHOWN = "the tensors show it"
# timm's spellings of the GELUs that are here.
_GELUS = {"": "exact", "gelu": "exact", "gelu_tanh": "tanh"}
# Tensors of layer scale.
_SCALES = re.compile(r"(^|\.)(ls\d\.gamma|gamma_\d)$")
# What of a name shows in tensors.
_OTHER_TENSORS = {"stem_type", "mlp_layer", "block_fn", "attn_layer", "embed_layer",
                  "pre_norm", "qkv_bias", "preact", "linear_out"}  # fmt: skip
# Arguments for which null is a value of timm's own: what holds where no name is.
_NULLS = (
    "act_layer",
    "attn_act_layer",
    "embed_norm_layer",
    "fc_norm",
    "init_values",
    "norm_layer",
)
# From which the widths and depths of a RegNet follow.
_QUANTISED = ("w0", "wa", "wm", "depth", "group_size")


def _lower(value: Any) -> Any:
    """A name as timm looks activations and poolings up."""
    return value.lower() if isinstance(value, str) else value


def _norm(value: Any) -> Any:
    """A name as timm looks norms up."""
    return _lower(value).replace("_", "") if isinstance(value, str) else value


def _gelu(value: Any) -> str:
    """Of the MLPs, as `ViTSpec` has it."""
    name = _lower(keys.text(value))
    if name not in _GELUS:
        raise UserError(
            f"the activation {keys.shown(value)} is not one of "
            f"{', '.join(filter(None, _GELUS))}, which are those of the networks here"
        )
    return _GELUS[name]


def _scale(value: Any) -> float:
    """What layer scale starts from; 0 is none."""
    return float(value) if isinstance(value, bool) else keys.number(value)


def _rates(*names: str) -> tuple[Key, ...]:
    return tuple(Key(name, "of training alone") for name in names)


def _input(value: Any) -> tuple[int, int, int]:
    """Channels, height and width."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("channels, height and width")
    channels, high, wide = map(keys.whole(), value)
    return channels, high, wide


def _one_ratio(value: Any) -> float:
    """One number, or the same for each stage."""
    ratios = value if isinstance(value, list) and value else [value]
    if len(set(map(keys.ratio, ratios))) > 1:
        raise ValueError("one number, as networks here have one for all stages")
    return keys.ratio(ratios[0])


def _spread(value: Any) -> tuple[float, ...]:
    """Deviations of pixels."""
    found = keys.numbers(value)
    if not all(number > 0 for number in found):
        raise ValueError("above 0")
    return found


def _interpolation(value: Any) -> str:
    if keys.text(value) not in INTERPOLATIONS:
        raise ValueError(f"one of {', '.join(INTERPOLATIONS)}")
    return value


def _blocks(value: Any) -> int:
    """Blocks of all stages."""
    if keys.whole()(value) > MAX_DEPTH:
        raise ValueError(f"at most {MAX_DEPTH}")
    return int(value)


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
    Key("dtype", _SHOWN),
    refused("features_only", "gives the features of several blocks", False),
)
ARGUMENTS: dict[str, tuple[Key, ...]] = {
    "vit": (
        Key("img_size", "height and width that its positions are for", keys.sides),
        Key("patch_size", "must be that of the tensors", keys.square),
        Key("embed_dim", "must be the width of the tensors", keys.whole()),
        Key("depth", "must be the blocks of the tensors", keys.whole()),
        Key("num_heads", "the attention heads", keys.whole()),
        Key("mlp_ratio", "must give the hidden units of the tensors", keys.ratio),
        Key("act_layer", "gelu, or gelu_tanh; others are refused", _gelu),
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
        refused(
            "norm_layer", "is another norm", "layernorm", "layernormfp32", "",
            read=_norm,
        ),
        refused("embed_norm_layer", "normalises patches"),
        refused("embed_layer", "embeds patches in another way", "PatchEmbed"),
        refused("block_fn", "has blocks of another kind", "Block"),
        refused(
            "attn_layer", "has attention of another kind", "Attention", "attn", ""
        ),
        refused("mlp_layer", "has MLPs of another kind", "Mlp", "mlp"),
        refused("use_naflex", "takes images of any shape", False),
        Key("init_values", "layer scale, which must be what the tensors have", _scale),
        Key(
            "reg_tokens",
            "must be what the tensors have; more than one are refused",
            keys.whole(0),
        ),
        Key("no_embed_class", "must be what the tensors' positions are", keys.truth),
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
        Key(
            "num_heads",
            "must be the heads of the tensors",
            keys.one_or_each(keys.whole()),
        ),
        *_COMMON,
        refused(
            "act_layer", "is another activation", "hard_swish", "hardswish", read=_lower
        ),
        refused(
            "attn_act_layer", "is another activation", "hard_swish", "hardswish", "",
            read=_lower,
        ),
        refused("stem_type", "is another stem", "s16"),
        refused("stem_backbone", "is another stem"),
        refused("stem_stride", "is another stem", 16),
        Key(
            "down_op",
            "timm has one way, whatever it says, unless it is empty: that is refused",
            fine=bool,
        ),
        refused("global_pool", "leaves the mean over patches out", "avg"),
        Key("key_dim", "must be the key sizes of the tensors", keys.whole()),
        Key(
            "attn_ratio",
            "must give the value sizes of the tensors",
            keys.one_or_each(keys.ratio),
        ),
        Key(
            "mlp_ratio",
            "must give the hidden units of the tensors; one of all stages",
            _one_ratio,
        ),
        Key("use_conv", "must be what the tensors are", keys.truth),
        Key("distilled", "must be the heads of the tensors", keys.truth),
    ),
    "regnet": (
        *_COMMON,
        refused("act_layer", "is another activation", "relu", read=_lower),
        refused(
            "norm_layer", "is another norm", "batchnorm", "batchnorm2d", read=_norm
        ),
        refused("preact", "normalises before convolutions", False),
        refused("linear_out", "leaves activations after blocks out", False),
        refused("num_features", "has a further convolution", 0),
        refused("downsample", "has other shortcuts", "conv1x1"),
        refused("output_stride", "keeps more pixels", 32),
        refused(
            "global_pool", "is another pooling", "avg", "fast", "fastavg", read=_lower
        ),
        refused("bottle_ratio", "has bottlenecks", 1),
        Key("depth", "must give, with the next four, the widths and depths of the "
            "tensors", _blocks),
        Key("w0", "likewise", keys.whole()),
        Key("wa", "likewise", keys.number),
        Key("wm", "likewise", keys.number),
        Key("group_size", "likewise, and must give their groups", keys.whole()),
        Key("group_min_ratio", _SHOWN, keys.number),
        Key("se_ratio", "must give the squeezed widths of the tensors", keys.number),
        Key("stem_width", "must be that of the tensors", keys.whole()),
    ),
}  # fmt: skip
_FOUND = "where timm finds weights"
_TEXTS = "for people"
PRETRAINED = (
    Key("input_size", "channels, height and width of the images", _input),
    Key("fixed_input_size", "images are of one size here"),
    Key("mean", "of pixels from 0 to 1, a number a channel", keys.numbers),
    Key("std", "likewise, above 0", _spread),
    Key("crop_pct", "share of the shorter side", keys.within_unit),
    Key("crop_mode", "center or squash; border is refused", _crop_mode),
    Key("interpolation", f"{', '.join(INTERPOLATIONS)}; others are refused",
        _interpolation),
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
    Key("num_features", "must be the width of what the tensors' head reads",
        keys.whole()),
    Key("license", _TEXTS),
    Key("tags", _TEXTS),
    Key("model_type", "timm_wrapper where transformers wrote it; other networks' are "
        "told", keys.text),
    *keys.idle("of transformers, around timm's network", "architectures", "torch_dtype",
           "dtype", "transformers_version", "do_pooling", "initializer_range",
           "problem_type", "_name_or_path", "name_or_path", "return_dict",
           "output_attentions", "output_hidden_states", "chunk_size_feed_forward",
           "is_encoder_decoder"),
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
def _table() -> dict[str, Any]:
    with open(NAMES) as file:
        return json.load(file)


def names() -> dict[str, dict[str, Any]]:
    """What the names of timm's networks imply, by name."""
    return _table()["names"]


def others() -> dict[str, list[str]]:
    """Names of timm's networks of other families, by its module of them."""
    return _table()["others"]


def version() -> str:
    """Of the timm whose names these are."""
    return _table()["timm"]


def unusual(spec: Plain) -> tuple[list[str], str]:
    """The names of timm's networks of these sizes, where none computes what is usual.

    Returns:
      The names, and their activation; both empty where one is usual or none is of
      these sizes.
    """
    family = _family(spec)
    usual, found = USUAL[family], {}
    sizing = {k: usual[k] for k in ("patch_size", "mlp_ratio") if family == "vit"}
    for name, row in names().items():
        if row["family"] != family or not _OTHER_TENSORS.isdisjoint(row):
            continue
        token = row.get("class_token", True)
        if isinstance(spec, ViTSpec) and token != (spec.pool == "token"):
            continue
        sizes = _sizes(spec, {**sizing, **row}, ())
        if sizes and all(said == seen for said, seen in sizes.values()):
            found[name] = row.get("act_layer", usual["act_layer"])
    if not found or usual["act_layer"] in found.values():
        return [], ""
    return list(found), next(iter(found.values()))


def read(
    path: str,
    config: Mapping[str, Any],
    layout: Layout,
    spec: Plain,
    tensors: Sequence[str] = (),
) -> Beside:
    """What a ``config.json`` of timm says of tensors.

    Args:
      path: of the file, for messages.
      config: what it holds.
      layout: of the tensors; its view holds where the file says nothing.
      spec: that the tensors show.
      tensors: their names, which show what no spec does.

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
    written = top.get("model_args", {})
    given = {name: value for name, value in written.items() if value is not None}
    named = top.get("architecture", below.get("architecture", "")).split(".")[0]
    family = _family(spec)
    row = _implied(path, named, family, layout)
    usual = USUAL[family]
    said, also = keys.taken(path, ARGUMENTS[family], given, within="model_args.")
    if "norm_layer" in written:
        row.pop("norm_eps", None)  # which comes with the norm of a name
    implied = {
        name: value
        for name, value in row.items()
        if name not in given and not (name in written and name in _NULLS)
    }
    arguments = {key.name for key in ARGUMENTS[family]}
    outside = {name: implied.pop(name) for name in set(implied) - arguments}
    meant = f"architecture is {shown(named)}, whose "
    by_name, _ = keys.taken(path, ARGUMENTS[family], implied, within=meant)
    by_name |= outside
    notes = (*notes, *more, *also)
    if not row:
        notes += (_unknown(path, named, family),)
    wrapper = top.get("model_type", "timm_wrapper")
    if wrapper != "timm_wrapper":
        notes += (
            f"{path}: model_type is {shown(wrapper)}, and architecture is there too: "
            f"the file is taken as timm's",
        )

    def where(key: str) -> str:
        made = [name for name in _QUANTISED if name in said]
        if key in ("widths", "depths") and made:
            return f"{key} (which follow from model_args.{made[0]} and such)"
        if key == "global_pool" and whole[key] == pool and not row:
            return key if key not in written else f"model_args.{key}"
        if key in written or not row:
            return f"model_args.{key}"
        return f"{key} of its architecture {shown(named)}"

    whole = {**usual, **implied, **given, **outside}
    if (pool := top.get("global_pool")) is not None:
        if not row and "global_pool" not in given:
            keys.taken(path, ARGUMENTS[family], {"global_pool": pool})
            whole["global_pool"] = pool  # which nothing else says
        if _pooling(pool) != _pooling(whole["global_pool"]):
            raise UserError(
                f"{path}: global_pool is {shown(pool)}, and by its other keys the "
                f"network pools by {shown(whole['global_pool'])}: say which in "
                f"model_args"
            )
    _check_counts(path, top, said, below, spec)
    fields = {}
    known = {**by_name, **said}
    if isinstance(spec, ViTSpec):
        fields = _vit(path, spec, known, whole, where, row)
    if layout.name.startswith("timm"):
        if row:  # of which what nothing is said of is usual
            parsed = {**usual, "init_values": 0.0, **by_name, **said}
        else:
            parsed = dict(known)
        if "init_values" in written and not written["init_values"]:
            parsed["init_values"] = 0.0
        _check_registers(path, parsed.get("reg_tokens", 0), tensors, where)
        has = _has(layout, spec, parsed, tensors)
        keys.agree(path, [(where(k), *pair) for k, pair in has.items()])
    sizes = (
        _sizes(spec, known, said)
        if not row
        else _sizes(
            spec, {**{k: usual[k] for k in _SIZES if k in usual}, **known}, said
        )
    )
    differ = {k: v for k, v in sizes.items() if k not in said and v[0] != v[1]}
    if isinstance(spec, ViTSpec) and differ and _has_heads(spec, said):
        # Its heads are said, and all else is seen.
        sizes = {k: v for k, v in sizes.items() if k not in differ}
        text = ", ".join(f"{k} {v[0]} (the tensors {v[1]})" for k, v in differ.items())
        notes += (
            f"{path}: its architecture {shown(named)} has {text}, and sizes are those "
            f"of the tensors",
        )
    keys.agree(path, [(where(k), *pair) for k, pair in sizes.items()])
    named_classes, left = _class_names(path, top, below, spec.num_classes)
    notes += left
    view = layout.view.of_channels(spec.channels)
    alone = None
    if family == "vit" and ("no_embed_class" in said or row):
        alone = where("no_embed_class"), known.get("no_embed_class", False)
    return Beside(
        View(
            mean=below.get("mean", view.mean),
            std=below.get("std", view.std),
            crop=below.get("crop_pct", view.crop),
            interpolation=below.get("interpolation", view.interpolation),
            crop_mode=below.get("crop_mode", "center"),
        ),
        fields,
        named_classes,
        _size(path, said, by_name, below, family),
        notes=notes,
        alone=alone,
    )


def _class_names(
    path: str, top: Mapping[str, Any], below: Mapping[str, Any], classes: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes, of which all keys must say the same, and notes."""
    within = "" if below is top else "pretrained_cfg."
    said = {key: top[key] for key in _LABELS if key in top}
    said |= {within + key: below[key] for key in _LABELS if key in below}
    for key, names in said.items():
        first = next(iter(said))
        if names != said[first]:
            raise UserError(
                f"{path}: {first} and {key} name the classes in two ways: take one of "
                f"them out"
            )
    key, names = next(iter(said.items()), ("", ()))
    return labels.counted(path, key, names, classes)


_LABELS = ("label_names", "labels")
_AT_TOP = {row.name for row in TOP}
# Usual values that are sizes.
_SIZES = ("patch_size", "mlp_ratio", "key_dim", "attn_ratio", "se_ratio", "stem_width")


def _family(spec: Plain) -> str:
    if isinstance(spec, RegNetSpec):
        return "regnet"
    return "vit" if isinstance(spec, ViTSpec) else "levit"


def _implied(path: str, named: str, family: str, layout: Layout) -> dict[str, Any]:
    """What a name implies; empty where it is no name of timm's.

    Raises:
      UserError: it is of another family.
    """
    row = dict(names().get(named, {}))
    if row and row.pop("family") != family:
        keys.agree(path, [("architecture", named, layout.name)])
    module = next((m for m, known in others().items() if named in known), "")
    if module:
        raise UserError(
            f"{path} is of another network than the tensors beside it: architecture is "
            f"{named!r}, which timm has in its module {module}, and theirs is a "
            f"{layout.name}; put their own there, or move this one away"
        )
    return row


def _unknown(path: str, named: str, family: str) -> str:
    """Of an architecture that is in no table."""
    usual = keys.UNSEEN.get(family, "exact GELU, epsilon 1e-06")
    return (
        f"{path}: architecture {shown(named)} is no name known here (of timm "
        f"{version()}), so what it says nothing of is taken as usual: {usual}"
    )


def _pooling(value: str) -> str:
    """Of two names for one, one."""
    return "avg" if _lower(value) in ("fast", "fastavg") else value


def _check_counts(path: str, top, said, below, spec: Plain) -> None:
    """Refuses other numbers of classes and channels than the tensors have."""
    classes = "num_classes"
    pairs = [(classes, top.get(classes)), (f"model_args.{classes}", said.get(classes))]
    if classes not in top:
        pairs.append((f"pretrained_cfg.{classes}", below.get(classes)))
    if "num_features" in top:
        features = spec.width if isinstance(spec, ViTSpec) else spec.widths[-1]
        keys.agree(path, [("num_features", top["num_features"], features)])
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


def _vit(path, spec: ViTSpec, known, whole, where, row) -> dict[str, Any]:
    """Fields of a ViT, whose tokens are read as its tensors do."""
    token = spec.pool == "token"
    pool = whole["global_pool"]
    if "class_token" in known or row:
        keys.agree(path, [(where("class_token"), bool(whole["class_token"]), token)])
    if pool != ("token" if token else "avg"):
        kind = "without a class token average their patches"
        if token:
            kind = "with a class token read it"
        raise UserError(
            f"{path}: {where('global_pool')} is {shown(pool)}, and networks here "
            f"{kind}: it would be another function, so it cannot be converted"
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
    fields = {"norm_eps": whole["norm_eps"], "gelu": known.get("act_layer", "exact")}
    if row or "num_heads" in known:
        fields["heads"] = known.get("num_heads", whole["num_heads"])
    ratio = known.get("mlp_ratio", 0.0)
    if int(spec.width * ratio) == spec.hidden:
        fields["mlp_ratio"] = ratio  # as it was said
    return fields


def _check_registers(path: str, count: int, tensors: Sequence[str], where) -> None:
    """Refuses several, if the tensors have any."""
    if count > 1 and (not tensors or "reg_token" in tensors):
        raise UserError(
            f"{path}: {where('reg_tokens')} is {count}, and networks here have one "
            f"register at most: it cannot be converted"
        )


def _has_heads(spec: ViTSpec, said: Mapping[str, Any]) -> bool:
    """Whether heads are said that may be those of a network of that width."""
    usual = spec.heads if spec.width in vit.PUBLISHED_WIDTHS else None
    return "num_heads" in said and usual in (None, said["num_heads"])


def _has(
    layout: Layout, spec: Plain, said: Mapping[str, Any], tensors: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """What is said of tensors that are there or not, each with what there is."""
    seen: dict[str, Any] = {}
    if isinstance(spec, ViTSpec):
        two = spec.distilled and spec.dist_head
        seen = {"distilled": two, "reg_tokens": int(spec.distilled and not two)}
        if "init_values" in said:
            scaled = any(map(_SCALES.search, tensors))
            same = bool(said["init_values"]) == scaled
            seen["init_values"] = said["init_values"] if same else None
            if scaled and not same:
                seen["init_values"] = "layer scale"
    elif isinstance(spec, LeViTSpec):
        seen = {"use_conv": layout.name.endswith("convolutions")}
        if spec.num_classes:
            seen["distilled"] = spec.distilled
    return {k: (said[k], value) for k, value in seen.items() if k in said}


def _sizes(
    spec: Plain, known: Mapping[str, Any], said: Container[str]
) -> dict[str, tuple[Any, Any]]:
    """What is known of sizes, by name, each with what the tensors have.

    Args:
      spec: that the tensors show.
      known: of arguments, by name.
      said: those that are not implied by a name.
    """
    seen: dict[str, Any] = {}

    def gives(key: str, value: Any, same: bool) -> None:
        """Of a number that sizes follow from."""
        if key in known:
            seen[key] = known[key] if same else value

    if isinstance(spec, ViTSpec):
        seen = dict(embed_dim=spec.width, depth=spec.depth, patch_size=spec.patch_size)
        hidden = int(spec.width * known.get("mlp_ratio", 0.0))
        gives("mlp_ratio", spec.mlp_ratio, hidden == spec.hidden)
    elif isinstance(spec, RegNetSpec):
        return _regnet(spec, known, said)
    else:
        stages = len(spec.widths)
        seen = dict(embed_dim=list(spec.widths), depth=list(spec.depths))
        known = {**known, **{k: list(known[k]) for k in seen if k in known}}
        heads = _each(known.get("num_heads", 0), stages)
        gives("num_heads", list(spec.heads), heads == spec.heads)
        same = set(spec.key_dims) == {known.get("key_dim")}
        gives("key_dim", list(spec.key_dims), same)
        ratios = zip(
            spec.key_dims, _each(known.get("attn_ratio", 0), stages), strict=False
        )
        values = tuple(int(size * ratio) for size, ratio in ratios)
        gives("attn_ratio", list(spec.attn_ratios), values == spec.value_dims)
        values = tuple(int(n * known.get("mlp_ratio", 0)) for n in spec.widths)
        theirs = tuple(specs_levit.cut(n * spec.mlp_ratio) for n in spec.widths)
        gives("mlp_ratio", spec.mlp_ratio, values == theirs)
    return {k: (known[k], value) for k, value in seen.items() if k in known}


def _each(value: Any, stages: int) -> tuple[Any, ...]:
    """A value for each stage."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * stages


def _regnet(
    spec: RegNetSpec, known: Mapping[str, Any], said: Container[str]
) -> dict[str, tuple[Any, Any]]:
    """`_sizes` of a RegNet, whose widths and depths follow from a few numbers."""
    blocks = [block for stage in spec.stages for block in stage]
    found: dict[str, tuple[Any, Any]] = {}
    widths, depths = known.get("widths"), known.get("depths")
    if any(name in said for name in _QUANTISED):
        widths = depths = None
        if all(name in known for name in _QUANTISED):
            numbers = {name: known[name] for name in _QUANTISED}
            with np.errstate(all="ignore"), contextlib.suppress(ArithmeticError):
                widths, depths = specs_regnet.quantised(
                    group_width=numbers.pop("group_size"), **numbers
                )
    if widths is not None and depths is not None:
        found["widths"] = list(widths), list(spec.widths)
        found["depths"] = list(depths), list(spec.depths)
    if "group_size" in known and not known.get("group_min_ratio"):
        size = known["group_size"]
        groups = [width // min(size, width) for width in spec.widths]
        same = groups == [stage[0].groups for stage in spec.stages]
        found["group_size"] = size, size if same else spec.group_width
    if "se_ratio" in known:
        ratio = known["se_ratio"]
        same = all(round(b.inputs * ratio) == b.squeeze for b in blocks)
        found["se_ratio"] = ratio, ratio if same else spec.se_ratio
    if "stem_width" in known:
        found["stem_width"] = known["stem_width"], spec.stem_width
    return found


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
