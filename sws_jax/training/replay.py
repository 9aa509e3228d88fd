"""A step that is computed twice, to notice a device that computes wrong numbers.

A step is a pure function of its arguments, so that two computations of it on the same
devices give the same bits. Each device sums the bits of its own parts of either result,
and compares the two sums itself: no number that another device could have changed takes
part, and the device that differs has a name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sws_jax import sharding, trees
from sws_jax.errors import Stopped
from sws_jax.runtime import processes, words

_SPREAD = np.uint32(0x9E3779B1)  # 2^32 over the golden ratio, odd
_HALF = np.uint32(16)  # bits


class Diverged(Stopped):
    """Two computations of one step differ: a device has computed wrongly."""


def twice(
    program: Callable[..., tuple[Any, Any]], state: Any, *arguments: Any
) -> tuple[tuple[Any, Any], str]:
    """A step computed twice from the same state, which needs the memory of one more.

    All processes call it, and get the same answer.

    Args:
      program: from a state, whose buffers are donated, and arguments, which are not, to
        the state after the step and its metrics.
      state: before the step.
      *arguments: of the step.

    Returns:
      What the first computation returned; and where the second one differs from it, in
      words, or "" where every bit is the same.
    """
    before = _copied(state)
    first = program(state, *arguments)
    sums = _sums(first)
    sharding.hold_back([sums])
    second = program(before, *arguments)
    differs = _comparing(sums.sharding)(sums, _sums(second))
    names = [name for tree in first for name in trees.leaf_names(tree)]
    return first, _place(_differing(differs, names))


def compile_for(state: Any, step_metrics: Any) -> None:
    """Compiles what `twice` computes besides the step, before any step is replayed.

    Args:
      state: after a step.
      step_metrics: of that step.
    """
    sums = _sums((_copied(state), step_metrics))
    jax.block_until_ready(_comparing(sums.sharding)(sums, sums))


def _copied(state: Any) -> Any:
    """A copy of a state, with the same shardings."""
    leaves, tree = jax.tree.flatten(state)
    copy = _copy(tuple(leaf.sharding for leaf in leaves))
    return jax.tree.unflatten(tree, copy(leaves))


@functools.lru_cache(maxsize=16)
def _copy(shardings: tuple[NamedSharding, ...]) -> Callable:
    return jax.jit(
        lambda leaves: [jnp.copy(leaf) for leaf in leaves],
        out_shardings=list(shardings),
    )


def _sums(result: tuple[Any, Any]) -> jax.Array:
    """The sum of each device's part of each leaf: uint32 [devices, leaves]."""
    leaves = jax.tree.leaves(result)
    return _summing(tuple(leaf.sharding for leaf in leaves))(leaves)


@functools.lru_cache(maxsize=16)
def _summing(shardings: tuple[NamedSharding, ...]) -> Callable:
    def sums_of_device(parts):
        return jnp.stack([_sum(part) for part in parts])[None]

    mesh, places = shardings[0].mesh, [leaf.spec for leaf in shardings]
    by_device = PartitionSpec(mesh.axis_names)
    return jax.jit(
        jax.shard_map(
            sums_of_device, mesh=mesh, in_specs=(places,), out_specs=by_device
        )
    )


def _sum(part: jax.Array) -> jax.Array:
    """The bits of each element times an odd number of its position, modulo 2^32.

    One element that differs always shows, since an odd number has an inverse modulo
    2^32; several go unnoticed with a probability of about 2^-32.
    """
    if part.dtype == bool:
        part = part.astype(jnp.uint8)
    # An element of 64 bits becomes two of 32, on an axis of their own.
    kind = f"uint{8 * min(part.dtype.itemsize, 4)}"
    bits = jax.lax.bitcast_convert_type(part, kind).astype(jnp.uint32)
    positions, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        along_axis = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        positions += along_axis * np.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    mixed = (positions + np.uint32(1)) * _SPREAD
    mixed = (mixed ^ (mixed >> _HALF)) * _SPREAD
    return jnp.sum(bits * (mixed | np.uint32(1)), dtype=jnp.uint32)


def _differing(differs: jax.Array, names: list[str]) -> list[tuple[str, str, int]]:
    """The devices, of all processes, whose sums differ.

    Args:
      differs: bool [devices, leaves], what `_comparing` returns.
      names: of the leaves.

    Returns:
      For each such device its name, the leaves that differ, in words, and the number of
      all devices.
    """
    count, own = len(differs), []
    for shard in differs.addressable_shards:
        (row,) = np.asarray(shard.data)
        if row.any():
            device = shard.device
            leaves = [name for name, wrong in zip(names, row, strict=True) if wrong]
            about = f"{device.device_kind}, process {device.process_index}"
            own.append((f"device {device.id} ({about})", words.few(leaves), count))
    if not any(processes.everyone(len(own))):
        return []
    return [tuple(one) for part in processes.collected(own) for one in part]


@functools.lru_cache(maxsize=16)
def _comparing(sums: NamedSharding) -> Callable:
    """Each device compares its own sums, which stay where they are."""
    return jax.jit(
        jax.shard_map(
            jnp.not_equal, mesh=sums.mesh, in_specs=sums.spec, out_specs=sums.spec
        )
    )


def _place(differing: list[tuple[str, str, int]]) -> str:
    """Where two results differ, in words; empty where they do not."""
    if not differing:
        return ""
    device, leaves, count = differing[0]
    if len(differing) == 1:
        return f"on {device}, in {leaves}"
    devices = words.few([device for device, *_ in differing])
    return (
        f"on {len(differing)} of {count} devices, as one passes on to the others what "
        f"it computes wrongly: {devices}, in {leaves}"
    )
