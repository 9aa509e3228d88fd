"""Augmentation on the device: pure functions of a key and a batch.

Each draws for the whole global batch, so the result does not depend on the number
of devices or on gradient accumulation. Geometry and colour come before, on the host:
`sws_jax.data.transforms`.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from sws_jax import sharding
from sws_jax.errors import UserError
from sws_jax.pixels import Normalization, normalize


@dataclasses.dataclass(frozen=True)
class Augment:
    """Augmentation of a training batch on the device.

    Attributes:
      erase: share of the images in which a rectangle is replaced by noise.
      erase_area, erase_aspect: of the rectangle: share of the image, and height over
        width, drawn uniformly on a logarithmic axis.
      mixup, cutmix: alpha of the Beta distribution of each; 0 is off.
      mix_switch: with both on, the share of groups that get cutmix.
      mix_group: consecutive images that share a lambda and are mixed with each
        other, the group reversed; 0 is the whole global batch. A group that
        divides the per-device batch keeps every image on its device.
      label_smoothing: the off-value times the number of classes.
    """

    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    erase_aspect: tuple[float, float] = (0.3, 3.3)
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_switch: float = 0.5
    mix_group: int = 0
    label_smoothing: float = 0.0

    def __post_init__(self):
        # A config may hold lists, and a recipe must be hashable.
        object.__setattr__(self, "erase_area", tuple(self.erase_area))
        object.__setattr__(self, "erase_aspect", tuple(self.erase_aspect))
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserError(
                f"label_smoothing must be in [0, 1), and is {self.label_smoothing}"
            )
        for name in ("mix_switch", "erase"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise UserError(f"{name} must be in [0, 1], and is {share}")
        for name in ("mixup", "cutmix", "mix_group"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be at least 0, and is {value}")
        for name, most in (("erase_area", 1.0), ("erase_aspect", math.inf)):
            span = getattr(self, name)
            if len(span) != 2 or not 0 < span[0] <= span[1] <= most:
                raise UserError(
                    f"{name} must be two numbers, the smaller one first, above 0"
                    f"{' and up to 1' if most == 1 else ''}, and is {span}"
                )

    def check_batch(self, global_batch_size: int) -> None:
        """Refuses a batch that does not divide into groups."""
        if self.mix_group and global_batch_size % self.mix_group:
            raise UserError(
                f"global_batch_size {global_batch_size} does not divide into mixup "
                f"groups of {self.mix_group}"
            )

    def __call__(
        self,
        key: jax.Array,
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"],
        num_classes: int,
        normalization: Normalization,
    ) -> tuple[
        Float[Array, "batch height width channels"], Float[Array, "batch classes"]
    ]:
        """Normalised, augmented images and their label distributions."""
        erase_key, mix_key = jax.random.split(key)
        x = normalize(images, normalization)
        if self.erase:
            x = erase(erase_key, x, self.erase, self.erase_area, self.erase_aspect)
        targets = smooth_labels(labels, num_classes, self.label_smoothing)
        if self.mixup or self.cutmix:
            x, targets = mix(
                mix_key,
                x,
                targets,
                mixup=self.mixup,
                cutmix=self.cutmix,
                switch=self.mix_switch,
                group=self.mix_group or len(x),
            )
        return x, targets


def erase(
    key: jax.Array,
    images: Float[Array, "batch height width channels"],
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Float[Array, "batch height width channels"]:
    """Replaces a rectangle of some images by standard normal noise.

    Ten rectangles are drawn for every image, and the first is taken that is smaller
    than the image on both sides; where none is, the image stays whole.

    Args:
      key: random key.
      images: normalised, so that the noise has the spread of the pixels.
      probability: of erasing, for each image.
      area: least and largest share of the image.
      aspect: least and largest height over width.

    Reference:
      Zhong et al., 1708.04896, algorithm 1, with noise for each pixel as in DeiT.
    """
    batch, height, width, _ = images.shape
    keys = jax.random.split(key, 6)
    draws = (batch, 10)
    share = flat(jax.random.uniform, keys[0], draws, minval=area[0], maxval=area[1])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    log_ratio = flat(jax.random.uniform, keys[1], draws, minval=low, maxval=high)
    ratio = jnp.exp(log_ratio)
    pixels = share * (height * width)
    tall = jnp.round(jnp.sqrt(pixels * ratio)).astype(jnp.int32)
    wide = jnp.round(jnp.sqrt(pixels / ratio)).astype(jnp.int32)
    fits = (tall < height) & (wide < width)
    first = jnp.argmax(fits, axis=1)[:, None]
    tall = jnp.take_along_axis(tall, first, axis=1)[:, 0]
    wide = jnp.take_along_axis(wide, first, axis=1)[:, 0]
    chosen = jax.random.bernoulli(keys[2], probability, (batch,)) & fits.any(axis=1)

    def span(key, length, size):
        start = jax.random.randint(key, (batch,), 0, jnp.maximum(size - length, 0) + 1)
        at = jnp.arange(size)
        return (at >= start[:, None]) & (at < (start + length)[:, None])

    rows, columns = span(keys[3], tall, height), span(keys[4], wide, width)
    inside = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
    noise = flat(jax.random.normal, keys[5], images.shape, dtype=images.dtype)
    return jnp.where(inside[..., None], noise, images)


def mix(
    key: jax.Array,
    images: Float[Array, "batch height width channels"],
    targets: Float[Array, "batch classes"],
    *,
    mixup: float,
    cutmix: float,
    switch: float,
    group: int,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Mixup or cutmix, one of them for every group of consecutive images.

    Args:
      key: random key.
      images: normalised.
      targets: label distributions, already smoothed.
      mixup, cutmix: alpha of each Beta distribution; 0 is off.
      switch: with both on, the probability of cutmix.
      group: images that share lambda, box and choice; the partner of image i is
        image ``group - 1 - i`` of the group.

    Returns:
      Mixed images and targets; with cutmix, the targets' lambda is the share of
      the image that was really kept.

    Reference:
      mixup, 1710.09412, equation 1; CutMix, 1905.04899, equations 1 and 2.
    """
    batch, height, width, channels = images.shape
    groups = batch // group
    choice_key, lambda_key, box_key = jax.random.split(key, 3)
    use_cutmix = jax.random.bernoulli(
        choice_key, switch if mixup and cutmix else float(cutmix > 0), (groups,)
    )
    # Split over devices, the loop that draws would communicate in every round.
    use_cutmix = sharding.constrain(use_cutmix, "groups")
    alpha = jnp.where(use_cutmix, cutmix or 1.0, mixup or 1.0)
    drawn = jax.random.beta(lambda_key, alpha, alpha)  # [groups]
    drawn = sharding.constrain(drawn, "groups")
    inside = _boxes(box_key, drawn, height, width)  # [groups, height, width]
    kept = 1.0 - inside.mean(axis=(1, 2), dtype=jnp.float32)
    lam = jnp.where(use_cutmix, kept, drawn)

    x = images.reshape(groups, group, height, width, channels)
    partner = x[:, ::-1]
    weight = jnp.where(
        use_cutmix[:, None, None], 1.0 - inside, lam[:, None, None]
    )  # [groups, height, width]: of the image itself
    weight = weight[:, None, :, :, None]
    x = x * weight + partner * (1.0 - weight)

    t = targets.reshape(groups, group, -1)
    t = t * lam[:, None, None] + t[:, ::-1] * (1.0 - lam[:, None, None])
    return x.reshape(images.shape), t.reshape(targets.shape)


