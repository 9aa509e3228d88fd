"""``convert``: weights of another program as this project's, and back."""

from __future__ import annotations

import argparse

HELP = "read weights under another program's names, or write them for timm"
EXAMPLE = "python -m sws_jax convert deit_small.pth teacher.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", help=".safetensors, .npz, or .pth, .pt, .bin of PyTorch"
    )
    parser.add_argument(
        "target", metavar="OUT", help="a .safetensors file; with --to timm a folder"
    )
    parser.add_argument("--to", choices=["timm"], help="write for it what is ours")
    parser.add_argument("--depth", type=int, help="expand a learngene to this depth")
    parser.add_argument("--heads", type=int, help="where it is not one of 64 a head")
    parser.add_argument("--norm-eps", type=float, help="epsilon of its LayerNorms")


def run(args: argparse.Namespace) -> int:
    from sws_jax import convert, loading, networks, trees
    from sws_jax.convert import timm
    from sws_jax.errors import UserError

    if args.to == "timm":
        network, label = loading.load(args.source, depth=args.depth)
        timm.save(args.target, network)
        print(f"{label}: {network.spec.name}, written for timm to {args.target}")
        return 0
    if args.depth is not None:
        raise UserError("--depth goes with --to: what is read has its depth")
    if not args.target.endswith(".safetensors"):
        raise UserError(f"{args.target} must end in .safetensors")
    given = {"heads": args.heads, "norm_eps": args.norm_eps}
    given = {name: value for name, value in given.items() if value is not None}
    network, layout = convert.load(args.source, **given)
    networks.save_network(args.target, network)
    print(
        f"{args.source}: {layout.name}, {network.spec.name}, "
        f"{trees.count(network.params):,} numbers, written to {args.target}"
    )
    return 0
