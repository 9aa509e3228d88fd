"""``evaluate``: accuracy of weights on a dataset."""

from __future__ import annotations

import argparse
import math
import sys

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

    from sws_jax import arguments, sharding
    from sws_jax.data import classes, images, is_built_in, load_dataset
    from sws_jax.data.facts import SPLITS
    from sws_jax.data.pipeline import Reading
    from sws_jax.data.transforms import Fit
    from sws_jax.errors import UserError
    from sws_jax.jobs import load
    from sws_jax.models import networks
    from sws_jax.specs import limits
    from sws_jax.training import evaluation

    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, and is {args.batch_size}")
    # What is wrong with these says nothing of the set.
    arguments.text(SPLITS)("--split", args.split)
    arguments.text(limits.UNREADABLE)("--unreadable", args.unreadable)
    arguments.text(limits.DECODERS)("--decoder", args.decoder)
    images.check_decoder(args.decoder)  # whether it is installed
    mesh = sharding.make_mesh()
    body, skipped = [], {}
    for path in args.weights:
        network, label = load.load(path, depth=args.depth, step=args.step)
        about = network.description
        assert about is not None
        net = about.net
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
                image_size=net.image_size,
                decoder=args.decoder,
                unreadable=args.unreadable,
            )
            _check_fits(label, net, data)
            names = classes.match(about.class_names, data.class_names, label, data.name)
        except UserError as error:
            if args.data:
                raise
            raise UserError(_not_that(label, source, str(error))) from None
        if names.said and not names.order and not args.data:
            raise UserError(_not_that(label, source, names.said))
        if names.said:
            lead = "" if names.order else "warning: "
            print(f"{lead}{names.said}", file=sys.stderr)
        found = evaluation.evaluate(
            networks.predictor(network, order=names.order),
            data.split(args.split),
            Fit(
                data.image_shape[:2],
                *(about.eval_crop, about.interpolation, about.crop_mode),
            ),
            normalization=about.normalization,
            global_batch_size=args.batch_size,
            mesh=mesh,
            reading=Reading(unreadable=args.unreadable),
        )
        if not math.isfinite(found["loss"]):
            raise UserError(
                f"{label} gives no numbers (NaN or infinite) for images of "
                f"{data.name}/{args.split}: its weights are damaged, or its training "
                f"had failed"
            )
        if found["skipped"]:
            skipped[data.name] = int(found["skipped"])
        body.append(
            [
                label,
                f"{data.name}/{args.split}",
                int(found["count"]),
                f"{found['top1']:.2%}",
                f"{found['top5']:.2%}",
                f"{found['loss']:.4f}",
            ]
        )
    head = ["weights", "data", "images", "top-1", "top-5", "loss"]
    print(tabulate.tabulate(body, head, disable_numparse=True))
    for name, count in skipped.items():
        print(f"{count:,} images of {name} cannot be read, and are not scored")
    return 0


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
