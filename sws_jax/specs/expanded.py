"""Aux-Nets that are expanded from their genes in every step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.specs import base
from sws_jax.specs.base import Compute
from sws_jax.specs.vit import STAGES, ViTSpec

if TYPE_CHECKING:
    import numpy as np


@arguments.checked(
    net=arguments.of(ViTSpec, called="a ViTSpec"),
    stages=STAGES,
    method=arguments.text(),
)
@dataclasses.dataclass(frozen=True)
class ExpandedSpec:
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
    def vits(self) -> tuple[ViTSpec, ...]:
        """See `ViTSpec.vits`."""
        return (self.net,)

    @property
    def stem(self) -> ViTSpec:
        """The network whose patch and position embedding this one has."""
        return self.net

    @property
    def tail(self) -> ViTSpec:
        """The network whose last norm and head this one has."""
        return self.net

    @property
    def trainable(self) -> bool:
        return True

    @property
    def depth(self) -> int:
        return self.net.depth

    @property
    def image_size(self) -> tuple[int, int]:
        return self.net.image_size

    @property
    def channels(self) -> int:
        return self.net.channels

    @property
    def num_classes(self) -> int:
        return self.net.num_classes

    @property
    def drop_path_rates(self) -> np.ndarray:
        """Rate of each applied block, [depth]."""
        return self.net.drop_path_rates

    @property
    def plan(self) -> tuple[int, ...]:
        """The gene of each applied block, [depth]."""
        return tuple(gene for gene, n in enumerate(self.stages) for _ in range(n))

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
