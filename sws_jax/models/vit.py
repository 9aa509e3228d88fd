"""The Vision Transformer, its blocks stacked under one `nn.scan`.

Parameters, for a network of L blocks, width D, h heads of size k, hidden width M::

    patch_embed/proj/kernel [p, p, C, D]   bias [D]
    cls_token [1, 1, D]                    only with pool "token"
    dist_token [1, 1, D]                   only where distilled
    pos_embed [1, tokens, D]
    blocks/norm1/scale [L, D]              bias [L, D]
    blocks/attn/qkv/kernel [L, D, 3, h, k] bias [L, 3, h, k]
    blocks/attn/proj/kernel [L, h, k, D]   bias [L, D]
    blocks/norm2/...
    blocks/mlp/fc1/kernel [L, D, M]        bias [L, M]
    blocks/mlp/fc2/kernel [L, M, D]        bias [L, D]
    norm/scale [D]                         bias [D]
    head/kernel [D, classes]               bias [classes]
    head_dist/...                          of the distillation token, if it has one

Every parameter is created with the names of its logical axes; the table in
`sws_jax.sharding` decides what they mean on a mesh.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from sws_jax import sharding
from sws_jax.errors import UserError
from sws_jax.models import outputs, rules
from sws_jax.models.outputs import Outputs
from sws_jax.specs import Compute, ViTSpec


def weight_init(spec: ViTSpec):
    """Initialiser of every kernel but the patch embedding's."""
    if spec.weight_init == "fan_in":
        return nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
    # DeiT truncates at +-2, a hundred of its deviations: a normal distribution.
    return nn.initializers.normal(spec.init_std)


def _patch_init(spec: ViTSpec):
    if spec.weight_init == "fan_in":
        return weight_init(spec)
    # PyTorch's default for a convolution: uniform in +-1/sqrt(fan in).
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _patch_bias_init(spec: ViTSpec):
    if spec.patch_bias_init == "zeros":
        return nn.initializers.zeros
    bound = (spec.patch_size**2 * spec.channels) ** -0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform


def drop_path_masks(
    key: jax.Array, rates, batch: int
) -> Float[Array, "layers 2 batch"]:
    """Draws what stochastic depth keeps, for every applied block at once.

    Randomness belongs to the applied block and the sample, not to the module
    that happens to run it: scanned in, the same masks make a scan equal a loop,
    and an Aux-Net equal its expansion, in training mode too.

    Args:
      key: random key of the step.
      rates: [layers] probability that a block's branch is dropped.
      batch: global batch size.

    Returns:
      [layers, 2, batch]: 0 or 1/(1 - rate), for the attention and the MLP branch.

    Reference:
      Deep Networks with Stochastic Depth, 1603.09382; per sample as in timm.
    """
    keep = 1.0 - jnp.asarray(rates, jnp.float32)[:, None, None]
    shape = (keep.shape[0], 2, batch)
    # A flat array has the same numbers, and a quarter of the code to compile.
    drawn = jax.random.uniform(key, (math.prod(shape),)).reshape(shape)
    return (drawn < keep) / keep


def _product(rule: rules.Rules):
    """A rule's product of activations and weights.

    Weights that are split over devices keep their axes, along which they are split.
    """
    return rules.PLAIN.product if sharding.splits_weights() else rule.product


class Attention(nn.Module):
    """Multi-head self-attention with one qkv product."""

    spec: ViTSpec
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n, d]
        spec, dtype = self.spec, jnp.dtype(self.compute.dtype)
        rule, init = rules.of(self.compute), nn.with_logical_partitioning
        # Kept as [D, 3, heads, head size]: a tensor axis can split the heads and
        # leave q, k and v of one head on one device.
        qkv = nn.DenseGeneral(
            (3, spec.heads, spec.head_size),
            dtype=dtype,
            kernel_init=init(weight_init(spec), ("embed", "qkv", "heads", "head")),
            bias_init=init(nn.initializers.zeros, ("qkv", "heads", "head")),
            dot_general=_product(rule),
            name="qkv",
        )(x)
        x = rule.attention(checkpoint_name(qkv, "qkv"))  # [b, n, h, k]
        x = checkpoint_name(x, "attention")
        return nn.DenseGeneral(
            spec.width,
            axis=(-2, -1),
            dtype=dtype,
            kernel_init=init(weight_init(spec), ("heads", "head", "embed")),
            bias_init=init(nn.initializers.zeros, ("embed",)),
            dot_general=_product(rule),
            name="proj",
        )(x)


