"""Plain arrays in one `.npz` file, all of one size."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from sws_jax import pixels
from sws_jax.data import base
from sws_jax.errors import UserError
from sws_jax.runtime import words
from sws_jax.storage import array_files, paths

_KEYS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")
_VAL = ("val_images", "val_labels")
_FEW = 4  # most channels of a usual image


def load(path: str, *, val_fraction: float) -> base.Dataset:
    """A dataset from arrays: see "Your own data" in the README.

    Args:
      path: a file with ``train_images`` uint8 [n, height, width(, channels)],
        ``train_labels`` integers [n], the same two for ``test`` and perhaps for
        ``val``, and ``class_names`` strings [classes].
      val_fraction: of the training images, held out where there is no ``val``.

    Raises:
      UserError: the file is missing, is of another kind, or its arrays disagree.
    """
    arrays, others = _read(path)
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(
            f"{path}: class_names must be one string for each class, and is "
            f"{names.dtype} {list(names.shape)}"
        )
    splits = {}
    for split in ("train", "test", "val"):
        if split == "val" and _VAL[0] not in arrays:
            continue
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        _check(path, split, images, labels, len(names))
        images = images[..., None] if images.ndim == 3 else images
        splits[split] = base.Arrays(images, labels.astype(np.int32))
    shapes = {split: data.images[0].shape for split, data in splits.items()}
    shape = shapes["train"]
    for split, other in shapes.items():
        if other != shape:
            called = {"test": "test", "val": "validation"}[split]
            raise UserError(
                f"{path}: training images are {shape} and {called} images {other}; "
                f"resize them to one shape"
            )
    train: base.Split = splits["train"]
    val: base.Split
    if "val" in splits:
        val = splits["val"]
    else:
        train, val = base.hold_out(train, val_fraction)
    notes = [f"arrays that are not read: {words.few(others)}"] if others else []
    return base.Dataset(
        name=os.path.splitext(os.path.basename(path))[0],
        train=train,
        val=val,
        test=splits["test"],
        class_names=tuple(names.tolist()),
        image_shape=shape,
        normalization=pixels.default_normalization(shape[-1]),
        stored=splits,
        notes=tuple(notes),
    )


def _read(path: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a set, and the names of other arrays in its file."""
    if not paths.is_file(path):
        raise UserError(f"there is no dataset file {path}")
    if not zipfile.is_zipfile(paths.here(path)):
        raise UserError(
            f"{path} is damaged or no .npz file at all; write it with numpy.savez"
        )
    arrays = array_files.read_npz(path, (*_KEYS, *_VAL))
    names = _names(path)
    wanted = _KEYS if not names & set(_VAL) else (*_KEYS, *_VAL)
    missing = [key for key in wanted if key not in arrays]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; a dataset holds {', '.join(wanted)}"
        )
    return arrays, sorted(names - set(wanted))


def _names(path: str) -> set[str]:
    """Names of the arrays in a file."""
    with zipfile.ZipFile(paths.here(path)) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def is_set(path: str) -> bool:
    """Whether a file holds arrays with the names of a dataset's."""
    if not paths.is_file(path) or not zipfile.is_zipfile(paths.here(path)):
        return False
    return bool(_names(path) & {*_KEYS, *_VAL})


def _check(path, split, images, labels, classes):
    """Refuses arrays of a split that are not images with labels of classes."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        raise UserError(
            f"{path}: {split}_images must be uint8 [n, height, width(, channels)] with "
            f"at least one image, and is {images.dtype} {list(images.shape)}"
        )
    if 0 in images.shape:
        raise UserError(
            f"{path}: {split}_images are {list(images.shape)}, without a single pixel"
        )
    if images.ndim == 4 and images.shape[1] <= _FEW < images.shape[3]:
        raise UserError(
            f"{path}: {split}_images are {list(images.shape)}, which reads as "
            f"{images.shape[1]} x {images.shape[2]} pixels of {images.shape[3]} "
            f"channels; channels stand last, so write "
            f"{split}_images.transpose(0, 2, 3, 1)"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise UserError(
            f"{path}: {split}_labels must be one integer for each of the {len(images)} "
            f"images, and is {labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"{path}: {split}_labels go from {labels.min()} to {labels.max()}, but "
            f"there are {classes} class names"
        )
