"""Labelled images in splits, as every kind of source gives them."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from sws_jax.errors import UserError

# Splits by the names that folders and tars give them, and those of TFDS.
SPLITS = {"train": "train", "val": "validation", "test": "test"}
# (As published: 1409.0575, table 2.)
COUNTS = {"imagenet2012": {"train": 1_281_167, "validation": 50_000}}


class Part(Protocol):
    """A split of a source: encoded images, each read by its position.

    Attributes:
      sizes: int64 [n], bytes of each encoded image.
    """

    @property
    def sizes(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[bytes, int]:
        """An encoded image and its label.

        Raises:
          Unreadable: naming the file or record.
        """
        ...

    def where(self, index: int) -> str:
        """The file or record of an image, for messages."""
        ...

    def file_name(self, index: int) -> bytes:
        """CLASS/NAME, or what else the source calls it."""
        ...

    def stamp(self, first: int, end: int) -> str:
        """What the images from `first` to before `end` are known by again."""
        ...


@dataclasses.dataclass(frozen=True)
class Source:
    """Labelled images in splits.

    Attributes:
      name: that suits the set.
      kind: what it is, in a word or two.
      classes: their names, in the order of the labels.
      parts: by TFDS's names of splits.
      channels: 1 or 3, of the decoded images.
      notes: what stands there and is passed over, a sentence for each kind.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    channels: int = 3
    notes: tuple[str, ...] = ()


def check_counts(name: str, source: Source) -> None:
    """Refuses a set of a well-known name that is not whole.

    Raises:
      UserError: with the numbers.
    """
    counts = {split: len(part) for split, part in source.parts.items()}
    if wrong := miscounts(name, counts):
        raise UserError(
            f"{name} is not whole, {wrong}: complete it, take another --name, or "
            f"prepare what there is with --partial"
        )


def miscounts(name: str, counts: dict[str, int]) -> str:
    """What of a set of a well-known name has another number of images, in words."""
    return " and ".join(
        f"{split} has {counts.get(split, 0):,} images of {wanted:,}"
        for split, wanted in COUNTS.get(name, {}).items()
        if counts.get(split, 0) != wanted
    )
