"""Networks of ours as folders that timm loads."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import safetensors.numpy

from sws_jax import files
from sws_jax.convert import base, vit
from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.networks import Network
from sws_jax.specs import ViTSpec

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(folder: str, network: Network) -> None:
    """Writes ``model.safetensors`` and ``config.json``, whole or not at all.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` then loads all names
    strictly and gives the same logits.

    Args:
      folder: is made; it must not exist.
      network: with a description.

    Raises:
      UserError: timm has no such network, with the reason; or the folder is there.
    """
    assert network.description is not None
    spec, config = network.spec, config_of(network.description, network.spec)
    assert isinstance(spec, ViTSpec)
    if os.path.exists(folder):
        raise UserError(f"{folder} is there already: name another folder, or remove it")
    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".timm.") as made:
        whole = os.path.join(made, "whole")
        os.mkdir(whole, mode=0o755)
        flat = base.write(network.params, vit.TIMM.entries(spec))
        path = os.path.join(whole, WEIGHTS)
        safetensors.numpy.save_file(flat, path, {"format": "pt"})
        files.write_json(os.path.join(whole, CONFIG), config)
        os.rename(whole, folder)


def config_of(about: Description, spec: Any) -> dict[str, Any]:
    """What timm needs to build and feed a network.

    Raises:
      UserError: it has no such network.
    """
    if not isinstance(spec, ViTSpec):
        raise UserError(
            f"timm has no {spec.name}: only plain ViTs are written for it (a learngene "
            f"is expanded first)"
        )
    if spec.norm_eps != 1e-6:
        raise UserError(
            f"timm's ViTs have LayerNorms of epsilon 1e-6, and this one has "
            f"{spec.norm_eps:g}: it would compute something else"
        )
    kind = "deit_tiny_distilled" if spec.distilled else "vit_tiny"
    arguments: dict[str, Any] = dict(
        img_size=list(spec.image_size),
        patch_size=spec.patch_size,
        in_chans=spec.channels,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=spec.mlp_ratio,
    )
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
            "interpolation": "bicubic",
            "num_classes": spec.num_classes,
            "label_names": list(about.class_names) or None,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if spec.distilled else "head",
        },
    }
