"""What tensors do not show and nothing else says: what is taken for it, and the notes
or refusals that follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sws_jax.convert import keys, timm, vit
from sws_jax.convert.base import Layout
from sws_jax.errors import UserError
from sws_jax.specs import Foreign, RegNetSpec, ViTSpec

_POOL_ORDERS = {"norm_mean": "norm, then mean", "mean_norm": "mean, then norm"}


def of_vit(
    path: str, layout: Layout, spec: ViTSpec, fields: Mapping[str, Any], on_disk: bool
) -> list[str]:
    """Notes on what is taken for a ViT that no config describes.

    The command prints the function of a network, so of published widths nothing is
    worth saying but in memory, where nothing is printed.

    Args:
      path: for messages.
      layout: of the tensors.
      spec: that the tensors show, with what is usual for all else.
      fields: of the spec that the caller gave, by name.
      on_disk: whether the tensors are those of a file.

    Raises:
      UserError: tensors in memory are of a width that no published network has, or of
        sizes that are known with another activation alone.
    """
    heads_known = "heads" in fields or not layout.heads_guessed
    if not heads_known and spec.width not in vit.PUBLISHED_WIDTHS:
        if not on_disk:
            raise UserError(
                f"{path} does not show how many heads its attention has, and no "
                f"published network is {spec.width} wide: give heads="
            )
        return [
            f"{path} does not show how many heads its attention has, and no published "
            f"network is {spec.width} wide: {spec.heads} of {spec.head_size} are taken "
            f"(heads=, or --heads, says another number)"
        ]
    names, activation = timm.unusual(spec) if layout.key == "timm-vit" else ([], "")
    if names and "gelu" not in fields:
        doubt = (
            f"is as large as timm's {', '.join(names)}, whose activation is "
            f"{activation}, and does not show its own"
        )
        if not on_disk:
            raise UserError(f"{path} {doubt}: give gelu=, exact or tanh")
        return [
            f"{path} {doubt}: exact GELU is taken (gelu=, or --gelu, says another one)"
        ]
    if on_disk or (heads_known and {"norm_eps", "gelu"} <= set(fields)):
        return []
    return [
        f"{path} does not show all that it computes, and what is usual is taken: "
        f"{', '.join(_usual_of_vit(spec, fields, heads_known))} (give heads=, "
        f"norm_eps= and gelu=)"
    ]


def _usual_of_vit(
    spec: ViTSpec, fields: Mapping[str, Any], heads_known: bool
) -> list[str]:
    """What is taken as usual for a ViT, in words."""
    usual = [] if heads_known else [f"{spec.heads} heads"]
    if "norm_eps" not in fields:
        usual.append(f"LayerNorm epsilon {spec.norm_eps:g}")
    if "gelu" not in fields:
        usual.append({"exact": "exact GELU", "tanh": "tanh GELU"}[spec.gelu])
    if spec.pool == "token":
        usual.append("the class token is classified")
    elif "pool_order" not in fields:
        usual.append(f"patches are averaged ({_POOL_ORDERS[spec.pool_order]})")
    return usual


def of_others(path: str, spec: Foreign, on_disk: bool) -> list[str]:
    """Notes on what is taken for a LeViT or a RegNet that no config describes.

    Raises:
      UserError: none of timm's networks of these sizes computes that.
    """
    family = "regnet" if isinstance(spec, RegNetSpec) else "levit"
    names, activation = timm.unusual(spec)
    if names:
        where = "beside it" if on_disk else "into a folder with them, and convert that"
        raise UserError(
            f"{path} is as large as timm's {', '.join(names)}, whose activation is "
            f"{activation} and none of the networks here, and tensors do not show "
            f"theirs: put the config.json of timm that says act_layer {where}"
        )
    if on_disk:
        return []  # The command prints it.
    return [
        f"{path} does not show all that it computes, and what is usual is taken: "
        f"{keys.UNSEEN[family]} (a folder with the config.json of timm or transformers "
        f"says it)"
    ]
