"""The ``config.json`` that timm needs beside weights of ours."""

from __future__ import annotations

from typing import Any

from sws_jax.errors import UserError
from sws_jax.models.description import Description
from sws_jax.specs import ViTSpec


def config_of(description: Description, spec: ViTSpec) -> dict[str, Any]:
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
            "mean": list(description.normalization.mean),
            "std": list(description.normalization.std),
            "crop_pct": description.eval_crop,
            # timm knows one centre.
            "crop_mode": description.crop_mode.removesuffix("_down"),
            "interpolation": description.interpolation,
            "num_classes": spec.num_classes,
            "label_names": list(description.class_names) or None,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if two_heads else "head",
        },
    }
