"""Augmentation on the device: pure functions of a key and a batch.

Each draws for the whole global batch, so the result does not depend on the number
of devices or on gradient accumulation.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from sws_jax.data.base import Normalization
from sws_jax.errors import UserError
from sws_jax.losses import smooth_labels


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens to a training batch on the device.

    Attributes:
      crop_padding: pixels of black border before a random crop of the old size.
      flip: mirror half of the images.
      mixup, cutmix: alpha of the Beta distribution of each; 0 is off.
      mix_switch: with both on, the share of groups that get cutmix.
      mix_group: consecutive images that share a lambda and are mixed with each
        other, the group reversed; 0 is the whole global batch. A group that
        divides the per-device batch keeps every image on its device.
      label_smoothing: off-value times classes.
    """

    crop_padding: int = 0
    flip: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_switch: float = 0.5
    mix_group: int = 0
    label_smoothing: float = 0.0

    def __post_init__(self):
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserError(
                f"label_smoothing must be in [0, 1), and is {self.label_smoothing}"
            )
        if not 0.0 <= self.mix_switch <= 1.0:
            raise UserError(f"mix_switch must be in [0, 1], and is {self.mix_switch}")
        if min(self.mixup, self.cutmix, self.crop_padding, self.mix_group) < 0:
            raise UserError(
                "mixup, cutmix, crop_padding and mix_group cannot be below 0"
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
        crop_key, flip_key, mix_key = jax.random.split(key, 3)
        if self.crop_padding:
            images = random_crop(crop_key, images, self.crop_padding)
        if self.flip:
            images = random_flip(flip_key, images)
        x = normalize(images, normalization)
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


def random_crop(
    key: jax.Array, images: UInt8[Array, "batch height width channels"], padding: int
) -> UInt8[Array, "batch height width channels"]:
    """A crop of the old size, anywhere in the image with a black border."""
    batch, height, width, channels = images.shape
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, border)
    corners = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image, corner):
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, corners)


def random_flip(
    key: jax.Array, images: UInt8[Array, "batch height width channels"]
) -> UInt8[Array, "batch height width channels"]:
    """Mirrors each image, left to right, with probability one half."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


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
    alpha = jnp.where(use_cutmix, cutmix or 1.0, mixup or 1.0)
    drawn = jax.random.beta(lambda_key, alpha, alpha)  # [groups]
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
