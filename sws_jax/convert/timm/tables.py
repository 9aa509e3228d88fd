"""What becomes of each key of timm's ``config.json``, for code and for people."""

from __future__ import annotations

from typing import Any

from sws_jax.arguments import shown
from sws_jax.convert import keys, labels
from sws_jax.convert.keys import Key, refused
from sws_jax.errors import UserError
from sws_jax.pixels import INTERPOLATIONS
from sws_jax.specs.base import MAX_DEPTH

# Poolings after which timm normalises unless a config says otherwise.
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


def _lower(value: Any) -> Any:
    """A name as timm looks activations and poolings up."""
    return value.lower() if isinstance(value, str) else value


def pooling(value: str) -> str:
    """A pooling by the one name of those that timm has for it."""
    return "avg" if _lower(value) in ("fast", "fastavg") else value


def _norm(value: Any) -> Any:
    """A name as timm looks norms up."""
    return _lower(value).replace("_", "") if isinstance(value, str) else value


def _gelu(value: Any) -> str:
    """The activation of the MLPs, as `ViTSpec` names it."""
    name = _lower(keys.text(value))
    if name not in _GELUS:
        raise UserError(
            f"the activation {shown(value)} is not one of "
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
    deviations = keys.numbers(value)
    if not all(deviation > 0 for deviation in deviations):
        raise ValueError("above 0")
    return deviations


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
