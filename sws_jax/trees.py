"""Small functions over trees of arrays: names, sizes, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sws_jax import xla_flags

xla_flags.warn()  # whoever computes comes by here, or by one of the others that do this

Tree = Any


def leaf_names(tree: Tree) -> list[str]:
    """``a/b/c`` for every leaf, in the order of `jax.tree.leaves`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [_join(path) for path, _ in paths]


def map_with_name(function, tree: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map` whose function takes the leaf's name first."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(_join(path), *leaves), tree, *rest
    )


def flatten(tree: Tree) -> dict[str, Any]:
    """A nested dict as one flat dict of ``a/b/c`` names."""
    return dict(zip(leaf_names(tree), jax.tree.leaves(tree), strict=True))


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`, for trees of dicts."""
    tree: dict = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def stack(trees: Sequence[Tree]) -> Tree:
    """Equal trees as one, each leaf with a new leading axis; numpy stays numpy."""

    def join(*leaves):
        numpy = all(isinstance(leaf, np.ndarray) for leaf in leaves)
        return (np if numpy else jnp).stack(leaves)

    return jax.tree.map(join, *trees)


def unstack(tree: Tree) -> list[Tree]:
    """The inverse of `stack`."""
    length = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(length)]


def count(tree: Tree) -> int:
    """Number of scalars in all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def no_weights(name: str, array: np.ndarray) -> str:
    """Why the numbers of a leaf are no weights, or nothing.

    Args:
      name: of the leaf here, ``a/b/c``: a variance is no negative number.
      array: anything that numpy takes.
    """
    array = np.asarray(array)
    if array.dtype.kind in "biu":
        return (
            f"holds {array.dtype}, and weights are no whole numbers: if it is "
            f"quantised, save it as float32, float16 or bfloat16"
        )
    if odd := array.size - int(np.isfinite(array).sum()):
        return (
            f"holds {odd:,} numbers that are NaN or infinite (of {array.size:,}): the "
            f"training had failed, or the file is damaged"
        )
    if array.dtype.itemsize > 4:
        if odd := int((np.abs(array) > np.finfo(np.float32).max).sum()):
            return (
                f"holds {odd:,} numbers (of {array.size:,}) that are too large for "
                f"float32, in which networks compute: the file is damaged"
            )
    if name.endswith("bn/var") and (odd := int((array < 0).sum())):
        return (
            f"holds {odd:,} negative numbers (of {array.size:,}), and is the variance "
            f"of a batch norm: the file is damaged"
        )
    return ""


def to_host(tree: Tree) -> Tree:
    """The same tree with numpy leaves (each device array copied once).

    Where processes hold parts of it, all of them call this, and all get all of it.
    """

    def fetch(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(fetch, tree)


def difference(expected: Tree, found: Tree) -> list[str]:
    """What keeps `found` from taking `expected`'s place.

    Returns:
      A line for each leaf that is missing (``- name shape``), surplus
      (``+ name shape``) or of another shape (``! name shape, expected shape``);
      no line where the trees agree.
    """
    want, have = flatten(expected), flatten(found)
    lines = [f"- {n} {_shape(want[n])}" for n in want if n not in have]
    lines += [f"+ {n} {_shape(have[n])}" for n in have if n not in want]
    lines += [
        f"! {n} {_shape(have[n])}, expected {_shape(want[n])}"
        for n in want
        if n in have and tuple(want[n].shape) != tuple(have[n].shape)
    ]
    return lines


def _shape(leaf) -> str:
    return "x".join(map(str, leaf.shape)) or "scalar"


def _join(path) -> str:
    return "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)
