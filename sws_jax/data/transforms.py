"""From a decoded image to the pixels of a batch, on the host.

Everything here is a pure function of an image and, in training, of a random
generator that belongs to the image's position in the run. Images are uint8
[height, width, channels] throughout. Normalisation, erasing and mixing, which need
floats, happen on the device, in `sws_jax.data.augment`.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from PIL import Image

from sws_jax import arguments
from sws_jax.data import randaugment
from sws_jax.errors import UserError
from sws_jax.pixels import CROP, CROP_MODES, INTERPOLATIONS
from sws_jax.specs.limits import CROPS

# An image that would be scaled to more than this many times the length of the view is
# not scaled as a whole.
_LONG = 4
_AROUND = 8  # pixels around the view that are then scaled with it


@arguments.checked(
    size=arguments.size,
    crop=CROP,
    interpolation=arguments.text(INTERPOLATIONS),
    crop_mode=arguments.text(CROP_MODES),
)
@dataclasses.dataclass(frozen=True)
class Fit:
    """The deterministic view of an image: scaled, and its centre cut out.

    Attributes:
      size: height and width in pixels.
      crop: share of the shorter side that is kept. DeiT's 0.875 first resizes images
        of 224 pixels to 256; 1 keeps all of the side.
      interpolation: one of `sws_jax.pixels.INTERPOLATIONS`.
      crop_mode: "center" keeps an image's shape, and cuts off the ends of its longer
        side; "squash" scales each side on its own. Where an odd number of pixels is
        cut off, the half before the centre is rounded to an even number, as torchvision
        and therefore timm do; with "_down" in the name, it is rounded down, as
        transformers does.

    Reference:
      DeiT, 2012.12877, as published: resize to size / 0.875, bicubic, centre crop.
    """

    size: tuple[int, int]
    crop: float = 1.0
    interpolation: str = "bicubic"
    crop_mode: str = "center"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = self.size
        scaled = cover = (math.floor(height / self.crop), math.floor(width / self.crop))
        if self.crop_mode.startswith("center"):
            scaled = self._covering(cover, *image.shape[:2])
        half = math.floor if self.crop_mode.endswith("_down") else round
        top, left = half((scaled[0] - height) / 2), half((scaled[1] - width) / 2)
        if max(scaled[0] / cover[0], scaled[1] / cover[1]) > _LONG:
            window = (top, left, height, width)
            return _window_of_resized(image, scaled, window, self.interpolation)
        image = resize(image, scaled, self.interpolation)
        return image[top : top + height, left : left + width]

    def _covering(self, cover: tuple[int, int], high: int, wide: int):
        """Height and width of the least image, in its own shape, that covers `cover`.

        Args:
          cover: height and width of a rectangle.
          high, wide: of the image before it is scaled.
        """
        height, width = self.size
        # One side decides. The other one's fraction of a pixel is cut off for a square
        # view, as torchvision does, and rounded for others, as timm does.
        half = 0 if cover[0] == cover[1] else 1
        if cover[0] * wide >= cover[1] * high:
            follows = (2 * cover[0] * wide + half * high) // (2 * high)
            return cover[0], max(follows, width)
        follows = (2 * cover[1] * high + half * wide) // (2 * wide)
        return max(follows, height), cover[1]


@dataclasses.dataclass(frozen=True)
class Transform:
    """Random geometry and colour of a training image.

    Attributes:
      crop: "none" is the view of `Fit`; "padded", for small images, adds a black border
        and crops to the old size; "resized" scales a random part to the size.
      padding: of a padded crop, in pixels.
      scale, ratio: of a resized crop: share of the image's area, and width over
        height, drawn uniformly on a logarithmic axis.
      flip: mirror half of the images.
      randaugment: operations applied to each image; 0 is off.
      magnitude, magnitude_std: of these operations, on a scale of 0 to 10.
    """

    crop: str = "none"
    padding: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    randaugment: int = 0
    magnitude: float = 9.0
    magnitude_std: float = 0.5

    def __post_init__(self):
        # A config may hold lists.
        object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "ratio", tuple(self.ratio))
        if self.crop not in CROPS:
            raise UserError(
                f"there is no transform.crop {self.crop!r}: it is one of "
                f"{', '.join(CROPS)}"
            )
        if min(self.padding, self.randaugment) < 0:
            raise UserError(
                "transform.padding and transform.randaugment cannot be below 0"
            )
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            span = getattr(self, name)
            if (
                len(span) != 2
                or not 0 < span[0] <= span[1] <= most
                or math.isinf(span[1])
            ):
                raise UserError(
                    f"transform.{name} must be two numbers, the smaller one first, "
                    f"above 0{' and up to 1' if most == 1 else ''}, and is {span}"
                )
        if not (0 <= self.magnitude <= 10 and 0 <= self.magnitude_std < math.inf):
            raise UserError(
                f"transform.magnitude goes from 0 to 10 and its deviation from 0 on, "
                f"and they are {self.magnitude} and {self.magnitude_std}"
            )

    @property
    def changes(self) -> str:
        """What it does to an image besides moving its pixels; empty where nothing."""
        if self.crop == "resized":
            return "transform.crop is resized"
        if self.randaugment:
            return f"transform.randaugment is {self.randaugment}"
        return ""

    def draw(self, random: np.random.Generator) -> tuple[int, int, bool]:
        """What is drawn for an image whose pixels are moved alone.

        Returns:
          Top and left of the crop, in the image within its border; whether the crop is
          mirrored.
        """
        top, left = 0, 0
        if self.crop == "padded":
            top, left = _shift(random, self.padding)
        return top, left, self._is_flipped(random)

    def _is_flipped(self, random: np.random.Generator) -> bool:
        return self.flip and random.random() < 0.5

    def check_channels(self, channels: int) -> None:
        """Refuses operations that need colour on images without it."""
        if self.randaugment and channels not in (1, 3):
            raise UserError(
                f"RandAugment needs grey or RGB images, and these have {channels} "
                f"channels: set transform.randaugment to 0"
            )

    def __call__(
        self,
        image: np.ndarray,
        random: np.random.Generator,
        size: tuple[int, int],
    ) -> np.ndarray:
        """An augmented image, uint8 [*size, channels]."""
        if self.crop == "resized":
            image = resized_crop(image, random, size, self.scale, self.ratio)
        else:
            image = _fit(size)(image)
            if self.crop == "padded":
                image = padded_crop(image, random, self.padding)
        if self._is_flipped(random):
            image = image[:, ::-1]
        if self.randaugment:
            image = randaugment.apply(
                image,
                random,
                number=self.randaugment,
                magnitude=self.magnitude,
                std=self.magnitude_std,
            )
        return image


@functools.lru_cache(maxsize=8)
def _fit(size: tuple[int, int]) -> Fit:
    """The same `Fit` for every image, as its arguments are checked when it is made."""
    return Fit(size)


def _window_of_resized(
    image: np.ndarray,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    interpolation: str,
) -> np.ndarray:
    """A part of a resized image, without resizing the rest.

    A strip of 1 x 10,000 pixels, scaled as a whole, would take gigabytes, of which all
    but the middle is thrown away.

    Args:
      image: see `resize`.
      size: height and width of the whole resized image.
      window: top, left, height and width of the part in it.
      interpolation: see `Fit`.
    """
    part, boxes, shift = image, [], []
    for axis in (0, 1):
        scale = image.shape[axis] / size[axis]
        # A filter reads three pixels to each side, in the larger of the two images.
        first = max(window[axis] - _AROUND, 0)
        last = min(window[axis] + window[axis + 2] + _AROUND, size[axis])
        low = max(math.floor(first * scale), 0)
        high = min(math.ceil(last * scale), image.shape[axis])
        part = part.take(range(low, high), axis)
        # Pillow stores these in four bytes; within a part they are small numbers.
        boxes.append((first * scale - low, min(last * scale - low, high - low)))
        shift.append((window[axis] - first, last - first))
    (top, high), (left, wide) = shift
    box = (boxes[1][0], boxes[0][0], boxes[1][1], boxes[0][1])
    resized = _planes(part, (high, wide), interpolation, box)
    return resized[top : top + window[2], left : left + window[3]]


def resize(
    image: np.ndarray, size: tuple[int, int], interpolation: str = "bicubic"
) -> np.ndarray:
    """An image of another size, smoothed where it shrinks.

    Args:
      image: uint8 [height, width, channels], of any number of channels.
      size: height and width of the result.
      interpolation: see `Fit`.
    """
    if image.shape[:2] == tuple(size):
        return image
    return _planes(image, size, interpolation, None)


def _planes(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str,
    box: tuple[float, float, float, float] | None,
) -> np.ndarray:
    """The part of an image in a box (left, top, right, bottom), resized to `size`.

    Pillow resizes images of three channels at once, and others channel by channel.
    """
    height, width = size
    method = Image.Resampling[interpolation.upper()]

    def one(pixels):
        image = Image.fromarray(pixels)
        return np.asarray(image.resize((width, height), method, box))

    if image.shape[-1] == 3:
        return one(np.ascontiguousarray(image))
    planes = np.moveaxis(image, -1, 0)
    return np.stack([one(np.ascontiguousarray(plane)) for plane in planes], axis=-1)


def padded_crop(
    image: np.ndarray, random: np.random.Generator, padding: int
) -> np.ndarray:
    """A crop of the old size, anywhere in the image with a black border."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), np.uint8)
    padded[padding : padding + height, padding : padding + width] = image
    top, left = _shift(random, padding)
    return padded[top : top + height, left : left + width]


