"""Stage-wise weight sharing: genes from an Aux-Net, and how many of each.

Reference:
  Exploring Learngene via Stage-wise Weight Sharing for Initializing Variable-sized
  Models, 2404.16897 (IJCAI 2024).
"""

from __future__ import annotations

import numpy as np

from sws_jax import trees
from sws_jax.methods import base
from sws_jax.methods.base import Learngene, Phase, Request
from sws_jax.models.networks import Network
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec

NAME = "sws"


class SWS(base.BlockMethod):
    """One block for each stage, copied as often as a depth needs."""

    name = NAME
    paper = "2404.16897"
    prefix = ""  # its runs had their names before there was another method

    def phases(
        self, net: ViTSpec, request: Request, depths: tuple[int, ...]
    ) -> tuple[Phase, ...]:
        """See `Method.phases`: the Aux-Net, which the ancestor teaches."""
        spec = AuxViTSpec(net.replace(depth=sum(request.stages)), request.stages)
        return (Phase("aux", spec, request.loss, teacher=base.ANCESTOR),)

    def trains(self, spec: Spec) -> bool:
        """See `Method.trains`: every `AuxViTSpec` is an Aux-Net of SWS."""
        return isinstance(spec, AuxViTSpec)

    def allot(self, depth: int, stages: tuple[int, ...]) -> tuple[int, ...]:
        """See `BlockMethod.allot`; the rule is that of the function `allot`."""
        return allot(depth, stages)

    def of_auxiliary(self, network: Network) -> trees.Tree:
        """See `BlockMethod.of_auxiliary`: the Aux-Net's, with its stages stacked."""
        assert isinstance(network.spec, AuxViTSpec)
        return extract(network.params, network.spec)

    def auxiliary(self, gene: Learngene) -> tuple[AuxViTSpec, trees.Tree]:
        """See `Method.auxiliary`: the Aux-Net whose stages are the genes."""
        about = gene.description
        return auxiliary(gene.params, about.vit, about.stages)


def extract(params: trees.Tree, spec: AuxViTSpec) -> trees.Tree:
    """The Aux-Net's stages stacked as genes; everything else as it is.

    Args:
      params: of the Aux-Net; ``stage_0``, ``stage_1``, ... are the blocks of its
        stages, with leaves [...].
      spec: of the Aux-Net.

    Returns:
      Params with ``blocks``, leaves [stages, ...], in place of the stages.
    """
    stages = [params[f"stage_{s}"] for s in range(len(spec.stages))]
    rest = {name: leaf for name, leaf in params.items() if not _is_stage(name)}
    return {**rest, "blocks": trees.stack(stages)}


def auxiliary(
    params: trees.Tree, net: ViTSpec, stages: tuple[int, ...]
) -> tuple[AuxViTSpec, trees.Tree]:
    """The inverse of `extract`: a learngene's params as an Aux-Net's.

    Args:
      params: of the learngene.
      net: the network that the Aux-Net looks like, of the depth of all stages.
      stages: how often the Aux-Net applies each gene.

    Returns:
      The Aux-Net's spec, and its params with ``stage_0``, ``stage_1``, ... in place of
      ``blocks``.
    """
    genes = trees.unstack(params["blocks"])
    rest = {name: leaf for name, leaf in params.items() if name != "blocks"}
    rest |= {f"stage_{s}": gene for s, gene in enumerate(genes)}
    return AuxViTSpec(net, stages), rest


def allot(depth: int, stages: tuple[int, ...]) -> tuple[int, ...]:
    """The plan of a depth: which gene each block copies.

    - The Aux-Net's own depth keeps its own allotment.
    - A depth below the number of stages takes stages ``floor((i + 1/2) S / depth)``,
      so that they lie evenly; depth 1 takes the middle one.
    - Else the depth is divided evenly, the remainder to the earliest stages (12 over
      five stages is the published 3, 3, 2, 2, 2).
    - Where the trained lengths differ by more than one, it is divided in proportion
      to them by largest remainder, ties to the earliest, and no stage is left empty.

    The rule is not nested around the Aux-Net's depth: 16 over 3-3-4-3-3 is
    3, 3, 4, 3, 3 between the even 15 (3, 3, 3, 3, 3) and 17 (4, 4, 3, 3, 3).

    Reference:
      The published code, for depths 12 and 16. Other depths follow this project's rule.
    """
    count = len(stages)
    if depth == sum(stages):
        counts = list(stages)
    elif depth < count:
        return tuple((2 * i + 1) * count // (2 * depth) for i in range(depth))
    elif max(stages) - min(stages) <= 1:
        each, rest = divmod(depth, count)
        counts = [each + (s < rest) for s in range(count)]
    else:
        counts = _largest_remainder(depth, stages)
    return tuple(s for s, n in enumerate(counts) for _ in range(n))


def _largest_remainder(depth: int, stages: tuple[int, ...]) -> list[int]:
    """Blocks of each stage, in proportion to the trained lengths."""
    total = sum(stages)
    counts = [depth * n // total for n in stages]
    remainders = [depth * n % total for n in stages]
    order = sorted(range(len(stages)), key=lambda s: -remainders[s])  # stable
    for s in order[: depth - sum(counts)]:
        counts[s] += 1
    # Without a stage, layers would follow each other that never did in the Aux-Net.
    while 0 in counts:
        counts[int(np.argmax(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts


def _is_stage(name: str) -> bool:
    return name.startswith("stage_")


METHOD = SWS()
