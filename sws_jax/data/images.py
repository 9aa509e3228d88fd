"""Single images from files."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sws_jax.errors import UserError

_MODES = {1: "L", 3: "RGB"}
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
)


def read(path: str, *, size: tuple[int, int], channels: int) -> np.ndarray:
    """An image as a network takes it: shorter side resized, centre cropped.

    Args:
      path: of a file that Pillow reads.
      size: height and width in pixels.
      channels: 1 (grey) or 3 (RGB), whatever the file holds.

    Returns:
      uint8 [height, width, channels].

    Raises:
      UserError: the file is missing or no readable image.
    """
    if channels not in _MODES:
        raise UserError(
            f"image files hold 1 or 3 channels, and this network takes {channels}"
        )
    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):  # Pillow would cut them off at 255
                raise UserError(
                    f"{path} has more than 8 bits per channel; save it with 8"
                )
            # Cameras store how they were held instead of turning the pixels.
            image = ImageOps.exif_transpose(file).convert(_MODES[channels])
    except FileNotFoundError:
        raise UserError(f"there is no image {path}") from None
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"{path} is not a readable image ({error})") from None
    pixels = np.asarray(crop(image, size))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scales an image to cover `size` (bicubic) and cuts out its centre."""
    height, width = size
    scale = max(height / image.height, width / image.width)
    covering = (
        max(round(image.width * scale), width),
        max(round(image.height * scale), height),
    )
    if covering != image.size:
        image = image.resize(covering, Image.Resampling.BICUBIC)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
