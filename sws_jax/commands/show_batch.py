"""``show_batch``: the images of a training step, as the network gets them."""

from __future__ import annotations

import argparse
import math
import os

from sws_jax import commands

HELP = "draw the augmented images of a training step, with their labels"
EXAMPLE = "python -m sws_jax show_batch --config=configs/aux_deit.py --out batch.png"


_OUT = "batch.png"
_SOFTWARE = "sws_jax show_batch"  # by which a picture is known as one of these


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", dest="name", help="of the job; default: the config's own fields"
    )
    parser.add_argument(
        "--step", type=commands.whole, default=0, help="default 0, the first"
    )
    parser.add_argument(
        "--images", type=commands.whole, default=32, help="how many (default 32)"
    )
    parser.add_argument("--out", help=f"default {_OUT}")
    parser.set_defaults(flags=[])


def run(args: argparse.Namespace) -> int:
    from sws_jax.errors import UserError
    from sws_jax.jobs import commandline

    if not 0 <= args.step < 2**31 or args.images < 1:
        raise UserError(
            f"--step is 0 to 2^31 - 1 and --images at least 1, and they are "
            f"{args.step} and {args.images}"
        )
    if args.out is None:
        args.out = _OUT
        if os.path.exists(_OUT) and not _is_ours(_OUT):
            raise UserError(f"there is a {_OUT} that is no such picture: give --out")
    if not os.path.splitext(args.out)[1]:
        raise UserError(f"--out {args.out} needs an ending, as in {args.out}.png")
    config, _ = commandline.parse(args.flags)
    # JAX starts with the imports below; a refused request need not wait for it.
    import numpy as np

    from sws_jax.jobs import build, check
    from sws_jax.jobs.rows import runs

    if args.name:
        rows = {row.name: row.config for row in runs(config)}
        if args.name not in rows:
            raise UserError(
                f"the job has no run {args.name!r}; it has {', '.join(rows)}"
            )
        config = rows[args.name]
    check.check(config)
    data = build.dataset(config)
    x, targets = _batch(config, data, args.step)
    mean, std = data.normalization.mean, data.normalization.std
    pixels = np.clip(np.asarray(x) * std + mean, 0.0, 1.0)
    # Smoothing is the same for all images: without it the shares are those of mixing.
    smoothing = config.augment.label_smoothing
    shares = (np.asarray(targets) - smoothing / data.num_classes) / (1.0 - smoothing)
    count = min(args.images, len(pixels))
    titles = [label(row, data.class_names) for row in shares[:count]]
    draw(pixels[:count], titles, args.out)
    print(
        f"{args.out}: {count} of the {config.global_batch_size} images of step "
        f"{args.step} of {args.name or config.name}, {data.name}, "
        f"{data.image_shape[0]} x {data.image_shape[1]} pixels"
    )
    return 0


def _batch(config, data, number: int):
    """Images and targets of a step, as a run of that config computes them."""
    import jax

    from sws_jax.data import pipeline
    from sws_jax.data.augment import Augment
    from sws_jax.jobs import build
    from sws_jax.training import step

    augment = Augment(**config.augment)
    augment.check_batch(config.global_batch_size)
    raw = next(
        pipeline.train_batches(
            data.train,
            build.transform(config),
            seed=config.seed,
            global_batch_size=config.global_batch_size,
            size=data.image_shape[:2],
            repeats=config.data.repeats,
            start_step=number,
            reading=build.reading(config),
        )
    )
    key, _ = step.keys(jax.random.key(config.seed), number)
    return augment(
        key,
        jax.numpy.asarray(raw["image"]),
        jax.numpy.asarray(raw["label"]),
        data.num_classes,
        data.normalization,
    )


def label(shares, names) -> str:
    """An image's classes, with their shares where it is mixed from two."""
    first, second = (-shares).argsort(kind="stable")[:2]
    if shares[second] < 0.005:
        return _short(names[first])
    return (
        f"{_short(names[first])} {shares[first]:.0%}\n"
        f"{_short(names[second])} {shares[second]:.0%}"
    )


def _is_ours(path: str) -> bool:
    """Whether a picture was drawn here, and may be drawn anew."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == _SOFTWARE
    except OSError:
        return False


def draw(pixels, titles, path: str) -> None:
    """A sheet of images [n, height, width, channels], 0..1, one title each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from sws_jax.errors import UserError
    from sws_jax.reports.figures import drawable
    from sws_jax.storage import files

    columns = min(len(pixels), 8)
    rows = math.ceil(len(pixels) / columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(1.5 * columns, 1.75 * rows),
        layout="constrained",
        squeeze=False,
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, pixels, titles, strict=False):
        # Grey, or the first three of other channels.
        shown = image[..., 0] if image.shape[-1] < 3 else image[..., :3]
        axes.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_title(drawable(title), fontsize=7, color="#22303c")
    try:
        with files.replacing(path) as temporary:
            about = {"Software": _SOFTWARE} if path.endswith(".png") else None
            figure.savefig(temporary, dpi=110, metadata=about)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written ({error})") from None
    finally:
        plt.close(figure)


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "\N{HORIZONTAL ELLIPSIS}"
