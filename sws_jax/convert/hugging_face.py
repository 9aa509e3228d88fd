"""transformers' configs: what they say of weights, and what it needs for ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sws_jax.arguments import shown
from sws_jax.convert import keys, labels, processors
from sws_jax.convert.base import Layout
from sws_jax.convert.folders import CONFIG, PREPROCESSOR
from sws_jax.convert.keys import Beside, Key, refused
from sws_jax.errors import UserError
from sws_jax.models.description import Description
from sws_jax.specs import Foreign, LeViTSpec, RegNetSpec, ViTSpec
from sws_jax.specs.levit import STEM_STRIDE

FAMILIES = ("vit", "deit", "levit", "regnet")
# What transformers takes for a ViT's where its config says nothing.
_HEADS, _WIDTH, _EPS = 12, 768, 1e-12

# config.json


def _problem(value: Any) -> str:
    known = (
        "single_label_classification",
        "multi_label_classification",
        "regression",
    )
    if value not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return value


def _steps(value: Any) -> tuple[tuple[float, ...], ...]:
    """Between stages of a LeViT: key size, heads, two ratios and the stride of each."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of steps between stages")
    # A network adds [""] when it is built.
    steps = [step for step in value if step != [""]]
    for step in steps:
        if not isinstance(step, list) or len(step) != 6 or step[0] != "Subsample":
            raise ValueError('steps of "Subsample" and five numbers each')
    return tuple(keys.numbers(step[1:]) for step in steps)


_SHOWN = "the tensors show it"
_COMMON = (
    Key("model_type", "must be the family of the tensors", keys.text),
    Key("num_channels", "must be the channels of the tensors", keys.whole()),
    Key("num_labels", "must be the classes of the tensors' head", keys.whole(0)),
    Key("id2label", "names of the classes, by their numbers; LABEL_0 and so on are no "
        "names", labels.listed),
    Key("label2id", "must say what id2label says; names, where that has none",
        labels.numbered),
    Key("problem_type", "what the outputs are trained for; told unless it is "
        "single_label_classification", _problem),
    refused("quantization_config", "has its tensors quantised"),
    refused("compression_config", "has its tensors compressed"),
    refused("auto_map", "is computed by code of its own"),
    refused("pruned_heads", "lacks some of its heads", {}),
    refused("per_layer_config", "has layers that differ from each other", {}),
    *keys.idle(_SHOWN, "architectures", "dtype", "torch_dtype"),
    *keys.idle("of training alone", "initializer_range", "gradient_checkpointing",
           "finetuning_task", "tf_legacy_loss"),
    *keys.idle("how it is computed, which gives the same", "chunk_size_feed_forward",
           "torchscript", "use_bfloat16", "xla_device", "attn_implementation",
           "_attn_implementation", "_attn_implementation_internal",
           "_attn_implementation_autoset", "_experts_implementation",
           "_experts_implementation_internal"),
    *keys.idle("what else transformers returns", "output_attentions",
           "_output_attentions", "output_hidden_states", "return_dict",
           "tie_last_hidden_states"),
    *keys.idle("for people", "transformers_version", "_name_or_path", "name_or_path",
           "_commit_hash", "custom_pipelines", "task_specific_params"),
    *keys.idle("of text alone, which older versions write for all networks",
           "add_cross_attention", "bad_words_ids", "begin_suppress_tokens",
           "bos_token_id", "cross_attention_hidden_size", "decoder_start_token_id",
           "diversity_penalty", "do_sample", "early_stopping",
           "encoder_no_repeat_ngram_size", "eos_token_id",
           "exponential_decay_length_penalty", "forced_bos_token_id",
           "forced_eos_token_id", "is_decoder", "is_encoder_decoder",
           "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
           "num_beam_groups", "num_beams", "num_return_sequences", "output_scores",
           "pad_token_id", "prefix", "remove_invalid_values", "repetition_penalty",
           "return_dict_in_generate", "sep_token_id", "suppress_tokens",
           "temperature", "tie_encoder_decoder", "tie_word_embeddings",
           "tokenizer_class", "top_k", "top_p", "typical_p", "use_cache"),
)  # fmt: skip
_VIT = (
    Key("hidden_size", "must be the width of the tensors", keys.whole()),
    Key("num_hidden_layers", "must be the blocks of the tensors", keys.whole()),
    Key("num_attention_heads", "the attention heads", keys.whole()),
    Key("head_dim", "must be the width over the heads", keys.whole()),
    Key("intermediate_size", "must be the hidden units of the tensors", keys.whole()),
    Key("hidden_act", "gelu, or a tanh GELU; others are refused", keys.gelu),
    Key("layer_norm_eps", "the epsilon of norms", keys.number),
    Key("image_size", "height and width that its positions are for", keys.sides),
    Key("patch_size", "must be that of the tensors", keys.square),
    refused("qkv_bias", "leaves biases of attention out", True),
    *keys.idle("of training alone", "hidden_dropout_prob",
           "attention_probs_dropout_prob"),
    Key("encoder_stride", "of a head that restores pixels, which is none here"),
    *keys.idle("of a pooler after the features, which is left out", "pooler_act",
           "pooler_output_size"),
    *_COMMON,
)  # fmt: skip
# By the model_type of a config.
CONFIGS: dict[str, tuple[Key, ...]] = {
    "vit": _VIT,
    "deit": _VIT,
    "levit": (
        Key("hidden_sizes", "must be the widths of the tensors", keys.wholes),
        Key("depths", "must be the blocks of the tensors", keys.wholes),
        Key("num_attention_heads", "must be the heads of the tensors", keys.wholes),
        Key("key_dim", "must be the key sizes of the tensors", keys.wholes),
        Key("attention_ratio", "must give the value sizes of the tensors",
            keys.numbers),
        Key("mlp_ratio", "must give the hidden units of the tensors", keys.numbers),
        Key("down_ops", "must be the steps between stages of the tensors", _steps),
        Key("image_size", "must be that of the tensors", keys.sides),
        refused("patch_size", "has another stem", STEM_STRIDE),
        refused("kernel_size", "has another stem", 3),
        refused("stride", "has another stem", 2),
        refused("padding", "has another stem", 1),
        Key("drop_path_rate", "of training alone"),
        *_COMMON,
    ),
    "regnet": (
        Key("embedding_size", "must be the stem's width in the tensors", keys.whole()),
        Key("hidden_sizes", "must be the widths of the tensors", keys.wholes),
        Key("depths", "must be the blocks of the tensors", keys.wholes),
        Key("groups_width", "must give the groups of the tensors", keys.whole()),
        refused("layer_type", "has no squeeze-excitation", "y"),
        refused("hidden_act", "is another activation", "relu"),
        refused("downsample_in_first_stage", "keeps more pixels", True),
        *_COMMON,
    ),
}  # fmt: skip


