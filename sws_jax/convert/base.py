"""Tables between the tensors of a file and our parameters, for both directions.

A *layout* is a way to name and shape the tensors of a network: timm's, Hugging Face's,
Facebook's, Vision Transformer's. For a spec it lists one `Entry` for every tensor of a
file. The same list reads a file, writes one, and says what is missing from one.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np

from sws_jax import trees
from sws_jax.pixels import IMAGENET_MEAN, IMAGENET_STD, default_normalization

Flat = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Codec:
    """How one tensor is laid out there and here, bitwise in both directions.

    Attributes:
      read: (theirs, our shape) to ours.
      write: ours to theirs; uses nothing but methods that numpy and jax arrays share,
        so that shapes can be asked for without arrays.
    """

    read: Callable[[Any, tuple[int, ...]], Any]
    write: Callable[[Any], Any]


# The same axes in the same order.
SAME = Codec(lambda a, shape: a, lambda a: a)
# One axis there, several here: a bias of heads.
VECTOR = Codec(lambda a, shape: a.reshape(shape), lambda a: a.reshape(-1))
# A convolution's [out, in, height, width] as [height, width, in, out].
CONV = Codec(
    lambda a, shape: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)
)


# What PyTorch calls the leaves of a batch norm.
BATCH_NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@functools.cache
def linear(inputs: int = 1) -> Codec:
    """PyTorch's [out, in] as [*in, *out], the first `inputs` of our axes being in."""

    def write(a):
        rows = int(np.prod(a.shape[:inputs], dtype=int))
        return a.reshape(rows, -1).T

    return Codec(lambda a, shape: a.T.reshape(shape), write)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a file, and where it stands in our tree.

    Attributes:
      theirs: its name in the file.
      ours: name of our leaf, ``a/b/c``.
      codec: from one to the other.
      index: of the part of our leaf that it is: a layer of a stack, say; empty for
        all of it.
    """

    theirs: str
    ours: str
    codec: Codec = SAME
    index: tuple[int | slice, ...] = ()


@dataclasses.dataclass(frozen=True)
class View:
    """How a network wants its images.

    Attributes:
      mean, std: of colour channels, for pixels from 0 to 1.
      crop: share of the shorter side that is kept in evaluation.
      interpolation: see `sws_jax.pixels`.
      crop_mode: see `sws_jax.data.transforms.Fit`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    interpolation: str = "bicubic"
    crop_mode: str = "center"

    def of_channels(self, channels: int) -> View:
        """The same, with the usual mean and deviation of another number of channels."""
        if len(self.mean) == channels:
            return self
        usual = default_normalization(channels)
        return dataclasses.replace(self, mean=usual.mean, std=usual.std)


