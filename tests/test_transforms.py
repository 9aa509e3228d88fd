"""Crops and resizing of images on the host, with and without randomness."""

import numpy as np
import pytest
from PIL import Image

from sws_jax.data import randaugment, transforms
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def generator(seed=0):
    return np.random.default_rng(seed)


def noise(*shape):
    return generator().integers(0, 256, shape, np.uint8)


def gradient(height, width, channels):
    """Each channel grows along y and x, at a rate of its own."""
    y, x = np.mgrid[:height, :width]
    planes = [(c + 1) * (y + 1) / height + 2 * x / width for c in range(channels)]
    return np.stack([255 * p / p.max() for p in planes], -1).astype(np.uint8)


def by_hand(image, size, box=None):
    """Pillow's bicubic, channel by channel."""
    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
            size[::-1], Image.Resampling.BICUBIC, box
        )
        for c in range(image.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "shape, size, crop, scaled, top, left",
    [
        ((256, 256), (224, 224), 0.875, (256, 256), 16, 16),
        ((300, 400), (224, 224), 0.875, (256, 341), 16, 58),
        ((400, 300), (224, 224), 0.875, (341, 256), 58, 16),
        ((410, 300), (224, 224), 0.875, (349, 256), 62, 16),
        ((300, 410), (224, 224), 0.875, (256, 349), 16, 62),
        ((100, 50), (32, 32), 0.875, (72, 36), 20, 2),
        ((20, 20), (32, 32), 0.875, (36, 36), 2, 2),  # larger
        ((20, 30), (32, 32), 1.0, (32, 48), 0, 8),
        ((60, 60), (48, 32), 1.0, (48, 48), 0, 8),  # not square
        ((60, 60), (16, 24), 0.5, (48, 48), 16, 12),
        ((1, 1), (4, 4), 1.0, (4, 4), 0, 0),
        ((3, 90), (6, 6), 1.0, (6, 180), 0, 87),
    ],
)
def test_fit(channels, shape, size, crop, scaled, top, left):
    """Scaled to cover size / crop, then the centre. As torchvision does: a fraction of
    a pixel is cut off the longer side, and half a pixel of offset goes to the even one.
    """
    image = gradient(*shape, channels)
    view = Fit(size, crop)(image)
    whole = by_hand(image, scaled)
    expected = whole[top : top + size[0], left : left + size[1]]
    assert (view.shape, view.dtype) == ((*size, channels), np.uint8)
    np.testing.assert_array_equal(view, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_fit_leaves_what_fits(channels):
    image = noise(7, 9, channels)
    np.testing.assert_array_equal(Fit((7, 9))(image), image)


@pytest.mark.parametrize(
    "shape, size, crop, scaled, top, left",
    [
        ((30, 60), (32, 32), 1.0, (32, 32), 0, 0),
        ((60, 30), (32, 32), 0.8, (40, 40), 4, 4),
        ((30, 60), (16, 24), 0.5, (32, 48), 8, 12),
        ((2, 900), (6, 6), 1.0, (6, 6), 0, 0),
    ],
)
def test_fit_that_squeezes(shape, size, crop, scaled, top, left):
    """Each side on its own, so that all of a long image is seen."""
    image = gradient(*shape, 3)
    view = Fit(size, crop, crop_mode="squash")(image)
    expected = by_hand(image, scaled)[top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(view, expected)


def test_fit_keeps_the_middle():
    """A crop of 1/2 shows the central half of each side, at the size asked for."""
    y, x = np.mgrid[:64, :64]
    image = np.stack([2 * y + 50, 2 * x + 50], -1).astype(np.uint8)
    view = Fit((32, 32), 0.5)(image)
    np.testing.assert_array_equal(view, image[16:48, 16:48])


@pytest.mark.parametrize("crop", [0.0, -0.5, 1.01, float("nan")])
def test_impossible_crops_are_refused(crop):
    with pytest.raises(UserError, match=f"crop must be .*, and is {crop}"):
        Fit((4, 4), crop)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_resize(channels):
    image = noise(20, 30, channels)
    for size in ((10, 12), (40, 31), (20, 12)):
        resized = transforms.resize(image, size)
        np.testing.assert_array_equal(resized, by_hand(image, size))
    np.testing.assert_array_equal(transforms.resize(image, (20, 30)), image)


def test_resize_is_antialiased():
    """Alternate columns become grey, except near the border."""
    image = np.tile(np.asarray([0, 255], np.uint8), (32, 16))[..., None]
    resized = transforms.resize(image, (8, 8)).astype(int)
    assert np.abs(resized[:, 2:-2] - 127.5).max() < 8


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1, 2, 3, 4, 6])
def test_a_padded_crop_is_any_window(padding, channels):
    """Also where the border is wider than the image."""
    image = 1 + np.arange(3 * 4 * channels, dtype=np.uint8).reshape(3, 4, channels)
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    expected = {
        padded[r : r + 3, c : c + 4].tobytes()
        for r, c in np.ndindex(2 * padding + 1, 2 * padding + 1)
    }
    random, windows = generator(), set()
    for _ in range(15 * (2 * padding + 1) ** 2):
        crop = transforms.padded_crop(image, random, padding)
        assert (crop.shape, crop.dtype) == (image.shape, np.uint8)
        windows.add(crop.tobytes())
    assert windows == expected
    if padding < 3:  # else some of them are black
        assert len(windows) == (2 * padding + 1) ** 2