# Reading


def read(
    path: str,
    config: Mapping[str, Any],
    layout: Layout,
    spec: Foreign,
    *,
    processor_path: str = "",
    processor: Mapping[str, Any] | None = None,
) -> Beside:
    """What the configs of transformers say of tensors.

    Args:
      path: of the ``config.json``, for messages.
      config: what it holds; empty where there is none.
      layout: of the tensors; its view holds where there is no processor.
      spec: that the tensors show.
      processor_path: of the file of the processor, for messages.
      processor: what it holds.

    Raises:
      UserError: they are of another network, or of one that is none of those here.
    """
    family = _family(spec)
    model_type = config.get("model_type", family)
    if model_type not in FAMILIES:
        raise UserError(
            f"{path}: model_type is {shown(model_type)}, and networks here are those "
            f"of {', '.join(FAMILIES)}: put the config of these tensors there, or "
            f"move it away"
        )
    keys.agree(path, [("model_type", model_type, family)])
    values, notes = keys.taken(path, CONFIGS[family], config)
    keys.agree(path, _sizes(values, spec))
    names, more = labels.agreed(
        path, values.get("id2label", ()), values.get("label2id", {}), spec.num_classes
    )
    notes += more
    problem = values.get("problem_type", "")
    if problem in ("multi_label_classification", "regression"):
        notes += (
            f"{path}: problem_type is {problem}, so its outputs are no choice of one "
            f"class, which is what predict and evaluate take them for",
        )
    fields = _fields(path, values, spec) if config and isinstance(spec, ViTSpec) else {}
    size = ("image_size", values["image_size"]) if "image_size" in values else None
    view = layout.view.of_channels(spec.channels)
    if processor:
        view, images, more = processors.preprocessing(
            processor_path, processor, family, spec.channels
        )
        notes += more
        size = _one_size(path, size, processor_path, images, spec)
    return Beside(view, fields, names, size, notes=notes)


def _family(spec: Foreign) -> str:
    if isinstance(spec, RegNetSpec):
        return "regnet"
    if isinstance(spec, LeViTSpec):
        return "levit"
    return "deit" if spec.distilled else "vit"


