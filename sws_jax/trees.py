"""Small functions over trees of arrays: names, sizes, digests, differences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


def to_host(tree: Tree) -> Tree:
    """The same tree with numpy leaves (each device array copied once)."""
    return jax.tree.map(np.asarray, tree)


def digests(tree: Tree) -> dict[str, str]:
    """A short digest of every leaf's dtype, shape and bytes, by name."""
    return {name: digest(leaf) for name, leaf in flatten(tree).items()}


def digest(array) -> str:
    """32 hexadecimal digits of BLAKE2b over dtype, shape and bytes."""
    array = np.ascontiguousarray(array)
    state = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


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
