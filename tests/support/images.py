"""Images, files of them, folders of such files, and what is read of them."""

import io
import itertools

import numpy as np
from PIL import Image

SIZE = (12, 10)  # height, width


def pixels(seed, size=SIZE, channels=3):
    """Smooth, so that a JPEG of it is not noise."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (3, 3, channels), np.uint8)
    image = Image.fromarray(small.squeeze()).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    return np.asarray(image)


def encoded(image, form, **settings):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, form, **settings)
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def fill(root, counts, classes=("ant", "bee", "cat"), size=SIZE):
    """PNG files of random colours; `counts` of images by split, for each class."""
    seed = itertools.count()
    for split, count in counts.items():
        for name in classes:
            for n in range(count):
                content = encoded(pixels(next(seed), size), "PNG")
                write(root / split / name / f"{n:03}.png", content)
    return root


def everything(split):
    return [split.read(i) for i in range(len(split))]


def same(part, expected):
    assert len(part) == len(expected)
    for (image, label), (pixels, number) in zip(part, expected, strict=True):
        assert (image.dtype, type(label)) == (np.uint8, int)
        np.testing.assert_array_equal(image, pixels)
        assert label == number


def stacked(split):
    """``image`` and ``label`` of all images, stacked, as arrays in a file."""
    images, labels = zip(*(split.read(i) for i in range(len(split))), strict=True)
    return {"image": np.stack(images), "label": np.asarray(labels, np.int32)}


def png(path):
    """The pixels of a PNG file."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))
