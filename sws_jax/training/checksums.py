"""Checksums of trees of arrays, whatever devices and processes hold them.

An array's checksum is a sum over its elements, modulo 2^64: the bits of each times an
odd number that follows from its place. So every holder of a part sums that part alone,
on any mesh, and a change of one element always shows, since an odd number has an
inverse modulo 2^64.

Large arrays are summed by the devices that hold them, all others by numpy, which gives
the same digits. Devices get programs without a collective and without 64 bits: JAX has
none by default, and not every device all operations on them.
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

_BLOCK = 1 << 18  # elements at a time, which fit into a processor's cache
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd
_LOW = np.uint64(0xFFFFFFFF)

# Bytes from which on an array is its devices' work. To compile a program, once for all
# arrays of a shape, takes as long as numpy does for 40 MiB: with four arrays of this
# size (weights, two moments, average) that is made up for after ten saves.
_DEVICES_FROM = 1 << 20
# What weights and their optimisers are made of.
_DTYPES_OF_DEVICES = ("float32", "bfloat16", "float16", "int32", "uint32")
_HALF = 16  # bits, of a number of 32
_ADDED = 1 << _HALF  # numbers of 16 bits whose sum has 32
_LEAST_ADDED = 1 << 8  # below, a device would hand out too much of what it holds


def of(tree: trees.Tree) -> dict[str, str]:
    """``float32[2,3] 0123456789abcdef`` for every leaf, by name.

    Where processes hold parts of the arrays, all of them call this.
    """
    flat = trees.flatten(tree)
    # Devices are given all of their work before any of it is waited for.
    started = [
        _start(leaf, leaf.sharding) if _is_for_devices(leaf) else None
        for leaf in flat.values()
    ]
    own = [
        _own_sum(leaf) if parts is None else _collect(parts, leaf)
        for parts, leaf in zip(started, flat.values(), strict=True)
    ]
    sums = np.array(own, np.uint64)
    shared = [not _whole(leaf) for leaf in flat.values()]
    if any(shared):
        # (Every process has counted all of what it holds whole.)
        sums = np.where(shared, _over_processes(sums), sums)
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


def _is_for_devices(leaf) -> bool:
    """Whether devices sum it: the same in all processes."""
    return (
        isinstance(leaf, jax.Array)
        and leaf.nbytes >= _DEVICES_FROM
        and leaf.size < 1 << 32  # places have 32 bits there
        and leaf.dtype.name in _DTYPES_OF_DEVICES
        and isinstance(leaf.sharding, (NamedSharding, SingleDeviceSharding))
        and _added(leaf.sharding.shard_shape(leaf.shape))[1] >= _LEAST_ADDED
    )


def _added(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Axes along which a device adds up, and how many numbers that makes of one."""
    axes, count = [], 1
    for axis in reversed(range(len(shape))):
        if count * shape[axis] <= _ADDED:
            axes.append(axis)
            count *= shape[axis]
    return tuple(axes), count


@functools.partial(jax.jit, static_argnums=1)
def _start(leaf: jax.Array, sharding: Sharding) -> jax.Array:
    """Sums over what each device holds, one after another: uint32 [devices x 3, ...].

    Of the 64 bits of a sum, in this order: those from 32 on, from 16 on, from 0 on.
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
    """As `_sum`, with numbers of 32 bits: [3, ...], see `_start`."""
    places = jnp.zeros(part.shape, jnp.uint32)
    for axis, start in enumerate(starts):
        step = jax.lax.broadcasted_iota(jnp.uint32, part.shape, axis)
        step += jnp.uint32(start)
        places += step * np.uint32(math.prod(shape[axis + 1 :]) & 0xFFFFFFFF)
    # As `_odd`.
    spread = [np.uint32(half) for half in divmod(int(_SPREAD), 1 << 32)]
    high, low = _product((np.uint32(0), places + np.uint32(1)), spread)
    high, low = _product((high, low ^ high), spread)
    kind = jnp.dtype(f"u{part.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(part, kind).astype(jnp.uint32)
    high, low = _product((np.uint32(0), bits), (high, low | np.uint32(1)))
    # One reduction of three numbers: a compiler would go through the array for each of
    # three reductions, and first write down what it reduces.
    zero = np.uint32(0)
    sums = jax.lax.reduce(
        (high, low >> _HALF, low & np.uint32(_ADDED - 1)),
        (zero, zero, zero),
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        _added(part.shape)[0],
    )
    return jnp.stack(sums)


def _product(a, b):
    """Of two numbers of 64 bits modulo 2^64, each (its upper 32 bits, its lower)."""
    (a_high, a_low), (b_high, b_low) = a, b
    half = np.uint32(_ADDED - 1)
    a1, a0, b1, b0 = a_low >> _HALF, a_low & half, b_low >> _HALF, b_low & half
    middle = a1 * b0 + (a0 * b0 >> _HALF)
    carried = a0 * b1 + (middle & half)
    upper = a1 * b1 + (middle >> _HALF) + (carried >> _HALF)
    return upper + a_high * b_low + a_low * b_high, a_low * b_low


def _collect(sums: jax.Array, leaf: jax.Array) -> np.uint64:
    """What `_start` found, over the parts that this process holds, none twice."""
    first = {s.device for s in leaf.addressable_shards if s.replica_id == 0}
    total = 0
    for shard in sums.addressable_shards:
        if shard.device in first:
            parts = np.asarray(shard.data).reshape(3, -1)
            high, middle, low = map(int, parts.sum(axis=1, dtype=np.uint64))
            total += (high << 32) + (middle << _HALF) + low
    return np.uint64(total % 2**64)


def _over_processes(sums: np.ndarray) -> np.ndarray:
    """Of all processes; in halves, since JAX has no 64 bits by default."""
    halves = np.stack([sums & _LOW, sums >> np.uint64(32)]).astype(np.uint32)
    every = np.asarray(multihost_utils.process_allgather(halves)).astype(np.uint64)
    whole = every[:, 0] | every[:, 1] << np.uint64(32)
    return whole.sum(axis=0, dtype=np.uint64)
