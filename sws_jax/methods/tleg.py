"""TLEG: one gene, from which every layer is linear in its depth.

Every tensor of layer l of L is ``base + (l / L) slope``. The gene is that pair: its
blocks are ``base/...`` and ``slope/...``, each as a learngene's with a leading gene
axis of length 1. The Aux-Net is trained as ``vit(expand(genes))`` of its own depth
(`sws_jax.methods.expanded`).

Reference:
  Transformer as Linear Expansion of Learngene, 2312.05614 (AAAI 2024), equation 1.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from sws_jax import trees
from sws_jax.methods import base
from sws_jax.methods.base import Learngene, Phase, Request
from sws_jax.specs import ExpandedSpec, ViTSpec

NAME = "tleg"
# Deviation of the slopes of linear weights before the first step (the published code).
SLOPE_STD = 0.02


class TLEG(base.BlockMethod):
    """A base and a slope for all layers together.

    In the official profile its Aux-Net has the heads of the released ones, as SWS's.
    """

    name = NAME
    paper = "2312.05614"

    def phases(
        self, net: ViTSpec, request: Request, depths: tuple[int, ...]
    ) -> tuple[Phase, ...]:
        """See `Method.phases`: ``vit(expand(genes))``, which the ancestor teaches."""
        # The published code trains the Aux-Net without stochastic depth.
        spec = ExpandedSpec(net.replace(drop_path=0.0), (net.depth,), NAME)
        return (Phase("tleg-aux", spec, request.loss, teacher=base.ANCESTOR),)

    def genes(self, blocks: trees.Tree) -> trees.Tree:
        """See `BlockMethod.genes`: a base and a slope, each like these blocks."""
        return pair(blocks)

    def layers(self, genes: trees.Tree, plan: tuple[int, ...]) -> trees.Tree:
        """See `BlockMethod.layers`: linear in depth, as the function `expand`."""
        return expand(genes, plan)

    def allot(self, depth: int, stages: tuple[int, ...]) -> tuple[int, ...]:
        """See `BlockMethod.allot`: the one gene for every layer."""
        return (0,) * depth  # every layer comes from the one gene

    def begin(self, key: jax.Array, blocks: trees.Tree) -> trees.Tree:
        """The base initialised as a ViT's blocks; slopes near 0, or 0.

        The published code draws the slopes of linear weights from a normal distribution
        that is truncated at +-2: a hundred deviations. Those of norms and biases are 0.
        """

        def slope(name: str, leaf: jax.Array) -> jax.Array:
            if not name.endswith("kernel"):
                return jnp.zeros_like(leaf)
            own = jax.random.fold_in(key, zlib.crc32(name.encode()))
            return SLOPE_STD * jax.random.normal(own, leaf.shape, leaf.dtype)

        return {"base": blocks, "slope": trees.map_with_name(slope, blocks)}

    def auxiliary(self, gene: Learngene) -> tuple[ViTSpec, trees.Tree]:
        """The Aux-Net as the plain network that it computes."""
        net, params = gene.description.vit, gene.params
        return net, {**params, "blocks": expand(params["blocks"], (0,) * net.depth)}


def pair(block: trees.Tree) -> trees.Tree:
    """``blocks`` of a learngene: a base and a slope, each like one stacked block."""
    return {"base": block, "slope": block}


def expand(genes: trees.Tree, plan: tuple[int, ...]) -> trees.Tree:
    """Stacked blocks of a depth, one for each entry of the plan.

    Args:
      genes: ``base`` and ``slope``, each with leaves [1, ...].
      plan: [depth], all 0.

    Returns:
      Leaves [depth, ...].
    """
    depth = len(plan)
    index = np.asarray(plan)

    def layers(first, slope):
        share = np.arange(depth) / depth  # in float64, so that it is rounded once
        share = share.astype(first.dtype).reshape(-1, *[1] * (first.ndim - 1))
        return first[index] + share * slope[index]

    return jax.tree.map(layers, genes["base"], genes["slope"])


METHOD = TLEG()
