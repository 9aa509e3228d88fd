"""Operations on the parameters of a ViT: on its blocks, heads and embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sws_jax import trees
from sws_jax.models import vit
from sws_jax.specs import ViTSpec


def fresh_head(spec: ViTSpec, seed: int, like) -> trees.Tree:
    """An untrained head for `spec.num_classes` classes.

    Args:
      spec: of the descendant.
      seed: of the kernel; the bias is 0.
      like: a leaf [width] of the learngene. The head gets its dtype, its type of
        array, numpy or jax, and its sharding along the width.

    Returns:
      ``kernel`` [width, num_classes] and ``bias`` [num_classes].
    """
    shape = (spec.width, spec.num_classes)
    kernel = vit.weight_init(spec)(jax.random.key(seed), shape, jnp.float32)
    bias = jnp.zeros(spec.num_classes)
    return {
        "kernel": _alike(kernel.astype(like.dtype), like, (0, None)),
        "bias": _alike(bias.astype(like.dtype), like, (None,)),
    }


def own(tree: trees.Tree) -> trees.Tree:
    """Copies of all concrete leaves, on the devices where they are.

    A descendant owns its arrays: a train step that donates them must not delete those
    of the learngene.
    """

    def copy(leaf):
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        return (
            jax.device_put(jnp.copy(leaf), leaf.sharding) if _concrete(leaf) else leaf
        )

    return jax.tree.map(copy, tree)


def split_heads(blocks: trees.Tree, net: ViTSpec) -> trees.Tree:
    """Stacked blocks whose attention is split into `net.heads` heads.

    A reshape, which moves no number: q, k and v are as wide as before. With another
    number of heads the blocks compute another function.

    Args:
      blocks: ``attn`` has qkv kernel [depth, width, 3, heads, head size] and bias
        [depth, 3, heads, head size], and proj kernel [depth, heads, head size, width].
      net: of the same width.

    Returns:
      The same leaves, of `net.heads` heads of `net.head_size`; all others as they are.
    """
    split = (net.heads, net.head_size)
    qkv, proj = blocks["attn"]["qkv"], blocks["attn"]["proj"]
    depth = len(qkv["bias"])
    attn = {
        "qkv": {
            "kernel": qkv["kernel"].reshape(depth, net.width, 3, *split),
            "bias": qkv["bias"].reshape(depth, 3, *split),
        },
        "proj": {
            **proj,
            "kernel": proj["kernel"].reshape(depth, *split, net.width),
        },
    }
    return {**blocks, "attn": attn}


def resize_pos_embed(pos_embed, old: ViTSpec, new: ViTSpec, *, antialias: bool = True):
    """The position embedding of another image size.

    Bicubic over the grid of patches; the embedding of a class token stays as it is.

    Args:
      pos_embed: [1, old.tokens, width].
      antialias: as timm and `jax.image.resize` do. Otherwise as the code of DeiT, SWS
        and Hugging Face does, which also takes another cubic: a = -0.75, not -0.5.

    Returns:
      [1, new.tokens, width].
    """
    if old.grid == new.grid:
        return pos_embed
    extra = old.tokens - old.grid[0] * old.grid[1]
    token, grid = pos_embed[:, :extra], pos_embed[:, extra:]
    grid = jnp.asarray(grid, jnp.float32).reshape(1, *old.grid, old.width)
    if antialias:
        shape = (1, *new.grid, old.width)
        grid = jax.image.resize(grid, shape, "bicubic", antialias=True)
    else:
        down, across = map(_cubic, old.grid, new.grid)
        grid = jnp.einsum("yh,bhwd,xw->byxd", down, grid, across, precision="highest")
    grid = grid.reshape(1, -1, old.width).astype(pos_embed.dtype)
    resized = jnp.concatenate([jnp.asarray(token), grid], axis=1)
    return _alike(resized, pos_embed, (0, None, 2))


def _cubic(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """Weights [new, old] of a cubic convolution that repeats the border.

    Reference:
      Keys, Cubic convolution interpolation for digital image processing, 1981,
      equation 4, whose a is -1/2.
    """
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        d = np.abs(centres - (first + tap))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        column = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), column), np.where(d <= 1, near, far))
    return weights.astype(np.float32)


def gather(genes: trees.Tree, plan: tuple[int, ...]) -> trees.Tree:
    """Copies of genes in the order of a plan: each leaf indexed on its first axis.

    The plan is static, the gather runs along the gene axis alone, and every other
    axis keeps its sharding: nothing is communicated.

    Args:
      genes: leaves [genes, ...].
      plan: [depth], indices of genes.

    Returns:
      Leaves [depth, ...].
    """
    index = np.asarray(plan)

    def take(leaf):
        rows = leaf[index]
        if _concrete(leaf):
            rows = jax.device_put(rows, _row_sharding(leaf))
        return rows

    return jax.tree.map(take, genes)


def _row_sharding(leaf):
    """The leaf's sharding with the gene axis not split, as its length has changed."""
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding):
        spec = PartitionSpec(None, *sharding.spec[1:])
        return NamedSharding(sharding.mesh, spec)
    return sharding


def _alike(value, like, axes: tuple[int | None, ...]):
    """`value` as an array of numpy where `like` is one, else on the devices of `like`.

    Args:
      value: on the devices of `like`, or the same on every process.
      like: a leaf.
      axes: for each axis of `value`, the axis of `like` whose sharding it gets; None
        is not split.
    """
    if isinstance(like, np.ndarray):
        return np.asarray(value)
    if not _concrete(like) or not isinstance(like.sharding, NamedSharding):
        return value
    split = (*like.sharding.spec, *[None] * like.ndim)
    spec = PartitionSpec(*(None if axis is None else split[axis] for axis in axes))
    sharding = NamedSharding(like.sharding.mesh, spec)
    if value.sharding.device_set == sharding.device_set:
        return jax.device_put(value, sharding)
    rows = np.asarray(value)
    return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])


def _concrete(leaf) -> bool:
    """Whether a leaf is an array on devices, and not one that is being traced."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
