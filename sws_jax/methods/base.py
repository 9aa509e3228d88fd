"""What all methods share: learngenes, descendants, and what a method brings."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax

from sws_jax import arguments, trees
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.models.description import DESCRIPTION, Description
from sws_jax.specs import Spec, ViTSpec


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["description"],
)
@arguments.checked(
    params=arguments.anything,  # JAX puts placeholders of its own there
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
    """The remedy, where another object is passed as a learngene."""
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
    """Checks an argument: a `Learngene` whose description is that of a learngene."""
    description = _IS_LEARNGENE(name, value).description
    if description.kind != "learngene":
        raise UserError(
            f"{name} must be a learngene, and its description is of kind "
            f"{description.kind!r}"
        )
    return value


@arguments.checked(
    **dict.fromkeys(("genes", "expand", "allot", "auxiliary"), arguments.function)
)
@dataclasses.dataclass(frozen=True)
class Method:
    """The functions that define a learngene method; `sws_jax.expand` does the rest.

    Attributes:
      genes: stacked blocks, leaves [genes, ...] -> ``blocks`` of a learngene with as
        many genes: a tree whose leaves are [genes, ...].
      expand: ``blocks`` of a learngene, leaves [genes, ...], and a plan [depth] of
        indices of genes -> stacked blocks, leaves [depth, ...]; pure and
        differentiable.
      allot: depth and trained stage lengths [genes] -> plan [depth].
      auxiliary: learngene params, net and stage lengths [genes] -> spec and params of
        the Aux-Net.
    """

    genes: Callable[[trees.Tree], trees.Tree]
    expand: Callable[[trees.Tree, tuple[int, ...]], trees.Tree]
    allot: Callable[[int, tuple[int, ...]], tuple[int, ...]]
    auxiliary: Callable[[trees.Tree, ViTSpec, tuple[int, ...]], tuple[Spec, trees.Tree]]
