"""Checksums of trees of arrays, whatever devices and processes hold them.

An array's checksum is a sum over its elements, modulo 2^64: the bits of each times an
odd number that follows from its place. So every holder of a part sums that part alone,
on any mesh, and a change of one element always shows, since an odd number has an
inverse modulo 2^64.
"""

from __future__ import annotations

import math

import jax
import numpy as np
from jax.experimental import multihost_utils

from sws_jax import trees

_BLOCK = 1 << 18  # elements at a time, which fit into a processor's cache
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd
_LOW = np.uint64(0xFFFFFFFF)


def of(tree: trees.Tree) -> dict[str, str]:
    """``float32[2,3] 0123456789abcdef`` for every leaf, by name.

    Where processes hold parts of the arrays, all of them call this.
    """
    flat = trees.flatten(tree)
    sums = np.array([_own_sum(leaf) for leaf in flat.values()], np.uint64)
    shared = any(not _whole(leaf) for leaf in flat.values())
    if shared and len(sums):
        sums = _over_processes(sums)
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}] {int(total):016x}"
        for (name, leaf), total in zip(flat.items(), sums, strict=True)
    }


def _whole(leaf) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _own_sum(leaf) -> np.uint64:
    """Over the parts of an array that this process holds, none of them twice."""
    if not isinstance(leaf, jax.Array):
        return _sum(np.asarray(leaf), (slice(None),) * np.ndim(leaf), np.shape(leaf))
    parts = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    sums = [_sum(np.asarray(p.data), p.index, leaf.shape) for p in parts]
    return np.sum(np.array(sums, np.uint64), dtype=np.uint64)


def _sum(part: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]):
    """Over a part of an array of `shape` that stands at `index` in it."""
    if not part.size:
        return np.uint64(0)
    starts = [place.start or 0 for place in index]
    # Places of the first element of every row, in the whole array.
    rows = np.zeros(part.shape[:-1], np.uint64)
    for axis, (start, count) in enumerate(zip(starts, part.shape[:-1], strict=False)):
        steps = (np.arange(count) + start) * math.prod(shape[axis + 1 :])
        rows += steps.astype(np.uint64).reshape((-1,) + (1,) * (rows.ndim - axis - 1))
    first_of_row = rows.reshape(-1)
    width = part.shape[-1] if part.ndim else 1
    columns = np.arange(width, dtype=np.uint64) + np.uint64(starts[-1] if starts else 0)
    bits = _bits(part).reshape(len(first_of_row), width)
    total = np.uint64(0)
    deep, across = max(_BLOCK // width, 1), min(width, _BLOCK)
    with np.errstate(over="ignore"):
        for row in range(0, len(first_of_row), deep):
            for column in range(0, width, across):
                block = np.s_[row : row + deep, column : column + across]
                places = first_of_row[block[0], None] + columns[block[1]]
                total += (bits[block] * _odd(places)).sum(dtype=np.uint64)
    return total


def _odd(places: np.ndarray) -> np.ndarray:
    """An odd number for every place, whose upper half depends on all of its bits."""
    mixed = (places + np.uint64(1)) * _SPREAD
    mixed ^= mixed >> np.uint64(32)
    mixed *= _SPREAD
    return mixed | np.uint64(1)


def _bits(array: np.ndarray) -> np.ndarray:
    """The elements as unsigned integers of their own width."""
    plain = np.ascontiguousarray(array)
    return plain.view(np.dtype(f"u{plain.dtype.itemsize}"))


def _over_processes(sums: np.ndarray) -> np.ndarray:
    """Of all processes; in halves, since JAX has no 64 bits by default."""
    halves = np.stack([sums & _LOW, sums >> np.uint64(32)]).astype(np.uint32)
    every = np.asarray(multihost_utils.process_allgather(halves)).astype(np.uint64)
    whole = every[:, 0] | every[:, 1] << np.uint64(32)
    return whole.sum(axis=0, dtype=np.uint64)
