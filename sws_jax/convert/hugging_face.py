"""What transformers needs to build and feed a network of ours."""

from __future__ import annotations

from typing import Any

from sws_jax.convert import hub
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.specs import ViTSpec


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
    numbers = {name: number for number, name in hub.RESAMPLING.items()}
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
    return {hub.CONFIG: config, hub.PREPROCESSOR: processor}
