"""What a network is: frozen, hashable descriptions without a single array.

A spec says which function a network computes and how it is initialised. How the
function is run (dtype, rematerialisation, unrolling) is `Compute`: it never
changes a parameter's name, shape or layout.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from sws_jax.errors import UserError

# Width and heads of DeiT-Ti, -S and -B (DeiT, 2012.12877, table 1); "nano" is ours:
# the smallest net that reads 8 x 8 digits well.
SIZES = {
    "nano": (64, 4),
    "tiny": (192, 3),
    "small": (384, 6),
    "base": (768, 12),
}
POOLS = ("mean", "token")
POOL_ORDERS = ("norm_mean", "mean_norm")
WEIGHT_INITS = ("normal", "fan_in")


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a network is run; the same weights fit every setting.

    Attributes:
      dtype: of activations and matrix products. Parameters, softmax and the
        statistics of norms are float32 whatever it is.
      remat: recompute each block in the backward pass instead of storing it.
      unroll: blocks per iteration of the scan.
    """

    dtype: str = "float32"
    remat: bool = False
    unroll: int = 1

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise UserError(
                f"compute dtype {self.dtype!r} is not one of float32, bfloat16, float16"
            )
        if self.unroll < 1:
            raise UserError(f"unroll must be at least 1, and is {self.unroll}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTSpec:
    """A Vision Transformer of any width and depth (2010.11929; DeiT 2012.12877).

    Attributes:
      depth: number of transformer blocks.
      width: embedding dimension D.
      heads: attention heads; divides `width`.
      mlp_ratio: hidden width of the MLP over `width`.
      patch_size: side of a square patch, in pixels.
      image_size: height and width in pixels (an int means a square).
      channels: colour channels of the input.
      num_classes: outputs of the head; 0 leaves the head out.
      pool: "mean" over tokens (no class token), or "token" (the class token).
      pool_order: "norm_mean" (norm every token, then average) or "mean_norm".
        With a class token both are the same function, and it must be "norm_mean".
      norm_eps: epsilon of every LayerNorm.
      drop_path: rate at the last block; the rates rise linearly from 0.
      weight_init: "normal" (normal of deviation `init_std`, biases 0, as DeiT;
        the patch embedding uniform in 1/sqrt(fan in), as PyTorch's convolution)
        or "fan_in" (truncated normal of variance 1/fan in; suits small widths).
      init_std: standard deviation for "normal".
      pos_embed_std: of the position embedding and class token at the start.
    """

    depth: int = 12
    width: int = 384
    heads: int = 6
    mlp_ratio: float = 4.0
    patch_size: int = 16
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    num_classes: int = 1000
    pool: str = "mean"
    pool_order: str = "norm_mean"
    norm_eps: float = 1e-6
    drop_path: float = 0.0
    weight_init: str = "normal"
    init_std: float = 0.02
    pos_embed_std: float = 0.02

    def __post_init__(self):
        given: int | Sequence[int] = self.image_size
        size = (given,) * 2 if isinstance(given, int) else given
        if not (
            isinstance(size, (tuple, list))
            and len(size) == 2
            and all(isinstance(side, (int, np.integer)) for side in size)
        ):
            raise UserError(
                f"image_size is one side or (height, width) in pixels, and {given!r} "
                f"is neither"
            )
        size = (int(size[0]), int(size[1]))
        object.__setattr__(self, "image_size", size)
        for field in ("depth", "width", "heads", "patch_size", "channels"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{field} must be a whole number of at least 1, and is "
                                f"{value!r}")  # fmt: skip
        if not isinstance(self.num_classes, int) or self.num_classes < 0:
            raise UserError(
                f"num_classes must be a whole number of at least 0, and is "
                f"{self.num_classes!r}"
            )
        if self.width % self.heads:
            raise UserError(
                f"width {self.width} does not divide into {self.heads} heads"
            )
        if any(s < 1 or s % self.patch_size for s in size):
            raise UserError(
                f"an image of {size[0]} x {size[1]} pixels does not divide into "
                f"patches of {self.patch_size}"
            )
        if not self.hidden >= 1:
            raise UserError(
                f"mlp_ratio {self.mlp_ratio} of width {self.width} leaves no hidden "
                f"units"
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise UserError(f"drop_path must be in [0, 1), and is {self.drop_path}")
        for field, known in (
            ("pool", POOLS),
            ("pool_order", POOL_ORDERS),
            ("weight_init", WEIGHT_INITS),
        ):
            if getattr(self, field) not in known:
                raise UserError(
                    f"{field} {getattr(self, field)!r} is not one of {', '.join(known)}"
                )
        if self.pool == "token" and self.pool_order != "norm_mean":
            raise UserError(
                "pool_order 'mean_norm' needs pool 'mean': a class token is not "
                "averaged"
            )

    @property
    def net(self) -> ViTSpec:
        """The network as it is run, block by block: for a plain ViT, itself."""
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return tuple(s // self.patch_size for s in self.image_size)  # type: ignore

    @property
    def tokens(self) -> int:
        """Length of the sequence, class token included."""
        return math.prod(self.grid) + (self.pool == "token")

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return int(self.width * self.mlp_ratio)

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def drop_path_rates(self) -> np.ndarray:
        """Rate of each applied block, [depth], linear from 0 to `drop_path`."""
        return np.linspace(0.0, self.drop_path, self.depth).astype(np.float32)

    @property
    def name(self) -> str:
        """By parts, as timm: ``vit_small_patch16_L12``."""
        return f"vit_{_size_name(self)}_patch{self.patch_size}_L{self.depth}"

    def replace(self, **changes) -> ViTSpec:
        return dataclasses.replace(self, **changes)

    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.models.vit.ViT`)."""
        from sws_jax.models import vit  # a spec is lighter than the network it names

        return vit.ViT(self, compute)


@dataclasses.dataclass(frozen=True)
class AuxViTSpec:
    """An Aux-Net: `net`, its blocks shared inside each stage (SWS, 2404.16897).

    Attributes:
      net: the network the Aux-Net looks like; `net.depth` is the sum of `stages`.
      stages: how often each stage's one block is applied, first stage first.
    """

    net: ViTSpec
    stages: tuple[int, ...]

    def __post_init__(self):
        stages = tuple(self.stages)
        object.__setattr__(self, "stages", stages)
        if not stages or any(not isinstance(n, int) or n < 1 for n in stages):
            raise UserError(
                f"stages are whole numbers of at least 1, at least one of them, and "
                f"{stages} is not"
            )
        if sum(stages) != self.net.depth:
            raise UserError(
                f"stages {'-'.join(map(str, stages))} apply {sum(stages)} blocks, but "
                f"the network has a depth of {self.net.depth}"
            )

    @property
    def depth(self) -> int:
        return self.net.depth

    @property
    def plan(self) -> tuple[int, ...]:
        """Which stage each applied block belongs to, [depth]."""
        return tuple(s for s, n in enumerate(self.stages) for _ in range(n))

    @property
    def name(self) -> str:
        lengths = "-".join(map(str, self.stages))
        return f"aux_vit_{_size_name(self.net)}_patch{self.net.patch_size}_{lengths}"

    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.models.aux_vit.AuxViT`)."""
        from sws_jax.models import aux_vit

        return aux_vit.AuxViT(self, compute)


def named(name: str, **overrides) -> ViTSpec | AuxViTSpec:
    """The network a name stands for.

    Args:
      name: ``vit_{size}_patch{p}_L{depth}`` or
        ``aux_vit_{size}_patch{p}_{n1-n2-...}``, size one of `SIZES`.
      **overrides: fields of `ViTSpec` that the name does not say.

    Raises:
      UserError: the name does not parse; the sentence shows the forms.

    >>> named("vit_small_patch16_L12").width
    384
    """
    parts = name.removeprefix("aux_").split("_")
    aux = name.startswith("aux_")
    try:
        family, size, patch, depth = parts
        width, heads = SIZES[size]
        if family != "vit" or not patch.startswith("patch"):
            raise ValueError
        patch_size = int(patch.removeprefix("patch"))
        if aux:
            stages = parse_stages(depth)
        elif depth.startswith("L"):
            stages = (int(depth[1:]),)
        else:
            raise ValueError
    except (ValueError, KeyError):
        raise UserError(
            f"no network is named {name!r}: names look like vit_small_patch16_L12 or "
            f"aux_vit_small_patch16_3-3-4-3-3, with a size of {', '.join(SIZES)}"
        ) from None
    fields = dict(width=width, heads=heads, patch_size=patch_size, depth=sum(stages))
    net = ViTSpec(**{**fields, **overrides})
    return AuxViTSpec(net, stages) if aux else net


def parse_stages(text: str) -> tuple[int, ...]:
    """``"3-3-4-3-3"`` as a tuple of ints."""
    try:
        return tuple(int(n) for n in text.split("-"))
    except ValueError:
        raise UserError(
            f"stages are written like 3-3-4-3-3, and {text!r} is not"
        ) from None


def to_dict(spec) -> dict:
    """A dataclass of plain values as JSON-ready data."""
    return dataclasses.asdict(spec)


def from_dict(cls, data: Mapping) -> typing.Any:
    """The inverse of `to_dict`, refusing fields that `cls` does not have."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise UserError(
            f"{cls.__name__} has no field {', '.join(unknown)}; it has "
            f"{', '.join(hints)}"
        )
    values = {
        key: _convert(f"{cls.__name__}.{key}", hints[key], value)
        for key, value in data.items()
    }
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{cls.__name__} cannot be read: {error}") from None


def _convert(name: str, hint, value):
    """A value of JSON as the type that a field states; lists become tuples."""
    kinds = [k for k in typing.get_args(hint) if dataclasses.is_dataclass(k)]
    if dataclasses.is_dataclass(hint) or kinds:
        if isinstance(value, dict):
            return from_dict(
                hint if dataclasses.is_dataclass(hint) else kinds[0], value
            )
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)):
            inner = typing.get_args(hint)[0]
            return tuple(_convert(name, inner, v) for v in value)
    elif hint is float and isinstance(value, (int, float)):
        return value
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise UserError(f"{name} must be of type {wanted}, and is {value!r}")


def _size_name(spec: ViTSpec) -> str:
    for size, (width, heads) in SIZES.items():
        if (spec.width, spec.heads) == (width, heads):
            return size
    return f"w{spec.width}h{spec.heads}"
