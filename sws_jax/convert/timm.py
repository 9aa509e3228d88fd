"""timm's ``config.json``: what it says of weights, and what timm needs for ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sws_jax.convert import keys
from sws_jax.convert.base import View
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.specs import ViTSpec


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
            "interpolation": about.interpolation,
            "num_classes": spec.num_classes,
            "label_names": list(about.class_names) or None,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if two_heads else "head",
        },
    }


def read(config: Mapping[str, Any], usual: View) -> keys.Beside:
    """What a ``config.json`` of timm says; `usual` where it says nothing."""
    view, arguments = config.get("pretrained_cfg", config), config.get("model_args", {})
    view = {name: value for name, value in view.items() if value is not None}
    fields: dict[str, Any] = {}
    # What timm's names mean and tensors do not show.
    named = str(config.get("architecture", ""))
    if "siglip" in named:
        fields["gelu"] = "tanh"
    if named == "vit_base_patch16_gap_224":
        fields["heads"] = 16
    if arguments.get("num_heads") is not None:
        fields["heads"] = int(arguments["num_heads"])
    if arguments.get("act_layer") is not None:
        fields["gelu"] = keys.gelu(arguments["act_layer"])
    labels = view.get("label_names", ())
    if isinstance(labels, str):
        raise TypeError("label_names is one text")
    interpolation = view.get("interpolation", usual.interpolation)
    return keys.Beside(
        View(
            mean=tuple(map(float, view.get("mean", usual.mean))),
            std=tuple(map(float, view.get("std", usual.std))),
            crop=float(view.get("crop_pct", usual.crop)),
            # timm's "random" is of training.
            interpolation="bicubic" if interpolation == "random" else interpolation,
        ),
        fields,
        tuple(map(str, labels)),
    )
