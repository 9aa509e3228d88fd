"""Encoded images: sampled before a run starts, and held in memory where they fit."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from sws_jax import pixels
from sws_jax.data import base, classes
from sws_jax.data.base import Split, Unreadable
from sws_jax.errors import UserError
from sws_jax.runtime import host, words

# Images that are read of each split: its size is estimated from them, and a set that
# cannot be read is refused before a run starts.
_SAMPLE = 64
_BLOCK = 4096  # images handed to the threads at a time, which bounds their queue
_QUIET_SECONDS = 2.0  # of decoding that are not announced

_Read = tuple[np.ndarray, int] | Unreadable


class Encoded(base.Stored, Protocol):
    """A split whose images are decoded as they are read."""

    def where(self, index: int) -> str:
        """The file or record of an image, for messages."""
        ...


@dataclasses.dataclass(frozen=True)
class Partial:
    """A split held in memory, except for images that could not be read.

    Attributes:
      images: uint8 [height, width, channels], or None for an unreadable one.
      labels: int32 [n]; -1 for an unreadable one whose label is not known either.
      source: the split that the images which are None are read from.
    """

    images: list[np.ndarray | None]
    labels: np.ndarray
    source: Split

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        image = self.images[index]
        if image is None:
            return self.source.read(index)
        return image, int(self.labels[index])


def dataset(
    name: str,
    splits: Mapping[str, Encoded],
    class_names: Sequence[str],
    *,
    val_fraction: float,
    image_size: tuple[int, int] | None,
    memory_gib: float,
    unreadable: str,
    notes: Sequence[str] = (),
) -> base.Dataset:
    """A dataset of encoded images, held in memory where all of it fits.

    Args:
      name: of the dataset.
      splits: train, test and optionally val, none of them empty.
      class_names: in the order of the labels.
      val_fraction: of the training images, held out where there is no val.
      image_size: height and width for the network; None takes that of the images.
      memory_gib, unreadable: see `hold`.
      notes: of the dataset.

    Raises:
      UserError: images cannot be read, or differ in size where no size is given.
    """
    samples = {key: Sample.of(split) for key, split in splits.items()}
    shape = _shape(splits, samples, image_size)
    # Before anything is decoded: a fraction that leaves no images is refused here.
    held_out_split = None
    if "val" not in splits:
        held_out_split = base.hold_out(splits["train"], val_fraction)
    loaded = hold(
        splits, samples, memory_gib=memory_gib, name=name, unreadable=unreadable
    )
    if not image_size:
        _check_shapes(splits, loaded, shape)
    if held_out_split:
        train, val = (
            dataclasses.replace(subset, split=loaded["train"])
            for subset in held_out_split
        )
        loaded |= {"train": train, "val": val}
    return base.Dataset(
        name=name,
        train=loaded["train"],
        val=loaded["val"],
        test=loaded["test"],
        class_names=tuple(class_names),
        image_shape=shape,
        normalization=pixels.default_normalization(shape[2]),
        stored=splits,
        notes=(*notes, *_unread(splits, samples, loaded)),
    )


def _unread(
    splits: Mapping[str, Encoded],
    samples: Mapping[str, Sample],
    loaded: Mapping[str, Split],
) -> Iterator[str]:
    """A line on the images that cannot be read, if there are any."""
    looked_at, bad = 0, []
    for key, split in splits.items():
        loaded_split = loaded[key]
        if isinstance(loaded_split, base.Subset):
            loaded_split = loaded_split.split
        if isinstance(loaded_split, base.Arrays | Partial):
            looked_at += len(split)
            images = loaded_split.images if isinstance(loaded_split, Partial) else ()
            bad += [split.where(i) for i, image in enumerate(images) if image is None]
        else:
            looked_at += len(samples[key].shapes) + len(samples[key].bad)
            bad += [split.where(index) for index in samples[key].bad_positions]
    total = sum(map(len, splits.values()))
    scope = f" of the {looked_at:,} that were looked at" if looked_at < total else ""
    if bad:
        yield (
            f"{words.many(len(bad), 'image')}{scope} cannot be read (passed over, the "
            f"first: {classes.clean(bad[0])})"
        )


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images spread over a split.

    Attributes:
      shapes: of the images that can be read, by their position.
      bad: errors of the images that cannot be read.
      bad_positions: positions of the images that cannot be read.
      seconds: to read one, on average.
    """

    shapes: dict[int, tuple[int, int, int]]
    bad: list[Unreadable]
    bad_positions: list[int]
    seconds: float

    @classmethod
    def of(cls, split: Split) -> Sample:
        """Reads a few images, the first and the last among them.

        Raises:
          Unreadable: not one of them can be read.
        """
        count = min(len(split), _SAMPLE)
        indices = np.linspace(0, len(split) - 1, count).astype(int).tolist()
        before = time.monotonic()
        results = _read(split, indices)
        seconds = (time.monotonic() - before) / count
        bad = [result for result in results if isinstance(result, Unreadable)]
        if len(bad) == count:
            raise Unreadable(
                f"not one of {count} images can be read, the first: {bad[0]}"
            )
        shapes = {
            index: result[0].shape
            for index, result in zip(indices, results, strict=True)
            if not isinstance(result, Unreadable)
        }
        bad_positions = [index for index in indices if index not in shapes]
        return cls(shapes, bad, bad_positions, seconds)

    @property
    def image_bytes(self) -> float:
        """Bytes of a decoded image, on average."""
        return float(np.mean([np.prod(shape) for shape in self.shapes.values()]))


