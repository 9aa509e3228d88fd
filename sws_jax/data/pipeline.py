"""The order in which images are read, and how they become batches.

The batch at step s is a function of (seed, s) alone: which images it holds, and what
each of them goes through. A resumed run therefore needs no data state, and neither
the number of processes, of workers nor of threads changes a pixel. A process reads
those rows of every global batch that its devices hold.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from sws_jax.data import base
from sws_jax.data.base import Split, Unreadable
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError
from sws_jax.runtime import signals


class WorkerDied(UserError):
    """A process that reads images is no more."""


# Steps that a run may have; grain wants its ranges to end.
_ENDLESS = 2**62
# A published epoch of repeated augmentation is a multiple of this.
_REPEATED_MULTIPLE = 256


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a process reads, and what it does about images that it cannot.

    Attributes:
      threads: that read ahead, where there are no workers.
      workers: processes that read ahead; 0 reads in this one.
      unreadable: "stop" ends the run with the first image that cannot be decoded;
        "skip" takes the next one in its place, and counts.
    """

    threads: int = 1
    workers: int = 0
    unreadable: str = "stop"

    def __post_init__(self):
        if self.threads < 1 or self.workers < 0:
            raise UserError(
                f"data.threads must be at least 1 and data.workers at least 0, and "
                f"they are {self.threads} and {self.workers}"
            )
        if self.unreadable not in ("stop", "skip"):
            raise UserError(
                f"data.unreadable {self.unreadable!r} is not one of stop, skip"
            )


IN_THREAD = Reading()


def epoch_images(images: int, repeats: int = 1) -> int:
    """Training images that a run sees in one epoch.

    With repeated augmentation, the published number: the images, cut to a multiple of
    256; a third of them (1 / repeats) are distinct.
    """
    if repeats < 1:
        raise UserError(f"data.repeats must be at least 1, and is {repeats}")
    if repeats == 1 or images < _REPEATED_MULTIPLE:
        return images
    return images // _REPEATED_MULTIPLE * _REPEATED_MULTIPLE


@dataclasses.dataclass(frozen=True)
class Order:
    """Which image stands at which place of a run's endless stream.

    Every epoch starts another permutation of all images; a batch may hold the end of
    one epoch and the start of the next, so that no image is left out. With `repeats`,
    each drawn image stands there that many times in a row, and the epoch ends after
    `epoch_images`.

    Reference:
      Repeated augmentation: Hoffer et al., 1901.09335; epochs as DeiT counts them.
    """

    images: int
    seed: int
    repeats: int = 1

    def __call__(self, places: np.ndarray) -> list[int]:
        """Positions in the split of the images at those places."""
        shuffled = grain.MapDataset.range(self.images).shuffle(seed=_seed32(self.seed))
        endless = shuffled.repeat()
        epoch, place = np.divmod(places, epoch_images(self.images, self.repeats))
        drawn = epoch * self.images + place // self.repeats
        return [endless[int(n)] for n in drawn]