def test_padded_crops_are_uniform():
    """2500 draws of 25 windows: four deviations are 39."""
    image = noise(5, 5, 1)
    random = generator()
    crops = [transforms.padded_crop(image, random, 2).tobytes() for _ in range(2500)]
    counts = np.unique(crops, return_counts=True)[1]
    assert len(counts) == 25 and np.abs(counts - 100).max() <= 39


def boxes(shape, scale=SCALE, ratio=RATIO, number=400):
    random = generator()
    return [transforms.crop_box(shape, random, scale, ratio) for _ in range(number)]


@pytest.mark.parametrize("shape", [(100, 100), (90, 160), (160, 90), (37, 23), (5, 6)])
@pytest.mark.parametrize("scale", [SCALE, (0.3, 0.4), (0.5, 0.5)])
@pytest.mark.parametrize("ratio", [RATIO, (1.0, 1.0), (0.5, 0.6)])
def test_area_and_aspect_of_a_box(shape, scale, ratio):
    """Within the limits, but for sides in whole pixels. Where nothing fits, the area
    is that of the largest part of an allowed aspect."""
    height, width = shape
    aspect = np.clip(width / height, *ratio)
    largest = min(width, height * aspect) * min(height, width / aspect)
    least = min(scale[0] * height * width, largest)
    for top, left, h, w in boxes(shape, scale, ratio):
        assert all(isinstance(side, int) for side in (top, left, h, w))
        assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width
        assert (w + 0.5) * (h + 0.5) >= least
        assert (w - 0.5) * (h - 0.5) <= max(scale[1] * height * width, largest)
        assert (w + 0.5) / (h - 0.5) >= ratio[0]
        assert (w - 0.5) / (h + 0.5) <= ratio[1]


def test_distribution_of_boxes():
    """Where every box fits: the area is uniform, and so is the logarithm of the
    aspect. 2000 draws, four deviations; the mean of the aspect itself is not 1."""
    _, _, h, w = np.asarray(boxes((1000, 1000), (0.1, 0.5), number=2000)).T
    area, aspect = h * w / 1e6, np.log(w / h) / np.log(4 / 3)
    for values, low, high in ((area, 0.1, 0.5), (aspect, -1.0, 1.0)):
        span = high - low
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.026 * span)
        assert values.std() == pytest.approx(span / 12**0.5, rel=0.06)
        assert low - 0.01 < values.min() < low + 0.01 * span
        assert high - 0.01 * span < values.max() < high + 0.01
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.09


def test_boxes_are_anywhere():
    """Of 4 x 4 pixels in 8 x 8: 25 places, 2500 draws, four deviations of 39."""
    drawn = boxes((8, 8), (0.25, 0.25), (1.0, 1.0), number=2500)
    assert {box[2:] for box in drawn} == {(4, 4)}
    places, counts = np.unique([box[:2] for box in drawn], axis=0, return_counts=True)
    np.testing.assert_array_equal(places, list(np.ndindex(5, 5)))
    assert np.abs(counts - 100).max() <= 39


@pytest.mark.parametrize(
    "shape, ratio, box",
    [
        ((1000, 10), RATIO, (493, 0, 13, 10)),
        ((10, 1000), RATIO, (0, 493, 10, 13)),
        ((1, 1000), RATIO, (0, 499, 1, 1)),
        ((1000, 1), (2.0, 3.0), (500, 0, 1, 1)),
        ((1, 1000), (0.2, 0.3), (0, 500, 1, 1)),
    ],
)
def test_extreme_images_give_their_centre(shape, ratio, box):
    """.08 of the area is wider than the image at any allowed aspect."""
    drawn = set(boxes(shape, ratio=ratio, scale=(0.08, 1.0)))
    assert drawn == {box}


