"""``describe``: what a file of weights is, or a set of images."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Mapping

from sws_jax.storage.names import LEARNGENE_FILE

HELP = "say what a file of weights is, this project's or another's, or a set of images"
EXAMPLE = "python -m sws_jax describe results/digits/learngene.safetensors"


_LOOKED_AT = 16  # images of a set, for their sizes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="as for convert; or a set, as dataset= takes it"
    )
    parser.add_argument("--directory", default="", help="of prepared TFDS sets")


def run(args: argparse.Namespace) -> int:
    import tabulate

    from sws_jax import convert, data
    from sws_jax.convert import tensors
    from sws_jax.data import folder
    from sws_jax.errors import UserError
    from sws_jax.jobs import load
    from sws_jax.models import weights
    from sws_jax.storage import paths

    if data.is_set(args.file):
        print(_of_set(args.file, args.directory))
        return 0
    try:
        path = _file(args.file)
    except UserError:
        if folder.has_classes(args.file):
            data.load_dataset(args.file)  # says how a folder of images is laid out
        raise
    notes: tuple[str, ...] = ()
    if paths.is_file(path) and weights.is_ours(path):
        flat, lines = tensors.read(paths.here(path)).flat, _ours(weights.describe(path))
        if why := load.refusal(path):
            lines["initialises"] = f"nothing: {why}"
    else:
        identified = convert.identify(path)
        flat, notes = dict(identified.tensors), identified.notes
        lines = _theirs(identified)
    lines["tensors"] = f"{len(flat)}, {sum(a.size for a in flat.values()):,} numbers"
    lines["dtypes"] = ", ".join(sorted({str(a.dtype) for a in flat.values()}))
    table = [*lines.items(), *(("note", note) for note in notes)]
    print(tabulate.tabulate(table, tablefmt="plain"))
    rows = [[name, f"{count:,}"] for name, count in modules(flat).items()]
    head = ["module", "numbers"]
    print(
        "\n"
        + tabulate.tabulate(
            rows, head, disable_numparse=True, colalign=["left", "right"]
        )
    )
    return 0


def _of_set(source: str, directory: str) -> str:
    """A set of images: counts of each class in each split, and notes."""
    import tabulate

    from sws_jax import data
    from sws_jax.data import facts

    # Nothing is decoded but a few images, since those of one set may be of many sizes.
    size = (1, 1) if data.is_encoded(source) else None
    dataset = data.load_dataset(
        source,
        directory=directory,
        image_size=size,
        memory_gib=0.0,
        unreadable="skip",
    )
    totals = [f"{len(dataset.split(name)):,} {name}" for name in facts.SPLITS]
    lines = {
        "set": dataset.name,
        "images": f"{', '.join(totals)}, {_sizes(dataset)}",
        "classes": f"{dataset.num_classes:,}",
    }
    notes = [("note", note) for note in dataset.notes]
    if again := facts.repeated(dataset):
        text = f"{again:,} test images are training or validation images too"
        notes.append(("note", text))
    by_split = facts.counts(dataset)
    known = {name: n for name, n in by_split.items() if n is not None}
    if len(known) < len(by_split):
        notes.append(
            ("note", "which classes the images have, their records alone tell")
        )
    columns = [known[name].tolist() for name in known]
    rows = list(zip(dataset.class_names, *columns, strict=True))
    return (
        tabulate.tabulate([*lines.items(), *notes], tablefmt="plain")
        + "\n\n"
        + tabulate.tabulate(rows, ["class", *known], intfmt=",")
    )


def _sizes(dataset) -> str:
    """Height, width and channels of a few training images, or their range."""
    import numpy as np

    from sws_jax.data.base import Unreadable

    shapes = set()
    places = np.linspace(0, len(dataset.train) - 1, _LOOKED_AT).astype(int)
    for place in places.tolist():
        with contextlib.suppress(Unreadable):
            shapes.add(dataset.train.read(place)[0].shape)
    sides = zip(*sorted(shapes), strict=True)
    ends = [sorted({min(side), max(side)}) for side in sides]
    return " x ".join(" to ".join(map(str, end)) for end in ends)


def modules(flat: Mapping) -> dict[str, int]:
    """Numbers in each module: the parts of a name but its last, blocks together."""
    counts: dict[str, int] = {}
    for name, array in flat.items():
        plain = re.sub(r"(?<=block)(s?)_\d+", r"\1", name.replace("/", "."))
        parts = [p for p in plain.split(".") if not p.isdigit()]
        key = ".".join(parts[:-1][:3]) or parts[0]
        counts[key] = counts.get(key, 0) + array.size
    return counts


def _file(path: str) -> str:
    """The weights in a folder of a run or a job; a folder of another program's as it
    is, as are files."""
    from sws_jax.convert import folders
    from sws_jax.models import weights
    from sws_jax.storage import paths, runs

    gene = os.path.join(path, LEARNGENE_FILE)
    if paths.is_file(gene):
        return gene
    if paths.is_remote(path) or not os.path.isdir(path):
        return runs.weights_file(path)
    try:
        inside = folders.weights_in(path).path
    except folders.Nothing:
        if runs.is_run(path):
            return runs.weights_file(path)
        raise
    return inside if weights.is_ours(inside) else path


def _theirs(identified) -> dict[str, str]:
    """Lines on another program's weights, and on the configs beside them."""
    from sws_jax import convert
    from sws_jax.methods import sws, tleg

    about, layout = identified.description, identified.layout
    lines = {"layout": layout.name, "network": about.net.name}
    if layout.method == sws.NAME:
        lines["network"] = f"{about.vit.depth} blocks, each shared in a stage"
        lines["stages"] = "not in the file: convert --stages"
    elif layout.method == tleg.NAME:
        lines["network"] = "a block as base and slope"
    lines["images"] = images(about)
    lines["classes"] = _classes(about)
    lines["function"] = function(about.net)
    use = "descendants of any depth" if layout.method else _use(about.net)
    if layout.method:
        lines["method"] = f"{layout.method}, profile official"
    lines["initialises"] = f"{use}, after python -m sws_jax convert"
    if why := convert.refusal(identified):
        lines["initialises"] = f"nothing: {why}"
    lines["note"] = "images, function: as far as its files say, else what is usual"
    return lines


