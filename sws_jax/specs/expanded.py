"""Aux-Nets that are expanded from their genes in every step."""

from __future__ import annotations

import dataclasses

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.specs import base
from sws_jax.specs.base import Compute
from sws_jax.specs.vit import STAGES, AuxNet, ViTSpec


@arguments.checked(
    net=arguments.of(ViTSpec, called="a ViTSpec"),
    stages=STAGES,
    method=arguments.text(),
)
@dataclasses.dataclass(frozen=True)
class ExpandedSpec(AuxNet):
    """The Aux-Net ``vit(expand(genes))`` of a method whose expansion is differentiable.

    Its parameters are a ViT's, but for ``blocks``, which are the genes.

    Attributes:
      net: the network that the genes are expanded to; `net.depth` is the sum of
        `stages`.
      stages: how many blocks each gene makes, first gene first.
      method: whose expansion; see `sws_jax.methods.learngenes.METHODS`.
    """

    net: ViTSpec
    stages: tuple[int, ...]
    method: str
    family: str = "expanded"

    def __post_init__(self):
        if self.family != "expanded":
            raise UserError(
                f"family of an expanded network is 'expanded', and not {self.family!r}"
            )
        if sum(self.stages) != self.net.depth or not self.stages:
            raise UserError(
                f"stages {'-'.join(map(str, self.stages)) or 'of no gene'} make "
                f"{sum(self.stages)} blocks, but the network has a depth of "
                f"{self.net.depth}"
            )

    @property
    def name(self) -> str:
        """``tleg_vit_small_patch16_L12``"""
        return f"{self.method}_{self.net.name}"

    def replace(self, **changes) -> ExpandedSpec:
        """With changes to fields of `net`, and the same stages."""
        return dataclasses.replace(self, net=self.net.replace(**changes))

    @arguments.checked(compute=base.COMPUTE)
    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.methods.expanded.ExpandedViT`)."""
        return base.build(self, compute)
