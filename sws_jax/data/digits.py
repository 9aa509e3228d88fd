"""Handwritten digits that come with scikit-learn: real, tiny, always there."""

from __future__ import annotations

import importlib.util
import os

import numpy as np

from sws_jax import pixels
from sws_jax.data import base

# Mean and deviation of the 1,397 training images, scaled to 0..1.
_NORMALIZATION = pixels.Normalization((0.305,), (0.376,))
_TEST_IMAGES = 400


def _rows() -> np.ndarray:
    """Sixty-four pixels of 0 to 16 and a label for each image.

    Read from scikit-learn's own file, as the library takes a second to import.
    """
    library = importlib.util.find_spec("sklearn")
    for folder in (library and library.submodule_search_locations) or ():
        path = os.path.join(folder, "datasets", "data", "digits.csv.gz")
        if os.path.isfile(path):
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    raw = load_digits()
    return np.column_stack([raw.data, raw.target])


def load(*, val_fraction: float) -> base.Dataset:
    """1,797 grey digits of 8 x 8 pixels, 400 of them the test set.

    The split is a fixed permutation. It does not separate the writers, who are not
    named in the set.

    Reference:
      Optical Recognition of Handwritten Digits, UCI, Alpaydin and Kaynak (1998).
    """
    rows = _rows()
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = rows[:, -1].astype(np.int32)
    order = np.random.RandomState(0).permutation(len(images))
    everything = base.Arrays(images, labels)
    test = base.Subset(everything, order[:_TEST_IMAGES])
    train, val = base.hold_out(
        base.Subset(everything, order[_TEST_IMAGES:]), val_fraction
    )
    return base.Dataset(
        name="digits",
        train=train,
        val=val,
        test=test,
        class_names=tuple(str(n) for n in range(10)),
        image_shape=(8, 8, 1),
        normalization=_NORMALIZATION,
        stored={"train": everything},
    )
