"""Compares the sizes in arguments of timm's networks with those of tensors."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from sws_jax.convert.timm import catalogue
from sws_jax.convert.timm.tables import USUAL
from sws_jax.specs import Foreign, LeViTSpec, RegNetSpec, ViTSpec
from sws_jax.specs import levit as specs_levit
from sws_jax.specs import regnet as specs_regnet

# Arguments whose other values show in tensors.
_OTHER_TENSORS = {"stem_type", "mlp_layer", "block_fn", "attn_layer", "embed_layer",
                  "pre_norm", "qkv_bias", "preact", "linear_out"}  # fmt: skip
# The widths and depths of a RegNet follow from these.
QUANTISED = ("w0", "wa", "wm", "depth", "group_size")
Pairs = dict[str, tuple[Any, Any]]


def family(spec: Foreign) -> str:
    """The family of a network, as the tables call it."""
    if isinstance(spec, RegNetSpec):
        return "regnet"
    return "vit" if isinstance(spec, ViTSpec) else "levit"


def unusual(spec: Foreign) -> tuple[list[str], str]:
    """The names of timm's networks of these sizes, if none has the usual activation.

    Returns:
      The names, and their activation; both empty where one is usual or none is of
      these sizes.
    """
    family_name = family(spec)
    usual = USUAL[family_name]
    implied = {k: usual[k] for k in ("patch_size", "mlp_ratio") if family_name == "vit"}
    activations: dict[str, str] = {}
    for name, row in catalogue.names().items():
        if row["family"] != family_name or not _OTHER_TENSORS.isdisjoint(row):
            continue
        token = row.get("class_token", True)
        if isinstance(spec, ViTSpec) and token != (spec.pool == "token"):
            continue
        sizes = compared(spec, {**implied, **row}, ())
        if sizes and all(theirs == seen for theirs, seen in sizes.values()):
            activations[name] = row.get("act_layer", usual["act_layer"])
    if not activations or usual["act_layer"] in activations.values():
        return [], ""
    return list(activations), next(iter(activations.values()))


def compared(
    spec: Foreign, arguments: Mapping[str, Any], stated: Container[str]
) -> Pairs:
    """The sizes in arguments, by name, each with that of the tensors.

    Args:
      spec: that the tensors show.
      arguments: those that are known, by name.
      stated: the names of those that are not implied by a network's name.
    """
    if isinstance(spec, RegNetSpec):
        return _regnet(spec, arguments, stated)
    if isinstance(spec, LeViTSpec):
        return _levit(spec, arguments)
    ratio = arguments.get("mlp_ratio", 0.0)
    seen = {
        "embed_dim": spec.width,
        "depth": spec.depth,
        "patch_size": spec.patch_size,
        # A ratio that gives the hidden units is as good as the one that is seen.
        "mlp_ratio": ratio
        if int(spec.width * ratio) == spec.hidden
        else spec.mlp_ratio,
    }
    return _paired(arguments, seen)


def _paired(arguments: Mapping[str, Any], seen: Mapping[str, Any]) -> Pairs:
    """Pairs of the known arguments and the values that tensors show."""
    return {
        name: (arguments[name], value)
        for name, value in seen.items()
        if name in arguments
    }


def _levit(spec: LeViTSpec, arguments: Mapping[str, Any]) -> Pairs:
    """`compared` of a LeViT; a number that gives the sizes is as good as theirs."""
    stages = len(spec.widths)
    seen: dict[str, Any] = {
        "embed_dim": list(spec.widths),
        "depth": list(spec.depths),
        "num_heads": list(spec.heads),
        "key_dim": list(spec.key_dims),
        "attn_ratio": list(spec.attn_ratios),
        "mlp_ratio": spec.mlp_ratio,
    }
    lists = {k: list(arguments[k]) for k in ("embed_dim", "depth") if k in arguments}
    arguments = {**arguments, **lists}
    ratios = _each(arguments.get("attn_ratio", 0), stages)
    values = tuple(
        int(size * ratio) for size, ratio in zip(spec.key_dims, ratios, strict=False)
    )
    hidden = tuple(int(n * arguments.get("mlp_ratio", 0)) for n in spec.widths)
    theirs = tuple(specs_levit.cut(n * spec.mlp_ratio) for n in spec.widths)
    same = {
        "num_heads": _each(arguments.get("num_heads", 0), stages) == spec.heads,
        "key_dim": set(spec.key_dims) == {arguments.get("key_dim")},
        "attn_ratio": values == spec.value_dims,
        "mlp_ratio": hidden == theirs,
    }
    for name, is_same in same.items():
        if is_same and name in arguments:
            seen[name] = arguments[name]
    return _paired(arguments, seen)


def _each(value: Any, stages: int) -> tuple[Any, ...]:
    """A value for each stage."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * stages


def _regnet(
    spec: RegNetSpec, arguments: Mapping[str, Any], stated: Container[str]
) -> Pairs:
    """`compared` of a RegNet, whose widths and depths follow from a few numbers."""
    pairs: Pairs = {}
    widths, depths = arguments.get("widths"), arguments.get("depths")
    if any(name in stated for name in QUANTISED):
        widths = depths = None
        if all(name in arguments for name in QUANTISED):
            numbers = {name: arguments[name] for name in QUANTISED}
            try:
                widths, depths = specs_regnet.quantised(
                    group_width=numbers.pop("group_size"), **numbers
                )
            except (ArithmeticError, ValueError):  # no network has such numbers
                widths = depths = ()
    if widths is not None and depths is not None:
        pairs["widths"] = list(widths), list(spec.widths)
        pairs["depths"] = list(depths), list(spec.depths)
    if "group_size" in arguments and not arguments.get("group_min_ratio"):
        size = arguments["group_size"]
        groups = [width // min(size, width) for width in spec.widths]
        same = groups == [stage[0].groups for stage in spec.stages]
        pairs["group_size"] = size, size if same else spec.group_width
    if "se_ratio" in arguments:
        ratio = arguments["se_ratio"]
        blocks = [block for stage in spec.stages for block in stage]
        same = all(round(b.inputs * ratio) == b.squeeze for b in blocks)
        pairs["se_ratio"] = ratio, ratio if same else spec.se_ratio
    if "stem_width" in arguments:
        pairs["stem_width"] = arguments["stem_width"], spec.stem_width
    return pairs
