"""RandAugment: a few random changes of geometry and colour to a training image.

The operations are the fifteen of the recipe's "increasing" set, in which a greater
magnitude always means a stronger change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

# Share of the drawn operations that is applied: .5 in the training of DeiT, 2012.12877,
# whereas 1909.13719 applies all of them.
PROBABILITY = 0.5
MAX_MAGNITUDE = 10.0

# Colour of pixels from outside the image: ImageNet's mean, (.485, .456, .406) x 255,
# and for grey images the luma of that colour.
FILL: dict[str, int | tuple[int, int, int]] = {"RGB": (124, 116, 104), "L": 117}

# image, level = magnitude / 10, generator of the sign -> image
Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def apply(
    image: np.ndarray,
    random: np.random.Generator,
    *,
    number: int,
    magnitude: float,
    std: float,
) -> np.ndarray:
    """Changes an image by operations drawn with replacement from `OPERATIONS`.

    How many numbers are drawn depends on the operations. Each image has a generator
    of its own, so this changes no other image.

    Args:
      image: uint8 [height, width, channels], grey (1 channel) or RGB (3).
      random: the generator of this image.
      number: operations drawn; each is applied with a probability of 1/2.
      magnitude, std: mean and deviation of their magnitudes, on a scale of 0 to 10.

    Returns:
      uint8, of the shape of the image.

    Reference:
      RandAugment, 1909.13719, section 3, with the increasing operations, the
      probability and the spread of magnitudes that DeiT, 2012.12877, trains with.
    """
    grey = image.shape[-1] == 1
    changed = Image.fromarray(image[..., 0] if grey else image)
    for name, level in draw(random, number=number, magnitude=magnitude, std=std):
        changed = OPERATIONS[name](changed, level, random)
    pixels = np.asarray(changed)
    return pixels[..., None] if grey else pixels


def draw(
    random: np.random.Generator, *, number: int, magnitude: float, std: float
) -> list[tuple[str, float]]:
    """Name and level, 0 to 1, of each operation to apply to one image.

    Args:
      random: the generator of this image.
      number: operations drawn; each is applied with a probability of 1/2.
      magnitude, std: mean and deviation of their magnitudes, on a scale of 0 to 10.
    """
    chosen = random.integers(0, len(OPERATIONS), number)
    applied = random.random(number) < PROBABILITY
    magnitudes = np.clip(random.normal(magnitude, std, number), 0, MAX_MAGNITUDE)
    names = tuple(OPERATIONS)
    return [
        (names[which], float(drawn) / MAX_MAGNITUDE)
        for which, drawn in zip(chosen[applied], magnitudes[applied], strict=True)
    ]


def _signed(random: np.random.Generator, value: float) -> float:
    return value if random.random() < 0.5 else -value


def _looked_up(image: Image.Image, table: list[int]) -> Image.Image:
    return image.point(table * len(image.getbands()))


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keeps the highest bits; Pillow's `posterize` refuses to keep none."""
    mask = 256 - 2 ** (8 - bits)
    return _looked_up(image, [i & mask for i in range(256)])


def _solarize_add(image: Image.Image, amount: int) -> Image.Image:
    """Brightens the dark half of the values."""
    return _looked_up(
        image, [min(i + amount, 255) if i < 128 else i for i in range(256)]
    )


def _enhance(enhancer) -> Operation:
    def operation(image, level, random):
        factor = max(1 + _signed(random, 0.9 * level), 0.1)
        return enhancer(image).enhance(factor)

    return operation


def _affine(image: Image.Image, *, xy=0.0, x=0.0, yx=0.0, y=0.0) -> Image.Image:
    """Takes pixel (i, j) from (i + xy j + x, yx i + j + y)."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, xy, x, yx, 1, y),
        Image.Resampling.BICUBIC,
        fillcolor=FILL[image.mode],
    )


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotates about the centre; the image keeps its size."""
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=FILL[image.mode])


# What a level of 0 to 1 means to each operation; +- is a random sign.
#
#   AutoContrast, Equalize, Invert: nothing
#   Rotate                +-30 level, in degrees
#   PosterizeIncreasing   the 4 - floor(4 level) highest bits stay; without any: black
#   SolarizeIncreasing    values from 256 - floor(256 level) on are inverted
#   SolarizeAdd           floor(110 level) is added to values below 128
#   Color.., Contrast..,  1 +- .9 level, at least .1, times the image's difference to
#   Brightness..,         its grey version, its mean, black, and its smoothed version
#   SharpnessIncreasing
#   ShearX, ShearY        +-.3 level
#   TranslateX.., Y..Rel  +-.45 level, of the width or the height
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, level, random: ImageOps.autocontrast(image),
    "Equalize": lambda image, level, random: ImageOps.equalize(image),
    "Invert": lambda image, level, random: ImageOps.invert(image),
    "Rotate": lambda image, level, random: _rotate(image, _signed(random, 30 * level)),
    "PosterizeIncreasing": lambda image, level, random: _posterize(
        image, 4 - int(level * 4)
    ),
    "SolarizeIncreasing": lambda image, level, random: ImageOps.solarize(
        image, 256 - int(level * 256)
    ),
    "SolarizeAdd": lambda image, level, random: _solarize_add(image, int(level * 110)),
    "ColorIncreasing": _enhance(ImageEnhance.Color),
    "ContrastIncreasing": _enhance(ImageEnhance.Contrast),
    "BrightnessIncreasing": _enhance(ImageEnhance.Brightness),
    "SharpnessIncreasing": _enhance(ImageEnhance.Sharpness),
    "ShearX": lambda image, level, random: _affine(
        image, xy=_signed(random, 0.3 * level)
    ),
    "ShearY": lambda image, level, random: _affine(
        image, yx=_signed(random, 0.3 * level)
    ),
    "TranslateXRel": lambda image, level, random: _affine(
        image, x=_signed(random, 0.45 * level) * image.width
    ),
    "TranslateYRel": lambda image, level, random: _affine(
        image, y=_signed(random, 0.45 * level) * image.height
    ),
}
