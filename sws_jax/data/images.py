"""Encoded images, decoded: RGB or grey, 8 bits, whatever the file holds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sws_jax.data.base import Unreadable
from sws_jax.errors import UserError

DECODERS = ("pillow", "opencv")
_MODES = {1: "L", 3: "RGB"}
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
)


def read(path: str, *, channels: int) -> np.ndarray:
    """The pixels of an image file.

    Args:
      path: of a file that Pillow reads.
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
    return decode(read_bytes(path), path, channels=channels)


def read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise Unreadable(f"there is no image {path}") from None
    except OSError as error:
        raise Unreadable(f"{path} is not a readable image ({error})") from None


def decode(
    encoded: bytes, name: str, *, channels: int = 3, decoder: str = "pillow"
) -> np.ndarray:
    """The pixels of an encoded image, turned as its camera was held.

    Args:
      encoded: JPEG, PNG, WebP or whatever else the decoder knows.
      name: for messages.
      channels: 1 (grey) or 3 (RGB); the image is converted.
      decoder: "pillow", or "opencv" (see `check_decoder`). The two differ by a few
        grey levels in a JPEG.

    Returns:
      uint8 [height, width, channels].

    Raises:
      Unreadable: naming the image.
    """
    if decoder == "opencv":
        return _opencv(encoded, name, channels)
    try:
        with Image.open(io.BytesIO(encoded)) as file:
            if file.mode.startswith(("I", "F")):  # Pillow would cut them off at 255
                raise Unreadable(
                    f"{name} has more than 8 bits per channel; save it with 8"
                )
            image = ImageOps.exif_transpose(file).convert(_MODES[channels])
    except Unreadable:
        raise
    except _UNREADABLE as error:
        reason = str(error).replace(f"{io.BytesIO.__module__}.BytesIO object", "data")
        if isinstance(error, UnidentifiedImageError):
            reason = "cannot identify image file"
        raise Unreadable(f"{name} is not a readable image ({reason})") from None
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def check_decoder(decoder: str) -> None:
    """Refuses a decoder that is unknown or not installed.

    Raises:
      UserError: naming what to do.
    """
    if decoder not in DECODERS:
        raise UserError(
            f"there is no data.decoder {decoder!r}: it is one of {', '.join(DECODERS)}"
        )
    if decoder == "opencv":
        try:
            import cv2  # noqa: F401
        except ImportError:
            raise UserError(
                "data.decoder is opencv, which is not installed: pip install "
                "opencv-python-headless, or leave the field at pillow"
            ) from None


def _opencv(encoded: bytes, name: str, channels: int) -> np.ndarray:
    import cv2

    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag) if encoded else None
    if pixels is None:
        raise Unreadable(f"{name} is not a readable image (OpenCV cannot decode it)")
    return pixels[..., None] if channels == 1 else pixels[..., ::-1]