IMAGENET = View(IMAGENET_MEAN, IMAGENET_STD, crop=0.875)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A way to name the tensors of one family of networks.

    Attributes:
      name: for people: "timm ViT".
      recognise: the spec of a file from the names and shapes of its tensors, or None
        where they are not of this layout. What shapes cannot tell has the default that
        is usual there.
      entries: of every tensor of a network.
      ignored: a regular expression of names in such files that hold nothing to keep.
      view: what such networks are usually fed, which tensors do not show.
      antialias: whether its library smooths a position embedding that shrinks; see
        `sws_jax.methods.surgery.resize_pos_embed`.
      method: of the learngenes that such files hold; empty where they hold networks.
      heads_guessed: whether shapes leave open how many heads a ViT has.
      normalise: tensors of a file, and the image size where it is known, to those that
        the entries name.
    """

    name: str
    recognise: Callable[[Mapping[str, tuple[int, ...]]], Any]
    entries: Callable[[Any], list[Entry]]
    ignored: str | None = None
    view: View = IMAGENET
    antialias: bool = True
    method: str = ""
    heads_guessed: bool = True
    normalise: Callable[[Flat, tuple[int, int] | None], Flat] = lambda flat, size: flat

    @property
    def key(self) -> str:
        """The name as a command line takes it: timm-vit."""
        return re.sub(r"[ _]", "-", self.name.lower().replace("'s", ""))


@dataclasses.dataclass(frozen=True)
class Mismatch(Exception):
    """A file does not hold the network that it looks like.

    Attributes:
      missing: names that it should have, with their shapes.
      surplus: names that it should not have.
      reshaped: names with the shape it should be, and the one it is.
    """

    missing: dict[str, tuple[int, ...]]
    surplus: dict[str, tuple[int, ...]]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def named(self, own: Callable[[str], str]) -> Mismatch:
        """The same under other names: those of the file."""
        return Mismatch(
            {own(name): shape for name, shape in self.missing.items()},
            {own(name): shape for name, shape in self.surplus.items()},
            {own(name): both for name, both in self.reshaped.items()},
        )

    def without(self, name: str) -> Mismatch:
        """The same, whatever the shape of one tensor."""
        reshaped = {k: v for k, v in self.reshaped.items() if k != name}
        return Mismatch(self.missing, self.surplus, reshaped)

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.reshaped)

    @property
    def has(self) -> str:
        """What the network has that no network here has, if its names tell."""
        names = [*self.surplus, *self.reshaped]
        kinds = [k for k, p in _STRANGE.items() if any(re.search(p, n) for n in names)]
        missing = list(self.missing)
        if missing and all(re.search(_QKV_BIAS, name) for name in missing):
            kinds.append("no bias of queries, keys and values")
        if any(_halved(name, *both) for name, both in self.reshaped.items()):
            kinds.append("a gated MLP")
        return " and ".join(kinds[:3])

    def __str__(self) -> str:
        differences = {
            "missing": {k: _text(shape) for k, shape in self.missing.items()},
            "surplus": {k: _text(shape) for k, shape in self.surplus.items()},
            "of another shape": {
                k: f"{_text(is_)}, not {_text(wanted)}"
                for k, (wanted, is_) in self.reshaped.items()
            },
        }
        text = ", ".join(
            f"{words} {_some(grouped(texts))}"
            for words, texts in differences.items()
            if texts
        )
        if self.has:
            text += f", so that it has {self.has}, which no network here has"
        return text


# Parts that no network here has, and names of tensors that show them.
_STRANGE = {
    "an average of patches beside a class token, or a norm of that alone (fc_norm)": (
        r"^fc_norm\."
    ),
    "layer scale": r"(^|[._/])(ls\d[._/]gamma|gamma_\d|layer_scale\d?|lambda_?1)",
    "registers": r"reg_token|register",
    "norms of queries and keys": r"[._/](q_norm|k_norm|query_norm|key_norm)",
    "a decoder (MAE's)": r"(^|[._/])decoder",
    "a mask token (DINOv2's or MAE's)": r"mask_token",
    "a convolutional network before it (a hybrid)": r"patch_embed\.backbone",
    "relative positions (BEiT's)": r"relative_position|rel_pos",
    "attention pooling": r"attn_pool|MAPHead|probe",
    "a norm before its blocks (CLIP's)": r"norm_pre|ln_pre|pre_layrnorm",
    "a gated MLP": r"mlp[._/]w\d|fc1_g|gate_proj|swiglu",
    "biases of queries and values alone (BEiT's, EVA's)": r"attn[._](q_bias|v_bias)",
    "adapters (LoRA's: merge them first)": r"lora_|adapter",
    "a projection head (DINO's)": r"(^|\.)head\.(mlp|last_layer)",
}
_QKV_BIAS = r"(qkv|query|key|value|[qkv]_proj|queries_keys_values)[._/](bias|bias_\w+)$"
_MOST, _LENGTH = 3, 150  # groups of names in a sentence, and their characters


def _halved(name: str, wanted: tuple[int, ...], is_: tuple[int, ...]) -> bool:
    """Whether the last layer of an MLP takes half of what its first layer gives."""
    out = re.search(r"[._/](fc2|Dense_1|w3)[._/](weight|kernel)$", name)
    pairs = zip(is_, wanted, strict=False)
    return bool(out) and any(2 * have == want for have, want in pairs)


def _some(groups: Sequence[str]) -> str:
    """The first few, and how many more."""
    first: list[str] = []
    for group in groups[:_MOST]:
        if first and len("; ".join([*first, group])) > _LENGTH:
            break
        first.append(group if len(group) <= _LENGTH else f"{group[: _LENGTH - 3]}...")
    more = len(groups) - len(first)
    return "; ".join(first) + (f" and {more} more" if more else "")


def shapes(entries: Sequence[Entry], abstract: trees.Tree) -> dict[str, tuple]:
    """Name and shape of every tensor that a file of these entries holds.

    Args:
      entries: of one network.
      abstract: our tree, with leaves that have shapes and dtypes.
    """
    ours = trees.flatten(abstract)
    return {
        entry.theirs: jax.eval_shape(
            entry.codec.write, _part(ours[entry.ours], entry)
        ).shape
        for entry in entries
    }


def check(
    flat: Flat,
    entries: Sequence[Entry],
    abstract: trees.Tree,
    *,
    ignored: str | None = None,
) -> None:
    """Refuses tensors that are not those of the entries.

    Args:
      flat: tensors of a file by name; nothing but their shapes is looked at.
      entries, abstract: as in `shapes`.
      ignored: a regular expression of names that hold nothing to keep.

    Raises:
      Mismatch: with all that differs.
    """
    wanted = shapes(entries, abstract)
    missing = {k: s for k, s in wanted.items() if k not in flat}
    surplus = {
        k: tuple(a.shape)
        for k, a in flat.items()
        if k not in wanted and not (ignored and re.fullmatch(ignored, k))
    }
    reshaped = {
        k: (s, tuple(flat[k].shape))
        for k, s in wanted.items()
        if k in flat and tuple(flat[k].shape) != s
    }
    if missing or surplus or reshaped:
        raise Mismatch(missing, surplus, reshaped)


def first_invalid(flat: Flat, entries: Sequence[Entry]) -> tuple[str, str]:
    """The first tensor of a complete file whose numbers are no weights, and why."""
    for name, ours in {entry.theirs: entry.ours for entry in entries}.items():
        if why := trees.no_weights(ours, flat[name]):
            return name, why
    return "", ""


def read(
    flat: Flat,
    entries: Sequence[Entry],
    abstract: trees.Tree,
    *,
    ignored: str | None = None,
) -> trees.Tree:
    """Our tree, of numpy leaves, from the tensors of a file.

    Args:
      flat, entries, abstract, ignored: as in `check`.

    Raises:
      Mismatch: the file holds other tensors.
    """
    check(flat, entries, abstract, ignored=ignored)
    ours = trees.flatten(abstract)
    # Parts of one leaf may differ; none may lose a digit.
    dtypes: dict[str, set] = {}
    for entry in entries:
        dtypes.setdefault(entry.ours, set()).add(np.asarray(flat[entry.theirs]).dtype)
    leaves: dict[str, np.ndarray] = {}
    filled: dict[str, int] = dict.fromkeys(ours, 0)
    for entry in entries:
        theirs = np.asarray(flat[entry.theirs])
        leaf = ours[entry.ours]
        if entry.ours not in leaves:
            leaves[entry.ours] = np.empty(leaf.shape, _joint(dtypes[entry.ours]))
        shape = _part(leaf, entry).shape
        leaves[entry.ours][entry.index] = entry.codec.read(theirs, shape)
        filled[entry.ours] += int(np.prod(shape, dtype=int))
    # A table that leaves a hole is a mistake of ours and no user's.
    holes = [k for k, n in filled.items() if n != np.prod(ours[k].shape, dtype=int)]
    assert not holes, holes
    return trees.unflatten(leaves)


def _joint(dtypes: set[np.dtype]) -> np.dtype:
    """The smallest type that holds the numbers of all types.

    numpy knows none for float16 together with bfloat16: it is float32.
    """
    halves = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}
    if halves <= dtypes:
        dtypes = dtypes - halves | {np.dtype(np.float32)}
    return np.result_type(*dtypes)


def write(params: trees.Tree, entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """The tensors of a file, C-contiguous, from our tree; the inverse of `read`."""
    ours = trees.flatten(trees.to_host(params))
    return {
        entry.theirs: np.ascontiguousarray(
            entry.codec.write(ours[entry.ours][entry.index])
        )
        for entry in entries
    }


def grouped(texts: Mapping[str, str]) -> list[str]:
    """``name text`` for each, names that differ in one number alone as one.

    >>> grouped({"blocks.0.w": "[2]", "blocks.1.w": "[2]", "norm.w": "[2]"})
    ['blocks.{0..1}.w [2]', 'norm.w [2]']
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for name, text in texts.items():
        number = re.search(r"(?<=[._/])\d+(?=[._/])", name)
        key = (
            name if not number else f"{name[: number.start()]}\0{name[number.end() :]}"
        )
        groups.setdefault((key, text), []).append(int(number[0]) if number else -1)
    return [
        f"{_ranged(key, numbers)} {text}" for (key, text), numbers in groups.items()
    ]


def _ranged(key: str, numbers: list[int]) -> str:
    if numbers == [-1]:
        return key
    ordered = sorted(numbers)
    if len(ordered) == 1:
        span = str(ordered[0])
    elif ordered == list(range(ordered[0], ordered[-1] + 1)):
        span = f"{{{ordered[0]}..{ordered[-1]}}}"
    else:
        span = "{" + ",".join(map(str, ordered)) + "}"
    return key.replace("\0", span)


def _part(leaf, entry: Entry) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the part of our leaf that an entry stands for."""
    # Strides of 0: as large as one number, whatever the shape.
    whole = np.broadcast_to(np.zeros((), np.int8), leaf.shape)
    return jax.ShapeDtypeStruct(whole[entry.index].shape, leaf.dtype)


def _text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
