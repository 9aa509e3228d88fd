"""Pixels: what a network takes them as, and how images come to its size."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from sws_jax import arguments, xla_flags
from sws_jax.errors import UserError
from sws_jax.specs import limits

xla_flags.warn()

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# How images are resized, each smoothing what shrinks (but nearest).
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest")
# How they come to the shape that is looked at: scaled as they are, or squeezed into it.
# Of an odd rest around it the half that comes first is rounded to an even number, or
# down: see `sws_jax.data.transforms.Fit`.
CROP_MODES = ("center", "squash", "center_down", "squash_down")

# Kinds of what is said of pixels. A user's numbers are shares of 255: means of 0 to 255
# are a mistake.
GIVEN_MEAN = arguments.reals(limits.MEAN)
GIVEN_STD = arguments.reals(limits.STD)
MEAN = arguments.reals()
STD = arguments.reals(arguments.Range(0, math.inf, open_low=True))
CROP = arguments.number(limits.EVAL_CROP)


@arguments.checked(mean=MEAN, std=STD)
@dataclasses.dataclass(frozen=True)
class Normalization:
    """Pixel p of channel c enters a network as ``(p / 255 - mean[c]) / std[c]``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if len(self.mean) != len(self.std) or not self.mean:
            raise UserError(
                f"a normalisation has as many means as deviations, and this has "
                f"{len(self.mean)} and {len(self.std)}"
            )

    @property
    def channels(self) -> int:
        return len(self.mean)


NORMALIZATION = arguments.of(Normalization, called="a Normalization")


def default_normalization(channels: int) -> Normalization:
    """ImageNet's for three channels; to -1..1 for any other number."""
    if channels == 3:
        return Normalization(IMAGENET_MEAN, IMAGENET_STD)
    return Normalization((0.5,) * channels, (0.5,) * channels)


def normalize(
    images: UInt8[Array, "batch height width channels"], normalization: Normalization
) -> Float[Array, "batch height width channels"]:
    """uint8 pixels to the network's input, float32."""
    mean = jnp.asarray(normalization.mean, jnp.float32)
    std = jnp.asarray(normalization.std, jnp.float32)
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def renormalize(x, source: Normalization, target: Normalization):
    """Images normalised one way, normalised another way."""
    if source == target:
        return x
    mean, std = (jnp.asarray(v, jnp.float32) for v in (source.mean, source.std))
    to_mean, to_std = (jnp.asarray(v, jnp.float32) for v in (target.mean, target.std))
    return (x * std + mean - to_mean) / to_std
