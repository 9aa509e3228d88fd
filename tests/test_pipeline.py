"""Batches are a function of seed and step, however they are read."""

import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest

from sws_jax.data import pipeline
from sws_jax.data.base import Arrays, Subset, Unreadable
from sws_jax.data.pipeline import Order, Reading
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError

PLAIN, FIT = Transform(), Fit((2, 2))
AUGMENTED = Transform(crop="padded", padding=2, flip=True)


def numbered(count):
    """A split in which labels and pixels are the positions."""
    labels = np.arange(count, dtype=np.int32)
    pixels = (labels % 256).astype(np.uint8)
    return Arrays(
        np.broadcast_to(pixels[:, None, None, None], (count, 2, 2, 1)), labels
    )


def train(split, transform=PLAIN, size=(2, 2), **settings):
    return pipeline.train_batches(split, transform, size=size, **settings)


def share(index, count, batch):
    """Rows of a batch that process `index` of `count` reads."""
    return np.arange(batch).reshape(count, -1)[index]


def labels(count, steps, **settings):
    """Labels of a run's batches, [steps, rows]."""
    batches = train(numbered(count), **settings)
    return np.stack([b["label"] for b in itertools.islice(batches, steps)])


def epochs(count, number, seed):
    """Labels by epoch, [number, count]."""
    return labels(count, number, seed=seed, global_batch_size=count)


def test_images_come_with_their_labels():
    batch = next(train(numbered(300), seed=0, global_batch_size=16))
    assert batch["image"].shape == (16, 2, 2, 1)
    assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
    expected = np.broadcast_to(
        (batch["label"] % 256)[:, None, None, None], (16, 2, 2, 1)
    )
    np.testing.assert_array_equal(batch["image"], expected)
    assert batch["skipped"] == 0


def test_every_image_has_a_generator_of_its_own():
    """Which is made of the seed and the image's position, whatever was drawn before."""
    words = np.random.SeedSequence(7).generate_state(2, np.uint64)

    def drawn(image, random, size):
        # A draw of 32 bits leaves a generator the other half of a word.
        numbers = random.integers(0, 256, 3 + 2 * (random.random() < 0.5), np.uint8)
        return np.resize(numbers, (3, 1, 1))

    batches = train(numbered(9), drawn, seed=7, global_batch_size=4)
    for step, batch in enumerate(itertools.islice(batches, 3)):
        for row, image in enumerate(batch["image"]):
            key = [words[0], words[1] ^ np.uint64(4 * step + row)]
            own = np.random.Generator(np.random.Philox(key=key))
            np.testing.assert_array_equal(image, drawn(None, own, None))


@pytest.mark.parametrize("start", [1, 7, 11])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_batch_depends_on_seed_and_step_alone(start, threads):
    settings = dict(seed=3, global_batch_size=4)
    whole = labels(10, start + 3, **settings)
    reading = Reading(threads=threads)
    rest = labels(10, 3, **settings, start_step=start, reading=reading)
    np.testing.assert_array_equal(rest, whole[start:])


def test_a_long_run_resumes_without_reading_what_was():
    settings = dict(seed=0, global_batch_size=4)
    far = labels(10, 2, **settings, start_step=10**9)
    np.testing.assert_array_equal(
        far[1], labels(10, 1, **settings, start_step=10**9 + 1)[0]
    )


@pytest.mark.parametrize("batch", [1, 4, 10, 30])
def test_every_epoch_is_a_permutation(batch):
    """Also where batches cross the end of an epoch, or hold several epochs."""
    steps = 60 // batch
    rows = labels(10, steps, seed=1, global_batch_size=batch)
    assert rows.shape == (steps, batch)
    rows = rows.reshape(6, 10)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(10), (6, 1)))
    np.testing.assert_array_equal(rows, epochs(10, 6, seed=1))