def _boxes(key, lam, height: int, width: int):
    """1 inside a box of area 1 - lambda around a random centre, clipped."""
    ratio = jnp.sqrt(1.0 - lam)
    row_key, column_key = jax.random.split(key)

    def span(key, size):
        half = jnp.floor(size * ratio).astype(jnp.int32) // 2
        centre = jax.random.randint(key, lam.shape, 0, size)
        at = jnp.arange(size)
        low, high = (centre - half)[:, None], (centre + half)[:, None]
        return (at >= low) & (at < high)  # [groups, size]

    rows, columns = span(row_key, height), span(column_key, width)
    return (rows[:, :, None] & columns[:, None, :]).astype(jnp.float32)


def flat(draw, key: jax.Array, shape: tuple[int, ...], **options) -> jax.Array:
    """``draw(key, shape)``, number for number, of which XLA compiles a quarter.

    Each number follows from its place in the flat array, which is found at no cost
    where the array is flat.

    Args:
      draw: of `jax.random`.
      key: random key.
      shape: of the result.
      **options: of `draw`.
    """
    return draw(key, shape=(math.prod(shape),), **options).reshape(shape)


def smooth_labels(
    labels: Int[Array, " batch"],
    num_classes: int,
    smoothing: float,
) -> Float[Array, "batch classes"]:
    """One-hot targets with off-value ``smoothing / classes``.

    The on-value is ``1 - smoothing + smoothing / classes``: a target sums to 1.

    Reference:
      Rethinking the Inception Architecture, 1512.00567, section 7.
    """
    one_hot = jax.nn.one_hot(labels, num_classes)
    return one_hot * (1.0 - smoothing) + smoothing / num_classes
