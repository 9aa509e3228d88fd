import itertools

import numpy as np
import pytest

from sws_jax.data import pipeline
from sws_jax.data.base import Arrays


def numbered(count):
    """A split whose labels, and pixels, are the positions."""
    labels = np.arange(count, dtype=np.int32)
    pixels = (labels % 256).astype(np.uint8)
    return Arrays(
        np.broadcast_to(pixels[:, None, None, None], (count, 2, 2, 1)), labels
    )


def labels(count, steps, **settings):
    """[steps, rows]"""
    batches = pipeline.train_batches(numbered(count), **settings)
    return np.stack([b["label"] for b in itertools.islice(batches, steps)])


def epochs(count, number, seed):
    """[number, count]"""
    return labels(count, number, seed=seed, global_batch_size=count)


def test_images_come_with_their_labels():
    (batch,) = itertools.islice(
        pipeline.train_batches(numbered(300), seed=0, global_batch_size=16), 1
    )
    assert batch["image"].shape == (16, 2, 2, 1)
    assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
    expected = np.broadcast_to(
        (batch["label"] % 256)[:, None, None, None], (16, 2, 2, 1)
    )
    np.testing.assert_array_equal(batch["image"], expected)


@pytest.mark.parametrize("start", [1, 7, 11])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_batch_depends_on_seed_and_step_alone(start, threads):
    settings = dict(seed=3, global_batch_size=4)
    whole = labels(10, start + 3, **settings)
    rest = labels(10, 3, **settings, start_step=start, threads=threads)
    np.testing.assert_array_equal(rest, whole[start:])


def test_a_long_run_resumes_without_reading_what_was():
    settings = dict(seed=0, global_batch_size=4)
    far = labels(10, 2, **settings, start_step=10**9)
    np.testing.assert_array_equal(
        far[1], labels(10, 1, **settings, start_step=10**9 + 1)[0]
    )


@pytest.mark.parametrize("batch", [1, 4, 10, 30])
def test_every_epoch_is_a_permutation(batch):
    """Batches run on over the end of an epoch, also if they hold several."""
    steps = 60 // batch
    found = labels(10, steps, seed=1, global_batch_size=batch)
    assert found.shape == (steps, batch)
    found = found.reshape(6, 10)
    np.testing.assert_array_equal(
        np.sort(found, axis=1), np.tile(np.arange(10), (6, 1))
    )
    np.testing.assert_array_equal(found, epochs(10, 6, seed=1))


@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (0, 2**32), (0, -1)])
def test_no_order_comes_twice(seeds):
    """Of different epochs, nor of different seeds in any epoch."""
    rows = np.concatenate([epochs(20, 5, seed) for seed in seeds])
    assert len(np.unique(rows, axis=0)) == 10


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_same_batches(count):
    settings = dict(seed=5, global_batch_size=8, start_step=2)
    whole = labels(20, 6, **settings)
    parts = [labels(20, 6, **settings, process=(i, count)) for i in range(count)]
    assert [part.shape for part in parts] == [(6, 8 // count)] * count
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_evaluation_counts_each_image_once(batch):
    batches = list(pipeline.eval_batches(numbered(150), global_batch_size=batch))
    assert len(batches) == {1: 150, 7: 22, 64: 3, 1000: 1}[batch]
    assert {b["image"].shape for b in batches} == {(batch, 2, 2, 1)}
    weights = np.concatenate([b["weight"] for b in batches])
    assert weights.dtype == np.float32
    padding = {1: 0, 7: 4, 64: 42, 1000: 850}[batch]
    assert weights.tolist() == [1.0] * 150 + [0.0] * padding
    found = np.concatenate([b["label"] for b in batches])
    assert found[weights == 1].tolist() == list(range(150))


@pytest.mark.parametrize("batch", [8, 64, 1000])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_evaluate_everything_once(batch, count):
    seen, lengths = [], set()
    for i in range(count):
        batches = list(
            pipeline.eval_batches(
                numbered(150), global_batch_size=batch, process=(i, count)
            )
        )
        lengths.add(len(batches))  # every process must take part in every step
        for b in batches:
            assert len(b["label"]) == len(b["weight"]) == batch // count
            seen += b["label"][b["weight"] == 1].tolist()
    assert sorted(seen) == list(range(150))
    assert len(lengths) == 1