def test_an_image_of_an_allowed_aspect_is_taken_whole():
    for top, left, h, w in boxes((100, 130), (1.0, 1.0)):
        assert h >= 99 and w >= 129 and top <= 1 and left <= 1


def test_ten_draws():
    """Sides of sqrt(8000 a) and sqrt(8000 / a) must be below 100.5. 4000 images, four
    deviations."""
    fits = np.log(100.5**2 / 8000) / np.log(4)
    drawn = boxes((100, 100), (0.8, 0.8), (1 / 4, 4.0), number=4000)
    whole = np.mean([box == (0, 0, 100, 100) for box in drawn])
    assert whole == pytest.approx((1 - fits) ** 10, abs=0.023)


def test_one_pixel():
    assert set(boxes((1, 1))) == {(0, 0, 1, 1)}
    image = np.asarray([[[10, 20, 30]]], np.uint8)
    crop = transforms.resized_crop(image, generator(), (3, 2), SCALE, RATIO)
    np.testing.assert_array_equal(crop, np.tile(image, (3, 2, 1)))


def test_a_strip_is_not_scaled_as_a_whole():
    """2,000 pixels would be 448,000; the middle is the same."""
    strip = np.zeros((1, 2001, 3), np.uint8)
    strip[:, 990:1011] = 200
    assert (Fit((224, 224))(strip) == 200).all()
    assert (Fit((8, 8))(strip.transpose(1, 0, 2)) == 200).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize(
    "shape, size, crop",
    [
        ((7, 300), (32, 32), 1.0),
        ((62, 500), (32, 32), 0.875),
        ((62, 5000), (8, 8), 0.8),
        ((1501, 40), (24, 36), 0.9),
        ((90, 900), (64, 64), 0.95),
    ],
)
def test_a_long_image_is_scaled_where_it_is_looked_at(shape, size, crop, interpolation):
    """Up to rounding (a level or two, of a few pixels) as if scaled as a whole."""
    image = noise(*shape, 3)
    fit = Fit(size, crop, interpolation)
    cover = [int(side / crop) for side in size]
    scaled = fit._covering(tuple(cover), *shape)
    assert max(scaled[0] / cover[0], scaled[1] / cover[1]) > 4
    top, left = (round((scaled[i] - size[i]) / 2) for i in (0, 1))
    whole = transforms.resize(image, scaled, interpolation)
    expected = whole[top : top + size[0], left : left + size[1]].astype(int)
    differences = np.abs(fit(image).astype(int) - expected)
    assert differences.max() <= 2 and (differences > 0).mean() < 0.01


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_resized_crop(channels):
    image = noise(20, 30, channels)
    for seed in range(20):
        box = transforms.crop_box((20, 30), generator(seed), SCALE, RATIO)
        top, left, height, width = box
        crop = transforms.resized_crop(image, generator(seed), (8, 9), SCALE, RATIO)
        part = image[top : top + height, left : left + width]
        expected = by_hand(part, (8, 9))
        np.testing.assert_array_equal(crop, expected)


def test_a_resized_crop_of_everything_is_a_resize():
    image = noise(20, 20, 3)
    ones = (1.0, 1.0)
    crop = transforms.resized_crop(image, generator(), (9, 9), ones, ones)
    np.testing.assert_array_equal(crop, transforms.resize(image, (9, 9)))


