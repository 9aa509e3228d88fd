"""Vision Transformers, and the Aux-Nets that share their blocks."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING

from sws_jax import arguments
from sws_jax.arguments import MAX_SIZE, Range
from sws_jax.errors import UserError
from sws_jax.specs import base
from sws_jax.specs.base import Compute

if TYPE_CHECKING:
    import numpy as np

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
PATCH_BIAS_INITS = ("zeros", "uniform")
GELUS = ("exact", "tanh")


@arguments.checked(
    **dict.fromkeys(("width", "heads", "patch_size", "channels"), base.COUNT),
    depth=base.DEPTH,
    mlp_ratio=base.RATIO,
    image_size=arguments.size,
    num_classes=base.CLASSES,
    pool=arguments.text(POOLS),
    pool_order=arguments.text(POOL_ORDERS),
    norm_eps=base.RATIO,
    gelu=arguments.text(GELUS),
    drop_path=arguments.number(Range(0, 1, open_high=True)),
    weight_init=arguments.text(WEIGHT_INITS),
    init_std=arguments.number(Range(0, MAX_SIZE)),
    patch_bias_init=arguments.text(PATCH_BIAS_INITS),
    pos_embed_std=arguments.number(Range(0, MAX_SIZE)),
)
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
      distilled: a second, distillation token and head (DeiT, 2012.12877, section 4);
        in evaluation the logits of both heads are averaged. Needs pool "token".
      dist_head: whether a distillation token has that head. Without it, the class
        token alone is classified, beside a token that only the blocks see (as in
        transformers' ``DeiTForImageClassification``).
      pool_order: "norm_mean" (norm every token, then average) or "mean_norm".
        With a class token both are the same function, and it must be "norm_mean".
      norm_eps: epsilon of every LayerNorm.
      gelu: of the MLPs, "exact" or its approximation by "tanh", with which the Flax
        ViTs of Google are trained (1606.08415, section 2).
      drop_path: rate at the last block; the rates rise linearly from 0.
      weight_init: "normal" (normal of deviation `init_std`, biases 0, as DeiT;
        the patch embedding uniform in 1/sqrt(fan in), as PyTorch's convolution)
        or "fan_in" (truncated normal of variance 1/fan in; suits small widths).
      init_std: standard deviation for "normal".
      patch_bias_init: of the patch embedding, "zeros" or "uniform" in 1/sqrt(fan in),
        as a convolution of PyTorch has it, and so the released code.
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
    distilled: bool = False
    dist_head: bool = True
    pool_order: str = "norm_mean"
    norm_eps: float = 1e-6
    gelu: str = "exact"
    drop_path: float = 0.0
    weight_init: str = "normal"
    init_std: float = 0.02
    patch_bias_init: str = "zeros"
    pos_embed_std: float = 0.02

    def __post_init__(self):
        size = self.image_size
        if self.width % self.heads:
            raise UserError(
                f"width {self.width} does not divide into {self.heads} heads"
            )
        if any(side % self.patch_size for side in size):
            raise UserError(
                f"an image of {size[0]} x {size[1]} pixels does not divide into "
                f"patches of {self.patch_size}"
            )
        if not self.hidden >= 1:
            raise UserError(
                f"mlp_ratio {self.mlp_ratio} of width {self.width} leaves no hidden "
                f"units"
            )
        for what, value in (("hidden units", self.hidden), ("tokens", self.tokens)):
            if value > MAX_SIZE:
                raise UserError(
                    f"a network has at most {MAX_SIZE} {what}, and this one would "
                    f"have {value}"
                )
        if self.distilled and self.pool != "token":
            raise UserError("a distilled network has a class token: pool is 'token'")
        if not (self.distilled or self.dist_head):
            raise UserError(
                "dist_head=False says that a distillation token has no head, and needs "
                "distilled=True"
            )
        if self.pool == "token" and self.pool_order != "norm_mean":
            raise UserError(
                "pool_order 'mean_norm' needs pool 'mean': a class token is not "
                "averaged"
            )

    @property
    def family(self) -> str:
        """``"vit"``; see `sws_jax.specs.base.FAMILIES`."""
        return "vit"

    @property
    def trainable(self) -> bool:
        """True: it is trained here, and may teach as well."""
        return True

    @property
    def vits(self) -> tuple[ViTSpec, ...]:
        """Networks of one width each, whose blocks it applies in order: itself."""
        return (self,)

    @property
    def stem(self) -> ViTSpec:
        """The network whose patch and position embedding it has: itself."""
        return self

    @property
    def tail(self) -> ViTSpec:
        """The network whose last norm and head it has: itself."""
        return self

    @property
    def net(self) -> ViTSpec:
        """The network as it is run, block by block: for a plain ViT, itself."""
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """Empty: a plain ViT shares no blocks. See `AuxViTSpec`."""
        return ()

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return tuple(s // self.patch_size for s in self.image_size)  # type: ignore

    @property
    def tokens(self) -> int:
        """Length of the sequence, class and distillation token included."""
        return math.prod(self.grid) + (self.pool == "token") + self.distilled

    @property
    def read_tokens(self) -> int:
        """How many tokens the heads read after pooling, the first ones."""
        return 1 + (self.distilled and self.dist_head)

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Names of the heads."""
        return ("head", "head_dist")[: bool(self.num_classes) * self.read_tokens]

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return int(self.width * self.mlp_ratio)

    @property
    def head_size(self) -> int:
        """Size of a head's queries, keys and values."""
        return self.width // self.heads

    @property
    def drop_path_rates(self) -> np.ndarray:
        """Rate of each applied block, [depth], linear from 0 to `drop_path`."""
        import numpy as np

        return np.linspace(0.0, self.drop_path, self.depth).astype(np.float32)

    @property
    def name(self) -> str:
        """The name in timm's style: ``vit_small_patch16_L12``."""
        return f"vit_{size_name(self)}_patch{self.patch_size}_L{self.depth}"

    def replace(self, **changes) -> ViTSpec:
        """With changes to fields."""
        return dataclasses.replace(self, **changes)

    @arguments.checked(compute=base.COMPUTE)
    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.models.vit.ViT`)."""
        return base.build(self, compute)


# How often each of a learngene's genes is applied.
STAGES = arguments.wholes(1, base.MAX_DEPTH, count=base.MAX_DEPTH)


class AuxNet:
    """What the specs of Aux-Nets have in common: a ViT whose blocks come from genes.

    Attributes:
      net: the ViT that it is, block by block; `net.depth` is the sum of `stages`.
      stages: how many blocks come from each gene, first gene first.
    """

    net: ViTSpec
    stages: tuple[int, ...]

    @property
    def trainable(self) -> bool:
        """True: it is trained here, and may teach as well."""
        return True

    @property
    def vits(self) -> tuple[ViTSpec, ...]:
        """See `ViTSpec.vits`."""
        return (self.net,)

    @property
    def stem(self) -> ViTSpec:
        """The network whose patch and position embedding it has."""
        return self.net

    @property
    def tail(self) -> ViTSpec:
        """The network whose last norm and head it has."""
        return self.net

    @property
    def depth(self) -> int:
        """Applied blocks, of all genes together."""
        return self.net.depth

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.net.image_size

    @property
    def channels(self) -> int:
        """Colour channels of the input."""
        return self.net.channels

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 for features."""
        return self.net.num_classes

    @property
    def drop_path_rates(self) -> np.ndarray:
        """See `ViTSpec.drop_path_rates`: masks belong to applied blocks."""
        return self.net.drop_path_rates

    @property
    def plan(self) -> tuple[int, ...]:
        """The gene of each applied block, [depth]."""
        return tuple(gene for gene, n in enumerate(self.stages) for _ in range(n))


@arguments.checked(net=arguments.of(ViTSpec, called="a ViTSpec"), stages=STAGES)
@dataclasses.dataclass(frozen=True)
class AuxViTSpec(AuxNet):
    """An Aux-Net: `net`, its blocks shared inside each stage (SWS, 2404.16897).

    Attributes:
      net: the network the Aux-Net looks like; `net.depth` is the sum of `stages`.
      stages: how often each stage's one block is applied, first stage first.
    """

    net: ViTSpec
    stages: tuple[int, ...]

    def __post_init__(self):
        stages = self.stages
        if not stages:
            raise UserError("stages are empty, and an Aux-Net has at least one")
        if sum(stages) != self.net.depth:
            raise UserError(
                f"stages {'-'.join(map(str, stages))} apply {sum(stages)} blocks, but "
                f"the network has a depth of {self.net.depth}"
            )

    @property
    def family(self) -> str:
        """``"aux_vit"``; see `sws_jax.specs.base.FAMILIES`."""
        return "aux_vit"

    @property
    def name(self) -> str:
        """The name with the stages for a depth: ``aux_vit_small_patch16_3-3-4-3-3``."""
        lengths = "-".join(map(str, self.stages))
        return f"aux_vit_{size_name(self.net)}_patch{self.net.patch_size}_{lengths}"

    def replace(self, **changes) -> AuxViTSpec:
        """With changes to fields of `net`, and the same stages."""
        return AuxViTSpec(self.net.replace(**changes), self.stages)

    @arguments.checked(compute=base.COMPUTE)
    def build(self, compute: Compute = Compute()):
        """Returns the linen module (`sws_jax.models.aux_vit.AuxViT`)."""
        return base.build(self, compute)


# How the names of `named` begin.
_PREFIXES = ("vit_", "aux_vit_")


def looks_named(text: str) -> bool:
    """Whether a text begins like the names that `named` takes."""
    return text.startswith(_PREFIXES)


@arguments.checked()
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


@arguments.checked()
def parse_stages(text: str) -> tuple[int, ...]:
    """``"3-3-4-3-3"`` as a tuple of ints.

    Raises:
      UserError: the text is of another form, or a stage is empty.
    """
    if not re.fullmatch("[0-9]{1,4}(-[0-9]{1,4})*", text):
        raise UserError(f"stages are written like 3-3-4-3-3, and {text!r} is not")
    return STAGES("stages", [int(part) for part in text.split("-")])


def size_name(spec: ViTSpec) -> str:
    """One of `SIZES`; ``w96h3`` for another width or number of heads."""
    for size, (width, heads) in SIZES.items():
        if (spec.width, spec.heads) == (width, heads):
            return size
    return f"w{spec.width}h{spec.heads}"
