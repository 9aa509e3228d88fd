"""The order in which images are read, and how they become batches.

The batch at step s is a function of (seed, s) alone. A resumed run therefore
needs no data state: it slices the same infinite order at s. Processes take
consecutive rows of every global batch, so the order does not depend on how many
there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import grain
import numpy as np

from sws_jax.data.base import Split


def train_batches(
    split: Split,
    *,
    seed: int,
    global_batch_size: int,
    start_step: int = 0,
    process: tuple[int, int] = (0, 1),
    threads: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches, from step `start_step` on.

    Every epoch is another permutation of all images; a batch may hold the end of
    one epoch and the start of the next, so that no image is left out.

    Args:
      split: what to read.
      seed: of the order.
      global_batch_size: images per step, over all processes.
      start_step: first step to deliver.
      process: (index, count) of this process.
      threads: that read ahead.

    Yields:
      ``image`` uint8 [rows, height, width, channels], ``label`` int32 [rows]: this
      process's rows of the global batch.
    """
    order = grain.MapDataset.range(len(split)).shuffle(seed=_seed32(seed)).repeat()
    # Only positions pass through the stages before `read`: batching them is cheap,
    # and one read per batch lets a source fetch its images together.
    # (The order is endless, so nothing remains to drop; Grain would otherwise round
    # the number of batches up in floats, and batches of one overflow it.)
    batches = order.batch(global_batch_size, drop_remainder=True)[start_step:]
    batches = batches.map(lambda rows: split.read(_own(rows, process)))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)
    return iter(batches.to_iter_dataset(options))


def eval_batches(
    split: Split, *, global_batch_size: int, process: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """All images once, in order; the last batch filled up with weight 0.

    Yields:
      ``image``, ``label`` as above, and ``weight`` float32 [rows]: 1 for an image
      to count, 0 for filling.
    """
    for start in range(0, len(split), global_batch_size):
        rows = np.arange(start, start + global_batch_size)
        rows = _own(rows, process)
        batch = split.read(np.minimum(rows, len(split) - 1))
        yield {**batch, "weight": (rows < len(split)).astype(np.float32)}


def _own(rows: np.ndarray, process: tuple[int, int]) -> np.ndarray:
    index, count = process
    share = len(rows) // count
    return rows[index * share : (index + 1) * share]


def _seed32(seed: int) -> int:
    """Any whole number as one that Grain takes, below 2^32.

    Hashed, since Grain orders epoch e of seed s as epoch 0 of seed s + e: runs of
    neighbouring seeds would read the same permutations, one epoch apart.
    """
    return int(np.random.SeedSequence(seed % 2**64).generate_state(1)[0])
