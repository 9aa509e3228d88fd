"""The Aux-Net of any method whose expansion is differentiable: ``vit(expand(genes))``.

Parameters are a ViT's, but for ``blocks``, which are the genes as the method's
learngene has them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from sws_jax import trees
from sws_jax.methods import learngenes
from sws_jax.methods.base import BlockMethod
from sws_jax.models import vit
from sws_jax.specs import Compute, ExpandedSpec


class ExpandedViT(vit.ViT):
    """A ViT whose blocks are computed from genes, in every step.

    Called as `sws_jax.models.vit.ViT`. All blocks that come from a gene contribute to
    its gradient, through the expansion.
    """

    spec: ExpandedSpec  # type: ignore[assignment]
    compute: Compute = Compute()

    def run_blocks(self, x, drop_path, taps, ranges):
        """See `ViT.run_blocks`: of the blocks that the genes make."""
        method = learngenes.find_method(self.spec.method)
        assert isinstance(method, BlockMethod)
        genes = self.param("blocks", self._begin, method)
        blocks = method.layers(genes, self.spec.plan)
        return vit.apply_blocks(
            self.net, self.compute, blocks, x, drop_path, runs=ranges[0], taps=taps
        )

    def _begin(self, key: jax.Array, method: BlockMethod) -> trees.Tree:
        """The genes before the first step, boxed with the names of their axes."""
        block_key, gene_key = jax.random.split(key)
        count = len(self.spec.stages)
        scanned = vit.scanned(self.compute, length=count, shared=False)
        module = scanned(self.net, self.compute, parent=None)
        tokens = jnp.zeros((1, self.net.tokens, self.net.width))
        boxed = module.init(block_key, tokens, None)["params"]
        genes = method.begin(gene_key, nn.meta.unbox(boxed))
        return jax.tree.map(
            lambda box, gene: box.replace_boxed(gene),
            method.genes(boxed),
            genes,
            is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata),
        )
