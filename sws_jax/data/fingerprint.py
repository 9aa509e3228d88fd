"""Fingerprints of datasets: names, labels, and the pixels of some images."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from sws_jax.data.base import Dataset, Split, Unreadable

_SPLITS = ("train", "val", "test")
# Images of a split that are read, evenly spread, the first and the last among them.
_SAMPLES = 32
_EARLIER_SAMPLES = 4  # read by older versions of this software
# The fields of a fingerprint, as `sws_jax.storage.documents.misfit` takes them.
HOLDS = {
    "classes": str,
    "stored?": {},
    **{name: {"images": int, "samples": (dict, list)} for name in _SPLITS},
}


def take(dataset: Dataset) -> dict[str, Any]:
    """The fingerprint of a dataset, which can be written as JSON.

    It holds the numbers of images, and digests of the names of classes, of what the
    source lists for every image, as labels and names of files, and of the pixels of
    some images. It is the same on every machine that reads the same files, whether they
    are held in memory or not.
    """
    return {
        "classes": _digest("\n".join(dataset.class_names).encode()),
        "stored": {name: split.identity() for name, split in dataset.stored.items()},
        **{name: _take(dataset.split(name)) for name in _SPLITS},
    }


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The parts of a dataset in which two of its fingerprints differ.

    An image that could not be read, then or now, is not compared. A fingerprint of an
    older version is compared in those fields that it has.
    """
    names = ["class names"] if old["classes"] != new["classes"] else []
    for split in _SPLITS:
        before, now = _samples(old[split]), _samples(new[split])
        shared = before.keys() & now.keys()
        pairs = [(before[position], now[position]) for position in shared]
        counts = old[split]["images"], new[split]["images"]
        if counts[0] != counts[1]:
            names.append(f"{split} images ({counts[0]} then, {counts[1]})")
        elif any(then and today and then != today for then, today in pairs):
            names.append(f"{split} images")
    if names:
        return names
    before, now = old.get("stored", {}), new.get("stored", {})
    return [
        f"{split} labels, names or pixels"
        for split in sorted(before.keys() & now.keys())
        if before[split] != now[split]
    ]


def is_whole(fingerprint: dict[str, Any]) -> bool:
    """Whether it has all fields; fingerprints of older versions have fewer."""
    return "stored" in fingerprint


def completed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint to keep of a dataset whose two fingerprints do not differ.

    For an image that cannot be read now it keeps the old digest, with which the image
    is compared once it can be read again.
    """
    merged = dict(new)
    for split in _SPLITS:
        before, now = _samples(old[split]), _samples(new[split])
        digests = {position: now[position] or before.get(position) for position in now}
        merged[split] = {**new[split], "samples": digests}
    return merged


def _take(split: Split) -> dict[str, Any]:
    earlier = _spread(len(split), _EARLIER_SAMPLES)
    positions = sorted({*earlier, *_spread(len(split), _SAMPLES)})
    return {
        "images": len(split),
        "samples": {str(position): _sample(split, position) for position in positions},
    }


def _spread(images: int, count: int) -> list[int]:
    return np.linspace(0, images - 1, min(images, count)).astype(int).tolist()


def _samples(fingerprint: dict[str, Any]) -> dict[str, str | None]:
    """Digests of a split's images by position; older versions wrote them as a list."""
    digests = fingerprint["samples"]
    if isinstance(digests, dict):
        return digests
    positions = map(str, _spread(fingerprint["images"], _EARLIER_SAMPLES))
    return dict(zip(positions, digests, strict=False))


def _sample(split: Split, position: int) -> str | None:
    """A digest of an image and its label; None if it cannot be read."""
    try:
        image, label = split.read(position)
    except Unreadable:
        return None
    return _digest(f"{label} {image.shape}".encode() + image.tobytes())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
