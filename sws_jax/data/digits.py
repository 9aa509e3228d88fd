"""Handwritten digits that come with scikit-learn: real, tiny, always there."""

from __future__ import annotations

import numpy as np

from sws_jax import pixels
from sws_jax.data import base

# Mean and deviation of the 1,397 training images, scaled to 0..1.
_NORMALIZATION = pixels.Normalization((0.305,), (0.376,))
_TEST_IMAGES = 400


def load(*, val_fraction: float) -> base.Dataset:
    """1,797 grey digits of 8 x 8 pixels, 400 of them the test set.

    The split is a fixed permutation. It does not separate the writers, who are not
    named in the set.

    Reference:
      Optical Recognition of Handwritten Digits, UCI, Alpaydin and Kaynak (1998).
    """
    from sklearn.datasets import load_digits  # slow to import, and only this needs it

    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
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
        class_names=tuple(str(n) for n in raw.target_names),
        image_shape=(8, 8, 1),
        normalization=_NORMALIZATION,
        stored={"train": everything},
    )
