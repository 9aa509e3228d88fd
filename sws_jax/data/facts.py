"""What is known of a set without looking at an image: how many of each class."""

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

    None for a split whose labels only its records tell. Images that cannot be read
    count where their label is known all the same.
    """
    found: dict[str, np.ndarray | None] = {}
    for name in SPLITS:
        labels = dataset.split(name).labels
        if labels is not None:
            known = labels[labels >= 0]
            found[name] = np.bincount(known, minlength=dataset.num_classes)
        else:
            found[name] = None
    return found


def remarks(dataset: Dataset) -> Iterator[str]:
    """Classes that nothing can be learned or said of, in a line for each kind."""
    found = counts(dataset)
    train, val, test = (found[name] for name in SPLITS)
    names = np.asarray(dataset.class_names, object)
    if train is not None:
        missing = train == 0
        held = missing & (val > 0) if val is not None else np.zeros_like(missing)
        if never := names[missing & ~held].tolist():
            yield (
                f"{_classes(never)} without a training image: {words.few(never)} "
                f"(nothing is learned of {_it(never)})"
            )
        if lost := names[held].tolist():
            yield (
                f"{_classes(lost)} without a training image, as the only ones are held "
                f"out for validation: {words.few(lost)} (a smaller data.val_fraction "
                f"holds out fewer)"
            )
    if test is not None and (unseen := names[test == 0].tolist()):
        yield (
            f"{_classes(unseen)} without a test image: {words.few(unseen)} (the "
            f"accuracy says nothing of {_it(unseen)})"
        )


def repeated(dataset: Dataset) -> int | None:
    """Test images whose very pixels are a training or validation image's too.

    None for images that are not at hand: to compare files, all would have to be read.
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
    """How many images of a class each split has: of each class where they are few, of
    the least and the most frequent where they are many."""
    for name, found in counts(dataset).items():
        if found is None:
            text = "not known, as their records alone tell"
        elif dataset.num_classes <= _FEW:
            each = zip(dataset.class_names, found.tolist(), strict=True)
            text = ", ".join(f"{label}: {n:,}" for label, n in each)
        elif found.min() == found.max():
            text = f"{found.min():,} of each"
        else:
            ends = (found.argmin(), found.argmax())
            least, most = (f"{found[i]:,} of {dataset.class_names[i]}" for i in ends)
            text = f"{least} to {most}"
        yield f"{name} {text}"


def _classes(names: list[str]) -> str:
    return f"{len(names):,} class{'es' if len(names) > 1 else ''}"


def _it(names: list[str]) -> str:
    return "them" if len(names) > 1 else "it"
