"""Data: sources by name, transforms of images, and the order in which a run reads them.

A new source is one file with a `load` that returns `base.Dataset`, and one line
in `_open`.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from sws_jax import arguments, pixels
from sws_jax.data import (
    arrays,
    base,
    classes,
    digits,
    facts,
    folder,
    images,
    npz,
    prepared,
    tfds,
)
from sws_jax.data.base import Dataset, Split
from sws_jax.errors import UserError
from sws_jax.pixels import Normalization
from sws_jax.specs import limits
from sws_jax.storage import paths

__all__ = [
    "Dataset",
    "Normalization",
    "Split",
    "is_built_in",
    "is_encoded",
    "is_set",
    "load_dataset",
]


@arguments.checked(
    source=arguments.path_or_none,
    val_fraction=base.VAL_FRACTION,
    image_size=arguments.optional(arguments.size),
    mean=pixels.GIVEN_MEAN,
    std=pixels.GIVEN_STD,
    directory=arguments.path_or_none,
    cache=arguments.path_or_none,
    memory_gib=arguments.number(limits.MEMORY_GIB),
    decoder=arguments.text(limits.DECODERS),
    unreadable=arguments.text(limits.UNREADABLE),
)
def load_dataset(
    source: str | os.PathLike[str],
    *,
    val_fraction: float = 0.1,
    image_size: tuple[int, int] | int | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    directory: str | os.PathLike[str] = "",
    cache: str | os.PathLike[str] = "",
    memory_gib: float = 2.0,
    decoder: str = "pillow",
    unreadable: str = "stop",
) -> base.Dataset:
    """The dataset of a name or a path.

    Args:
      source: "digits"; the path of an ``.npz`` file of arrays (`npz.load`), of a
        folder of images (`folder.load`) or of prepared arrays (`arrays.load`); or
        "tfds:NAME" (`tfds.load`).
      val_fraction: of the training images, held out for every choice, where the
        source has no validation images of its own.
      image_size: height and width for the network; None keeps the source's own.
      mean, std: for each channel, of pixels in 0..1; empty takes the source's own.
      directory: of prepared TFDS sets; empty takes TFDS's default.
      cache: directory on this machine for copies of TFDS sets that are in a bucket;
        empty takes ~/.cache/sws_jax.
      memory_gib: a set of encoded images that takes no more than this, decoded, is
        held in memory; a larger one is decoded as it is read.
      decoder: of encoded images; see `sws_jax.data.images.decode`.
      unreadable: "stop" refuses a set with an image that cannot be read, among those
        that are read here; "skip" leaves such images to the pipeline.

    Raises:
      UserError: the source is unknown or unreadable; the sentence says which.
    """
    images.check_decoder(decoder)
    if bool(mean) != bool(std):
        one, other = ("mean", "std") if mean else ("std", "mean")
        raise UserError(
            f"data.{one} is set and data.{other} is empty: give both, with a number "
            f"for each channel, or neither"
        )
    source = os.path.expanduser(os.fspath(source))
    size: Any = image_size  # `checked` has made it a pair.
    dataset = _open(
        source,
        tfds_places=dict(directory=directory, cache=cache),
        val_fraction=val_fraction,
        image_size=size,
        decoder=decoder,
        memory_gib=memory_gib,
        unreadable=unreadable,
    )
    dataset = _with_clean_names(dataset, source)
    dataset = _seen_as(dataset, source, size, mean, std)
    notes = (*dataset.notes, *facts.remarks(dataset))
    return dataclasses.replace(dataset, notes=notes)


def _with_clean_names(dataset: base.Dataset, source: str) -> base.Dataset:
    """The dataset with its name and those of its classes as they are stored.

    Raises:
      UserError: classes have the same name or none, or there are fewer than two.
    """
    classes.check(dataset.class_names, source)
    dataset = dataclasses.replace(
        dataset,
        name=_named(dataset.name, source),
        class_names=tuple(map(classes.clean, dataset.class_names)),
    )
    if dataset.num_classes < 2:
        raise UserError(
            f"{source} has the one class {dataset.class_names[0]}, and a classifier "
            f"needs two"
        )
    return dataset


def _seen_as(
    dataset: base.Dataset,
    source: str,
    size: tuple[int, int] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> base.Dataset:
    """The dataset with the size and the normalisation that are asked for, if any."""
    if size:
        shape = (*size, dataset.image_shape[-1])
        dataset = dataclasses.replace(dataset, image_shape=shape)
    if mean or std:
        dataset = dataclasses.replace(
            dataset, normalization=pixels.Normalization(tuple(mean), tuple(std))
        )
    if dataset.normalization.channels != dataset.image_shape[-1]:
        raise UserError(
            f"{source} has {dataset.image_shape[-1]} channels, but data.mean and "
            f"data.std have {dataset.normalization.channels}"
        )
    return dataset


def _open(
    source: str, *, tfds_places: dict[str, Any], val_fraction: float, **encoded: Any
) -> base.Dataset:
    """The dataset as its source describes it.

    Args:
      source: see `load_dataset`.
      tfds_places: directory and cache of a set of TFDS.
      val_fraction: of the training images.
      encoded: other arguments, which concern encoded images alone.
    """
    if source == "digits":
        dataset = digits.load(val_fraction=val_fraction)
        size = encoded["image_size"]
        if size and tuple(size) != dataset.image_shape[:2]:
            raise UserError(f"digits are 8 x 8 pixels, not {size[0]} x {size[1]}")
        return dataset
    if source.endswith(".npz"):
        return npz.load(source, val_fraction=val_fraction)
    if source.startswith(prepared.PREFIX):
        name = source.removeprefix(prepared.PREFIX)
        return tfds.load(name, **tfds_places, val_fraction=val_fraction, **encoded)
    if paths.is_remote(source) and paths.is_dir(source):
        raise UserError(
            f"{source} is a folder in a bucket, and images one by one are read from "
            f"this machine's disks alone: make one set of them (python -m sws_jax "
            f"prepare SOURCE OUT) and give its data.directory"
        )
    if arrays.is_set(source):
        return arrays.load(source, val_fraction=val_fraction)
    if os.path.isdir(source):
        return folder.load(source, val_fraction=val_fraction, **encoded)
    raise _unknown(source)


@arguments.checked()
def is_set(path: str | os.PathLike[str]) -> bool:
    """Whether a name or path is that of a dataset, and not of weights."""
    path = os.fspath(path)
    if is_built_in(path) or arrays.is_set(path):
        return True
    if path.endswith(".npz"):  # files of weights have this ending too
        return npz.is_set(path)
    return os.path.isdir(os.path.join(path, "train"))


@arguments.checked()
def is_encoded(source: str | os.PathLike[str]) -> bool:
    """Whether the images of a source are files or records, of any sizes."""
    source = os.fspath(source)
    if source.startswith(prepared.PREFIX):
        return True
    return os.path.isdir(source) and not arrays.is_set(source)


@arguments.checked()
def is_built_in(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a name, which means the same in every directory."""
    source = os.fspath(source)
    return source == "digits" or source.startswith(prepared.PREFIX)


def _named(name: str, source: str) -> str:
    """The name of a set; ``./digits`` for a folder that is called as a built-in set."""
    name = classes.clean(name)
    is_ambiguous = is_built_in(name) and not is_built_in(source)
    return os.path.join(".", name) if is_ambiguous else name


def _unknown(source: str) -> UserError:
    hint = ""
    if os.path.isfile(source):
        hint = " (a file, and its name does not end in .npz)"
    elif os.sep in source:
        hint = " (no such folder)"
    elif suggestion := prepared.suggestion(source):
        hint = f" (perhaps {suggestion} is meant)"
    return UserError(
        f"there is no dataset {source!r}{hint}: data.source is digits, the path of an "
        f".npz file of arrays or of a folder of images, or tfds:NAME (README, 'Your "
        f"own data')"
    )
