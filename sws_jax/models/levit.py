"""LeViT in evaluation: a frozen teacher.

Parameters, for stage s of width C with h heads, keys of size k, values of size v and
r x c tokens, and the step to it from width B::

    stem/conv{1..4}/linear/kernel [3, 3, in, out]
    stage_s/block_i/attn/qkv/linear/kernel [C, h (2k + v)]   head by head: q, k, v
    stage_s/block_i/attn/proj/linear/kernel [h v, C]
    stage_s/block_i/attn/attention_biases [h, r c]
    stage_s/block_i/mlp/{fc1,fc2}/linear/kernel [in, out]
    stage_s/downsample/attn/q/linear/kernel [B, h k]         not in stage 0
    stage_s/downsample/attn/kv/linear/kernel [B, h (k + v)]
    stage_s/downsample/attn/proj/linear/kernel [h v, C]
    stage_s/downsample/attn/attention_biases [h, tokens before]
    stage_s/downsample/mlp/{fc1,fc2}/linear/kernel [in, out]
    head/linear/kernel [C, classes]   bias [classes]
    head_dist/...                                            only where distilled

Beside every ``linear`` stands ``bn`` with scale, bias, mean and var, [out] of a
product and [in] of a head.

Reference:
  LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference, 2104.01136.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sws_jax.errors import UserError
from sws_jax.models.norm import BatchNorm
from sws_jax.models.outputs import refuse_taps
from sws_jax.specs.base import Compute
from sws_jax.specs.levit import LeViTSpec, cut

STRIDE = 2  # from one stage to the next


class LeViT(nn.Module):
    """LeViT: images to logits.

    Call with images [batch, height, width, channels]. Returns float32 logits
    [batch, classes], the mean of both heads where the network was distilled, or the
    pooled features [batch, width] where the spec has no classes.
    `compute.remat` and `compute.unroll` change nothing: a teacher has no backward
    pass, and its blocks differ in size.

    Raises:
      UserError: the images have another size or number of channels, or there are
        `taps`, which a ViT alone has.
    """

    spec: LeViTSpec
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, images, *, taps=()):  # [b, h, w, c] -> [b, classes]
        spec = self.spec
        refuse_taps(spec, taps)
        expected = (*spec.image_size, spec.channels)
        if images.shape[1:] != expected:
            raise UserError(
                f"{spec.name} takes images of shape {expected}, and got "
                f"{tuple(images.shape[1:])}"
            )
        x = Stem(spec.widths[0], self.compute, name="stem")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # [b, n, d]
        for stage in range(len(spec.widths)):
            x = Stage(spec, stage, self.compute, name=f"stage_{stage}")(x)
        x = x.astype(jnp.float32).mean(axis=1)  # [b, d]
        if not spec.num_classes:
            return x
        heads = [Head(spec.num_classes, name=name)(x) for name in spec.classifiers]
        return sum(heads) / len(heads)

    @property
    def net(self) -> LeViTSpec:
        return self.spec


class ConvNorm(nn.Module):
    """A 3 x 3 convolution of stride 2 without bias, and its batch norm."""

    features: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, h, w, c] -> [b, h / 2, w / 2, features]
        x = nn.Conv(
            self.features,
            (3, 3),
            strides=2,
            # "SAME" would put the one row that an even side needs at the end.
            padding=((1, 1), (1, 1)),
            use_bias=False,
            dtype=jnp.dtype(self.compute.dtype),
            name="linear",
        )(x)
        return BatchNorm(name="bn")(x)


class LinearNorm(nn.Module):
    """A dense layer without bias, and its batch norm."""

    features: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n, features]
        dtype = jnp.dtype(self.compute.dtype)
        x = nn.Dense(self.features, use_bias=False, dtype=dtype, name="linear")(x)
        return BatchNorm(name="bn")(x)


class Stem(nn.Module):
    """Four convolutions of stride 2, their widths doubling up to `width`."""

    width: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, h, w, c] -> [b, h / 16, w / 16, d]
        for i in range(4):
            x = nn.hard_swish(x) if i else x
            x = ConvNorm(self.width >> (3 - i), self.compute, name=f"conv{i + 1}")(x)
        return x


class Stage(nn.Module):
    """Downsampling, where a stage comes before, and the stage's blocks."""

    spec: LeViTSpec
    stage: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n', d']
        if self.stage:
            x = Downsample(self.spec, self.stage, self.compute, name="downsample")(x)
        for i in range(self.spec.depths[self.stage]):
            x = Block(self.spec, self.stage, self.compute, name=f"block_{i}")(x)
        return x


class Block(nn.Module):
    """Attention and an MLP, each added to its input."""

    spec: LeViTSpec
    stage: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n, d]
        x = x + Attention(self.spec, self.stage, self.compute, name="attn")(x)
        return x + Mlp(self.spec.mlp_ratio, self.compute, name="mlp")(x)