class Mlp(nn.Module):
    """Two dense layers with a GELU between."""

    spec: ViTSpec
    compute: Compute

    @nn.compact
    def __call__(self, x):  # [b, n, d] -> [b, n, d]
        spec, dtype = self.spec, jnp.dtype(self.compute.dtype)
        rule, init = rules.of(self.compute), nn.with_logical_partitioning
        x = nn.Dense(
            spec.hidden,
            dtype=dtype,
            kernel_init=init(weight_init(spec), ("embed", "mlp")),
            bias_init=init(nn.initializers.zeros, ("mlp",)),
            dot_general=_product(rule),
            name="fc1",
        )(x)
        x = nn.gelu(x, approximate=True) if spec.gelu == "tanh" else rule.gelu(x)
        return nn.Dense(
            spec.width,
            dtype=dtype,
            kernel_init=init(weight_init(spec), ("mlp", "embed")),
            bias_init=init(nn.initializers.zeros, ("embed",)),
            dot_general=_product(rule),
            name="fc2",
        )(x)


class Block(nn.Module):
    """Pre-norm transformer block; the body of every scan.

    Called with x [b, n, d] and keep [2, b], scales of branches, or None in evaluation.
    Returns the next x, and by name what is tapped, [b, n, d] each; None for no taps.
    """

    spec: ViTSpec
    compute: Compute
    taps: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x, keep):

        def branch(y, i):
            if keep is None:
                return y
            return y * keep[i, :, None, None].astype(y.dtype)

        # Where a mesh splits weights too, activations stay split by image alone.
        x = sharding.constrain(x, "batch", "tokens", "features")
        norm = functools.partial(layer_norm, self.spec, self.compute)
        attention = Attention(self.spec, self.compute, name="attn")
        added = attention(norm(name="norm1")(x))
        x = x + branch(added, 0)
        y = Mlp(self.spec, self.compute, name="mlp")(norm(name="norm2")(x))
        x = x + branch(y, 1)
        return x, tapped(self.taps, x, added)


def tapped(taps: tuple[str, ...], block, attention) -> dict[str, jax.Array] | None:
    """What is tapped of a block, by name, [b, n, d] each; None for no taps."""
    if not taps:
        return None
    values = {"blocks": block, "attention": attention}
    return {
        name: sharding.constrain(values[name], "batch", "tokens", "features")
        for name in taps
    }


def layer_norm(spec: ViTSpec, compute: Compute, name: str) -> nn.LayerNorm:
    """LayerNorm whose statistics are float32 whatever the compute dtype."""
    init = nn.with_logical_partitioning
    return nn.LayerNorm(
        epsilon=spec.norm_eps,
        dtype=jnp.dtype(compute.dtype),
        # E[x^2] - E[x]^2 cancels where the mean is large; the two-pass form is
        # what other frameworks compute.
        use_fast_variance=False,
        scale_init=init(nn.initializers.ones, ("embed",)),
        bias_init=init(nn.initializers.zeros, ("embed",)),
        name=name,
    )


