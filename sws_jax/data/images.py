"""Decoding of images to RGB or grey pixels of 8 bits, whatever the file holds."""

from __future__ import annotations

import io
import os
import stat

import numpy as np
from PIL import Image, UnidentifiedImageError

from sws_jax.data.base import Unreadable
from sws_jax.errors import UserError
from sws_jax.specs.limits import DECODERS

_MODES = {1: "L", 3: "RGB"}
# The operation that makes an image upright, by the value of EXIF's orientation.
_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
    """The content of an image file.

    Raises:
      Unreadable: naming the file.
    """
    try:
        # Without waiting: a pipe would be opened only when something writes to it.
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable(f"{path} is not a readable image (no regular file)")
            return file.read()
    except FileNotFoundError:
        raise Unreadable(f"there is no image {path}") from None
    except OSError as error:
        reason = error.strerror or error
        raise Unreadable(f"{path} is not a readable image ({reason})") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode(
    encoded: bytes, name: str, *, channels: int = 3, decoder: str = "pillow"
) -> np.ndarray:
    """The pixels of an encoded image, turned upright as EXIF says.

    Args:
      encoded: JPEG, PNG, WebP or another format that the decoder knows.
      name: for messages.
      channels: 1 (grey) or 3 (RGB); the image is converted.
      decoder: "pillow", or "opencv"; see `check_decoder`. The two differ by a few
        grey levels in a JPEG, and in the formats that they know. Of sixteen bits both
        keep the upper eight.

    Returns:
      uint8 [height, width, channels].

    Raises:
      Unreadable: naming the image.
    """
    if decoder == "opencv":
        return _opencv(encoded, name, channels)
    try:
        image = _pillow(encoded, _MODES[channels])
    except Exception as error:  # of any kind: a damaged file can raise each of them
        raise Unreadable(f"{name} is not a readable image ({_reason(error)})") from None
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _pillow(encoded: bytes, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(encoded)) as file:
        image: Image.Image = file
        if file.mode.startswith("I;16"):  # Pillow would cut it off at 255
            image = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))
        elif file.mode.startswith(("I", "F")):
            raise ValueError("more than 16 bits per channel")
        transposition = _TRANSPOSITIONS.get(_orientation(file))
        if transposition is not None:
            image = image.transpose(transposition)
        return image.convert(mode)


def _orientation(file: Image.Image) -> int:
    """EXIF's orientation; that of an upright image where EXIF is missing or damaged."""
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


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

    # OpenCV would write to stderr what is raised here in one sentence.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    _check_header(encoded, name)
    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    try:
        data = np.frombuffer(encoded, np.uint8)
        pixels = cv2.imdecode(data, flag) if encoded else None
    except cv2.error:  # larger than OpenCV allows
        pixels = None
    if pixels is None:
        raise Unreadable(f"{name} is not a readable image (OpenCV cannot decode it)")
    return pixels[..., None] if channels == 1 else pixels[..., ::-1]


def _check_header(encoded: bytes, name: str) -> None:
    """Refuses what Pillow does: OpenCV would allocate gigabytes for a false header."""
    try:
        Image.open(io.BytesIO(encoded)).close()
    except Exception as error:  # of any kind, as in `decode`
        raise Unreadable(f"{name} is not a readable image ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Pillow's reason, without the address of the bytes in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"
    return str(error).replace(f"{io.BytesIO.__module__}.BytesIO object", "data")