def hold(
    splits: Mapping[str, Split],
    samples: Mapping[str, Sample],
    *,
    memory_gib: float,
    name: str,
    unreadable: str,
) -> dict[str, Split]:
    """The splits, decoded if all of them together fit into memory, else as they are.

    Args:
      splits: of one dataset.
      samples: of each of them.
      memory_gib: the most that the decoded images may take, estimated from the samples.
      name: for messages.
      unreadable: "stop", or "skip" to leave images that cannot be read to the pipeline;
        see `sws_jax.data.pipeline.Reading`.

    Raises:
      Unreadable: images cannot be read, and `unreadable` says stop.
    """
    counts = {key: len(split) for key, split in splits.items()}
    total = sum(counts.values())
    size = sum(counts[key] * samples[key].image_bytes for key in splits) / 2**30
    if not size <= memory_gib:
        bad = [error for sample in samples.values() for error in sample.bad]
        if bad and unreadable == "stop":
            raise Unreadable(
                f"{bad[0]}: mend it, or pass over such images with data.unreadable=skip"
            )
        return dict(splits)
    if sum(counts[key] * samples[key].seconds for key in splits) > _QUIET_SECONDS:
        from sws_jax.runtime.progress import say

        say(f"{name}: decoding {total:,} images into memory, {size:.2f} GiB")
    loaded: dict[str, Split] = {}
    bad = []
    for key, split in splits.items():
        results = _read(split, range(counts[key]))
        bad += [result for result in results if isinstance(result, Unreadable)]
        loaded[key] = _arrays(results, split)
    if bad and unreadable == "stop":
        raise Unreadable(
            f"{len(bad):,} of {total:,} images cannot be read (data.unreadable=skip "
            f"passes over them), the first: {bad[0]}"
        )
    return loaded


def _shape(
    splits: Mapping[str, Encoded],
    samples: Mapping[str, Sample],
    image_size: tuple[int, int] | None,
) -> tuple[int, int, int]:
    """Height and width, `image_size` or that of all samples, and the channels."""
    readable = [
        (key, index, shape)
        for key, sample in samples.items()
        for index, shape in sample.shapes.items()
    ]
    first = readable[0]
    if image_size:
        return (*image_size, first[2][2])
    for other in readable:
        _check_shape(splits, first, other)
    return first[2]


_Seen = tuple[str, int, tuple[int, ...]]  # split, position and shape of an image


def _check_shape(splits: Mapping[str, Encoded], first: _Seen, other: _Seen) -> None:
    """Refuses two images of different shapes."""
    if other[2] != first[2]:
        a, b = (
            f"{splits[key].where(index)} is {shape[0]} x {shape[1]}"
            for key, index, shape in (first, other)
        )
        raise UserError(
            f"images differ in size, as {a} pixels and {b}: set data.image_size "
            f"(image_size= in a config's arguments) to what the network shall see"
        )


def _check_shapes(
    splits: Mapping[str, Encoded], loaded: Mapping[str, Split], shape: tuple[int, ...]
) -> None:
    """Refuses images of other shapes than the samples', where all are in memory."""
    for key, split in loaded.items():
        if not isinstance(split, base.Arrays | Partial):
            continue
        stacked = isinstance(split.images, np.ndarray)  # all of one shape
        for index, image in enumerate(split.images[:1] if stacked else split.images):
            if image is not None:
                _check_shape(splits, ("train", 0, shape), (key, index, image.shape))


def _read(split: Split, indices: Sequence[int]) -> list[_Read]:
    """Images and labels, decoded in threads, as Pillow releases Python's lock."""

    def one(index: int) -> _Read:
        try:
            return split.read(index)
        except Unreadable as error:
            return error

    results: list[_Read] = []
    with ThreadPoolExecutor(host.cores()) as pool:
        for start in range(0, len(indices), _BLOCK):
            results += pool.map(one, indices[start : start + _BLOCK])
    return results


def _arrays(results: list[_Read], split: Split) -> Split:
    """A split in memory; empties `results`, so that no image is held twice."""
    images = [None if isinstance(r, Unreadable) else r[0] for r in results]
    stored_labels = split.labels
    labels = np.asarray(
        [
            result[1]
            if not isinstance(result, Unreadable)
            else -1
            if stored_labels is None
            else stored_labels[index]
            for index, result in enumerate(results)
        ],
        np.int32,
    )
    results.clear()
    readable = [image for image in images if image is not None]
    if len(readable) < len(images):
        return Partial(images, labels, split)
    images.clear()
    if len({image.shape for image in readable}) > 1:
        return base.Arrays(readable, labels)
    stack = np.empty((len(readable), *readable[0].shape), np.uint8)
    for i in reversed(range(len(readable))):
        stack[i] = readable.pop()
    return base.Arrays(stack, labels)
