"""Decoding of image files, and resizing to the size of a network."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sws_jax.data import images
from sws_jax.data.base import Unreadable
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError

from support import refusals

RANDOM = np.random.default_rng(0)


def save(path, pixels, **settings):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **settings)
    return str(path)


def refusal(path, **settings):
    return refusals.refusal(images.read, str(path), **{"channels": 3, **settings})


def test_a_photo_is_turned_as_its_camera_was_held(tmp_path):
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = 255  # a white row on top ...
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # ... of a camera turned a quarter clockwise
    image.save(tmp_path / "held.png", exif=exif)
    result = images.read(str(tmp_path / "held.png"), channels=1)
    assert (result[:, -1, 0] == 255).all() and not result[:, :-1].any()


def test_grey(tmp_path):
    pixels = RANDOM.integers(0, 256, (6, 8), np.uint8)
    path = save(tmp_path / "grey.png", pixels)
    result = images.read(path, channels=1)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pixels[..., None])
    result = images.read(path, channels=3)
    np.testing.assert_array_equal(result, np.stack([pixels] * 3, axis=-1))


def test_rgb(tmp_path):
    pixels = RANDOM.integers(0, 256, (6, 8, 3), np.uint8)
    path = save(tmp_path / "rgb.png", pixels)
    result = images.read(path, channels=3)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pixels)
    luma = pixels @ np.asarray([0.299, 0.587, 0.114])  # ITU-R 601
    result = images.read(path, channels=1)
    np.testing.assert_allclose(result[..., 0], luma, atol=1)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette(suffix, tmp_path):
    palette = [(255, 0, 0), (0, 128, 0), (10, 20, 30), (250, 250, 0)]
    indices = RANDOM.integers(0, 4, (6, 8), np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([value for colour in palette for value in colour])
    path = str(tmp_path / f"palette.{suffix}")
    image.save(path)
    with Image.open(path) as file:
        assert file.mode == "P"
    result = images.read(path, channels=3)
    np.testing.assert_array_equal(result, np.asarray(palette)[indices])


def test_cmyk(tmp_path):
    inks = np.asarray(
        [[(0, 0, 0, 0), (0, 255, 255, 0)], [(255, 0, 255, 0), (0, 0, 0, 255)]]
    )
    path = str(tmp_path / "cmyk.tif")
    Image.fromarray(inks.astype(np.uint8), mode="CMYK").save(path)
    white, red, green, black = (255,) * 3, (255, 0, 0), (0, 255, 0), (0,) * 3
    result = images.read(path, channels=3)
    np.testing.assert_array_equal(result, [[white, red], [green, black]])


def test_jpeg(tmp_path):
    path = save(tmp_path / "flat.jpg", np.full((16, 16, 3), (200, 100, 50)))
    result = images.read(path, channels=3)
    np.testing.assert_allclose(result, np.full((16, 16, 3), (200, 100, 50)), atol=3)


@pytest.mark.parametrize(
    "shape, size, rows, columns",
    [
        ((6, 12), (6, 6), (0, 6), (3, 9)),
        ((12, 6), (6, 6), (3, 9), (0, 6)),
        ((8, 8), (4, 8), (2, 6), (0, 8)),
        ((8, 8), (8, 2), (0, 8), (3, 5)),
        ((5, 9), (5, 6), (0, 5), (2, 8)),
    ],
)
def test_the_centre_is_cut_out(shape, size, rows, columns, tmp_path):
    pixels = RANDOM.integers(0, 256, (*shape, 3), np.uint8)
    path = save(tmp_path / "image.png", pixels)
    view = Fit(size)(images.read(path, channels=3))
    np.testing.assert_array_equal(view, pixels[slice(*rows), slice(*columns)])


@pytest.mark.parametrize("turned", [False, True])
def test_the_shorter_side_is_resized(turned, tmp_path):
    """A ramp of 4 per pixel, 16 x 32, is one of 8 per pixel at half the size; the
    middle 8 of its 16 columns start at 2 + 4 x 8."""
    ramp = np.broadcast_to(4 * np.arange(32), (16, 32))
    path = save(tmp_path / "ramp.png", ramp.T if turned else ramp)
    view = Fit((8, 8))(images.read(path, channels=1))[..., 0].astype(int)
    expected = np.broadcast_to(34 + 8 * np.arange(8), (8, 8))
    np.testing.assert_allclose(view.T if turned else view, expected, atol=1)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (100, 1), (7, 300)])
@pytest.mark.parametrize("size", [(8, 8), (9, 4)])
def test_any_shape_fills_the_size(shape, size, tmp_path):
    path = save(tmp_path / "image.png", np.full(shape, 77))
    view = Fit(size)(images.read(path, channels=1))
    np.testing.assert_array_equal(view, np.full((*size, 1), 77))


def test_a_missing_image(tmp_path):
    path = tmp_path / "none.png"
    assert refusal(path) == f"there is no image {path}"


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_image(suffix, share, tmp_path):
    path = tmp_path / f"image.{suffix}"
    save(path, RANDOM.integers(0, 256, (40, 40, 3)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert f"{path} is not a readable image" in refusal(path)


def test_no_image_at_all(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not pixels")
    assert f"{path} is not a readable image" in refusal(path)
    assert f"{tmp_path} is not a readable image" in refusal(tmp_path)


def test_an_image_that_claims_to_be_huge(tmp_path):
    path = tmp_path / "huge.bmp"
    save(path, np.zeros((4, 4, 3)))
    header = bytearray(path.read_bytes())
    header[18:26] = struct.pack("<ii", 100_000, 100_000)
    path.write_bytes(header)
    assert f"{path} is not a readable image" in refusal(path)


@pytest.mark.parametrize("decoder", images.DECODERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_upper_eight_are_kept(channels, decoder, tmp_path):
    if decoder == "opencv":
        pytest.importorskip("cv2", reason="opencv is not installed")
    path = tmp_path / "deep.png"
    deep = RANDOM.integers(0, 2**16, (8, 6), np.uint16)
    Image.fromarray(deep).save(path)
    result = images.decode(path.read_bytes(), "", channels=channels, decoder=decoder)
    expected = np.repeat(deep[..., None] // 256, channels, axis=2)
    np.testing.assert_array_equal(result, expected)


def test_more_bits_are_refused(tmp_path):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path)
    assert "more than 16 bits per channel" in refusal(path)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_way_to_hold_a_camera(turn, tmp_path):
    """Each of EXIF's eight orientations is undone as it is defined."""
    pixels = RANDOM.integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    path = save(tmp_path / "turned.png", pixels, exif=exif)
    # Rows from the bottom, columns from the right, rows and columns swapped.
    down, right, swapped = {
        1: (False, False, False), 2: (False, True, False), 3: (True, True, False),
        4: (True, False, False), 5: (False, False, True), 6: (True, False, True),
        7: (True, True, True), 8: (False, True, True),
    }[turn]  # fmt: skip
    expected = pixels[:: -1 if down else 1, :: -1 if right else 1]
    expected = expected.swapaxes(0, 1) if swapped else expected
    np.testing.assert_array_equal(images.read(path, channels=3), expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damage_is_an_unreadable_image_and_nothing_else(form, tmp_path):
    """Any byte of a file with EXIF is changed to any other."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a camera", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2001:01:01 00:00:00"
    path = tmp_path / "image"
    image = Image.fromarray(RANDOM.integers(0, 256, (8, 6, 3), np.uint8))
    image.save(path, form, exif=exif)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for value in (0, 0xFF, whole[place] ^ 1):
            damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
            with contextlib.suppress(Unreadable):
                images.decode(damaged, "image")


@pytest.mark.parametrize("side", [20_000, 60_000])
@pytest.mark.parametrize("decoder", images.DECODERS)
def test_a_picture_larger_than_memory(decoder, side, capfd):
    """A header without pixels, for which OpenCV would allocate memory."""
    if decoder == "opencv":
        pytest.importorskip("cv2", reason="opencv is not installed")
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(Unreadable, match="huge.png is not a readable image"):
        images.decode(bytes(content), "huge.png", decoder=decoder)
    assert capfd.readouterr() == ("", "")


def test_networks_of_other_channels_take_no_files(tmp_path):
    path = save(tmp_path / "grey.png", np.zeros((8, 8)))
    assert refusal(path, channels=2).endswith(
        "1 or 3 channels, and this network takes 2"
    )


def test_an_unknown_decoder():
    with pytest.raises(UserError, match="no data.decoder 'jax': .* pillow, opencv"):
        images.check_decoder("jax")


def test_opencv(tmp_path):
    """The same pixels, RGB, where the format loses nothing."""
    pytest.importorskip("cv2", reason="opencv is not installed")
    images.check_decoder("opencv")
    for shape, channels in (((6, 8, 3), 3), ((6, 8), 1), ((6, 8, 4), 3)):
        pixels = RANDOM.integers(0, 256, shape, np.uint8)
        if shape[2:] == (4,):
            pixels[..., 3] = 255  # opaque
        path = save(tmp_path / "image.png", pixels)
        result = images.decode(
            images.read_bytes(path), path, channels=channels, decoder="opencv"
        )
        np.testing.assert_array_equal(result, images.read(path, channels=channels))
    for broken in (b"", b"not pixels"):
        with pytest.raises(Unreadable, match="cat.jpg is not a readable image"):
            images.decode(broken, "cat.jpg", decoder="opencv")
