"""``cost``: parameters, FLOPs and memory of networks, jobs and the paper's claims."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sws_jax import commands

HELP = "count what networks, a job's runs or the paper's cost, running nothing"
EXAMPLE = "python -m sws_jax cost vit_small_patch16_L12 levit_384"

CONVENTION = (
    "FLOPs of one image: 2 for each multiply-add of a matrix product or convolution, "
    "nothing else;\nactivations: MiB that the backward pass of one image waits with. "
    "(sws_jax/estimate/flops.py has the terms.)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="a name like vit_small_patch16_L12, aux_vit_small_patch16_3-3-4-3-3, "
        "levit_384 or regnety_160, or a weights file",
    )
    parser.add_argument(
        "--config",
        help="instead: the runs of a job, as in python -m sws_jax.main, overrides too",
    )
    parser.add_argument("--paper", help="instead: the paper's comparison, S or B")
    parser.add_argument(
        "--classes", type=commands.whole, help="default 1000, or the file's own"
    )
    parser.add_argument(
        "--image-size",
        type=commands.whole,
        help="pixels; default 224, or the file's or config's",
    )
    parser.add_argument(
        "--images",
        type=commands.whole,
        help="of an epoch; default ImageNet's 1,281,167",
    )
    parser.add_argument(
        "--teacher", help="name or file: its forward is part of distillation"
    )
    parser.add_argument(
        "--remat",
        action="store_true",
        default=None,
        help="blocks are computed again going backwards",
    )
    parser.add_argument("--dtype", help="of activations; default float32")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    parser.set_defaults(flags=[])


def run(args: argparse.Namespace) -> int:
    from sws_jax.errors import UserError

    forms = {"networks": _networks, "config": _config, "paper": _paper}
    idle = {
        "networks": ("images",),
        "config": ("remat", "dtype"),  # fields of the config itself
        "paper": ("classes", "image_size", "images", "remat", "dtype"),
    }
    chosen = [form for form in forms if getattr(args, form)]
    if len(chosen) != 1:
        raise UserError(
            "cost takes either names or files of networks, or --config=FILE, or "
            "--paper=S, and was given "
            + (" and ".join(chosen) if chosen else "none of them")
        )
    if args.flags and not args.config:
        raise UserError(f"cost has no option {args.flags[0]}; see --help")
    for option in ("classes", "image_size", "images"):
        value = getattr(args, option)
        if value is not None and value < 1:
            name = option.replace("_", "-")
            raise UserError(f"--{name} must be at least 1, and is {value}")
    (form,) = chosen
    for option in idle[form]:
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise UserError(
                f"--{name} does not go with "
                + ("names of networks" if form == "networks" else f"--{form}")
            )
    forms[form](args)
    return 0


def _networks(args) -> None:
    """A line for each network."""
    from sws_jax.preview import costs
    from sws_jax.specs import Compute

    sizes = {"num_classes": args.classes, "image_size": args.image_size}
    changes = {name: size for name, size in sizes.items() if size is not None}
    compute = Compute(args.dtype or "float32", bool(args.remat))
    rows = costs.of_networks(args.networks, changes, compute, args.teacher)
    if args.json:
        return _print_json([dataclasses.asdict(row) for row in rows])
    body = [
        [
            row.network,
            f"{row.parameters:,}",
            f"{row.forward_flops / 1e9:.4g}",
            f"{row.step_flops / 1e9:.4g}" if row.step_flops else "-",
            f"{row.activation_bytes / 2**20:.4g}" if row.activation_bytes else "-",
        ]
        for row in rows
    ]
    head = ["network", "parameters", "forward, GFLOPs", "training step, GFLOPs"]
    _print_table([*head, "activations, MiB"], body)
    print(f"\n{CONVENTION}")
    if any(row.step_flops is None for row in rows):
        print("LeViT and RegNetY are teachers here: they are not trained.")


def _paper(args) -> None:
    """A line for each ratio, with its condition."""
    from sws_jax.preview import claims

    paper = claims.paper(args.paper, args.teacher)
    if args.json:
        return _print_json([dataclasses.asdict(row) for row in paper.rows])
    print(f"{paper.about}\n")
    body = [
        [
            row.what,
            _short(row.each_depth),
            _short(row.learngene),
            f"{row.ratio:.2f} x",
            row.when,
        ]
        for row in paper.rows
    ]
    head = ["", "each depth", "learngene", "less", "what is counted"]
    _print_table(head, body, left=(0, 4))


def _config(args) -> None:
    """A line for each run of a job, and what the ways to have every depth cost."""
    from sws_jax.jobs import commandline

    _, flags = commandline.parallel(
        args.flags
    )  # What a job costs does not depend on it.
    config, workdir = commandline.parse([f"--config={args.config}", *flags])
    # JAX starts with the import below; a refused request need not wait for it.
    from sws_jax.preview import costs

    job = costs.of_job(
        config,
        workdir,
        image_size=args.image_size,
        classes=args.classes,
        images=args.images,
        teacher_name=args.teacher,
    )
    if args.json:
        runs = [dataclasses.asdict(row) for row in job.runs]
        return _print_json({"runs": runs, "ways": job.totals, "notes": job.notes})
    body = [
        [
            row.run,
            row.network,
            f"{row.epochs:g}",
            f"{row.layer_epochs:g}",
            f"{row.parameters:,}",
            f"{row.step_flops / 1e9:.4g}" if row.step_flops else "-",
            f"{row.flops:.3g}" if row.epochs else "-",
        ]
        for row in job.runs
    ]
    head = ["run", "network", "epochs", "layer-epochs", "parameters"]
    _print_table([*head, "GFLOPs an image", "training FLOPs"], body, left=(0, 1))
    if job.ways:
        body = [
            [name, *(_short(sums.get(quantity)) for quantity in costs.LABELS)]
            for name, sums in job.totals.items()
        ]
        for name, ratios in job.ratios.items():
            shown = [
                f"{ratio:.2f}" if math.isfinite(ratio) else "-"
                for ratio in ratios.values()
            ]
            body.append([f"long / {name}", *shown])
        print()
        _print_table(["all depths", *costs.LABELS.values()], body)
    print("\n" + "\n".join(job.notes))


def _short(value: float | None) -> str:
    """Up to ten digits as they are, larger numbers with a power of ten."""
    if value is None:
        return "-"
    return f"{value:,.10g}" if value < 1e10 else f"{value:.3g}"


def _print_table(head: Sequence[str], body, left: Sequence[int] = (0,)) -> None:
    import tabulate

    sides = ["left" if column in left else "right" for column in range(len(head))]
    print(tabulate.tabulate(body, head, disable_numparse=True, colalign=sides))


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))
