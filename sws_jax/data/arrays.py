"""Images of one size in ``.npy`` files, mapped into memory, which need not fit into it.

``python -m sws_jax prepare SOURCE OUT --size N`` writes such a folder: ``arrays.json``,
and for each split ``SPLIT_images.npy`` uint8 [n, N, N, channels] and
``SPLIT_labels.npy`` int32 [n], in which -1 marks an image that was left out.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from sws_jax import pixels
from sws_jax.data import base
from sws_jax.errors import UserError
from sws_jax.storage import documents

DESCRIPTION = "arrays.json"
KINDS = ("images", "labels")  # of the files of a split
_REMEDY = "prepare the set again"


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A split in a file, of which only those images are read that are used.

    Attributes:
      path: of the images.
      labels: int32 [n].
      rows: int64 [n], rows of the images in the file.
    """

    path: str
    labels: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        return np.array(self.images[self.rows[index]]), int(self.labels[index])

    def identity(self) -> str:
        return base.digest(self.labels, self.rows)

    @functools.cached_property
    def images(self) -> np.ndarray:
        """All images of the file, in its order, of which none is read yet."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapping: another process maps the file itself."""
        return {key: value for key, value in vars(self).items() if key != "images"}


def is_set(path: str) -> bool:
    """Whether a folder holds such a set."""
    return os.path.isfile(os.path.join(path, DESCRIPTION))


def load(path: str, *, val_fraction: float) -> base.Dataset:
    """A dataset of prepared arrays.

    Where there are both splits ``validation`` and ``test``, they are the validation and
    the test images. Where there is one of them, it is the test set, and validation
    images are held out of the training images.

    Args:
      path: of the folder.
      val_fraction: of the training images, held out where it applies.

    Raises:
      UserError: it is damaged.
    """
    description = _described(path)
    shape, class_names = description.shape, description.classes
    stored = {
        split: _split(path, split, (count, *shape), len(class_names))
        for split, count in description.rows.items()
    }
    if "train" not in stored or len(stored) < 2 or len(shape) != 3:
        raise UserError(f"{path}/{DESCRIPTION} lacks splits or a shape: {_REMEDY}")
    splits = dict(stored)
    train: base.Split = splits.pop("train")
    test = splits.pop("test") if "test" in splits else splits.pop("validation")
    val: base.Split
    if splits:
        val = splits.pop("validation")
    else:
        train, val = base.hold_out(train, val_fraction)
    return base.Dataset(
        name=description.name,
        train=train,
        val=val,
        test=test,
        class_names=class_names,
        image_shape=shape,
        normalization=pixels.default_normalization(shape[-1]),
        stored=stored,
    )


def misfits(path: str) -> set[str]:
    """Splits with a file whose type or shape is not that of the description.

    Raises:
      UserError: the description is damaged.
    """
    description = _described(path)
    return {
        split
        for split, count in description.rows.items()
        if not all(
            holds(*file) for file in files_of(path, split, (count, *description.shape))
        )
    }


# Fields of the description, as `documents.misfit` takes them.
_HOLDS = {"name": str, "class_names": [str], "shape": [int], "splits": {}}


@dataclasses.dataclass(frozen=True)
class _Description:
    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]  # of an image
    rows: dict[str, int]  # of each split


def _described(path: str) -> _Description:
    file = os.path.join(path, DESCRIPTION)
    content = documents.read_json(file, holds=_HOLDS, remedy=_REMEDY)
    rows = content["splits"]
    if wrong := documents.misfit(rows, dict.fromkeys(rows, {"rows": int}), "splits"):
        raise UserError(f"{file} is damaged ({wrong}): {_REMEDY}")
    return _Description(
        content["name"],
        tuple(content["class_names"]),
        tuple(content["shape"]),
        {split: entry["rows"] for split, entry in rows.items()},
    )


def holds(path: str, dtype: Any, shape: tuple[int, ...]) -> bool:
    """Whether a file is a whole array of a type and shape, stored row by row."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, damaged, too short, no array
        return False
    matches = array.dtype == dtype and array.shape == shape
    return matches and bool(array.flags.c_contiguous)


def files_of(path: str, split: str, shape: tuple[int, ...]):
    """Path, type and shape of a split's images, and of its labels."""
    images, labels = (os.path.join(path, f"{split}_{kind}.npy") for kind in KINDS)
    return (images, np.uint8, shape), (labels, np.int32, shape[:1])


def start_of(path: str) -> int:
    """The offset of an array's elements in its file, in bytes."""
    return np.load(path, mmap_mode="r", allow_pickle=False).offset


def bytes_of_row(path: str) -> int:
    """Bytes of an element of an array along its first axis."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.dtype.itemsize * int(np.prod(array.shape[1:]))


def _split(path: str, split: str, shape: tuple[int, ...], classes: int) -> Mapped:
    both_files = files_of(path, split, shape)
    for file, dtype, file_shape in both_files:
        if not holds(file, dtype, file_shape):
            raise UserError(
                f"{file} is missing or damaged, and should hold {np.dtype(dtype)} "
                f"{list(file_shape)}: {_REMEDY}"
            )
    (images, *_), (labels_file, *_) = both_files
    labels = np.load(labels_file, allow_pickle=False)
    rows = np.flatnonzero(labels >= 0)
    if not len(rows) or labels.max() >= classes:
        raise UserError(
            f"{labels_file} has labels up to {labels.max(initial=-1)}, and there are "
            f"{classes} classes: {_REMEDY}"
        )
    return Mapped(images, labels[rows], rows)
