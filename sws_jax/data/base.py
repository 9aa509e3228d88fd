"""The interface of all data sources: splits, datasets, and images held in memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.pixels import NORMALIZATION, Normalization
from sws_jax.specs import limits

_HASHED_BYTES = 64 * 2**20  # of pixels; to hash them takes an eighth of a second


class Split(Protocol):
    """Labelled images, each read by its position, in any order and any process."""

    @property
    def labels(self) -> np.ndarray | None:
        """int32 [n]; None where they are known only by reading the images."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """One image, uint8 [height, width, channels] of any size, and its label.

        Raises:
          Unreadable: naming the file or record.
        """
        ...


class Stored(Split, Protocol):
    """A split as its source holds it: of all its images, in the source's order."""

    def identity(self) -> str:
        """A digest of what the source lists for all images: labels, names, sizes."""
        ...


class Unreadable(UserError):
    """One image of a source cannot be decoded."""


VAL_FRACTION = arguments.number(limits.VAL_FRACTION)
# Labels are not looked at: a split may have to read all of its images for them.
SPLIT = arguments.like("read", "__len__", called="a split of a set")


@arguments.checked(
    **dict.fromkeys(("train", "val", "test"), SPLIT),
    image_shape=arguments.wholes(0),  # 0 where it is known only by reading an image
    normalization=NORMALIZATION,
    stored=arguments.of(Mapping, called="a mapping of splits"),
)
@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three disjoint splits of one labelled image set.

    `val` is held out from the training images, unless the source has its own, and
    every choice is made on it. `test` is scored once, at the end of a run.

    Attributes:
      class_names: as `sws_jax.data.classes.clean` gives them.
      image_shape: height, width and channels that a network gets; the splits may
        hold images of any height and width.
      stored: the splits as the source has them, by the source's names.
      notes: sentences on what of the source is passed over, and on what a user may not
        expect.
    """

    name: str
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    normalization: Normalization
    stored: Mapping[str, Stored] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @arguments.checked()
    def split(self, name: str) -> Split:
        """The split of a name: train, val or test.

        Raises:
          UserError: there is no split of that name.
        """
        if name not in ("train", "val", "test"):
            raise UserError(f"there is no split {name!r}: take train, val or test")
        return getattr(self, name)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A split held in memory.

    Attributes:
      images: uint8 [n, height, width, channels], or a list of such images.
      labels: int32 [n].
    """

    images: np.ndarray | list[np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])

    def identity(self) -> str:
        """A digest of all labels, and of all pixels up to 64 MiB.

        Of larger splits it takes a part of the images, evenly spread.
        """
        step = max(-(-len(self) * self.images[0].nbytes // _HASHED_BYTES), 1)
        pixels = (np.ascontiguousarray(image) for image in self.images[::step])
        return digest(np.asarray(self.labels, np.int32), *pixels)


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some images of a split, in a given order."""

    split: Split
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray | None:
        labels = self.split.labels
        return None if labels is None else labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        return self.split.read(int(self.indices[index]))


def is_decoded(split: Split) -> bool:
    """Whether the images of a split are held in memory."""
    while isinstance(split, Subset):
        split = split.split
    return isinstance(split, Arrays)


def hold_out(train: Split, fraction: float, *, seed: int = 0) -> tuple[Subset, Subset]:
    """Splits training images into (train, val).

    The choice is a function of `seed` and the number of images, and not of a run's
    own seed: runs that differ in their seed are compared on the same images.

    Raises:
      UserError: the fraction leaves one of the two empty.
    """
    count = round(len(train) * fraction) if 0 < fraction < 1 else 0
    if not 0 < count < len(train):
        raise UserError(
            f"data.val_fraction {fraction} must leave some of the {len(train)} "
            f"training images on both sides"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    return Subset(train, np.sort(order[count:])), Subset(train, np.sort(order[:count]))


def digest(*parts: bytes | np.ndarray) -> str:
    """A digest of several parts, which depends on where each one ends."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.tobytes() if isinstance(part, np.ndarray) else part
        state.update(len(content).to_bytes(8, "little"))
        state.update(content)
    return state.hexdigest()