def _sizes(values: Mapping[str, Any], spec: Foreign) -> list[tuple[str, Any, Any]]:
    """What a config says of sizes, each with what the tensors have."""
    seen: dict[str, Any] = {"num_channels": spec.channels}
    if spec.num_classes:
        seen["num_labels"] = spec.num_classes
    if isinstance(spec, ViTSpec):
        seen |= dict(
            hidden_size=spec.width,
            num_hidden_layers=spec.depth,
            intermediate_size=spec.hidden,
            patch_size=spec.patch_size,
        )
    elif isinstance(spec, LeViTSpec):
        steps = zip(
            spec.down_key_dims, spec.down_heads, spec.down_attn_ratios, strict=True
        )
        seen |= dict(
            hidden_sizes=spec.widths,
            depths=spec.depths,
            num_attention_heads=spec.heads,
            key_dim=spec.key_dims,
            attention_ratio=spec.attn_ratios,
            mlp_ratio=(spec.mlp_ratio,) * len(spec.widths),
            down_ops=tuple((*step, spec.down_mlp_ratio, 2) for step in steps),
        )
    else:
        seen |= dict(
            embedding_size=spec.stem_width, hidden_sizes=spec.widths, depths=spec.depths
        )
        if group := values.get("groups_width"):
            groups = tuple(max(1, width // group) for width in spec.widths)
            same = groups == tuple(stage[0].groups for stage in spec.stages)
            seen["groups_width"] = group if same else spec.group_width
    return [(key, values[key], value) for key, value in seen.items() if key in values]


def _fields(path: str, values: Mapping[str, Any], spec: ViTSpec) -> dict[str, Any]:
    """Fields of a ViT that tensors do not show."""
    fields = dict(
        norm_eps=values.get("layer_norm_eps", _EPS),
        gelu=values.get("hidden_act", "exact"),
    )
    heads = values.get("num_attention_heads")
    if heads is None and ("hidden_size" in values or spec.width == _WIDTH):
        heads = _HEADS
        if spec.width % heads:
            raise UserError(
                f"{path} says nothing of num_attention_heads, which are {heads} where "
                f"nothing is said, and a width of {spec.width} does not divide into "
                f"them: put their number there"
            )
    if heads is not None:
        fields["heads"] = heads
        head_dim = values.get("head_dim")
        if head_dim is not None and head_dim * heads != spec.width:
            keys.agree(path, [("head_dim", head_dim, spec.width / heads)])
    return fields


def _one_size(
    path: str,
    size: tuple[str, tuple[int, int]] | None,
    processor_path: str,
    images: tuple[int, int],
    spec: Foreign,
) -> tuple[str, tuple[int, int]] | None:
    """The image size of a network, which the images of its processor must have.

    Args:
      path: of the config.
      size: its key of one and what it says, if anything.
      processor_path: of the processor's file.
      images: height and width that the processor makes.
      spec: that the tensors show.
    """
    if isinstance(spec, RegNetSpec):
        return "", images  # A RegNet takes images of any size.
    if size is None and isinstance(spec, ViTSpec):
        return f"the size of images in {processor_path}", images
    key, sides = size or ("", spec.image_size)
    if sides != images:
        whose = f"image_size in {path}" if key else "that of the tensors"
        raise UserError(
            f"{processor_path} makes images of {images[0]} x {images[1]} pixels (size, "
            f"crop_size), and {whose} is {sides[0]} x {sides[1]}: make them the same"
        )
    return size


# Writing


def configs_of(description: Description, spec: ViTSpec) -> dict[str, dict[str, Any]]:
    """``config.json`` and ``preprocessor_config.json`` of a model's folder.

    transformers rounds down where `sws_jax.data.transforms.Fit` may not: of a network
    that was not read from there it may see images a pixel further up or left.

    Raises:
      UserError: transformers has no such network.
    """
    _check_known(spec)
    config = _config(description, spec)
    return {CONFIG: config, PREPROCESSOR: _processor(description, spec)}


def _check_known(spec: ViTSpec) -> None:
    """Refuses a network that transformers does not have."""
    high, wide = spec.image_size
    if spec.pool != "token":
        raise UserError(
            "the ViTs of transformers classify by a class token, and this network "
            "averages its tokens: it would compute something else (timm has such nets)"
        )
    if high != wide:
        raise UserError(
            f"the ViTs of transformers take square images, and not {high} x {wide}"
        )
    if not spec.num_classes:
        raise UserError("a network without classes is not written for transformers")


def _config(description: Description, spec: ViTSpec) -> dict[str, Any]:
    """What ``config.json`` holds."""
    model = "ViTForImageClassification"
    if spec.distilled:
        teacher = "WithTeacher" if spec.dist_head else ""
        model = f"DeiTForImageClassification{teacher}"
    return {
        "architectures": [model],
        "model_type": "deit" if spec.distilled else "vit",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.hidden,
        "hidden_act": "gelu" if spec.gelu == "exact" else "gelu_pytorch_tanh",
        "layer_norm_eps": spec.norm_eps,
        "image_size": spec.image_size[0],
        "patch_size": spec.patch_size,
        "num_channels": spec.channels,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **labels.written(description.class_names, spec.num_classes),
    }


def _processor(description: Description, spec: ViTSpec) -> dict[str, Any]:
    """What ``preprocessor_config.json`` holds."""
    numbers = {name: number for number, name in processors.RESAMPLING.items()}
    # Of its processors, two cut the centre out: of what the shorter side decides, or of
    # what images are squeezed into.
    squeezed = description.crop_mode.startswith("squash")
    high, wide = spec.image_size
    whole = math.floor(high / description.eval_crop)
    edges = dict(height=whole, width=whole) if squeezed else dict(shortest_edge=whole)
    return {
        "image_processor_type": f"{'DeiT' if squeezed else 'Bit'}ImageProcessor",
        "do_resize": True,
        "size": edges,
        "resample": numbers[description.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": high, "width": wide},
        "crop_pct": description.eval_crop,  # which whole pixels only approximate
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(description.normalization.mean),
        "image_std": list(description.normalization.std),
        "do_convert_rgb": spec.channels == 3,
    }