def train_batches(
    split: Split,
    transform: Transform,
    *,
    seed: int,
    global_batch_size: int,
    size: tuple[int, int],
    repeats: int = 1,
    start_step: int = 0,
    rows: np.ndarray | None = None,
    reading: Reading = IN_THREAD,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled, augmented batches, from step `start_step` on.

    Args:
      split: what to read.
      transform: what every image goes through.
      seed: of the order and of every transform.
      global_batch_size: images per step, over all processes.
      size: height and width of the batch's images.
      repeats: of every drawn image; see `Order`.
      start_step: first step to deliver.
      rows: of every global batch that are this process's; None takes all.
      reading: how.

    Yields:
      ``image`` uint8 [rows, *size, channels], ``label`` int32 [rows]: this process's
      rows of the global batch; ``skipped``, how many of them stand for an image that
      could not be read.

    Raises:
      Unreadable: an image cannot be decoded, and `reading` says stop.
    """
    order = Order(len(split), seed, repeats)
    place = np.random.SeedSequence(seed % 2**64).generate_state(2, np.uint64)

    own = np.arange(global_batch_size) if rows is None else rows

    def batch(step: int) -> dict[str, Any]:
        places = step * global_batch_size + own
        pairs = zip(places.tolist(), order(places), strict=True)
        try:
            found = [one(*pair) for pair in pairs]
        except Unreadable as error:
            # An exception would lose its type on the way from a worker.
            return {"error": str(error)}
        images, labels, skipped = zip(*found, strict=True)
        return {
            "image": np.stack(images),
            "label": np.asarray(labels, np.int32),
            "skipped": sum(skipped),
        }

    def one(at: int, index: int):
        image, label, skipped = _read(split, index, reading.unreadable)
        key = [place[0], place[1] ^ np.uint64(at)]
        random = np.random.Generator(np.random.Philox(key=key))
        return transform(image, random, size), label, skipped

    steps = grain.MapDataset.range(start_step, _ENDLESS).map(batch)
    for made in _ahead(steps, reading):
        if "error" in made:
            raise Unreadable(made["error"])
        yield made


def eval_batches(
    split: Split,
    fit: Fit,
    *,
    global_batch_size: int,
    rows: np.ndarray | None = None,
    reading: Reading = IN_THREAD,
) -> Iterator[dict[str, np.ndarray]]:
    """All images once, in order; the last batch filled up with weight 0.

    Args:
      split: what to read.
      fit: from its images to the batch's.
      global_batch_size: images per batch, over all processes.
      rows: of every global batch that are this process's; None takes all.
      reading: how.

    Yields:
      ``image``, ``label`` as above, and ``weight`` float32 [rows]: 1 for an image to
      count; 0 for filling, and for an image that could not be read where `reading`
      says skip.

    Raises:
      Unreadable: an image cannot be decoded, and `reading` says stop.
    """
    count = len(split)
    own = np.arange(global_batch_size) if rows is None else rows
    if base.is_decoded(split):  # to cut an image takes less than to start a process
        reading = dataclasses.replace(reading, workers=0)

    def batch(number: int) -> dict[str, Any]:
        places = number * global_batch_size + own
        # The filling is one image, many times.
        wanted = places[places < count].tolist() or [count - 1]
        try:
            found = [_read(split, row, reading.unreadable) for row in wanted]
        except Unreadable as error:
            return {"error": str(error)}
        images, labels, skipped = zip(*found, strict=True)
        fill = len(places) - len(wanted)
        counted = (np.asarray(skipped) == 0) & (places[: len(wanted)] < count)
        image = np.stack([fit(image) for image in images])
        return {
            "image": np.pad(image, ((0, fill), (0, 0), (0, 0), (0, 0)), mode="edge"),
            "label": np.pad(np.asarray(labels, np.int32), (0, fill), mode="edge"),
            "weight": np.pad(counted.astype(np.float32), (0, fill)),
        }

    numbers = grain.MapDataset.range(-(-count // global_batch_size)).map(batch)
    for made in _ahead(numbers, reading):
        if "error" in made:
            raise Unreadable(made["error"])
        yield made


def _ahead(batches: grain.MapDataset, reading: Reading) -> Iterator[dict[str, Any]]:
    """Reads ahead, in threads or in worker processes, and keeps the order."""
    if not reading.workers:
        options = grain.ReadOptions(
            num_threads=reading.threads, prefetch_buffer_size=2 * reading.threads + 2
        )
        return iter(batches.to_iter_dataset(options))
    from absl import flags

    if not flags.FLAGS.is_parsed():  # grain's workers read flags that nobody sets
        flags.FLAGS.mark_as_parsed()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    workers = grain.MultiprocessingOptions(
        num_workers=reading.workers, per_worker_buffer_size=2
    )
    made = batches.to_iter_dataset(options).mp_prefetch(workers, _begin_worker)
    return _watched(iter(made))


def _begin_worker(index: int, count: int) -> None:
    signals.serve_parent()


def _watched(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from batches
    except RuntimeError as error:
        found = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
        if not found:
            raise
        raise WorkerDied(
            f"a process that reads images ended with code {found[1]} (-9: perhaps for "
            f"want of memory, and fewer data.workers need less)"
        ) from None


def _read(split: Split, index: int, unreadable: str) -> tuple[np.ndarray, int, int]:
    """The image, its label, and how many unreadable ones were passed over."""
    for passed in range(len(split)):
        try:
            return *split.read((index + passed) % len(split)), passed
        except Unreadable:
            if unreadable == "stop":
                raise
    raise Unreadable("not one image of this split can be read")


def _seed32(seed: int) -> int:
    """Any whole number as one that Grain takes, below 2^32.

    Hashed, since Grain orders epoch e of seed s as epoch 0 of seed s + e: runs of
    neighbouring seeds would read the same permutations, one epoch apart.
    """
    return int(np.random.SeedSequence(seed % 2**64).generate_state(1)[0])
