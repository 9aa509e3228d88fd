"""Checksums of trees of arrays, whatever devices and processes have their parts.

The checksum of an array is a sum over its elements, modulo 2^64: the bits of each times
an odd number that follows from its position. Each device can sum its part alone, on any
mesh, and a change of one element always shows, since an odd number has an inverse
modulo 2^64.

Large arrays are summed by their devices, all others by numpy, which gives the same
digits. The programs of devices have no collective and no numbers of 64 bits: JAX has
none by default, and not every device has all operations on them.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from sws_jax import trees

_BLOCK = 1 << 18  # elements at a time, so that they fit into a processor's cache
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd
_LOW = np.uint64(0xFFFFFFFF)

# Bytes from which on an array is summed by its devices. To compile a program, once for
# all arrays of a shape, takes as long as numpy does for 40 MiB. With four arrays of
# this size, for weights, two moments and an average, ten saves outweigh that.
_DEVICES_FROM = 1 << 20
# Types of weights and optimisers.
_DTYPES_OF_DEVICES = ("float32", "bfloat16", "float16", "int32", "uint32")
_HALF = 16  # bits, of a number of 32
_ADDED = 1 << _HALF  # numbers of 16 bits whose sum has 32
_LEAST_ADDED = 1 << 8  # with fewer, a device would return too many sums


def of(tree: trees.Tree) -> dict[str, str]:
    """``float32[2,3] 0123456789abcdef`` for every leaf, by name.

    Where several processes have parts of the arrays, all of them call this.
    """
    flat = trees.flatten(tree)
    # All devices are started before any of them is waited for.
    started = [
        _start(leaf, leaf.sharding) if _is_for_devices(leaf) else None
        for leaf in flat.values()
    ]
    own = [
        _own_sum(leaf) if parts is None else _collect(parts, leaf)
        for parts, leaf in zip(started, flat.values(), strict=True)
    ]
    sums = np.array(own, np.uint64)
    shared = [not _is_whole(leaf) for leaf in flat.values()]
    if any(shared):
        # Each process has the whole sum of arrays that it has whole.
        sums = np.where(shared, _over_processes(sums), sums)
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}] {int(total):016x}"
        for (name, leaf), total in zip(flat.items(), sums, strict=True)
    }


def _is_whole(leaf) -> bool:
    """Whether this process has all parts of an array."""
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _own_sum(leaf) -> np.uint64:
    """The sum over this process's parts of an array, each of them once."""
    if not isinstance(leaf, jax.Array):
        return _sum(np.asarray(leaf), (slice(None),) * np.ndim(leaf), np.shape(leaf))
    parts = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    sums = [_sum(np.asarray(p.data), p.index, leaf.shape) for p in parts]
    return np.sum(np.array(sums, np.uint64), dtype=np.uint64)


