"""The ViTs of Vision Transformer and big_vision, from flax's own layers.

They serve comparison alone: attention and GELU are flax's, and parameters have the
names of the ``.npz`` files of both libraries.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class MlpBlock(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(self.hidden, name="Dense_0")(x)
        return nn.Dense(x.shape[-1], name="Dense_1")(nn.gelu(y))


class Block(nn.Module):
    """A block, whose layers are numbered in the order in which it creates them."""

    heads: int
    hidden: int
    numbered: bool  # over all kinds of layers, as in Vision Transformer

    @nn.compact
    def __call__(self, x, _=None):
        norm, attention, norm2, mlp = (0, 1, 2, 3) if self.numbered else (0, 0, 1, 0)
        y = nn.LayerNorm(name=f"LayerNorm_{norm}")(x)
        name = f"MultiHeadDotProductAttention_{attention}"
        x = x + nn.MultiHeadDotProductAttention(self.heads, name=name)(y, y)
        y = nn.LayerNorm(name=f"LayerNorm_{norm2}")(x)
        return x + MlpBlock(self.hidden, name=f"MlpBlock_{mlp}")(y), None


class AddPositions(nn.Module):
    @nn.compact
    def __call__(self, x):
        init = nn.initializers.normal(0.5)
        return x + self.param("pos_embedding", init, (1, *x.shape[1:]))


class Encoder(nn.Module):
    depth: int
    heads: int
    hidden: int
    numbered: bool
    scanned: bool

    @nn.compact
    def __call__(self, x):
        fields = (self.heads, self.hidden, self.numbered)
        if self.numbered:
            x = AddPositions(name="posembed_input")(x)
        if self.scanned:
            scan = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.depth,
            )
            x, _ = scan(*fields, name="encoderblock")(x, None)
        else:
            for i in range(self.depth):
                x, _ = Block(*fields, name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class GoogleViT(nn.Module):
    """The ViT of one of both libraries.

    Attributes:
      numbered: whether it is Vision Transformer's, whose class token has a position.
      scanned: whether the blocks are scanned over.
      token: whether there is a class token.
      fixed: whether positions are sines and cosines.
    """

    numbered: bool = False
    scanned: bool = False
    token: bool = False
    fixed: bool = False
    width: int = 16
    heads: int = 4
    depth: int = 3
    patch: int = 4
    classes: int = 5

    @nn.compact
    def __call__(self, images):
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, size, padding="VALID", name="embedding")(images)
        _, rows, columns, width = x.shape
        x = x.reshape(len(images), rows * columns, width)
        if self.fixed:
            x = x + waves(rows, columns, width)
        elif not self.numbered:
            init = nn.initializers.normal(0.5)
            x = x + self.param("pos_embedding", init, (1, *x.shape[1:]))
        if self.token:
            token = self.param("cls", nn.initializers.normal(0.5), (1, 1, width))
            x = jnp.concatenate([jnp.tile(token, (len(images), 1, 1)), x], axis=1)
        x = Encoder(
            self.depth,
            self.heads,
            2 * width,
            self.numbered,
            self.scanned,
            name="Transformer",
        )(x)
        x = x[:, 0] if self.token else x.mean(axis=1)
        return nn.Dense(self.classes, name="head")(x)


def waves(rows, columns, width):
    """One number at a time."""
    positions = np.zeros((rows, columns, 4, width // 4), np.float32)
    for y, x, k in np.ndindex(rows, columns, width // 4):
        frequency = 1 / 10_000 ** (k / (width // 4 - 1))
        positions[y, x, :, k] = (
            np.sin(x * frequency),
            np.cos(x * frequency),
            np.sin(y * frequency),
            np.cos(y * frequency),
        )
    return positions.reshape(1, rows * columns, width)


def with_params(images, **fields):
    """A module, random parameters for it, none of them zero, and its logits."""
    module = GoogleViT(**fields)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(scale=0.6, size=leaf.shape).astype(np.float32),
        shapes,
    )
    return module, params, jax.jit(module.apply)({"params": params}, images)
