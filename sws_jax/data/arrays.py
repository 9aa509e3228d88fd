"""Images of one size in ``.npy`` files, mapped into memory: larger sets than it holds.

``python -m sws_jax prepare SOURCE OUT --size N`` writes such a folder: ``arrays.json``,
and for each split ``SPLIT_images.npy`` uint8 [n, N, N, channels] and
``SPLIT_labels.npy`` int32 [n], in which -1 stands for an image that was left out.
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
_REMEDY = "prepare the set again"


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A split in a file, of which a run reads what it needs.

    Attributes:
      path: of the images.
      labels: int32 [n].
      rows: int64 [n], where the images stand in the file.
    """

    path: str
    labels: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        return np.array(self._images[self.rows[index]]), int(self.labels[index])

    def identity(self) -> str:
        return base.digest(self.labels, self.rows)

    @functools.cached_property
    def _images(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps the file itself."""
        return {key: kept for key, kept in vars(self).items() if key != "_images"}


def is_set(path: str) -> bool:
    return os.path.isfile(os.path.join(path, DESCRIPTION))


def load(path: str, *, val_fraction: float) -> base.Dataset:
    """A dataset of arrays that were prepared.

    Splits are taken as of a folder of images: with both, validation and test are what
    they are called; one of them alone is the test set.

    Args:
      path: of the folder.
      val_fraction: of the training images, held out where it applies.

    Raises:
      UserError: it is damaged.
    """
    about = _described(path)
    found = {
        split: _split(path, split, (count, *about.shape), len(about.classes))
        for split, count in about.rows.items()
    }
    if "train" not in found or len(found) < 2 or len(about.shape) != 3:
        raise UserError(f"{path}/{DESCRIPTION} lacks splits or a shape: {_REMEDY}")
    stored = dict(found)
    train: base.Split = found.pop("train")
    test = found.pop("test") if "test" in found else found.pop("validation")
    val: base.Split
    if found:
        val = found.pop("validation")
    else:
        train, val = base.hold_out(train, val_fraction)
    return base.Dataset(
        name=about.name,
        train=train,
        val=val,
        test=test,
        class_names=about.classes,
        image_shape=about.shape,
        normalization=pixels.default_normalization(about.shape[-1]),
        stored=stored,
    )


def misfits(path: str) -> set[str]:
    """Splits with a file that is not of the type and shape that is described.

    Raises:
      UserError: the description is damaged.
    """
    about = _described(path)
    return {
        split
        for split, count in about.rows.items()
        if not all(
            holds(*file) for file in files_of(path, split, (count, *about.shape))
        )
    }


# What the description holds; see `documents.misfit`.
_HOLDS = {"name": str, "class_names": [str], "shape": [int], "splits": {}}


@dataclasses.dataclass(frozen=True)
class _Description:
    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]  # of an image
    rows: dict[str, int]  # of each split


def _described(path: str) -> _Description:
    file = os.path.join(path, DESCRIPTION)
    about = documents.read_json(file, holds=_HOLDS, remedy=_REMEDY)
    rows = about["splits"]
    if wrong := documents.misfit(rows, dict.fromkeys(rows, {"rows": int}), "splits"):
        raise UserError(f"{file} is damaged ({wrong}): {_REMEDY}")
    return _Description(
        about["name"],
        tuple(about["class_names"]),
        tuple(about["shape"]),
        {split: entry["rows"] for split, entry in rows.items()},
    )


def holds(path: str, dtype: Any, shape: tuple[int, ...]) -> bool:
    """Whether a file is a whole array of that type and shape, row after row."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, damaged, too short, no array
        return False
    alike = array.dtype == dtype and array.shape == shape
    return alike and bool(array.flags.c_contiguous)


def files_of(path: str, split: str, shape: tuple[int, ...]):
    """Path, type and shape of a split's images, and of its labels."""
    images, labels = (os.path.join(path, f"{split}_{kind}.npy") for kind in KINDS)
    return (images, np.uint8, shape), (labels, np.int32, shape[:1])


def start_of(path: str) -> int:
    """Where the elements of an array begin in its file, in bytes."""
    return np.load(path, mmap_mode="r", allow_pickle=False).offset


def bytes_of_row(path: str) -> int:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.dtype.itemsize * int(np.prod(array.shape[1:]))


def _split(path: str, split: str, shape: tuple[int, ...], classes: int) -> Mapped:
    both = files_of(path, split, shape)
    for file, dtype, wanted in both:
        if not holds(file, dtype, wanted):
            raise UserError(
                f"{file} is missing or damaged, and should hold {np.dtype(dtype)} "
                f"{list(wanted)}: {_REMEDY}"
            )
    (images, *_), (labels_file, *_) = both
    labels = np.load(labels_file, allow_pickle=False)
    rows = np.flatnonzero(labels >= 0)
    if not len(rows) or labels.max() >= classes:
        raise UserError(
            f"{labels_file} has labels up to {labels.max(initial=-1)}, and there are "
            f"{classes} classes: {_REMEDY}"
        )
    return Mapped(images, labels[rows], rows)


KINDS = ("images", "labels")
