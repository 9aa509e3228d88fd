"""``describe``: what a file of weights is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

HELP = "say what a file of weights is, this project's or another's"
EXAMPLE = "python -m sws_jax describe results/digits/learngene.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="as for convert")


def run(args: argparse.Namespace) -> int:
    import tabulate

    from sws_jax import convert, specs, weights
    from sws_jax.convert import tensors

    flat = tensors.read(args.file)
    if args.file.endswith(".safetensors") and weights.is_ours(args.file):
        lines = _ours(weights.describe(args.file))
    else:
        layout, spec, _ = convert.recognise(args.file, flat)
        use = f"{_use(spec.net)}, after python -m sws_jax convert"
        lines = {"layout": layout.name, "network": spec.name}
        if isinstance(spec, specs.ViTSpec):
            lines["usually"] = _function(spec)
        if layout.method:
            genes = {"sws": "shared blocks", "tleg": "block as base and slope"}
            lines["network"] = f"{spec.net.depth} {genes[layout.method]}, no stages"
            lines["method"] = f"{layout.method}, profile official"
            use = "descendants of any depth, after python -m sws_jax convert --stages"
        lines["initialises"] = use
    lines["tensors"] = f"{len(flat)}, {sum(a.size for a in flat.values()):,} numbers"
    lines["dtypes"] = ", ".join(sorted({str(a.dtype) for a in flat.values()}))
    print(tabulate.tabulate(lines.items(), tablefmt="plain"))
    rows = [[name, f"{count:,}"] for name, count in modules(flat).items()]
    head = ["module", "numbers"]
    print(
        "\n"
        + tabulate.tabulate(
            rows, head, disable_numparse=True, colalign=["left", "right"]
        )
    )
    return 0


def modules(flat: Mapping) -> dict[str, int]:
    """Numbers in each module: the parts of a name but its last, blocks together."""
    counts: dict[str, int] = {}
    for name, array in flat.items():
        plain = re.sub(r"(?<=block)(s?)_\d+", r"\1", name.replace("/", "."))
        parts = [p for p in plain.split(".") if not p.isdigit()]
        key = ".".join(parts[:-1][:3]) or parts[0]
        counts[key] = counts.get(key, 0) + array.size
    return counts


def _function(net) -> str:
    """What the tensors of a ViT do not show."""
    pool = {"norm_mean": "norm, then mean", "mean_norm": "mean, then norm"}
    return (
        f"{net.heads} heads of {net.head_size}, LayerNorm epsilon {net.norm_eps:g}, "
        + ("class token" if net.pool == "token" else pool[net.pool_order])
        + (", tanh GELU" if net.gelu == "tanh" else "")
    )


def _use(net) -> str:
    from sws_jax.specs import ViTSpec

    if isinstance(net, ViTSpec) and not net.distilled:
        return "a run of its own depth (init.network), or a teacher"
    return "an Aux-Net's distillation, as its teacher"


def _ours(about) -> dict[str, str]:
    from sws_jax.specs import ViTSpec

    kinds = {
        "network": "a network",
        "aux_net": "an Aux-Net",
        "learngene": "a learngene",
    }
    uses = {
        "network": _use(about.net),
        "aux_net": "a run that goes on with it (init.network)",
        "learngene": "descendants of any depth (init.learngene, sws_jax.expand)",
    }
    net, look = about.net, about.normalization
    lines = {
        "layout": f"sws_jax, {kinds[about.kind]}",
        "network": about.spec.name,
        "images": f"{net.image_size[0]} x {net.image_size[1]} pixels, "
        f"{net.channels} channels, mean {look.mean}, deviation {look.std}, crop "
        f"{about.eval_crop:g}, {about.interpolation}",
        "classes": str(net.num_classes),
    }
    if isinstance(net, ViTSpec):
        lines["function"] = _function(net)
    if about.method:
        lines["method"] = f"{about.method}, profile {about.profile}"
    if about.stages:
        lines["stages"] = "-".join(map(str, about.stages))
    if about.plan:
        lines["plan"] = " ".join(map(str, about.plan))
    if about.teacher:
        lines["teacher"] = about.teacher
    if about.dataset:
        seen = f", validation top-1 {about.accuracy:.1%}" if about.accuracy >= 0 else ""
        lines["trained on"] = f"{about.dataset}, step {about.step:,}{seen}"
    lines["written by"] = ", ".join(f"{k} {v}" for k, v in about.versions)
    lines["initialises"] = uses[about.kind]
    return lines
