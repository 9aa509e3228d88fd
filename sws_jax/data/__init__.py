"""Data: sources by name, and the order in which a run reads them.

A new source is one file with a `load` that returns `base.Dataset`, and one line
in `load_dataset`.
"""

from __future__ import annotations

import dataclasses

from sws_jax.data import base, digits, npz
from sws_jax.data.base import Dataset, Normalization, Split
from sws_jax.errors import UserError

__all__ = ["Dataset", "Normalization", "Split", "load_dataset"]


def load_dataset(
    source: str,
    *,
    val_fraction: float = 0.1,
    image_size: tuple[int, int] | int | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> base.Dataset:
    """The dataset a name or path stands for.

    Args:
      source: "digits", or the path of an ``.npz`` file of arrays.
      val_fraction: of the training images, held out for every choice.
      image_size: height and width to resize to; None keeps the source's own.
      mean, std: per channel, for pixels in 0..1; empty takes the source's own.

    Raises:
      UserError: the source is unknown or unreadable; the sentence says which.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if source == "digits":
        dataset = digits.load(val_fraction=val_fraction)
        if size and tuple(size) != dataset.image_shape[:2]:
            raise UserError(f"digits are 8 x 8 pixels, not {size[0]} x {size[1]}")
    elif source.endswith(".npz"):
        dataset = npz.load(source, val_fraction=val_fraction, image_size=size)
    else:
        raise UserError(
            f"there is no dataset {source!r}: data.source is digits or the path of an "
            f".npz file of arrays (README, 'Your own data')"
        )
    if mean or std:
        dataset = dataclasses.replace(
            dataset, normalization=base.Normalization(tuple(mean), tuple(std))
        )
    if dataset.normalization.channels != dataset.image_shape[-1]:
        raise UserError(
            f"{source} has {dataset.image_shape[-1]} channels, but data.mean and "
            f"data.std have {dataset.normalization.channels}"
        )
    return dataset