class Downsample(nn.Module):
    """Attention from every second token down and across, and an MLP.

    The attention changes the width, so that it is added to nothing.
    """

    spec: LeViTSpec
    stage: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n', d']
        x = DownsampleAttention(self.spec, self.stage, self.compute, name="attn")(x)
        return x + Mlp(self.spec.down_mlp_ratio, self.compute, name="mlp")(x)


class Attention(nn.Module):
    """Multi-head attention with learned biases of distance."""

    spec: LeViTSpec
    stage: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n, d]
        spec, stage = self.spec, self.stage
        heads, key = spec.heads[stage], spec.key_dims[stage]
        features = heads * (2 * key + spec.value_dims[stage])
        qkv = LinearNorm(features, self.compute, name="qkv")(x)
        q, k, v = jnp.split(_by_head(qkv, heads), (key, 2 * key), axis=-1)
        biases = _biases(self, heads, spec.grids[stage], stride=1)
        x = nn.hard_swish(_attend(q, k, v, biases))
        return LinearNorm(spec.widths[stage], self.compute, name="proj")(x)


class DownsampleAttention(nn.Module):
    """Attention whose queries are every second token down and across."""

    spec: LeViTSpec
    stage: int
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n', d']
        spec, step = self.spec, self.stage - 1
        heads, key = spec.down_heads[step], spec.down_key_dims[step]
        features = heads * (key + spec.down_value_dims[step])
        kv = LinearNorm(features, self.compute, name="kv")(x)
        k, v = jnp.split(_by_head(kv, heads), (key,), axis=-1)
        grid = spec.grids[step]
        x = x.reshape(x.shape[0], *grid, -1)[:, ::STRIDE, ::STRIDE]
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # [b, n', d]
        q = _by_head(LinearNorm(heads * key, self.compute, name="q")(x), heads)
        biases = _biases(self, heads, grid, stride=STRIDE)
        x = nn.hard_swish(_attend(q, k, v, biases))
        return LinearNorm(spec.widths[self.stage], self.compute, name="proj")(x)


class Mlp(nn.Module):
    """Two dense layers with a hard swish between."""

    ratio: float
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n, d]
        width = x.shape[-1]
        x = LinearNorm(cut(width * self.ratio), self.compute, name="fc1")(x)
        return LinearNorm(width, self.compute, name="fc2")(nn.hard_swish(x))


class Head(nn.Module):
    """Batch norm and a dense layer, in float32."""

    classes: int

    @nn.compact
    def __call__(self, x):  # [b, d] -> [b, classes]
        x = BatchNorm(name="bn")(x)
        return nn.Dense(self.classes, name="linear")(x)


def offset_table(grid: tuple[int, int], stride: int = 1) -> np.ndarray:
    """The number of the offset between each query and each key of a grid.

    An offset is (rows apart, columns apart) without sign, and its number is
    ``rows apart * columns + columns apart``. Code that numbers offsets in the order
    in which they first occur comes to the same numbers: the first query is a corner.

    Args:
      grid: tokens down and across, both of keys and, at stride 1, of queries.
      stride: queries are every so many tokens, down and across.

    Returns:
      [queries, keys], int32, below ``rows * columns``.

    Reference:
      2104.01136, section 4, "Attention bias instead of a positional embedding".
    """
    rows, columns = grid
    down = np.abs(np.arange(0, rows, stride)[:, None] - np.arange(rows))
    across = np.abs(np.arange(0, columns, stride)[:, None] - np.arange(columns))
    # [query row, query column, key row, key column]
    table = down[:, None, :, None] * columns + across[None, :, None, :]
    return table.reshape(-1, rows * columns).astype(np.int32)


def _biases(module: nn.Module, heads: int, grid: tuple[int, int], *, stride: int):
    """The module's parameter, spread over queries and keys: [h, queries, keys]."""
    shape = (heads, grid[0] * grid[1])
    biases: Any = module.param("attention_biases", nn.initializers.zeros, shape)
    return biases[:, offset_table(grid, stride)]


def _by_head(x, heads: int):  # [b, n, h * size] -> [b, n, h, size]
    return x.reshape(*x.shape[:2], heads, -1)


def _attend(q, k, v, biases):
    """Attention of [b, q, h, k], [b, n, h, k], [b, n, h, v] to [b, q, h v]."""
    # Values are wider than keys, which ready-made attention does not take.
    scores = jnp.einsum("bqhk,bnhk->bhqn", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5 + biases, axis=-1)
    x = jnp.einsum("bhqn,bnhv->bqhv", weights.astype(v.dtype), v)
    return x.reshape(*x.shape[:2], -1)
