"""Learngenes and descendants, whatever the method that made them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sws_jax import arguments, trees
from sws_jax.errors import UserError
from sws_jax.models import networks, vit
from sws_jax.models.description import DESCRIPTION, Description
from sws_jax.specs import Spec, ViTSpec
from sws_jax.specs.base import DEPTH, MAX_DEPTH


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["description"],
)
@arguments.checked(
    params=arguments.anything,  # JAX puts anything there
    description=DESCRIPTION,
)
@dataclasses.dataclass(frozen=True)
class Learngene:
    """The few trained layers that initialise descendants of any depth.

    A pytree whose only leaves are arrays: it goes through `jax.jit`,
    `jax.eval_shape` and `jax.tree.map` as it is.

    Attributes:
      params: ``blocks`` with a leading gene axis on every leaf, ``patch_embed``,
        ``pos_embed``, ``cls_token`` (if the network has one), ``norm`` and
        ``head`` (if it has classes).
      description: static; network, stages, training and input of the Aux-Net.
    """

    params: trees.Tree
    description: Description

    @property
    def num_genes(self) -> int:
        return len(self.description.stages)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["spec", "description"],
)
@arguments.checked(
    spec=networks.SPEC,
    params=arguments.anything,
    description=arguments.optional(DESCRIPTION),
)
@dataclasses.dataclass(frozen=True)
class Descendant(networks.Network):
    """A Des-Net: a plain ViT initialised from a learngene, with nothing shared.

    ``description.plan`` says which gene each block is a copy of.
    """

    @property
    def plan(self) -> tuple[int, ...]:
        return self.description.plan if self.description else ()


def _instead_of_learngene(value: Any) -> str:
    """What to do about something else than a learngene."""
    if isinstance(value, (str, os.PathLike)):
        return "sws_jax.load_learngene reads one from a file"
    if isinstance(value, Descendant):
        return "a descendant has no genes left: expand the learngene that it came from"
    if isinstance(value, networks.Network):
        return (
            "sws_jax.extract takes one out of an Aux-Net, and other networks have none"
        )
    return ""


_IS_LEARNGENE = arguments.of(
    Learngene, called="a learngene", hint=_instead_of_learngene
)


def LEARNGENE(name: str, value: Any) -> Learngene:
    """The kind of a learngene, whose description says that it is one."""
    about = _IS_LEARNGENE(name, value).description
    if about.kind != "learngene":
        raise UserError(
            f"{name} must be a learngene, and its description is of kind {about.kind!r}"
        )
    return value


@arguments.checked(
    **dict.fromkeys(("genes", "expand", "allot", "auxiliary"), arguments.function)
)
@dataclasses.dataclass(frozen=True)
class Method:
    """What a learngene method brings; `sws_jax.expand` does the rest.

    Attributes:
      genes: stacked blocks -> ``blocks`` of a learngene with as many genes.
      expand: these and a plan [depth] -> stacked blocks [depth, ...]; pure and
        differentiable.
      allot: depth and trained stage lengths -> plan.
      auxiliary: learngene params, net and stage lengths -> spec and params of the
        Aux-Net.
    """

    genes: Callable[[trees.Tree], trees.Tree]
    expand: Callable[[trees.Tree, tuple[int, ...]], trees.Tree]
    allot: Callable[[int, tuple[int, ...]], tuple[int, ...]]
    auxiliary: Callable[[trees.Tree, ViTSpec, tuple[int, ...]], tuple[Spec, trees.Tree]]


# Kinds of the three ways to ask for a descendant.
PLAN = arguments.wholes(count=MAX_DEPTH)
REQUESTS = {
    "depth": arguments.optional(DEPTH),
    "plan": arguments.optional(PLAN),
    "allotment": arguments.optional(PLAN),
}


@arguments.checked(stages=PLAN, allot=arguments.function, **REQUESTS)
def resolve_plan(
    stages: tuple[int, ...],
    allot: Callable[[int, tuple[int, ...]], tuple[int, ...]],
    *,
    depth: int | None = None,
    plan: Sequence[int] | None = None,
    allotment: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The gene of every block, from the one of three requests that was made.

    Raises:
      UserError: none or several requests, or one that the genes cannot fill.
    """
    given = {"depth": depth, "plan": plan, "allotment": allotment}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        named = ", ".join(f"{k}={v}" for k, v in given.items()) or "none of them"
        raise UserError(f"give exactly one of depth, plan and allotment, not {named}")
    genes = len(stages)
    if depth is not None:
        return allot(depth, stages)
    if allotment is not None:
        counts = tuple(allotment)
        if len(counts) != genes:
            raise UserError(
                f"allotment {counts} has {len(counts)} counts for {genes} genes"
            )
        if min(counts) < 0 or not 1 <= sum(counts) <= MAX_DEPTH:
            raise UserError(
                f"allotment {counts} must hold counts of at least 0 that add up to "
                f"1 to {MAX_DEPTH} blocks"
            )
        return tuple(gene for gene, n in enumerate(counts) for _ in range(n))
    assert plan is not None
    indices = tuple(plan)
    if not indices:
        raise UserError(
            f"a plan names a gene for each of 1 to {MAX_DEPTH} blocks, and this one "
            f"has 0"
        )
    for position, gene in enumerate(indices):
        if not 0 <= gene < genes:
            raise UserError(
                f"plan[{position}] is gene {gene}, but there are {genes} genes, "
                f"0 to {genes - 1}"
            )
    return indices


