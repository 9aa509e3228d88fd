"""What a dataset is known by again: its names, its labels, and some of its pixels."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from sws_jax.data.base import Dataset, Split, Unreadable

_SPLITS = ("train", "val", "test")
# Images of a split that are read, evenly spread, the first and the last among them.
_SAMPLES = 32
_EARLIER = 4  # that older software read
# What `take` gives, as `sws_jax.storage.documents.misfit` knows it.
HOLDS = {
    "classes": str,
    "stored?": {},
    **{name: {"images": int, "samples": (dict, list)} for name in _SPLITS},
}


def take(dataset: Dataset) -> dict[str, Any]:
    """Numbers of images, names of classes, digests of what the source says of every
    image (labels, names of files) and of some images.

    The same on every machine that reads the same files, whatever of them it holds in
    memory. JSON can hold it.
    """
    return {
        "classes": _digest("\n".join(dataset.class_names).encode()),
        "stored": {name: held.identity() for name, held in dataset.stored.items()},
        **{name: _take(dataset.split(name)) for name in _SPLITS},
    }


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of a dataset is no longer what it was; see `take`.

    An image that could not be read, then or now, is compared with nothing. What older
    software noted is compared as far as it goes.
    """
    names = ["class names"] if old["classes"] != new["classes"] else []
    for split in _SPLITS:
        before, now = _samples(old[split]), _samples(new[split])
        both = [(before[place], now[place]) for place in before.keys() & now.keys()]
        counts = old[split]["images"], new[split]["images"]
        if counts[0] != counts[1]:
            names.append(f"{split} images ({counts[0]} then, {counts[1]})")
        elif any(a and b and a != b for a, b in both):
            names.append(f"{split} images")
    if names:
        return names
    before, now = old.get("stored", {}), new.get("stored", {})
    return [
        f"{split} labels, names or pixels"
        for split in sorted(before.keys() & now.keys())
        if before[split] != now[split]
    ]


def is_whole(known: dict[str, Any]) -> bool:
    """Whether it says all that `take` does; older software noted less."""
    return "stored" in known


def completed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What is noted of a dataset that is still what it was.

    An image that cannot be read now must be the old one when it is back.
    """
    made = dict(new)
    for split in _SPLITS:
        before, now = _samples(old[split]), _samples(new[split])
        kept = {place: now[place] or before.get(place) for place in now}
        made[split] = {**new[split], "samples": kept}
    return made


def _take(split: Split) -> dict[str, Any]:
    places = sorted({*_spread(len(split), _EARLIER), *_spread(len(split), _SAMPLES)})
    return {
        "images": len(split),
        "samples": {str(place): _sample(split, place) for place in places},
    }


def _spread(images: int, count: int) -> list[int]:
    return np.linspace(0, images - 1, min(images, count)).astype(int).tolist()


def _samples(known: dict[str, Any]) -> dict[str, str | None]:
    """Digests by place; older software noted them as a list."""
    found = known["samples"]
    if isinstance(found, dict):
        return found
    places = map(str, _spread(known["images"], _EARLIER))
    return dict(zip(places, found, strict=False))


def _sample(split: Split, place: int) -> str | None:
    try:
        image, label = split.read(place)
    except Unreadable:
        return None
    return _digest(f"{label} {image.shape}".encode() + image.tobytes())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
