"""Plain arrays in one `.npz` file, all of one size."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from sws_jax import files, paths
from sws_jax.data import base
from sws_jax.errors import UserError

_KEYS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")


def load(path: str, *, val_fraction: float) -> base.Dataset:
    """A dataset from arrays: see "Your own data" in the README.

    Args:
      path: a file with ``train_images`` uint8 [n, height, width(, channels)],
        ``train_labels`` integers [n], the same two for ``test``, and
        ``class_names`` strings [classes].
      val_fraction: of the training images, held out.

    Raises:
      UserError: the file is missing, is no such file, or its arrays disagree.
    """
    arrays = _read(path)
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(
            f"{path}: class_names must be one string for each class, and is "
            f"{names.dtype} {list(names.shape)}"
        )
    splits, shapes = {}, {}
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        _check(path, split, images, labels, len(names))
        images = images[..., None] if images.ndim == 3 else images
        splits[split] = base.Arrays(images, labels.astype(np.int32))
        shapes[split] = images.shape[1:]
    shape = shapes["train"]
    if shape != shapes["test"]:
        raise UserError(
            f"{path}: training images are {shape} and test images {shapes['test']}; "
            f"resize them to one shape"
        )
    train, val = base.hold_out(splits["train"], val_fraction)
    return base.Dataset(
        name=os.path.splitext(os.path.basename(path))[0],
        train=train,
        val=val,
        test=splits["test"],
        class_names=tuple(names.tolist()),
        image_shape=shape,
        normalization=base.default_normalization(shape[-1]),
    )


def _read(path: str) -> dict[str, np.ndarray]:
    if not paths.is_file(path):
        raise UserError(f"there is no dataset file {path}")
    if not zipfile.is_zipfile(paths.here(path)):
        raise UserError(
            f"{path} is damaged or no .npz file at all; write it with numpy.savez"
        )
    arrays = files.read_npz(path, _KEYS)
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; a dataset holds {', '.join(_KEYS)}"
        )
    return arrays


def _check(path, split, images, labels, classes):
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        raise UserError(
            f"{path}: {split}_images must be uint8 [n, height, width(, channels)] with "
            f"at least one image, and is {images.dtype} {list(images.shape)}"
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