def test_a_flip_mirrors_half_of_the_images():
    """400 draws: four deviations are .1."""
    image, random = noise(3, 4, 2), generator()
    flip = Transform(flip=True)
    results = np.asarray([flip(image, random, (3, 4)) for _ in range(400)])
    same = (results == image).all(axis=(1, 2, 3))
    mirrored = (results == image[:, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


@pytest.mark.parametrize("shape", [(20, 30), (8, 9), (5, 4)])
def test_nothing_on_is_the_view_of_the_evaluation(shape):
    image = noise(*shape, 3)
    view = Transform()(image, generator(), (8, 9))
    np.testing.assert_array_equal(view, Fit((8, 9))(image))


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_padded(padding):
    """Fitted to the size first: an image of another size is cropped as well."""
    settings = Transform(crop="padded", padding=padding)
    for shape in ((8, 9), (20, 30)):
        image = noise(*shape, 3)
        crop = settings(image, generator(1), (8, 9))
        fitted = Fit((8, 9))(image)
        expected = transforms.padded_crop(fitted, generator(1), padding)
        np.testing.assert_array_equal(crop, expected)


def test_resized():
    """The limits of a config reach the crop."""
    image = noise(40, 60, 3)
    settings = Transform(crop="resized", scale=(0.2, 0.3), ratio=(0.9, 1.1))
    for seed in range(10):
        crop = settings(image, generator(seed), (8, 9))
        expected = transforms.resized_crop(
            image, generator(seed), (8, 9), (0.2, 0.3), (0.9, 1.1)
        )
        np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment(channels):
    """Its fields reach the operations."""
    image = noise(12, 12, channels)
    settings = Transform(randaugment=3, magnitude=4.0, magnitude_std=1.5)
    for seed in range(20):
        augmented = settings(image, generator(seed), (12, 12))
        expected = randaugment.apply(
            image, generator(seed), number=3, magnitude=4.0, std=1.5
        )
        np.testing.assert_array_equal(augmented, expected)


FULL = dict(padding=2, flip=True, randaugment=2)


@pytest.mark.parametrize("crop", transforms.CROPS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (8, 6), (3, 50), (50, 3), (30, 40)])
def test_the_size_asked_for(crop, channels, shape):
    fields = dict(FULL, crop=crop, randaugment=2 if channels in (1, 3) else 0)
    settings = Transform(**fields)
    settings.check_channels(channels)
    image = noise(*shape, channels)
    before = image.copy()
    for seed in range(6):
        result = settings(image, generator(seed), (8, 6))
        assert (result.shape, result.dtype) == ((8, 6, channels), np.uint8)
        again = settings(image, generator(seed), (8, 6))
        np.testing.assert_array_equal(result, again)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("crop", transforms.CROPS)
def test_generators_differ(crop):
    settings = Transform(crop=crop, **FULL)
    image = noise(30, 40, 3)
    results = {settings(image, generator(s), (24, 24)).tobytes() for s in range(20)}
    assert len(results) > 10


def test_lists_of_a_config():
    lists = Transform(scale=[0.5, 1.0], ratio=[1, 2])
    assert lists == Transform(scale=(0.5, 1.0), ratio=(1, 2))
    assert hash(lists) == hash(Transform(scale=(0.5, 1.0), ratio=(1, 2)))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(crop="centre"), "no transform.crop 'centre': .* none, padded, resized"),
        (dict(padding=-1), "transform.padding and .*randaugment cannot be below 0"),
        (dict(randaugment=-1), "transform.padding and .*randaugment cannot be below 0"),
        (dict(scale=(0.0, 1.0)), r"scale must be .* above 0 and up to 1.*\(0.0, 1.0"),
        (dict(scale=(0.5, 1.5)), "transform.scale must be two numbers"),
        (dict(scale=(0.8, 0.5)), "the smaller one first"),
        (dict(scale=(0.8,)), "transform.scale must be two numbers"),
        (dict(scale=(0.1, 0.5, 1.0)), "transform.scale must be two numbers"),
        (dict(scale=(NAN, 1.0)), "transform.scale must be two numbers"),
        (dict(ratio=(0.0, 1.0)), "transform.ratio must be .* above 0, and is"),
        (dict(ratio=(2.0, 1.0)), "transform.ratio must be two numbers"),
        (dict(ratio=(1.0, NAN)), "transform.ratio must be two numbers"),
        (dict(ratio=(1.0, INF)), "transform.ratio must be two numbers"),
        (dict(ratio=()), "transform.ratio must be two numbers"),
        (dict(magnitude=-0.1), "magnitude goes from 0 to 10 .* are -0.1 and 0.5"),
        (dict(magnitude=10.1), "magnitude goes from 0 to 10"),
        (dict(magnitude=NAN), "magnitude goes from 0 to 10"),
        (dict(magnitude_std=-1.0), "its deviation from 0 on.* 9.0 and -1.0"),
        (dict(magnitude_std=INF), "its deviation from 0 on"),
        (dict(magnitude_std=NAN), "its deviation from 0 on"),
    ],
)
def test_impossible_settings_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        Transform(**fields)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels(channels):
    Transform().check_channels(channels)
    settings = Transform(randaugment=1)
    if channels in (1, 3):
        settings.check_channels(channels)
    else:
        words = f"grey or RGB images, and these have {channels} channels: set"
        with pytest.raises(UserError, match=words):
            settings.check_channels(channels)
