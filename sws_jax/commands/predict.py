"""``predict``: classes of images, with probabilities."""

from __future__ import annotations

import argparse

from sws_jax import commands

HELP = "name what is in images"
EXAMPLE = "python -m sws_jax predict runs/des-digits-L12/des-digits-L12 three.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        metavar="WEIGHTS",
        help="a .safetensors file, a run's directory, or one of its checkpoints",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file of an image")
    parser.add_argument(
        "--top", type=commands.whole, default=3, help="classes shown (default 3)"
    )
    parser.add_argument(
        "--depth", type=commands.whole, help="expand a learngene to this depth"
    )
    parser.add_argument("--step", type=commands.whole, help="of a run's checkpoint")


def run(args: argparse.Namespace) -> int:
    import jax
    import numpy as np

    from sws_jax.data import images
    from sws_jax.data.transforms import Fit
    from sws_jax.errors import UserError
    from sws_jax.jobs import load
    from sws_jax.models import networks
    from sws_jax.models.networks import Predictor
    from sws_jax.pixels import normalize

    if args.top < 1:
        raise UserError(f"--top must be at least 1, and is {args.top}")
    network, label = load.load(args.weights, depth=args.depth, step=args.step)
    about = network.description
    assert about is not None
    net = about.net
    if not net.num_classes:
        raise UserError(f"{label} has no classes to name: it gives features")
    fit = Fit(net.image_size, about.eval_crop, about.interpolation, about.crop_mode)
    pixels = np.stack(
        [fit(images.read(path, channels=net.channels)) for path in args.images]
    )
    x = normalize(jax.numpy.asarray(pixels), about.normalization)
    logits = jax.jit(Predictor.logits, static_argnums=2)(
        networks.predictor(network), x, about.normalization
    )
    names = about.class_names or tuple(f"class {i}" for i in range(net.num_classes))
    for path, row in zip(args.images, np.asarray(logits), strict=True):
        if not np.isfinite(row).all():
            raise UserError(
                f"{label} gives no numbers for {path} (NaN or infinite): its weights "
                f"are damaged, or its training had failed"
            )
    for path, row in zip(args.images, np.asarray(jax.nn.softmax(logits)), strict=True):
        best = np.argsort(-row, kind="stable")[: args.top]
        shown = ", ".join(f"{names[i]} {row[i]:.1%}" for i in best)
        print(f"{path}: {shown}")
    return 0
