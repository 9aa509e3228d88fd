"""Networks of several widths: ViTs one behind the other, with linear maps between."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.specs import base
from sws_jax.specs.base import Compute
from sws_jax.specs.vit import ViTSpec, size_name

if TYPE_CHECKING:
    import numpy as np

FAMILY = "stitched"
# What each segment decides for itself; everything else all of them have in common.
OWN = ("depth", "width", "heads", "mlp_ratio")

_SEGMENTS = arguments.many(
    arguments.of(ViTSpec, called="a ViTSpec"), "ViTSpecs", base.MAX_DEPTH
)


@arguments.checked(segments=_SEGMENTS)
@dataclasses.dataclass(frozen=True)
class StitchedSpec:
    """Segments of ViT blocks, each of its own width, and a linear map to each next.

    The first has the patch and position embedding, the last the norm and the head.
    Between neighbours of equal width there is a map, too.

    Attributes:
      segments: at least one. They differ in depth, width, heads and mlp_ratio alone.
      family: "stitched"; tells the specs of a file apart.

    Reference:
      SN-Net, 2302.06586, section 3.
    """

    segments: tuple[ViTSpec, ...]
    family: str = FAMILY

    def __post_init__(self):
        if self.family != FAMILY:
            raise UserError(
                f"the family of a stitched network is {FAMILY!r}, and not "
                f"{self.family!r}"
            )
        if not self.segments:
            raise UserError(
                "segments are empty, and a stitched network has at least one"
            )
        base.check_depth(self)
        for at, segment in enumerate(self.segments):
            self._check_common(at, segment)

    def _check_common(self, at: int, segment: ViTSpec):
        """Refuses a segment that differs from the first in what all have in common."""
        for field in dataclasses.fields(ViTSpec):
            first, here = (getattr(spec, field.name) for spec in (self.stem, segment))
            if field.name not in OWN and first != here:
                raise UserError(
                    f"{field.name} of segments[0] is {first!r} and of segments[{at}] "
                    f"{here!r}: segments differ in {', '.join(OWN)} alone"
                )

    @property
    def trainable(self) -> bool:
        """True: it is trained here, and may teach as well."""
        return True

    @property
    def net(self) -> StitchedSpec:
        """The network as it is run: itself."""
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """Empty: no block is shared."""
        return ()

    @property
    def vits(self) -> tuple[ViTSpec, ...]:
        """See `ViTSpec.vits`: the segments."""
        return self.segments

    @property
    def stem(self) -> ViTSpec:
        """The segment whose patch and position embedding it has."""
        return self.segments[0]

    @property
    def tail(self) -> ViTSpec:
        """The segment whose last norm and head it has."""
        return self.segments[-1]

    @property
    def depth(self) -> int:
        """Blocks of all segments."""
        return sum(segment.depth for segment in self.segments)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.stem.image_size

    @property
    def channels(self) -> int:
        """Colour channels of the input."""
        return self.stem.channels

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 for features."""
        return self.tail.num_classes

    @property
    def drop_path_rates(self) -> np.ndarray:
        """Rate of each block, [depth], linear over all segments from 0 to drop_path."""
        return self.stem.replace(depth=self.depth).drop_path_rates

    @property
    def name(self) -> str:
        """The sizes and depths in order: ``stitched_tiny_patch16_L6_small_L7``."""
        first, *rest = self.segments
        name = f"stitched_{size_name(first)}_patch{first.patch_size}_L{first.depth}"
        return name + "".join(f"_{size_name(s)}_L{s.depth}" for s in rest)

    def replace(self, **changes) -> StitchedSpec:
        """With changes to what all segments have in common.

        Raises:
          UserError: to the segments, or what each decides for itself.
        """
        if "segments" in changes:
            raise UserError(
                f"replace changes what all segments of {self.name} have in common, and "
                f"not the segments: make another StitchedSpec of these"
            )
        for field in OWN:
            if field in changes:
                raise UserError(
                    f"each segment of {self.name} has a {field} of its own: make "
                    f"another StitchedSpec of changed segments"
                )
        segments = tuple(segment.replace(**changes) for segment in self.segments)
        return StitchedSpec(segments)

    @arguments.checked(compute=base.COMPUTE)
    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.models.stitched.StitchedViT`)."""
        return base.build(self, compute)
