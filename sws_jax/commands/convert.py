"""``convert``: weights of another program as this project's, and back."""

from __future__ import annotations

import argparse
import re
from typing import Any

from sws_jax import commands
from sws_jax.commands import describe

HELP = "read weights under another program's names, or write them under those"
EXAMPLE = "python -m sws_jax convert deit_small.pth teacher.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="IN",
        help=".safetensors, .npz, or .pth, .pt, .bin, .ckpt of PyTorch",
    )
    parser.add_argument(
        "target", metavar="OUT", help="a .safetensors file, or what --to says"
    )
    out = parser.add_argument_group("what is ours, for another program")
    out.add_argument(
        "--to",
        help="timm or hugging-face (a folder), flax or flax-stacked (.npz or "
        ".safetensors, blocks apart or stacked), or published (a learngene under the "
        "names of the released Aux-Nets)",
    )
    out.add_argument(
        "--depth", type=commands.whole, help="expand a learngene to this depth"
    )
    into = parser.add_argument_group("what tensors do not show")
    into.add_argument(
        "--part", default="", help="of a checkpoint of several, like model_ema"
    )
    into.add_argument("--layout", default="", help="instead of the recognised one")
    into.add_argument("--heads", type=commands.whole, help="attention heads of a ViT")
    into.add_argument(
        "--norm-eps", type=commands.number, help="epsilon of its LayerNorms"
    )
    into.add_argument("--gelu", default="", help="of its MLPs: exact, or tanh")
    into.add_argument("--pool-order", default="", help="norm_mean or mean_norm")
    into.add_argument(
        "--image-size", help="in pixels, like 384 or 224x160; positions are resized"
    )
    into.add_argument(
        "--stages", default="", help="of a published Aux-Net, like 3-3-4-3-3"
    )
    into.add_argument(
        "--profile", default="", help="of its learngene: official, or consistent"
    )
    for name in ("mean", "std"):
        into.add_argument(f"--{name}", default="", help="of pixels, like 0.5,0.5,0.5")
    into.add_argument(
        "--crop", type=commands.number, help="share kept in evaluation, like 0.875"
    )
    into.add_argument("--interpolation", default="", help="bicubic, bilinear, ...")
    into.add_argument(
        "--crop-mode", default="", help="center, squash (images lose their shape), ..."
    )
    into.add_argument("--dataset", default="", help="trained on, like imagenet2012")


def run(args: argparse.Namespace) -> int:
    from sws_jax import arguments, convert
    from sws_jax.convert import overwriting
    from sws_jax.errors import UserError

    if args.to is not None:
        arguments.text(convert.TARGETS)("--to", args.to)
    options = _options(args)
    overwriting.refuse_overwriting(
        args.target, args.source, folder=args.to in ("timm", "hugging-face")
    )
    if args.to:
        if options:
            raise UserError(
                f"--to writes what is ours, whose file says all: leave --"
                f"{next(iter(options)).replace('_', '-')} out"
            )
        return _write(args)
    if args.depth is not None:
        raise UserError("--depth goes with --to: what is read has its depth")
    return _read(args, options)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `convert.load` that flags give, by name."""
    from sws_jax import specs

    options = {
        "part": args.part,
        "layout": args.layout,
        "heads": args.heads,
        "norm_eps": args.norm_eps,
        "gelu": args.gelu,
        "pool_order": args.pool_order,
        "image_size": _size(args.image_size),
        "stages": specs.parse_stages(args.stages) if args.stages else (),
        "profile": args.profile,
        "mean": _numbers("--mean", args.mean),
        "std": _numbers("--std", args.std),
        "crop": args.crop,
        "interpolation": args.interpolation,
        "crop_mode": args.crop_mode,
        "dataset": args.dataset,
    }
    return {
        name: value for name, value in options.items() if value not in ("", (), None)
    }


def _read(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Writes a file of this project from another program's."""
    from sws_jax import convert, specs, trees
    from sws_jax.errors import UserError
    from sws_jax.methods import learngenes
    from sws_jax.methods.base import Learngene
    from sws_jax.models import networks
    from sws_jax.storage import files, paths

    if not args.target.endswith(".safetensors"):
        raise UserError(f"{args.target} must end in .safetensors")
    if not paths.is_remote(args.target):
        files.check_writable(args.target)
    notes: list[str] = []
    network, layout = convert.load(args.source, tell=notes.append, **options)
    description = network.description
    assert description is not None
    if isinstance(network, Learngene):
        learngenes.save_learngene(args.target, network)
        what = f"learngene of {description.spec.name}, {description.profile}"
    else:
        networks.save_network(args.target, network)
        what = description.spec.name
    print(
        f"{args.source}: {layout.name}, {what}, {trees.count(network.params):,} "
        f"numbers, written to {args.target}"
    )
    for note in notes:
        print(f"note: {note}")
    vits = isinstance(description.net, specs.ViTSpec)
    flags = ", and flags say otherwise" if vits else "; of images, flags say otherwise"
    print(f"what its tensors do not show{flags}:")
    print(f"  {describe.function(description.net)}")
    print(f"  {describe.images(description)}")
    return 0


def _write(args: argparse.Namespace) -> int:
    """Writes files of another program from one of this project."""
    from sws_jax import convert
    from sws_jax.jobs import load
    from sws_jax.methods import learngenes
    from sws_jax.models.description import Description

    description: Description | None
    if args.to == "published" and args.depth is None:
        gene = learngenes.load_learngene(args.source)
        convert.save(args.target, gene, args.to)
        description, name = gene.description, gene.description.spec.name
    else:
        network, _ = load.load(args.source, depth=args.depth)
        convert.save(args.target, network, args.to)
        description, name = network.description, network.spec.name
    print(f"{args.source}: {name}, written for {args.to} to {args.target}")
    if args.to not in ("timm", "hugging-face"):
        assert description is not None
        print("not in that file, and asked for by flags when it is read again:")
        if args.to == "published":
            stages = "-".join(map(str, description.stages))
            print(f"  stages {stages}, profile {description.profile}")
        print(f"  {describe.function(description.vit)}")
        print(f"  {describe.images(description)}")
    return 0


def _size(text: str | None) -> int | tuple[int, ...] | None:
    from sws_jax.errors import UserError

    if text is None:
        return None
    if not re.fullmatch(r"\d+(x\d+)?", text):
        raise UserError(f"--image-size is like 384 or 224x160, and {text!r} is not")
    sides = tuple(int(side) for side in text.split("x"))
    return sides if len(sides) == 2 else sides[0]


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    from sws_jax.errors import UserError

    try:
        return tuple(float(part) for part in text.split(",") if text)
    except ValueError:
        raise UserError(f"{flag} is numbers like 0.5,0.5,0.5, not {text!r}") from None