def _sum(part: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]):
    """The sum over a part of an array.

    Args:
      part: of the array.
      index: of the part in the array.
      shape: of the array.
    """
    if not part.size:
        return np.uint64(0)
    starts = [extent.start or 0 for extent in index]
    # Positions of the first element of every row, in the whole array.
    rows = np.zeros(part.shape[:-1], np.uint64)
    for axis, (start, count) in enumerate(zip(starts, part.shape[:-1], strict=False)):
        along_axis = (np.arange(count) + start) * math.prod(shape[axis + 1 :])
        after = (1,) * (rows.ndim - axis - 1)
        rows += along_axis.astype(np.uint64).reshape(-1, *after)
    first_of_row = rows.reshape(-1)
    width = part.shape[-1] if part.ndim else 1
    columns = np.arange(width, dtype=np.uint64) + np.uint64(starts[-1] if starts else 0)
    bits = _bits(part).reshape(len(first_of_row), width)
    total = np.uint64(0)
    block_rows, block_columns = max(_BLOCK // width, 1), min(width, _BLOCK)
    with np.errstate(over="ignore"):
        for row in range(0, len(first_of_row), block_rows):
            for column in range(0, width, block_columns):
                block = np.s_[row : row + block_rows, column : column + block_columns]
                positions = first_of_row[block[0], None] + columns[block[1]]
                total += (bits[block] * _odd(positions)).sum(dtype=np.uint64)
    return total


def _odd(positions: np.ndarray) -> np.ndarray:
    """An odd number for each position, on all of whose bits its upper half depends."""
    mixed = (positions + np.uint64(1)) * _SPREAD
    mixed ^= mixed >> np.uint64(32)
    mixed *= _SPREAD
    return mixed | np.uint64(1)


def _bits(array: np.ndarray) -> np.ndarray:
    """The elements as unsigned integers of their own width."""
    plain = np.ascontiguousarray(array)
    return plain.view(np.dtype(f"u{plain.dtype.itemsize}"))


def _is_for_devices(leaf) -> bool:
    """Whether devices sum an array; all processes say the same."""
    return (
        isinstance(leaf, jax.Array)
        and leaf.nbytes >= _DEVICES_FROM
        and leaf.size < 1 << 32  # positions have 32 bits on devices
        and leaf.dtype.name in _DTYPES_OF_DEVICES
        and isinstance(leaf.sharding, (NamedSharding, SingleDeviceSharding))
        and _added(leaf.sharding.shard_shape(leaf.shape))[1] >= _LEAST_ADDED
    )


def _added(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Axes along which a device adds, and how many numbers each of its sums is of."""
    axes, count = [], 1
    for axis in reversed(range(len(shape))):
        if count * shape[axis] <= _ADDED:
            axes.append(axis)
            count *= shape[axis]
    return tuple(axes), count


@functools.partial(jax.jit, static_argnums=1)
def _start(leaf: jax.Array, sharding: Sharding) -> jax.Array:
    """Sums over the part of each device: uint32 [devices x 3, ...].

    The three of a device have, in this order, the bits of its sum from 32, from 16 and
    from 0 on.
    """
    if not isinstance(sharding, NamedSharding):
        return _sums_of_part(leaf, (0,) * leaf.ndim, leaf.shape)
    mesh, spec = sharding.mesh, sharding.spec
    axes = [*spec, *[None] * (leaf.ndim - len(spec))]

    def own(part):
        starts = tuple(
            jax.lax.axis_index(names) * size if names else 0
            for names, size in zip(axes, part.shape, strict=True)
        )
        return _sums_of_part(part, starts, leaf.shape)

    every = PartitionSpec(mesh.axis_names)
    return jax.shard_map(own, mesh=mesh, in_specs=spec, out_specs=every)(leaf)


def _sums_of_part(part: jax.Array, starts, shape: tuple[int, ...]) -> jax.Array:
    """The sums of a part, as of `_sum`, in 32-bit numbers: [3, ...], as in `_start`."""
    positions = jnp.zeros(part.shape, jnp.uint32)
    for axis, start in enumerate(starts):
        along_axis = jax.lax.broadcasted_iota(jnp.uint32, part.shape, axis)
        along_axis += jnp.uint32(start)
        positions += along_axis * np.uint32(math.prod(shape[axis + 1 :]) & 0xFFFFFFFF)
    # As `_odd`.
    spread = [np.uint32(half) for half in divmod(int(_SPREAD), 1 << 32)]
    high, low = _product((np.uint32(0), positions + np.uint32(1)), spread)
    high, low = _product((high, low ^ high), spread)
    kind = jnp.dtype(f"u{part.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(part, kind).astype(jnp.uint32)
    high, low = _product((np.uint32(0), bits), (high, low | np.uint32(1)))
    # One reduction of three numbers at a time: for three reductions a compiler would
    # write the numbers to memory and read them three times.
    zero = np.uint32(0)
    sums = jax.lax.reduce(
        (high, low >> _HALF, low & np.uint32(_ADDED - 1)),
        (zero, zero, zero),
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        _added(part.shape)[0],
    )
    return jnp.stack(sums)


def _product(a, b):
    """The product of two 64-bit numbers modulo 2^64, each as (upper, lower) 32 bits."""
    (a_high, a_low), (b_high, b_low) = a, b
    half = np.uint32(_ADDED - 1)
    a1, a0, b1, b0 = a_low >> _HALF, a_low & half, b_low >> _HALF, b_low & half
    middle = a1 * b0 + (a0 * b0 >> _HALF)
    carried = a0 * b1 + (middle & half)
    upper = a1 * b1 + (middle >> _HALF) + (carried >> _HALF)
    return upper + a_high * b_low + a_low * b_high, a_low * b_low


def _collect(sums: jax.Array, leaf: jax.Array) -> np.uint64:
    """The sum of what `_start` returned for this process's parts, each of them once."""
    first = {s.device for s in leaf.addressable_shards if s.replica_id == 0}
    total = 0
    for shard in sums.addressable_shards:
        if shard.device in first:
            parts = np.asarray(shard.data).reshape(3, -1)
            high, middle, low = map(int, parts.sum(axis=1, dtype=np.uint64))
            total += (high << 32) + (middle << _HALF) + low
    return np.uint64(total % 2**64)


def _over_processes(sums: np.ndarray) -> np.ndarray:
    """Sums over all processes; they travel in halves, as JAX has no 64 bits."""
    halves = np.stack([sums & _LOW, sums >> np.uint64(32)]).astype(np.uint32)
    every = np.asarray(multihost_utils.process_allgather(halves)).astype(np.uint64)
    whole = every[:, 0] | every[:, 1] << np.uint64(32)
    return whole.sum(axis=0, dtype=np.uint64)