def scanned(compute: Compute, *, length: int, shared: bool) -> type[nn.Module]:
    """`Block` applied `length` times under one scan.

    Args:
      compute: remat, unroll and whose rules.
      length: number of applications.
      shared: one set of parameters for all of them (a stage of an Aux-Net), or
        one each, stacked on a leading "layers" axis.
    """
    return nn.scan(
        rules.remembered(Block, compute, nn.remat),
        variable_broadcast="params" if shared else False,
        variable_axes={} if shared else {"params": 0},
        split_rngs={"params": not shared},
        in_axes=0,
        length=length,
        unroll=min(compute.unroll, length),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


def apply_blocks(
    net: ViTSpec,
    compute: Compute,
    params,
    x,
    drop_path,
    *,
    shared_length: int | None = None,
    runs=None,
    taps: tuple[str, ...] = (),
):
    """Applies blocks whose parameters exist already, under one scan.

    Without `runs` it computes what the module of `scanned` does, which creates its
    parameters.

    Args:
      net: whose blocks they are; its depth is not used.
      compute: dtype, remat and unroll.
      params: of the blocks, leaves [layers, ...]; or of one block, if it is shared.
      x: [b, n, d].
      drop_path: [layers, 2, b] scales of branches, or None in evaluation.
      shared_length: how often a shared block is applied; None where each has its own.
      runs: [2] whole numbers, traced: block i runs where first <= i < end, and returns
        what it was given where it does not. None runs them all.
      taps: names of `outputs.TAPS`.

    Returns:
      x [b, n, d] after the last block, and by name what was tapped,
      [layers, b, n, d] each; None for no taps.
    """
    block = Block(net, compute, taps, parent=None)

    def run(own, x, keep):
        return block.apply({"params": own}, x, keep)

    def leave_out(own, x, keep):
        return x, tapped(taps, x, jnp.zeros_like(x))

    def layer(x, inputs):
        number, own, keep = inputs
        own = params if own is None else own
        if runs is None:
            return run(own, x, keep)
        is_run = (runs[0] <= number) & (number < runs[1])
        return jax.lax.cond(is_run, run, leave_out, own, x, keep)

    if shared_length is None:
        own, length = params, jax.tree.leaves(params)[0].shape[0]
    else:
        own, length = None, shared_length
    # A condition copies the weights that it is given for the backward pass. What goes
    # into a checkpoint is kept as it is, whatever the policy saves.
    layer = rules.remembered(layer, compute, jax.checkpoint, always=runs is not None)
    return jax.lax.scan(
        layer,
        x,
        (jnp.arange(length), own, drop_path),
        unroll=min(compute.unroll, length),
    )


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each of them."""

    spec: ViTSpec
    compute: Compute

    @nn.compact
    def __call__(self, images):  # [b, h, w, c] -> [b, n, d]
        spec = self.spec
        (rows, columns), p = spec.grid, spec.patch_size
        x = images.reshape(-1, rows, p, columns, p, spec.channels)
        x = x.transpose(0, 1, 3, 2, 4, 5)  # [b, rows, columns, p, p, c]
        # A convolution of stride p as one matrix product; the kernel keeps the
        # convolution's shape [p, p, C, D].
        init = nn.with_logical_partitioning
        x = nn.DenseGeneral(
            spec.width,
            axis=(-3, -2, -1),
            dtype=jnp.dtype(self.compute.dtype),
            kernel_init=init(_patch_init(spec), (None, None, "channels", "embed")),
            bias_init=init(_patch_bias_init(spec), ("embed",)),
            dot_general=sharding.matmul(None, None, "channels", "embed"),
            name="proj",
        )(x)
        x = x.reshape(-1, rows * columns, spec.width)
        return sharding.constrain(x, "batch", "tokens", "features")


class ViT(nn.Module):
    """Vision Transformer: images to logits.

    Call with images [batch, height, width, channels] and, while training,
    `drop_path`, the masks of `drop_path_masks` [layers, 2, batch]; without them
    no branch is dropped. Returns float32 logits [batch, classes], or the pooled
    features [batch, width] where the spec has no classes. With `taps`, names of
    `sws_jax.models.outputs.TAPS`, it returns `Outputs`.

    `ranges` [segments, 2] leaves blocks out: block i of a segment runs where
    first <= i < end, and returns what it was given where it does not. They may be
    traced, so that one program serves all of them. A ViT is one segment, an Aux-Net one
    for each stage.
    """

    spec: ViTSpec
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, images, drop_path=None, taps=(), ranges=None):
        taps = outputs.TAP_NAMES("taps", taps)
        ranges = self.checked_ranges(ranges)
        x = self.embed(images)
        x, values = self.run_blocks(x, drop_path, taps, ranges)
        logits = self.classify(x)
        return Outputs(logits, values) if taps else logits

    @property
    def segments(self) -> int:
        """How many segments of blocks it has, each with a range of its own."""
        return 1

    def checked_ranges(self, ranges) -> tuple:
        """The range of each segment, [2] or None.

        Args:
          ranges: [segments, 2], or None.

        Raises:
          UserError: they are of another shape.
        """
        if ranges is None:
            return (None,) * self.segments
        ranges = jnp.asarray(ranges)
        if ranges.shape != (self.segments, 2):
            raise UserError(
                f"ranges of {self.spec.name} have the shape ({self.segments}, 2), and "
                f"got {ranges.shape}"
            )
        return tuple(ranges)

    @property
    def net(self) -> ViTSpec:
        """The network as it is run, block by block."""
        return self.spec.net

    def embed(self, images):  # [b, h, w, c] -> [b, n, d]
        """Patches and extra tokens with their positions.

        Args:
          images: [batch, height, width, channels].

        Returns:
          [batch, tokens, width].

        Raises:
          UserError: the images are of another shape than the spec's.
        """
        spec = self.spec.stem
        sharding.refuse_explicit("images or weights", (images, self.variables))
        expected = (*spec.image_size, spec.channels)
        if images.shape[1:] != expected:
            raise UserError(
                f"{self.spec.name} takes images of shape {expected}, and got "
                f"{tuple(images.shape[1:])}"
            )
        x = PatchEmbed(spec, self.compute, name="patch_embed")(images)
        init = nn.with_logical_partitioning(
            nn.initializers.normal(spec.pos_embed_std),
            (None, "tokens", "embed"),
        )
        names = ["cls_token"] * (spec.pool == "token") + ["dist_token"] * spec.distilled
        tokens = []
        for name in names:
            token: Any = self.param(name, init, (1, 1, spec.width))
            tokens.append(jnp.broadcast_to(token, (x.shape[0], 1, spec.width)))
        x = jnp.concatenate([*(t.astype(x.dtype) for t in tokens), x], axis=1)
        pos_embed: Any = self.param("pos_embed", init, (1, spec.tokens, spec.width))
        return x + pos_embed.astype(x.dtype)

    def run_blocks(self, x, drop_path, taps, ranges):
        """Applies all blocks.

        Args:
          x: [b, n, d].
          drop_path: [layers, 2, b], or None.
          taps: names of `outputs.TAPS`.
          ranges: of each segment, [2] or None.

        Returns:
          x [b, n, d] after the last block, and by name what was tapped,
          [layers, b, n, d] each; without taps {} or None. Of a network of several
          widths x has the last one, and each tap is a tuple of such arrays, one for
          each segment.
        """
        depth = self.net.depth
        return self.run_segment(
            "blocks", self.net, x, drop_path, taps, ranges[0], length=depth
        )

    def run_segment(self, name, net, x, drop_path, taps, runs, *, length, shared=False):
        """Applies the blocks of one segment.

        Args:
          name: of their parameters.
          net: whose blocks they are.
          x: [b, n, d].
          drop_path: [length, 2, b], or None.
          taps: names of `outputs.TAPS`.
          runs: which of them run, [2]; None for all.
          length: how often a block is applied.
          shared: whether one set of parameters serves all of them.

        Returns:
          x [b, n, d] after the last of them, and by name what was tapped,
          [length, b, n, d] each; None for no taps.
        """
        if runs is None:
            blocks = scanned(self.compute, length=length, shared=shared)
            return blocks(net, self.compute, taps, name=name)(x, drop_path)
        return apply_blocks(
            net,
            self.compute,
            self.variables["params"][name],
            x,
            drop_path,
            shared_length=length if shared else None,
            runs=runs,
            taps=taps,
        )

    def classify(self, x):  # [b, n, d] -> [b, classes]
        """Logits of the tokens that the last block returns.

        Args:
          x: [batch, tokens, width].

        Returns:
          float32 [batch, classes], the mean over the heads; the pooled features
          [batch, width] of a network without classes.
        """
        spec = self.spec.tail
        norm = layer_norm(spec, self.compute, name="norm")
        if spec.pool == "token":
            x = norm(x)[:, : spec.read_tokens]
        elif spec.pool_order == "norm_mean":
            x = norm(x).mean(axis=1, keepdims=True)
        else:
            x = norm(x.mean(axis=1, keepdims=True))
        x = x.astype(jnp.float32)  # [b, classifiers, d]
        x = sharding.constrain(x, "batch", "tokens", "features")
        if not spec.num_classes:
            return x.mean(axis=1)
        init = nn.with_logical_partitioning
        logits = [
            nn.Dense(
                spec.num_classes,
                kernel_init=init(weight_init(spec), ("embed", "classes")),
                bias_init=init(nn.initializers.zeros, ("classes",)),
                dot_general=sharding.matmul("embed", "classes"),
                name=name,
            )(x[:, i])
            for i, name in enumerate(spec.classifiers)
        ]
        logits = [
            sharding.constrain(head_logits, "batch", "classes")
            for head_logits in logits
        ]
        return sum(logits) / len(logits)


def init_params(module: nn.Module, key: jax.Array, *, boxed: bool = False) -> dict:
    """A network's parameters at the start, as a plain tree of arrays.

    Args:
      module: what the `build` of a spec returned.
      key: random key.
      boxed: keep each leaf in the box that holds the names of its logical axes.
    """
    params = _init(module, key)
    return params if boxed else nn.meta.unbox(params)


# One program for all runs of equal networks.
@functools.partial(jax.jit, static_argnums=0)
def _init(module: nn.Module, key: jax.Array) -> dict:
    spec = module.spec
    images = jnp.zeros((1, *spec.image_size, spec.channels), jnp.float32)
    return module.init(key, images)["params"]
