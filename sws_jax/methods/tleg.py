"""TLEG: one gene, from which every layer is linear in its depth.

Every tensor of layer l of L is ``base + (l / L) slope``. The gene is that pair: its
blocks are ``base/...`` and ``slope/...``, each as a learngene's with a leading gene
axis of length 1. The Aux-Net is the descendant of its own depth.

Reference:
  Transformer as Linear Expansion of Learngene, 2312.05614 (AAAI 2024), equation 1.
"""

from __future__ import annotations

import jax
import numpy as np

from sws_jax import trees
from sws_jax.methods import base
from sws_jax.specs import ViTSpec

NAME = "tleg"


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


def allot(depth: int, stages: tuple[int, ...]) -> tuple[int, ...]:
    """Every layer comes from the one gene."""
    return (0,) * depth


def auxiliary(
    params: trees.Tree, net: ViTSpec, stages: tuple[int, ...]
) -> tuple[ViTSpec, trees.Tree]:
    """The Aux-Net as the plain network that it computes."""
    return net, {**params, "blocks": expand(params["blocks"], (0,) * net.depth)}


METHOD = base.Functions(genes=pair, expand=expand, allot=allot, auxiliary=auxiliary)
