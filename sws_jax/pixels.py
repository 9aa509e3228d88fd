"""Pixels: how a network's input is normalised, and names of how images are resized."""

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
# How images are resized. All but nearest smooth an image that shrinks.
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest")
# How an image gets the shape of the network's input: its centre is cut out, or it is
# squeezed. With "_down", half of an odd border is rounded down, and not to an even
# number: see `sws_jax.data.transforms.Fit`.
CROP_MODES = ("center", "squash", "center_down", "squash_down")

# Checks of arguments. The numbers of a config are shares of 255, so that a mean of 0 to
# 255 is a mistake.
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
    """ImageNet's for three channels; one to -1..1 for any other number."""
    if channels == 3:
        return Normalization(IMAGENET_MEAN, IMAGENET_STD)
    return Normalization((0.5,) * channels, (0.5,) * channels)


def normalize(
    images: UInt8[Array, "batch height width channels"], normalization: Normalization
) -> Float[Array, "batch height width channels"]:
    """The network's input, float32, of uint8 pixels."""
    mean = jnp.asarray(normalization.mean, jnp.float32)
    std = jnp.asarray(normalization.std, jnp.float32)
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def renormalize(x, source: Normalization, target: Normalization):
    """Images with the normalisation `source`, as those with `target`."""
    if source == target:
        return x
    mean, std = (jnp.asarray(v, jnp.float32) for v in (source.mean, source.std))
    to_mean, to_std = (jnp.asarray(v, jnp.float32) for v in (target.mean, target.std))
    return (x * std + mean - to_mean) / to_std
