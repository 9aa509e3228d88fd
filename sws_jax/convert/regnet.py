"""RegNetY under timm's names and Hugging Face's."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping

from sws_jax.convert import base, ratios
from sws_jax.convert.base import BATCH_NORM, Entry, Layout
from sws_jax.errors import UserError
from sws_jax.specs.regnet import RegNetSpec

Shapes = Mapping[str, tuple[int, ...]]

_USUAL_RATIO = 0.25  # of squeeze-excitation


@dataclasses.dataclass(frozen=True)
class _Names:
    """What differs between two sets of names.

    Attributes:
      stem: the first convolution and its norm.
      block: a block, for the numbers of its stage and of itself.
      first: number of the first stage and of the first block.
      normed: convolutions of a block that a norm follows, ours to theirs.
      biased: those that have a bias instead.
      conv, norm: the two halves of what a norm follows.
      head: the classifier.
    """

    stem: str
    block: str
    first: int
    normed: Mapping[str, str]
    biased: Mapping[str, str]
    conv: str
    norm: str
    head: str


_TIMM = _Names(
    stem="stem",
    block="s{}.b{}",
    first=1,
    normed={name: name for name in ("conv1", "conv2", "conv3", "downsample")},
    biased={"se/fc1": "se.fc1", "se/fc2": "se.fc2"},
    conv="conv",
    norm="bn",
    head="head.fc",
)
_HUGGING_FACE = _Names(
    stem="regnet.embedder.embedder",
    block="regnet.encoder.stages.{}.layers.{}",
    first=0,
    normed={
        "conv1": "layer.0",
        "conv2": "layer.1",
        "conv3": "layer.3",
        "downsample": "shortcut",
    },
    biased={"se/fc1": "layer.2.attention.0", "se/fc2": "layer.2.attention.2"},
    conv="convolution",
    norm="normalization",
    head="classifier.1",
)


def _entries(names: _Names, spec: RegNetSpec) -> list[Entry]:
    entries = _conv_norm(names, names.stem, "stem")
    for s, blocks in enumerate(spec.stages):
        for b, block in enumerate(blocks):
            theirs = names.block.format(s + names.first, b + names.first)
            ours = f"s{s + 1}/b{b + 1}"
            for part, name in names.normed.items():
                if part != "downsample" or block.stride > 1:
                    entries += _conv_norm(names, f"{theirs}.{name}", f"{ours}/{part}")
            for part, name in names.biased.items():
                entries += [
                    Entry(
                        f"{theirs}.{name}.weight", f"{ours}/{part}/kernel", base.CONV
                    ),
                    Entry(f"{theirs}.{name}.bias", f"{ours}/{part}/bias"),
                ]
    if spec.num_classes:
        entries += [
            Entry(f"{names.head}.weight", "head/kernel", base.linear()),
            Entry(f"{names.head}.bias", "head/bias"),
        ]
    return entries


def _conv_norm(names: _Names, theirs: str, ours: str) -> list[Entry]:
    conv = Entry(f"{theirs}.{names.conv}.weight", f"{ours}/conv/kernel", base.CONV)
    return [conv] + [
        Entry(f"{theirs}.{names.norm}.{their_leaf}", f"{ours}/bn/{leaf}")
        for leaf, their_leaf in BATCH_NORM.items()
    ]


def _recognise(names: _Names, shapes: Shapes) -> RegNetSpec | None:
    try:
        return _spec(names, shapes)
    except (KeyError, IndexError, UserError):  # not its names, or not such a network
        return None


def _spec(names: _Names, shapes: Shapes) -> RegNetSpec:
    """The RegNet whose tensors have these names and shapes.

    Raises:
      LookupError: a tensor that tells a size is missing.
    """
    # By the largest number, since the check of names says which block is missing.
    pattern = re.escape(names.block).replace(r"\{\}", r"(\d+)")
    depths: dict[int, int] = {}
    for name in shapes:
        if match := re.match(pattern + r"\.", name):
            s, b = (int(n) - names.first for n in match.groups())
            depths[s] = max(depths.get(s, 0), b + 1)
    stages = range(len(depths))

    def kernel(part: str, s: int, b: int = 0) -> tuple[int, ...]:
        block = names.block.format(s + names.first, b + names.first)
        if part in names.normed:
            return shapes[f"{block}.{names.normed[part]}.{names.conv}.weight"]
        return shapes[f"{block}.{names.biased[part]}.weight"]

    widths = tuple(kernel("conv3", s)[0] for s in stages)
    stem = shapes[f"{names.stem}.{names.conv}.weight"]
    squeezed = {
        (i, kernel("se/fc1", s)[0]) for s, i in enumerate((stem[0], *widths[:-1]))
    }
    squeezed |= {
        (widths[s], kernel("se/fc1", s, depths[s] - 1)[0])
        for s in stages
        if depths[s] > 1
    }
    head = shapes.get(f"{names.head}.weight", (0,))
    return RegNetSpec(
        widths=widths,
        depths=tuple(depths[s] for s in stages),
        # A stage narrower than a group is a group.
        group_width=max((kernel("conv2", s)[1] for s in stages), default=0),
        se_ratio=_ratio(squeezed),
        stem_width=stem[0],
        channels=stem[1],
        num_classes=head[0],
    )


def _ratio(squeezed: set[tuple[int, int]]) -> float:
    """A ratio that gives every (input width, squeezed width), which were rounded.

    The usual one where it does; also where none does, and then shapes will differ.
    """
    return ratios.common(squeezed, round, [_USUAL_RATIO]) or _USUAL_RATIO


def _layout(name: str, names: _Names) -> Layout:
    return Layout(
        name=name,
        recognise=functools.partial(_recognise, names),
        entries=functools.partial(_entries, names),
        ignored=r".*\.num_batches_tracked",
    )


LAYOUTS: tuple[Layout, ...] = (
    _layout("timm RegNet", _TIMM),
    _layout("Hugging Face RegNet", _HUGGING_FACE),
)
