"""Writes what the names of timm's networks imply, from timm itself.

``python -m tests.support.timm_names`` from the repository's root, with timm installed,
rewrites `sws_jax.convert.timm.NAMES`. Each network is built without memory, and what is
written is what its modules are, in the words of the arguments that would make them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import warnings
from collections.abc import Collection
from typing import Any

from benchmarks import peers
from sws_jax.convert import timm as ours
from sws_jax.storage import files

MODULES = ("vision_transformer", "vision_transformer_hybrid", "deit", "levit", "regnet")
# Entry points of these modules that build networks of other classes are left out.
FAMILIES = {
    "VisionTransformer": "vit",
    "VisionTransformerDistilled": "vit",
    "Levit": "levit",
    "LevitDistilled": "levit",
    "RegNet": "regnet",
}
# Of a RegNet, what its widths and depths are made from, and what else is its size.
_REGNET = ("w0", "wa", "wm", "depth", "group_size", "group_min_ratio", "bottle_ratio",
           "se_ratio", "stem_width")  # fmt: skip
_ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_tanh",
    "QuickGELU": "quick_gelu",
    "Hardswish": "hard_swish",
    "HardSwish": "hard_swish",
    "SiLU": "silu",
    "Swish": "silu",
    "ReLU": "relu",
}


@functools.cache
def rows(every: int = 1) -> dict[str, dict[str, Any]]:
    """What each name implies, or each so-manieth; what is usual is left out."""
    with peers.without_torchvision():
        import timm
        import torch
        from timm.models import _registry
    from timm.models import regnet

    table = {}
    for module in MODULES:
        for name in timm.list_models(module=module)[::every]:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = timm.create_model(name)
            family = FAMILIES.get(type(model).__name__)
            if family:
                row = {"vit": _vit, "levit": _levit, "regnet": _regnet}[family](model)
                if family == "regnet":
                    row |= {k: getattr(regnet.model_cfgs[name], k) for k in _REGNET}
                usual = ours.USUAL[family]
                row = {k: v for k, v in row.items() if usual.get(k, ...) != v}
                table[name] = {"family": family, **row}
    for old, new in _registry._deprecated_models.items():
        if new and new.split(".")[0] in table:
            table[old] = table[new.split(".")[0]]
    return dict(sorted(table.items()))


def others(known: Collection[str]) -> dict[str, list[str]]:
    """The names that are not known, by the module of timm that has them."""
    with peers.without_torchvision():
        import timm
    modules: dict[str, list[str]] = {}
    for module in timm.list_modules():
        names = [name for name in timm.list_models(module=module) if name not in known]
        if names:
            modules[module] = sorted(names)
    return modules


def text() -> str:
    """The file: a network a line, and a module of others."""
    with peers.without_torchvision():
        import timm
    lines = [f'"timm": {json.dumps(timm.__version__)}']
    known = rows()
    for key, named in (("names", known), ("others", others(known))):
        inside = [f"{json.dumps(k)}: {json.dumps(row)}" for k, row in named.items()]
        lines.append(f"{json.dumps(key)}: {{\n" + ",\n".join(inside) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _vit(model) -> dict[str, Any]:
    block, patches = model.blocks[0], model.patch_embed
    pool = model.global_pool
    after = _is(model.fc_norm)
    norm = model.fc_norm if after else model.norm
    row = {
        "img_size": _pair(getattr(patches, "img_size", None)),
        "patch_size": _pair(getattr(patches, "patch_size", None)),
        "in_chans": model.in_chans,
        "distilled": type(model).__name__ == "VisionTransformerDistilled",
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "global_pool": pool,
        "class_token": model.has_class_token,
        "reg_tokens": model.num_reg_tokens,
        "no_embed_class": model.no_embed_class,
        "pool_include_prefix": model.pool_include_prefix,
        "pre_norm": _is(model.norm_pre),
        "final_norm": _is(norm),
        "dynamic_img_size": model.dynamic_img_size,
        "embed_layer": type(patches).__name__,
        "pos_embed": "learn" if model.pos_embed is not None else "none",
        "block_fn": type(block).__name__,
        "norm_layer": type(norm if _is(norm) else _first(block, "norm")).__name__,
        "norm_eps": getattr(norm if _is(norm) else _first(block, "norm"), "eps", None),
    }
    if after != (pool in ours.AFTER):
        row["fc_norm"] = after
    attention = getattr(block, "attn", block)
    row |= {
        "num_heads": getattr(attention, "num_heads", None),
        "attn_layer": type(attention).__name__,
        "qk_norm": _is(getattr(attention, "q_norm", None)),
        "scale_attn_norm": _is(getattr(attention, "norm", None)),
        "init_values": _scale(block),
    }
    qkv = getattr(attention, "qkv", None)
    row["qkv_bias"] = qkv is None or qkv.bias is not None
    row["proj_bias"] = getattr(getattr(attention, "proj", None), "bias", 1) is not None
    mlp = getattr(block, "mlp", None)
    if mlp is not None:
        row["mlp_layer"] = type(mlp).__name__
        row["act_layer"] = _activation(mlp.act)
        row["scale_mlp_norm"] = _is(getattr(mlp, "norm", None))
        if hasattr(mlp, "fc1"):
            row["mlp_ratio"] = mlp.fc1.out_features / model.embed_dim
    return row


def _levit(model) -> dict[str, Any]:
    blocks = [stage.blocks for stage in model.stages]
    stem = [m for m in model.stem if hasattr(m, "linear")]
    names = {_activation(m) for m in model.modules() if _acts(m)}
    first = blocks[0][0]
    return {
        "distilled": type(model).__name__ == "LevitDistilled",
        "key_dim": first.attn.key_dim,
        "attn_ratio": first.attn.val_dim / first.attn.key_dim,
        "mlp_ratio": len(first.mlp.ln1.bn.weight) / model.embed_dim[0],
        "embed_dim": list(model.embed_dim),
        "depth": [len(b) for b in blocks],
        "num_heads": [b[0].attn.num_heads for b in blocks],
        "act_layer": " and ".join(sorted(names)),
        "stem_type": {4: "s16", 3: "s8"}[len(stem)],
        "use_conv": model.use_conv,
        "global_pool": model.global_pool,
    }


def _regnet(model) -> dict[str, Any]:
    stages = [getattr(model, f"s{i}") for i in range(1, 5)]
    first = next(iter(stages[0].children()))
    names = {_activation(m) for m in model.modules() if _acts(m)}
    # A gate is a sigmoid, in every squeeze and excitation.
    names -= {"Sigmoid"}
    return {
        "widths": [info["num_chs"] for info in model.feature_info[1:]],
        "depths": [len(list(stage.children())) for stage in stages],
        "act_layer": " and ".join(sorted(names)),
        "preact": type(first).__name__ == "PreBottleneck",
        "linear_out": type(first).__name__ == "Bottleneck" and not _is(first.act3),
        "num_features": 0 if not _is(model.final_conv) else model.num_features,
        "downsample": _downsample(first),
        "global_pool": model.head.global_pool.pool_type,
    }


def _downsample(block) -> str:
    path = getattr(block, "downsample", None)
    if not _is(path):
        return ""
    return "conv1x1" if type(path).__name__ == "ConvNormAct" else type(path).__name__


def _acts(module) -> bool:
    kind = type(module)
    return not list(module.children()) and (
        kind.__module__.endswith(("activation", "activations", "activations_me"))
        or kind.__name__ in _ACTIVATIONS
    )


def _activation(module) -> str:
    return _ACTIVATIONS.get(type(module).__name__, type(module).__name__)


def _first(block, part: str):
    return next(m for name, m in block.named_modules() if part in name)


def _scale(block) -> float | None:
    """What layer scale starts from; None without one."""
    scaled = [m for n, m in block.named_modules() if re.fullmatch(r"ls\d?", n)]
    return 1e-5 if any(map(_is, scaled)) else None


def _is(module) -> bool:
    """Whether there is a module that does something."""
    return module is not None and type(module).__name__ != "Identity"


def _pair(size) -> int | list[int] | None:
    """Of two equal sides, one."""
    with contextlib.suppress(TypeError):
        sides = [int(side) for side in size]
        return sides[0] if len(set(sides)) == 1 else sides
    return size


if __name__ == "__main__":
    with files.replacing(ours.NAMES) as temporary, open(temporary, "w") as file:
        file.write(text())
    print(f"{ours.NAMES} is written")
