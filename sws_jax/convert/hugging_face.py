"""transformers' configs: what they say of weights, and what it needs for ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sws_jax.convert import keys
from sws_jax.convert.base import View
from sws_jax.convert.folders import CONFIG, PREPROCESSOR
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.specs import ViTSpec

# The numbers that Pillow, and so Hugging Face, has for interpolations.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def configs_of(about: Description, spec: ViTSpec) -> dict[str, dict[str, Any]]:
    """``config.json`` and ``preprocessor_config.json`` of a model's folder.

    Raises:
      UserError: transformers has no such network.
    """
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
    labels = about.class_names or [f"LABEL_{i}" for i in range(spec.num_classes)]
    model = "ViTForImageClassification"
    if spec.distilled:
        teacher = "WithTeacher" if spec.dist_head else ""
        model = f"DeiTForImageClassification{teacher}"
    config = {
        "architectures": [model],
        "model_type": "deit" if spec.distilled else "vit",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.hidden,
        "hidden_act": "gelu" if spec.gelu == "exact" else "gelu_pytorch_tanh",
        "layer_norm_eps": spec.norm_eps,
        "image_size": high,
        "patch_size": spec.patch_size,
        "num_channels": spec.channels,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    numbers = {name: number for number, name in RESAMPLING.items()}
    processor = {
        # Of its processors, the one that scales the shorter side and cuts the centre.
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": round(high / about.eval_crop)},
        "resample": numbers[about.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": high, "width": wide},
        "crop_pct": about.eval_crop,  # which whole pixels round
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(about.normalization.mean),
        "image_std": list(about.normalization.std),
        "do_convert_rgb": spec.channels == 3,
    }
    return {CONFIG: config, PREPROCESSOR: processor}


def read(config: Mapping[str, Any], usual: View) -> keys.Beside:
    """What a ``config.json`` of transformers says; how images are is `view`'s."""
    fields: dict[str, Any] = {}
    if config["model_type"] in ("vit", "deit"):
        if "num_attention_heads" in config:
            fields["heads"] = int(config["num_attention_heads"])
        if "layer_norm_eps" in config:
            fields["norm_eps"] = float(config["layer_norm_eps"])
        if "hidden_act" in config:
            fields["gelu"] = keys.gelu(config["hidden_act"])
    labels = {int(k): str(v) for k, v in config.get("id2label", {}).items()}
    named = tuple(labels[i] for i in sorted(labels))
    if named == tuple(f"LABEL_{i}" for i in range(len(named))):
        named = ()  # which is what is written where none were given
    return keys.Beside(usual, fields, named)


def view(config: Mapping[str, Any], usual: View) -> View:
    """What a ``preprocessor_config.json`` says; `usual` where there is none."""
    if not config:
        return usual
    if not config.get("do_normalize", True):
        raise UserError("do_normalize is false, and networks here normalise: edit it")
    crop = 1.0
    if config.get("crop_pct") is not None:  # of ConvNeXt's processor, and LeViT's
        crop = float(config["crop_pct"])
    elif config.get("do_center_crop"):
        crop = _side(config["crop_size"]) / _side(config["size"])
    return View(
        mean=tuple(map(float, config.get("image_mean", usual.mean))),
        std=tuple(map(float, config.get("image_std", usual.std))),
        crop=min(crop, 1.0),
        interpolation=RESAMPLING[int(config.get("resample", 3))],
    )


def _side(size: Any) -> float:
    """Of a square, in any of the forms that processors have had."""
    if isinstance(size, Mapping):
        return float(size.get("shortest_edge") or size["height"])
    return float(size)
