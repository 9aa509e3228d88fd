"""Labelled images in splits, as every kind of source gives them."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from sws_jax.errors import UserError

# TFDS's names of splits, by those of folders and tars.
SPLITS = {"train": "train", "val": "validation", "test": "test"}
# Images of well-known sets, by split. ImageNet: 1409.0575, table 2.
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
        """CLASS/NAME, or another name that the source gives an image."""
        ...

    def stamp(self, first: int, end: int) -> str:
        """A fingerprint of the images from `first` to before `end`."""
        ...


@dataclasses.dataclass(frozen=True)
class Source:
    """Labelled images in splits.

    Attributes:
      name: a name for the set.
      kind: of source, in a word or two.
      classes: names of the classes, in the order of the labels.
      parts: by TFDS's names of splits.
      channels: 1 or 3, of the decoded images.
      notes: sentences on files and folders that are passed over.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    channels: int = 3
    notes: tuple[str, ...] = ()


def check_counts(name: str, source: Source) -> None:
    """Refuses a well-known set that is not complete.

    Raises:
      UserError: with the numbers.
    """
    counts = {split: len(part) for split, part in source.parts.items()}
    if difference := miscounts(name, counts):
        raise UserError(
            f"{name} is not whole, {difference}: complete it, take another --name, or "
            f"prepare what there is with --partial"
        )


def miscounts(name: str, counts: dict[str, int]) -> str:
    """Splits of a well-known set that have another number of images, in words."""
    return " and ".join(
        f"{split} has {counts.get(split, 0):,} images of {published:,}"
        for split, published in COUNTS.get(name, {}).items()
        if counts.get(split, 0) != published
    )
