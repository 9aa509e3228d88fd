"""RegNetY, a frozen teacher: images to logits as a trained network gives them.

Parameters, for stages of width W with blocks that see I channels, groups of g
channels, a squeezed width S, stages and blocks counted from 1 (timm's names)::

    stem/conv/kernel [3, 3, C, stem width]
    stem/bn/{scale,bias,mean,var} [stem width]
    s1/b1/conv1/conv/kernel [1, 1, I, W]       bn/... [W]
    s1/b1/conv2/conv/kernel [3, 3, g, W]       bn/... [W]
    s1/b1/se/fc1/kernel [1, 1, W, S]           bias [S]
    s1/b1/se/fc2/kernel [1, 1, S, W]           bias [W]
    s1/b1/conv3/conv/kernel [1, 1, W, W]       bn/... [W]
    s1/b1/downsample/conv/kernel [1, 1, I, W]  bn/... [W], in the first block of a
                                               stage alone
    head/kernel [W of the last stage, classes] bias [classes]

A teacher is replicated, so no axis has a name.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from sws_jax.errors import UserError
from sws_jax.models.norm import BatchNorm
from sws_jax.models.outputs import refuse_taps
from sws_jax.specs.base import Compute
from sws_jax.specs.regnet import RegNetBlock, RegNetSpec


class ConvNorm(nn.Module):
    """A square convolution without bias, and batch normalisation."""

    width: int
    dtype: str
    side: int = 1
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x):  # [b, h, w, c] -> [b, h / stride, w / stride, width]
        x = nn.Conv(
            self.width,
            (self.side, self.side),
            strides=self.stride,
            # The same on every side, as PyTorch. "SAME" pads an even image below and
            # to the right only where the stride is 2.
            padding=self.side // 2,
            feature_group_count=self.groups,
            use_bias=False,
            dtype=jnp.dtype(self.dtype),
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)
        return BatchNorm(name="bn")(x)


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole image holds (1709.01507)."""

    squeeze: int
    dtype: str

    @nn.compact
    def __call__(self, x):  # [b, h, w, c] -> [b, h, w, c]
        dtype = jnp.dtype(self.dtype)
        y = x.mean(axis=(1, 2), keepdims=True)
        y = nn.relu(nn.Conv(self.squeeze, (1, 1), dtype=dtype, name="fc1")(y))
        y = nn.Conv(x.shape[-1], (1, 1), dtype=dtype, name="fc2")(y)
        return x * nn.sigmoid(y)


class Block(nn.Module):
    """1 x 1, grouped 3 x 3, squeeze-excitation, 1 x 1, around a shortcut."""

    sizes: RegNetBlock
    dtype: str

    @nn.compact
    def __call__(self, x):  # [b, h, w, inputs] -> [b, h / stride, w / stride, width]
        sizes, dtype = self.sizes, self.dtype
        width, stride, groups = sizes.width, sizes.stride, sizes.groups
        y = ConvNorm(width, dtype, name="conv1")(x)
        y = ConvNorm(width, dtype, 3, stride, groups, name="conv2")(nn.relu(y))
        y = SqueezeExcite(sizes.squeeze, dtype, name="se")(nn.relu(y))
        y = ConvNorm(width, dtype, name="conv3")(y)
        if stride > 1:
            x = ConvNorm(width, dtype, stride=stride, name="downsample")(x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width."""

    blocks: tuple[RegNetBlock, ...]
    dtype: str

    @nn.compact
    def __call__(self, x):
        for number, sizes in enumerate(self.blocks, 1):
            x = Block(sizes, self.dtype, name=f"b{number}")(x)
        return x


class RegNet(nn.Module):
    """RegNetY in evaluation: images to logits.

    Call with images [batch, height, width, channels]. Returns float32 logits
    [batch, classes], or the pooled features [batch, width of the last stage] where
    the spec has no classes. Of `compute`, the dtype alone is used: no gradient
    passes through a teacher, and its blocks are not scanned.

    Raises:
      UserError: images of another size than the spec's, or `taps`, which a ViT alone
        has.

    Reference:
      Designing Network Design Spaces, 2003.13678.
    """

    spec: RegNetSpec
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, images, *, taps=()):
        spec, dtype = self.spec, self.compute.dtype
        refuse_taps(spec, taps)
        expected = (*spec.image_size, spec.channels)
        if images.shape[1:] != expected:
            raise UserError(
                f"{spec.name} takes images of shape {expected}, and got "
                f"{tuple(images.shape[1:])}"
            )
        x = ConvNorm(spec.stem_width, dtype, side=3, stride=2, name="stem")(images)
        x = nn.relu(x)
        for number, blocks in enumerate(spec.stages, 1):
            x = Stage(blocks, dtype, name=f"s{number}")(x)
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(spec.num_classes, name="head")(x) if spec.num_classes else x

    @property
    def net(self) -> RegNetSpec:
        return self.spec
