"""RegNetY, the convolutional family that DeiT's teacher is of (2003.13678)."""

from __future__ import annotations

import collections
import dataclasses
import math

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.specs import base
from sws_jax.specs.base import Compute

FAMILY = "regnet"


@dataclasses.dataclass(frozen=True)
class RegNetBlock:
    """Sizes of one residual block.

    Attributes:
      inputs: channels that come in.
      width: channels of its convolutions, and those that go out.
      groups: of the 3 x 3 convolution.
      squeeze: hidden width of its squeeze-excitation.
      stride: of the 3 x 3 convolution. Above 1 the shape changes, and the shortcut
        is a projection.
    """

    inputs: int
    width: int
    groups: int
    squeeze: int
    stride: int


_COUNTS = arguments.many(base.COUNT, "whole numbers")


@arguments.checked(
    **dict.fromkeys(("group_width", "stem_width", "channels"), base.COUNT),
    widths=_COUNTS,
    depths=_COUNTS,
    se_ratio=base.RATIO,
    image_size=arguments.size,
    num_classes=base.CLASSES,
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class RegNetSpec(base.Teacher):
    """A RegNetY of any widths and depths (2003.13678).

    Attributes:
      family: always "regnet"; tells specs apart where they are written down.
      widths: channels of each stage.
      depths: blocks of each stage.
      group_width: channels of a group in the 3 x 3 convolutions; a stage that is
        narrower is one group.
      se_ratio: hidden width of a squeeze-excitation over its block's input width.
      stem_width: channels after the first convolution.
      image_size: height and width in pixels (an int means a square).
      channels: colour channels of the input.
      num_classes: outputs of the head; 0 leaves the head out.
    """

    family: str = FAMILY
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    group_width: int
    se_ratio: float = 0.25
    stem_width: int = 32
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    num_classes: int = 1000

    def __post_init__(self):
        if self.family != FAMILY:
            raise UserError(f"the family of a RegNet is {FAMILY}, not {self.family!r}")
        if not self.widths:
            raise UserError("widths are empty, and there is one for each stage")
        if len(self.widths) != len(self.depths):
            raise UserError(
                f"widths {self.widths} are of {len(self.widths)} stages and depths "
                f"{self.depths} of {len(self.depths)}"
            )
        base.check_depth(self)
        if self.group_width > max(self.widths):
            raise UserError(
                f"groups of {self.group_width} channels are wider than every stage of "
                f"widths {self.widths}"
            )
        for width in self.widths:
            if width % min(self.group_width, width):
                raise UserError(
                    f"width {width} does not divide into groups of {self.group_width} "
                    f"channels"
                )
        narrowest = min(self.stem_width, *self.widths)
        if _squeeze(narrowest, self.se_ratio) < 1:
            raise UserError(
                f"se_ratio {self.se_ratio} of width {narrowest} leaves no hidden units"
            )

    @property
    def net(self) -> RegNetSpec:
        """The network as it is run: itself."""
        return self

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return sum(self.depths)

    @property
    def stages(self) -> tuple[tuple[RegNetBlock, ...], ...]:
        """Every block, by stage; the first of each halves height and width."""
        stages, inputs = [], self.stem_width
        for width, depth in zip(self.widths, self.depths, strict=True):
            blocks = []
            for block in range(depth):
                groups = width // min(self.group_width, width)
                squeeze = _squeeze(inputs, self.se_ratio)
                stride = 1 if block else 2
                blocks.append(RegNetBlock(inputs, width, groups, squeeze, stride))
                inputs = width
            stages.append(tuple(blocks))
        return tuple(stages)

    @property
    def name(self) -> str:
        """The name in timm's style: ``regnety_160``; other sizes by widths and depths.

        >>> RegNetSpec(widths=(8, 16), depths=(1, 2), group_width=8).name
        'regnety_w8-16_d1-2_g8'
        """
        for name, known in REGNETS.items():
            shared = dict(
                image_size=known.image_size,
                channels=known.channels,
                num_classes=known.num_classes,
            )
            if self.replace(**shared) == known:
                return name
        widths, depths = ("-".join(map(str, n)) for n in (self.widths, self.depths))
        return f"regnety_w{widths}_d{depths}_g{self.group_width}"

    def replace(self, **changes) -> RegNetSpec:
        """With changes to fields."""
        return dataclasses.replace(self, **changes)

    @arguments.checked(compute=base.COMPUTE)
    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.models.regnet.RegNet`)."""
        return base.build(self, compute)


def quantised(
    w0: int, wa: float, wm: float, depth: int, group_width: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths and depths of the stages from the few numbers of a RegNet.

    Block j, from 0, has the width ``w0 + wa * j``, rounded (in the logarithm) to `w0`
    times a power of `wm`, then to a multiple of 8. Blocks of equal width are a stage.
    Its width is rounded once more, to whole groups.

    Args:
      w0: width of the first block.
      wa: what each block adds.
      wm: ratio of neighbouring stages.
      depth: number of blocks.
      group_width: channels of a group.

    Returns:
      (widths, depths), one number for each stage.

    Raises:
      ArithmeticError, ValueError: no widths above 0 follow from the numbers.

    Reference:
      2003.13678, equations 2 to 4.

    >>> quantised(24, 36.44, 2.49, 13, 8)
    ((24, 56, 152, 368), (1, 1, 4, 7))
    """
    of_blocks = []
    for block in range(depth):
        power = round(math.log((w0 + wa * block) / w0) / math.log(wm))
        of_blocks.append(8 * round(w0 * wm**power / 8))
    depths = collections.Counter(of_blocks)
    groups = {width: min(group_width, width) for width in depths}
    stages = sorted(depths)
    widths = (groups[width] * round(width / groups[width]) for width in stages)
    return tuple(widths), tuple(depths[width] for width in stages)


# (w0, wa, wm, depth, group width) of the RegNetY published with 2003.13678, by
# hundreds of millions of multiplications in one image.
_PARAMETERS = {
    "002": (24, 36.44, 2.49, 13, 8),
    "004": (48, 27.89, 2.09, 16, 8),
    "006": (48, 32.54, 2.32, 15, 16),
    "008": (56, 38.84, 2.4, 14, 16),
    "016": (48, 20.71, 2.65, 27, 24),
    "032": (80, 42.63, 2.66, 21, 24),
    "040": (96, 31.41, 2.24, 22, 64),
    "064": (112, 33.22, 2.27, 25, 72),
    "080": (192, 76.82, 2.19, 17, 56),
    "120": (168, 73.36, 2.37, 19, 112),
    "160": (200, 106.23, 2.48, 18, 112),
}


def _named(*parameters) -> RegNetSpec:
    widths, depths = quantised(*parameters)
    return RegNetSpec(widths=widths, depths=depths, group_width=parameters[-1])


def _squeeze(inputs: int, ratio: float) -> int:
    return round(inputs * ratio)


REGNETS = {
    f"regnety_{name}": _named(*parameters) for name, parameters in _PARAMETERS.items()
}
