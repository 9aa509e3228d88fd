"""Small functions over trees of arrays: names, sizes, differences.

What flax and optax have for trees is used where it does the same. Where it does not:

- `flax.traverse_util.flatten_dict` and `path_aware_map` take nested dicts alone, in the
  order of insertion. The states of optimisers are tuples too, and the names and the
  order of what checkpoints hold are those of `jax.tree.leaves`.
- `optax.tree.size` is one line as `count` is, and loading optax takes 0.3 s, which
  whoever expands a learngene need not wait for.
- Neither stacks trees, compares their shapes, or gathers the parts that other
  processes hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from sws_jax import xla_flags

# Every module that computes imports this one, or another one that warns.
xla_flags.warn()

Tree = Any


def leaf_names(tree: Tree) -> list[str]:
    """``a/b/c`` for every leaf, in the order of `jax.tree.leaves`."""
    return [_join(path) for path, _ in jax.tree.leaves_with_path(tree)]


def map_with_name(function, tree: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map` whose function takes the leaf's name first."""
    return jax.tree.map_with_path(
        lambda path, *leaves: function(_join(path), *leaves), tree, *rest
    )


def flatten(tree: Tree) -> dict[str, Any]:
    """A nested dict as one flat dict of ``a/b/c`` names."""
    return dict(zip(leaf_names(tree), jax.tree.leaves(tree), strict=True))


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`, for trees of dicts."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def stack(trees: Sequence[Tree]) -> Tree:
    """Equal trees as one, each leaf with a new leading axis; numpy stays numpy."""

    def join(*leaves):
        are_numpy = all(isinstance(leaf, np.ndarray) for leaf in leaves)
        return (np if are_numpy else jnp).stack(leaves)

    return jax.tree.map(join, *trees)


def unstack(tree: Tree) -> list[Tree]:
    """The inverse of `stack`."""
    length = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(length)]


def count(tree: Tree) -> int:
    """Number of scalars in all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def no_weights(name: str, array: np.ndarray) -> str:
    """The reason why an array cannot be a network's weights; empty if it can.

    Args:
      name: of the leaf in our tree, ``a/b/c``; a variance must not be negative.
      array: anything that numpy takes.
    """
    array = np.asarray(array)
    if array.dtype.kind in "biu":
        return (
            f"holds {array.dtype}, and weights are no whole numbers: if it is "
            f"quantised, save it as float32, float16 or bfloat16"
        )
    if bad := array.size - int(np.isfinite(array).sum()):
        return (
            f"holds {bad:,} numbers that are NaN or infinite (of {array.size:,}): the "
            f"training had failed, or the file is damaged"
        )
    if array.dtype.itemsize > 4:
        if bad := int((np.abs(array) > np.finfo(np.float32).max).sum()):
            return (
                f"holds {bad:,} numbers (of {array.size:,}) that are too large for "
                f"float32, in which networks compute: the file is damaged"
            )
    if name.endswith("bn/var") and (bad := int((array < 0).sum())):
        return (
            f"holds {bad:,} negative numbers (of {array.size:,}), and is the variance "
            f"of a batch norm: the file is damaged"
        )
    return ""


def to_host(tree: Tree) -> Tree:
    """The same tree with numpy leaves; each array of a device is copied once.

    Where several processes hold parts of the tree, all of them must call this, and each
    gets the whole tree.
    """

    def fetch(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(fetch, tree)


def difference(expected: Tree, found: Tree) -> list[str]:
    """What keeps `found` from taking the place of `expected`.

    Returns:
      A line for each leaf that is missing (``- name shape``), surplus
      (``+ name shape``) or of another shape (``! name shape, expected shape``);
      no line where the trees agree.
    """
    wanted, present = flatten(expected), flatten(found)
    lines = [f"- {n} {_shape(wanted[n])}" for n in wanted if n not in present]
    lines += [f"+ {n} {_shape(present[n])}" for n in present if n not in wanted]
    lines += [
        f"! {n} {_shape(present[n])}, expected {_shape(wanted[n])}"
        for n in wanted
        if n in present and tuple(wanted[n].shape) != tuple(present[n].shape)
    ]
    return lines


def _shape(leaf) -> str:
    return "x".join(map(str, leaf.shape)) or "scalar"


def _join(path) -> str:
    """Names of keys and fields, and ``[0]`` for an element of a tuple or a list.

    Checkpoints hold these names, and `jax.tree_util.keystr` would write ``0``.
    """
    return "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)