def fresh_head(spec: ViTSpec, seed: int, like) -> trees.Tree:
    """An untrained head for `spec.num_classes`.

    Args:
      spec: of the descendant.
      seed: of the kernel; the bias is 0.
      like: a leaf [width] of the learngene, whose dtype, kind (numpy or jax) and
        placement along the width the head gets.
    """
    shape = (spec.width, spec.num_classes)
    kernel = vit.weight_init(spec)(jax.random.key(seed), shape, jnp.float32)
    bias = jnp.zeros(spec.num_classes)
    return {
        "kernel": _alike(kernel.astype(like.dtype), like, (0, None)),
        "bias": _alike(bias.astype(like.dtype), like, (None,)),
    }


def own(tree: trees.Tree) -> trees.Tree:
    """Copies of all concrete leaves, where they are.

    A descendant owns its arrays: a train step that donates them leaves the
    learngene alone.
    """

    def copy(leaf):
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        return (
            jax.device_put(jnp.copy(leaf), leaf.sharding) if _concrete(leaf) else leaf
        )

    return jax.tree.map(copy, tree)


def split_heads(blocks: trees.Tree, net: ViTSpec) -> trees.Tree:
    """Stacked blocks whose attention is read as `net.heads` heads.

    The numbers stay where they are: q, k and v are as wide as before, and cut
    otherwise. With another number of heads it is another function.
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

    Bicubic over the grid of patches; a class token's keeps its value.

    Args:
      pos_embed: [1, old.tokens, width].
      antialias: as timm and `jax.image.resize` do; otherwise as the code of DeiT, SWS
        and Hugging Face, which takes another cubic too (a = -0.75, not -0.5).

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
    found = jnp.concatenate([jnp.asarray(token), grid], axis=1)
    return _alike(found, pos_embed, (0, None, 2))


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
    """
    index = np.asarray(plan)

    def take(leaf):
        rows = leaf[index]
        if _concrete(leaf):
            rows = jax.device_put(rows, _row_sharding(leaf))
        return rows

    return jax.tree.map(take, genes)


def _row_sharding(leaf):
    """The leaf's sharding, but for the gene axis, which has another length now."""
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding):
        spec = PartitionSpec(None, *sharding.spec[1:])
        return NamedSharding(sharding.mesh, spec)
    return sharding


def _alike(value, like, axes: tuple[int | None, ...]):
    """`value` as numpy where `like` is, or on its devices.

    Args:
      value: where `like` is, or the same on every process.
      like: a leaf.
      axes: of `like`, that each axis of `value` is split as; None is not split.
    """
    if isinstance(like, np.ndarray):
        return np.asarray(value)
    if not _concrete(like) or not isinstance(like.sharding, NamedSharding):
        return value
    split = (*like.sharding.spec, *[None] * like.ndim)
    spec = PartitionSpec(*(None if axis is None else split[axis] for axis in axes))
    place = NamedSharding(like.sharding.mesh, spec)
    if value.sharding.device_set == place.device_set:
        return jax.device_put(value, place)
    rows = np.asarray(value)
    return jax.make_array_from_callback(rows.shape, place, lambda index: rows[index])


def _concrete(leaf) -> bool:
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
