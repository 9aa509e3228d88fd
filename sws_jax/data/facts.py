"""Counts of a set: images of each class, classes that lack some, repeated images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from sws_jax.data import base
from sws_jax.data.base import Dataset
from sws_jax.runtime import words

SPLITS = ("train", "val", "test")
_FEW = 12  # classes that are counted one by one


def counts(dataset: Dataset) -> dict[str, np.ndarray | None]:
    """Images of each class, int64 [classes], by split.

    None for a split whose labels are known only by reading its records. Images that
    cannot be read count where their labels are known.
    """
    by_split: dict[str, np.ndarray | None] = {}
    for name in SPLITS:
        labels = dataset.split(name).labels
        if labels is not None:
            known = labels[labels >= 0]
            by_split[name] = np.bincount(known, minlength=dataset.num_classes)
        else:
            by_split[name] = None
    return by_split


def remarks(dataset: Dataset) -> Iterator[str]:
    """A line for each kind of class that lacks training or test images."""
    by_split = counts(dataset)
    train, val, test = (by_split[name] for name in SPLITS)
    names = np.asarray(dataset.class_names, object)
    if train is not None:
        no_train = train == 0
        only_val = no_train & (val > 0) if val is not None else np.zeros_like(no_train)
        if absent := names[no_train & ~only_val].tolist():
            yield (
                f"{_classes(absent)} without a training image: {words.few(absent)} "
                f"(nothing is learned of {_it(absent)})"
            )
        if lost := names[only_val].tolist():
            yield (
                f"{_classes(lost)} without a training image, as the only ones are held "
                f"out for validation: {words.few(lost)} (a smaller data.val_fraction "
                f"holds out fewer)"
            )
    if test is not None and (untested := names[test == 0].tolist()):
        yield (
            f"{_classes(untested)} without a test image: {words.few(untested)} (the "
            f"accuracy says nothing of {_it(untested)})"
        )


def repeated(dataset: Dataset) -> int | None:
    """Number of test images with the same pixels as a training or validation image.

    None for images that are not in memory, as all of their files would have to be read.
    """
    if not all(base.is_decoded(dataset.split(name)) for name in SPLITS):
        return None

    def pixels(split: base.Split) -> Iterator[bytes]:
        for index in range(len(split)):
            image, _ = split.read(index)
            yield hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).digest()

    seen = {*pixels(dataset.train), *pixels(dataset.val)}
    return sum(image in seen for image in pixels(dataset.test))


def summary(dataset: Dataset) -> Iterator[str]:
    """A line for each split on how many images its classes have.

    It counts each class where they are few, else the least and the most frequent one.
    """
    for name, images in counts(dataset).items():
        if images is None:
            text = "not known, as their records alone tell"
        elif dataset.num_classes <= _FEW:
            each = zip(dataset.class_names, images.tolist(), strict=True)
            text = ", ".join(f"{label}: {n:,}" for label, n in each)
        elif images.min() == images.max():
            text = f"{images.min():,} of each"
        else:
            ends = (images.argmin(), images.argmax())
            least, most = (f"{images[i]:,} of {dataset.class_names[i]}" for i in ends)
            text = f"{least} to {most}"
        yield f"{name} {text}"


def _classes(names: list[str]) -> str:
    return f"{len(names):,} class{'es' if len(names) > 1 else ''}"


def _it(names: list[str]) -> str:
    return "them" if len(names) > 1 else "it"
