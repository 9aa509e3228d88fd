"""LeViT: a pyramid of attention behind four convolutions (2104.01136)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.specs import base
from sws_jax.specs.base import Compute

# The stem halves the image four times, and its widths double from an eighth.
STEM_STRIDE = 16
STEM_DOUBLINGS = 8
PER_STAGE = ("widths", "depths", "heads", "key_dims", "attn_ratios")
PER_STEP = ("down_heads", "down_key_dims", "down_attn_ratios")


_COUNTS = arguments.many(base.COUNT, "whole numbers")
_RATIOS = arguments.many(base.RATIO, "numbers")


@arguments.checked(
    **{
        name: _RATIOS if name.endswith("ratios") else _COUNTS
        for name in PER_STAGE + PER_STEP
    },
    mlp_ratio=base.RATIO,
    down_mlp_ratio=base.RATIO,
    image_size=arguments.size,
    channels=base.COUNT,
    num_classes=base.CLASSES,
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class LeViTSpec(base.Teacher):
    """A LeViT of any size, in evaluation (2104.01136, table 1 and section 4).

    A tuple has one value for each stage; one that starts with ``down`` has one for
    each step from a stage to the next. The defaults are LeViT-384.

    Attributes:
      family: "levit"; tells the specs of a file apart.
      widths: channels of each stage, C in the paper.
      depths: blocks of each stage, an attention and an MLP each.
      heads: attention heads.
      key_dims: size of a head's queries and keys, D in the paper.
      attn_ratios: size of a head's values over that of its keys.
      mlp_ratio: hidden width of a block's MLP over the stage's width, cut to whole
        numbers.
      down_heads: heads of the attention between two stages; in the paper the width
        it comes from over the size of a key.
      down_key_dims: size of a head's queries and keys there.
      down_attn_ratios: size of a head's values over that of its keys there.
      down_mlp_ratio: hidden width over width of the MLP that follows it.
      image_size: height and width in pixels (an int means a square), in steps of 16.
      channels: colour channels of the input.
      num_classes: outputs of a head; 0 leaves heads out.
      distilled: two heads, averaged; else one.
    """

    family: str = "levit"
    widths: tuple[int, ...] = (384, 512, 768)
    depths: tuple[int, ...] = (4, 4, 4)
    heads: tuple[int, ...] = (6, 9, 12)
    key_dims: tuple[int, ...] = (32, 32, 32)
    attn_ratios: tuple[float, ...] = (2.0, 2.0, 2.0)
    mlp_ratio: float = 2.0
    down_heads: tuple[int, ...] = (12, 16)
    down_key_dims: tuple[int, ...] = (32, 32)
    down_attn_ratios: tuple[float, ...] = (4.0, 4.0)
    down_mlp_ratio: float = 2.0
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    num_classes: int = 1000
    distilled: bool = True

    def __post_init__(self):
        if self.family != "levit":
            raise UserError(f"family of a LeViT is 'levit', and not {self.family!r}")
        if any(side % STEM_STRIDE for side in self.image_size):
            height, width = self.image_size
            raise UserError(
                f"the sides of an image are multiples of {STEM_STRIDE} pixels, and "
                f"those of {height} x {width} are not"
            )
        self._check_lengths()
        base.check_depth(self)
        if self.widths[0] % STEM_DOUBLINGS:
            raise UserError(
                f"the first of the widths must be a multiple of {STEM_DOUBLINGS}, "
                f"and is {self.widths[0]}: the stem's widths double up to it"
            )
        keys = (*self.key_dims, *self.down_key_dims)
        ratios = (*self.attn_ratios, *self.down_attn_ratios)
        for size, ratio in zip(keys, ratios, strict=True):
            if not _is_size(size * ratio):
                raise UserError(
                    f"an attention ratio of {ratio} gives keys of size {size} values "
                    f"of size {size * ratio:g}, which is not a whole number"
                )
        hidden = [(width, self.mlp_ratio) for width in self.widths]
        hidden += [(width, self.down_mlp_ratio) for width in self.widths[1:]]
        for width, ratio in hidden:
            if cut(width * ratio) < 1:
                raise UserError(
                    f"an MLP ratio of {ratio} leaves width {width} no hidden units"
                )

    def _check_lengths(self):
        """Refuses tuples of the wrong length."""
        stages = len(self.widths)
        if not stages:
            raise UserError("widths has no value, and needs one for each stage")
        for field in PER_STAGE + PER_STEP:
            wanted = stages - (field in PER_STEP)
            if len(getattr(self, field)) != wanted:
                raise UserError(
                    f"{field} has {len(getattr(self, field))} values, and with "
                    f"{stages} widths needs {wanted}"
                )

    @property
    def net(self) -> LeViTSpec:
        """The network as it is run: itself."""
        return self

    @property
    def depth(self) -> int:
        """Blocks of all stages; the attention between stages is not counted."""
        return sum(self.depths)

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Tokens down and across in each stage; halved and rounded up between two."""
        rows, columns = (side // STEM_STRIDE for side in self.image_size)
        per_stage = []
        for _ in self.widths:
            per_stage.append((rows, columns))
            rows, columns = -(-rows // 2), -(-columns // 2)
        return tuple(per_stage)

    @property
    def value_dims(self) -> tuple[int, ...]:
        """Size of a head's values in each stage."""
        pairs = zip(self.key_dims, self.attn_ratios, strict=True)
        return tuple(round(size * ratio) for size, ratio in pairs)

    @property
    def down_value_dims(self) -> tuple[int, ...]:
        """Size of a head's values between two stages."""
        pairs = zip(self.down_key_dims, self.down_attn_ratios, strict=True)
        return tuple(round(size * ratio) for size, ratio in pairs)

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Names of the heads."""
        return ("head", "head_dist")[: bool(self.num_classes) * (1 + self.distilled)]

    @property
    def name(self) -> str:
        """``levit_384``; of widths, ``levit_16-24-32``, when it is none of `LEVITS`."""
        plain = self.replace(
            image_size=224, channels=3, num_classes=1000, distilled=True
        )
        for name, spec in LEVITS.items():
            if spec == plain:
                return name
        return f"levit_{'-'.join(map(str, self.widths))}"

    def replace(self, **changes) -> LeViTSpec:
        """With changes to fields."""
        return dataclasses.replace(self, **changes)

    @arguments.checked(compute=base.COMPUTE)
    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.models.levit.LeViT`)."""
        return base.build(self, compute)


def _levit(
    widths: Sequence[int], depths: Sequence[int], heads: Sequence[int], key_dim: int
) -> LeViTSpec:
    """A LeViT of the paper: one size of keys, and width / key_dim heads between stages.

    Args:
      widths, depths, heads: of each stage.
      key_dim: size of every key.
    """
    stages = len(widths)
    return LeViTSpec(
        widths=tuple(widths),
        depths=tuple(depths),
        heads=tuple(heads),
        key_dims=(key_dim,) * stages,
        attn_ratios=(2.0,) * stages,
        down_heads=tuple(width // key_dim for width in widths[:-1]),
        down_key_dims=(key_dim,) * (stages - 1),
        down_attn_ratios=(4.0,) * (stages - 1),
    )


def cut(hidden: float) -> int:
    """Hidden width of an MLP from width times ratio, but for what 1/3 loses."""
    return round(hidden) if _is_size(hidden) else int(hidden)


def _is_size(value: float) -> bool:
    """A whole number of at least 1, up to what a ratio like 1/3 loses."""
    return round(value) >= 1 and abs(value - round(value)) < 1e-6 * value


# 2104.01136, table 1.
LEVITS = {
    "levit_128s": _levit((128, 256, 384), (2, 3, 4), (4, 6, 8), 16),
    "levit_128": _levit((128, 256, 384), (4, 4, 4), (4, 8, 12), 16),
    "levit_192": _levit((192, 288, 384), (4, 4, 4), (3, 5, 6), 32),
    "levit_256": _levit((256, 384, 512), (4, 4, 4), (4, 6, 8), 32),
    "levit_384": _levit((384, 512, 768), (4, 4, 4), (6, 9, 12), 32),
}
