"""``evaluate``: accuracy of weights on a dataset."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from sws_jax import commands

HELP = "score weights, checkpoints or a learngene on a dataset"
EXAMPLE = "python -m sws_jax evaluate results/digits/learngene.safetensors --depth 12"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        nargs="+",
        metavar="CHECKPOINT_OR_WEIGHTS",
        help="a .safetensors file, a directory of a run or a job, or one checkpoint",
    )
    parser.add_argument(
        "--data", help="as in a config's dataset=; default: the name of the training's"
    )
    parser.add_argument("--directory", default="", help="of prepared TFDS sets")
    parser.add_argument("--decoder", default="pillow", help="pillow or opencv")
    parser.add_argument(
        "--unreadable", default="stop", help="images: stop (default) or skip them"
    )
    parser.add_argument("--split", default="test", help="train, val or test (default)")
    parser.add_argument(
        "--depth", type=commands.whole, help="expand a learngene to this depth"
    )
    parser.add_argument("--step", type=commands.whole, help="of a run's checkpoint")
    parser.add_argument(
        "--batch-size", type=commands.whole, default=256, help="default 256"
    )


def run(args: argparse.Namespace) -> int:
    import tabulate

    from sws_jax import sharding
    from sws_jax.jobs import load

    _check(args)
    mesh = sharding.make_mesh()
    rows, skipped = [], {}
    for path in args.weights:
        network, label = load.load(path, depth=args.depth, step=args.step)
        data, order = _data(args, label, network.description)
        scores = _scores(args, label, network, data, order, mesh)
        if scores["skipped"]:
            skipped[data.name] = int(scores["skipped"])
        rows.append(
            [
                label,
                f"{data.name}/{args.split}",
                int(scores["count"]),
                f"{scores['top1']:.2%}",
                f"{scores['top5']:.2%}",
                f"{scores['loss']:.4f}",
            ]
        )
    head = ["weights", "data", "images", "top-1", "top-5", "loss"]
    print(tabulate.tabulate(rows, head, disable_numparse=True))
    for name, count in skipped.items():
        print(f"{count:,} images of {name} cannot be read, and are not scored")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses options that are wrong whatever the weights and the set."""
    from sws_jax import arguments
    from sws_jax.data import images
    from sws_jax.data.facts import SPLITS
    from sws_jax.errors import UserError
    from sws_jax.specs import limits

    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, and is {args.batch_size}")
    arguments.text(SPLITS)("--split", args.split)
    arguments.text(limits.UNREADABLE)("--unreadable", args.unreadable)
    arguments.text(limits.DECODERS)("--decoder", args.decoder)
    images.check_decoder(args.decoder)  # whether it is installed


def _data(args: argparse.Namespace, label: str, about) -> tuple[Any, tuple[int, ...]]:
    """The set that weights are scored on, and which of their outputs each class is."""
    from sws_jax.data import classes, is_built_in, load_dataset
    from sws_jax.errors import UserError

    source = args.data or about.dataset
    if not source:
        raise UserError(
            f"{label} does not say what it was trained on; name images with --data"
        )
    if not args.data and not is_built_in(source):
        raise UserError(
            f"{label} was trained on {source!r}; say where that is with --data"
        )
    try:
        data = load_dataset(
            source,
            directory=args.directory,
            val_fraction=about.val_fraction,
            image_size=about.net.image_size,
            decoder=args.decoder,
            unreadable=args.unreadable,
        )
        _check_fits(label, about.net, data)
        names = classes.match(about.class_names, data.class_names, label, data.name)
    except UserError as error:
        if args.data:
            raise
        raise UserError(_not_that(label, source, str(error))) from None
    if names.note and not names.order and not args.data:
        raise UserError(_not_that(label, source, names.note))
    if names.note:
        lead = "" if names.order else "warning: "
        print(f"{lead}{names.note}", file=sys.stderr)
    return data, names.order


def _scores(args: argparse.Namespace, label: str, network, data, order, mesh) -> dict:
    """Accuracy and loss on the split that was asked for."""
    from sws_jax.data.pipeline import Reading
    from sws_jax.data.transforms import Fit
    from sws_jax.errors import UserError
    from sws_jax.models import networks
    from sws_jax.training import evaluation

    about = network.description
    view = about.eval_crop, about.interpolation, about.crop_mode
    scores = evaluation.evaluate(
        networks.predictor(network, order=order),
        data.split(args.split),
        Fit(data.image_shape[:2], *view),
        normalization=about.normalization,
        global_batch_size=args.batch_size,
        mesh=mesh,
        reading=Reading(unreadable=args.unreadable),
    )
    if not math.isfinite(scores["loss"]):
        raise UserError(
            f"{label} gives no numbers (NaN or infinite) for images of "
            f"{data.name}/{args.split}: its weights are damaged, or its training "
            f"had failed"
        )
    return scores


def _check_fits(label: str, net, data) -> None:
    """Refuses weights for images of other channels, or for other classes."""
    from sws_jax.errors import UserError

    if data.image_shape[-1] != net.channels:
        raise UserError(
            f"{label} takes images of {net.channels} channels, and {data.name} has "
            f"{data.image_shape[-1]}"
        )
    if data.num_classes != net.num_classes:
        raise UserError(
            f"{label} has {net.num_classes} classes and {data.name} has "
            f"{data.num_classes}"
        )


def _not_that(label: str, source: str, why: str) -> str:
    """Weights that name a set that everybody has, and were trained on another."""
    return (
        f"{label} was trained on a set that is called {source!r}, and not on the one "
        f"that has this name here ({why}); say where it is with --data"
    )