def _classes(about) -> str:
    from sws_jax.convert import keys

    names = about.class_names
    named = f", {keys.shown_key(names[0])} and so on" if names else ""
    return f"{about.net.num_classes}{named}"


def images(about) -> str:
    """How a network wants its images."""
    net, normalization = about.net, about.normalization
    plural = "s" if net.channels > 1 else ""
    shape = ", squeezed into their shape" * about.crop_mode.startswith("squash")
    return (
        f"{net.image_size[0]} x {net.image_size[1]} pixels, {net.channels} "
        f"channel{plural}, mean {normalization.mean}, deviation "
        f"{normalization.std}, crop {about.eval_crop:g}, {about.interpolation}{shape}"
    )


def function(net) -> str:
    """What the tensors of a network do not show."""
    from sws_jax.convert import keys

    if unseen := keys.UNSEEN.get(net.family):
        return unseen
    heads = ", then ".join(f"{vit.heads} heads of {vit.head_size}" for vit in net.vits)
    net = net.tail
    pool = {"norm_mean": "norm, then mean", "mean_norm": "mean, then norm"}
    read = pool[net.pool_order]
    if net.pool == "token":
        read = "class token"
        if net.distilled:
            read += " beside a distillation token that no head reads"
        if net.read_tokens > 1:
            read = "class and distillation token, the mean of both"
    return f"{heads}, LayerNorm epsilon {net.norm_eps:g}, {read}, {net.gelu} GELU"


def _use(net) -> str:
    if net.trainable and not net.tail.distilled:
        return "a run of its own depth (init.network), or a teacher"
    return "an Aux-Net's distillation, as its teacher"


def _ours(about) -> dict[str, str]:
    """Lines on weights of this project."""
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
    net = about.net
    lines = {
        "layout": f"sws_jax, {kinds[about.kind]}",
        "network": about.spec.name,
        "images": images(about),
        "classes": _classes(about),
    }
    if net.trainable:
        lines["function"] = function(net)
    lines["method"] = f"{about.method or 'none'}, profile {about.profile}"
    if about.stages:
        lines["stages"] = "-".join(map(str, about.stages))
    if about.plan:
        lines["plan"] = " ".join(map(str, about.plan))
    if about.teacher:
        lines["teacher"] = about.teacher
    if about.dataset:
        seen = f", validation top-1 {about.accuracy:.1%}" if about.accuracy >= 0 else ""
        step = f", step {about.step:,}" if about.step else ""
        lines["trained on"] = f"{about.dataset}{step}{seen}"
    lines["written by"] = ", ".join(f"{k} {v}" for k, v in about.versions)
    lines["initialises"] = uses[about.kind]
    return lines
