"""What a dataset is known by again, from a handful of its images."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from sws_jax.data.base import Dataset, Split, Unreadable

_SAMPLES = 4  # images of a split, the first and the last among them


def take(dataset: Dataset) -> dict[str, Any]:
    """Numbers of images, names of classes and digests of a few images and labels.

    The same on every machine that reads the same files. JSON can hold it.
    """
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {
        "classes": _digest("\n".join(dataset.class_names).encode()),
        **{name: _take(split) for name, split in splits.items()},
    }


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of a dataset is no longer what it was; see `take`.

    An image that could not be read, then or now, is compared with nothing.
    """
    names = ["class names"] if old["classes"] != new["classes"] else []
    for split in ("train", "val", "test"):
        before, now = old[split], new[split]
        pairs = zip(before["samples"], now["samples"], strict=False)
        if before["images"] != now["images"]:
            names.append(f"{split} images ({before['images']} then, {now['images']})")
        elif any(a and b and a != b for a, b in pairs):
            names.append(f"{split} images")
    return names


def _take(split: Split) -> dict[str, Any]:
    places = np.linspace(0, len(split) - 1, min(len(split), _SAMPLES)).astype(int)
    return {
        "images": len(split),
        "samples": [_sample(split, place) for place in places.tolist()],
    }


def _sample(split: Split, place: int) -> str | None:
    try:
        image, label = split.read(place)
    except Unreadable:
        return None
    return _digest(f"{label} {image.shape}".encode() + image.tobytes())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