def _shift(random: np.random.Generator, padding: int) -> tuple[int, int]:
    """Top and left of a padded crop, in the image within its border."""
    top, left = random.integers(0, 2 * padding + 1, 2).tolist()
    return top, left


def resized_crop(
    image: np.ndarray,
    random: np.random.Generator,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> np.ndarray:
    """A random part of an image, scaled to `size` without regard to its shape.

    Ten draws of area and aspect; the first part that fits into the image is taken, at
    a random position. Where none fits, the largest central part of an allowed aspect.

    Args:
      image: uint8 [height, width, channels].
      random: the generator of this image.
      size: height and width of the result.
      scale, ratio: see `Transform`.

    Reference:
      Szegedy et al., 1409.4842, section 6, in the form that DeiT trains with.
    """
    top, left, height, width = crop_box(image.shape[:2], random, scale, ratio)
    # Cut before it is scaled, as in published training: the filter must not read pixels
    # outside of the part.
    return resize(image[top : top + height, left : left + width], size)


def crop_box(
    shape: tuple[int, int],
    random: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part, in pixels; see `resized_crop`.

    Args:
      shape: height and width of the image.
      random: the generator of this image.
      scale, ratio: see `Transform`.
    """
    height, width = shape
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(random.integers(0, height - h + 1))
            left = int(random.integers(0, width - w + 1))
            return top, left, h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = min(round(width / ratio[0]), height)
    elif width / height > ratio[1]:
        w = min(round(height * ratio[1]), width)
    return (height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1)