@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (0, 2**32), (0, -1)])
def test_no_order_comes_twice(seeds):
    """Neither in different epochs nor with different seeds."""
    rows = np.concatenate([epochs(20, 5, seed) for seed in seeds])
    assert len(np.unique(rows, axis=0)) == 10


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_same_batches(count):
    settings = dict(seed=5, global_batch_size=8, start_step=2)
    whole = labels(20, 6, **settings)
    parts = [labels(20, 6, **settings, rows=share(i, count, 8)) for i in range(count)]
    assert [part.shape for part in parts] == [(6, 8 // count)] * count
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_evaluation_counts_each_image_once(batch):
    batches = list(pipeline.eval_batches(numbered(150), FIT, global_batch_size=batch))
    assert len(batches) == {1: 150, 7: 22, 64: 3, 1000: 1}[batch]
    assert {b["image"].shape for b in batches} == {(batch, 2, 2, 1)}
    weights = np.concatenate([b["weight"] for b in batches])
    assert weights.dtype == np.float32
    padding = {1: 0, 7: 4, 64: 42, 1000: 850}[batch]
    assert weights.tolist() == [1.0] * 150 + [0.0] * padding
    numbers = np.concatenate([b["label"] for b in batches])
    assert numbers[weights == 1].tolist() == list(range(150))


@pytest.mark.parametrize("batch", [8, 64, 1000])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_evaluate_everything_once(batch, count):
    seen, lengths = [], set()
    for i in range(count):
        batches = list(
            pipeline.eval_batches(
                numbered(150), FIT, global_batch_size=batch, rows=share(i, count, batch)
            )
        )
        lengths.add(len(batches))  # every process must take part in every step
        for b in batches:
            assert len(b["label"]) == len(b["weight"]) == batch // count
            seen += b["label"][b["weight"] == 1].tolist()
    assert sorted(seen) == list(range(150))
    assert len(lengths) == 1


# Augmentation


def noise(count):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return Arrays(images, np.arange(count, dtype=np.int32))


def augmented(steps, **settings):
    """[steps, rows, 6, 6, 3], of twelve images."""
    settings = dict(seed=2, global_batch_size=8) | settings
    batches = train(noise(12), AUGMENTED, (6, 6), **settings)
    return np.stack([b["image"] for b in itertools.islice(batches, steps)])


def test_augmentation_depends_on_seed_and_step_alone():
    whole = augmented(6)
    np.testing.assert_array_equal(augmented(2, start_step=4), whole[4:])
    threads = Reading(threads=3)
    np.testing.assert_array_equal(augmented(6, reading=threads), whole)
    parts = [augmented(6, rows=share(i, 2, 8)) for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert not np.array_equal(augmented(6, seed=3), whole)


def test_another_seed_augments_otherwise():
    """A set of one image has one order, so that only its augmentation can differ."""
    views = [
        next(train(noise(1), AUGMENTED, (6, 6), seed=seed, global_batch_size=8))
        for seed in (2, 3)
    ]
    assert not np.array_equal(views[0]["image"], views[1]["image"])


def test_an_image_is_augmented_anew_in_every_epoch():
    epochs = augmented(30).reshape(20, 12, 6, 6, 3)
    order = labels(12, 30, seed=2, global_batch_size=8).reshape(20, 12)
    for image in range(12):
        views = epochs[order == image]
        assert len(np.unique(views.reshape(20, -1), axis=0)) > 12  # of 50 views


def test_workers_change_nothing():
    """Two workers give the batches that this process reads alone."""
    reading = Reading(workers=2)
    settings = dict(start_step=3)
    np.testing.assert_array_equal(
        augmented(5, reading=reading, **settings), augmented(5, **settings)
    )


def test_a_worker_that_dies_is_said_so():
    """A worker is killed, as by a system without memory."""
    before = set(multiprocessing.active_children())
    batches = train(
        numbered(300), seed=0, global_batch_size=4, reading=Reading(workers=1)
    )
    next(batches)
    for process in set(multiprocessing.active_children()) - before:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(pipeline.WorkerDied, match="reads images ended with code -9"):
        for _ in range(1000):
            next(batches)


# Repeated augmentation


@pytest.mark.parametrize("images, repeats", [(300, 3), (600, 2), (1000, 3)])
def test_repeats(images, repeats):
    """Each image comes `repeats` times in a row; an epoch is a multiple of 256."""
    length = pipeline.epoch_images(images, repeats)
    assert length == images - images % 256
    order = Order(images, seed=4, repeats=repeats)
    plain = Order(images, seed=4)
    for epoch in range(3):
        repeated = order(np.arange(epoch * length, (epoch + 1) * length))
        drawn = plain(np.arange(epoch * images, (epoch + 1) * images))
        expected = np.repeat(drawn, repeats)[:length]
        assert repeated == expected.tolist()
    assert len(set(repeated)) == -(-length // repeats)


def test_repeats_without_the_order_under_test():
    """Each image comes three times in a row, and none is drawn twice."""
    length = pipeline.epoch_images(1000, 3)
    assert length == 768
    for epoch in range(2):
        places = np.arange(epoch * length, (epoch + 1) * length)
        drawn = np.asarray(Order(1000, seed=4, repeats=3)(places)).reshape(-1, 3)
        assert (drawn == drawn[:, :1]).all()
        assert len(set(drawn[:, 0])) == length // 3 == 256
        assert set(drawn[:, 0]) <= set(range(1000))
        assert (np.diff(drawn[:, 0]) < 0).any()  # shuffled


def test_the_published_epoch():
    drawn = Order(1_281_167, seed=0, repeats=3)(np.arange(0, 1_281_024, 64))
    assert len(set(drawn)) == len(drawn)  # 64 places apart: other images
    assert -(-1_281_024 // 3) == 427_008
    assert pipeline.epoch_images(1_281_167, 3) == 1_281_024 == 2502 * 512
    assert pipeline.epoch_images(1_281_167) == 1_281_167
    assert pipeline.epoch_images(100, 3) == 100  # too few to cut


def test_repeats_are_augmented_apart():
    images = augmented(3, repeats=4).reshape(6, 4, -1)
    order = np.asarray(Order(12, 2, 4)(np.arange(24))).reshape(6, 4)
    assert (order == order[:, :1]).all()
    assert all(len(np.unique(views, axis=0)) > 1 for views in images)


# Images that cannot be read


class Broken(Arrays):
    """Numbered images, of which some are unreadable."""

    def read(self, index):
        image, label = super().read(index)
        if label in (3, 4, 8):
            raise Unreadable(f"image {label} is gone")
        return image, label


class Counted(Arrays):
    """Numbered images that list the positions which were read."""

    reads: list[int] = []

    def read(self, index):
        self.reads.append(index)
        return super().read(index)


class Streamed:
    """Images that are decoded as they are read."""

    def __len__(self):
        return 5

    def read(self, index):
        return numbered(5).read(index)


BROKEN = Broken(*(getattr(numbered(10), name) for name in ("images", "labels")))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_stops_the_run(workers):
    batches = train(BROKEN, seed=0, global_batch_size=10, reading=Reading(1, workers))
    with pytest.raises(Unreadable, match="^image [348] is gone$"):
        next(batches)
    with pytest.raises(Unreadable, match="^image 3 is gone$"):
        next(pipeline.eval_batches(BROKEN, FIT, global_batch_size=10))


def test_or_is_skipped_and_counted():
    skip = Reading(unreadable="skip")
    whole = labels(10, 2, seed=0, global_batch_size=10)
    batches = train(BROKEN, seed=0, global_batch_size=10, reading=skip)
    for row, batch in zip(whole, batches, strict=False):
        instead = {3: 5, 4: 5, 8: 9}
        assert batch["label"].tolist() == [instead.get(n, n) for n in row.tolist()]
        assert batch["skipped"] == 4  # two places past image 3, one past 4 and past 8
    (batch,) = pipeline.eval_batches(BROKEN, FIT, global_batch_size=10, reading=skip)
    assert np.flatnonzero(batch["weight"] == 0).tolist() == [3, 4, 8]


def test_filling_is_not_decoded():
    """The last batch is filled up with copies, also where it is filling alone."""
    split = Counted(*(getattr(numbered(5), name) for name in ("images", "labels")))
    split.reads.clear()
    for i in range(2):
        rows = share(i, 2, 8)
        whole = list(pipeline.eval_batches(split, FIT, global_batch_size=8, rows=rows))
        assert [len(batch["image"]) for batch in whole] == [4]
    assert sorted(split.reads) == [0, 1, 2, 3, 4]
    split.reads.clear()
    rows = share(1, 2, 16)
    list(pipeline.eval_batches(split, FIT, global_batch_size=16, rows=rows))
    assert split.reads == [4]


@pytest.mark.parametrize("in_memory, workers", [(True, 0), (False, 3)])
def test_held_images_are_scored_without_workers(in_memory, workers, monkeypatch):
    seen = []
    monkeypatch.setattr(
        pipeline, "_read_ahead", lambda b, reading: seen.append(reading)
    )
    held_out = Subset(numbered(5) if in_memory else Streamed(), np.arange(5))
    split = Subset(held_out, np.arange(4))  # as of digits
    with pytest.raises(TypeError):
        next(
            pipeline.eval_batches(
                split, FIT, global_batch_size=8, reading=Reading(workers=3)
            )
        )
    assert [reading.workers for reading in seen] == [workers]


def test_nothing_to_take_instead():
    split = Subset(BROKEN, np.asarray([3, 8]))
    batches = train(
        split, seed=0, global_batch_size=2, reading=Reading(unreadable="skip")
    )
    with pytest.raises(Unreadable, match="not one image of this split can be read"):
        next(batches)


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(threads=0), "data.threads must be at least 1"),
        (dict(workers=-1), "data.workers at least 0"),
        (dict(unreadable="wait"), "'wait' is not one of stop, skip"),
    ],
)
def test_impossible_reading(fields, words):
    with pytest.raises(UserError, match=words):
        Reading(**fields)


def test_impossible_repeats():
    with pytest.raises(UserError, match="data.repeats must be at least 1, and is 0"):
        pipeline.epoch_images(10, 0)
