"""The operations of RandAugment, one by one, and their choice."""

import numpy as np
import pytest
from PIL import Image

from sws_jax.data import randaugment

NAMES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
ENHANCING = list(NAMES[7:11])
MOVING = ["Rotate", *NAMES[11:]]
FILL = {3: (124, 116, 104), 1: (117,)}
HEIGHT, WIDTH = 20, 40
# Lowest value and end of each channel; 255 is 5, 3 and 15 times what is between.
LIMITS = ((50, 102), (100, 186), (3, 21))


def noise(channels=3, *, low=0, high=256, shape=(HEIGHT, WIDTH)):
    """Random pixels in low..high - 1."""
    random = np.random.default_rng(0)
    return random.integers(low, high, (*shape, channels), np.uint8)


def changed(name, image, level, seed=0):
    """One operation, from numpy to numpy."""
    grey = image.shape[-1] == 1
    before = Image.fromarray(image[..., 0] if grey else image)
    operation = randaugment.OPERATIONS[name]
    after = np.asarray(operation(before, level, np.random.default_rng(seed)))
    assert after.dtype == np.uint8
    return after.reshape(image.shape)


def outcomes(name, image, level):
    """The two results of an operation with a random sign."""
    results = [changed(name, image, level, seed) for seed in range(20)]
    different = {after.tobytes(): after for after in results}
    assert len(different) == 2
    return list(different.values())


def luma(image):
    """ITU-R 601, rounded."""
    if image.shape[-1] == 1:
        return image.astype(float)
    return np.floor(image @ np.asarray([0.299, 0.587, 0.114]) + 0.5)[..., None]


def blended(grounds, image, factor):
    """Pillow cuts the fraction off; a value that should be whole may fall short."""
    exact = grounds + factor * (image.astype(float) - grounds)
    return np.clip(np.floor(exact + 1e-3), 0, 255)


def assert_blends(name, grounds, image, level):
    """The two results are those of the two signs."""
    factors = (1 + 0.9 * level, max(1 - 0.9 * level, 0.1))
    expected = [blended(grounds, image, factor) for factor in factors]
    results = outcomes(name, image, level)
    if (np.abs(results[0] - expected[0]) > 1).any():
        results.reverse()
    for after, values in zip(results, expected, strict=True):
        # One grey level, as the factor is a float32 in Pillow; and that rarely.
        assert np.abs(after - values).max() <= 1
        assert (after == values).mean() > 0.95


def test_the_fifteen_operations():
    assert tuple(randaugment.OPERATIONS) == NAMES


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast(channels):
    """Each channel is stretched by itself."""
    image = np.stack(
        [noise(1, low=low, high=high)[..., 0] for low, high in LIMITS[:channels]], -1
    )
    expected = image.astype(int)
    for c, (low, high) in enumerate(LIMITS[:channels]):
        assert (image[..., c].min(), image[..., c].max()) == (low, high - 1)
        expected[..., c] = (expected[..., c] - low) * (255 // (high - 1 - low))
    np.testing.assert_array_equal(changed("AutoContrast", image, 0.9), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize(channels):
    """A value becomes the number of lower pixels, in steps of 1/255 of all but those
    of the highest value."""
    image = noise(channels, low=60, high=120)
    expected = np.empty_like(image)
    for c in range(channels):
        counts = np.bincount(image[..., c].reshape(-1), minlength=256)
        step = (image[..., c].size - counts[119]) // 255
        below = np.concatenate([[0], np.cumsum(counts)[:-1]])
        table = np.minimum((below + step // 2) // step, 255)
        expected[..., c] = table[image[..., c]]
    np.testing.assert_array_equal(changed("Equalize", image, 0.9), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_invert(channels):
    image = noise(channels)
    np.testing.assert_array_equal(changed("Invert", image, 0.9), 255 - image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "level, mask",
    [(0.0, 0xF0), (0.24, 0xF0), (0.25, 0xE0), (0.5, 0xC0), (0.9, 0x80), (1.0, 0)],
)
def test_posterize(channels, level, mask):
    image = noise(channels)
    np.testing.assert_array_equal(
        changed("PosterizeIncreasing", image, level), image & mask
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "level, threshold", [(0.0, 256), (0.5, 128), (0.9, 26), (1, 0)]
)
def test_solarize(channels, level, threshold):
    image = noise(channels)
    expected = np.where(image >= threshold, 255 - image, image)
    np.testing.assert_array_equal(changed("SolarizeIncreasing", image, level), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level, amount", [(0.0, 0), (0.5, 55), (0.93, 102), (1, 110)])
def test_solarize_add(channels, level, amount):
    image = noise(channels)
    expected = np.where(image < 128, np.minimum(image.astype(int) + amount, 255), image)
    np.testing.assert_array_equal(changed("SolarizeAdd", image, level), expected)


@pytest.mark.parametrize("level", [0.3, 0.9, 1.0])
def test_colour(level):
    image = noise()
    assert_blends("ColorIncreasing", luma(image), image, level)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0.3, 0.9, 1.0])
def test_contrast(channels, level):
    image = noise(channels)
    mean = np.floor(luma(image).mean() + 0.5)
    assert_blends("ContrastIncreasing", mean, image, level)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0.3, 0.9, 1.0])
def test_brightness(channels, level):
    assert_blends("BrightnessIncreasing", 0.0, noise(channels), level)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0.3, 0.9, 1.0])
def test_sharpness(channels, level):
    """The border has no neighbours and stays as it is."""
    image = noise(channels)
    smooth = image.astype(float)
    near = np.ndindex(3, 3)
    around = sum(smooth[r : HEIGHT - 2 + r, c : WIDTH - 2 + c] for r, c in near)
    smooth[1:-1, 1:-1] = np.floor((around + 4 * smooth[1:-1, 1:-1]) / 13 + 0.5)
    assert_blends("SharpnessIncreasing", smooth, image, level)


def test_sharpness_of_one_dot():
    """A dot of 130 is smoothed to 5/13 of it, 50. Half or one and a half of the
    difference of 80 stay."""
    image = np.zeros((3, 3, 1), np.uint8)
    image[1, 1] = 130
    results = outcomes("SharpnessIncreasing", image, 0.5 / 0.9)
    less, more = sorted(after[1, 1, 0] for after in results)
    assert (less, more) == (90, 170)
    flat = np.full((5, 5, 3), 77, np.uint8)
    np.testing.assert_array_equal(changed("SharpnessIncreasing", flat, 0.9), flat)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level, columns, rows", [(1.0, 36, 18), (0.5, 18, 9)])
def test_translate(channels, level, columns, rows):
    """.45 of 80 columns are 36, and of 40 rows 18."""
    image = noise(channels, shape=(40, 80))
    empty = np.broadcast_to(np.asarray(FILL[channels], np.uint8), image.shape)
    left = np.concatenate([image[:, columns:], empty[:, :columns]], axis=1)
    right = np.concatenate([empty[:, :columns], image[:, :-columns]], axis=1)
    up = np.concatenate([image[rows:], empty[:rows]])
    down = np.concatenate([empty[:rows], image[:-rows]])
    for name, expected in (
        ("TranslateXRel", (left, right)),
        ("TranslateYRel", (up, down)),
    ):
        results = {after.tobytes() for after in outcomes(name, image, level)}
        assert results == {after.tobytes() for after in expected}


def moved(name, level, sign):
    """The source of every pixel: [height, width] of y and of x, in pixels from the
    upper left corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    if name == "Rotate":
        angle = np.deg2rad(sign * 30 * level)
        down, right = y - HEIGHT / 2, x - WIDTH / 2
        x = np.cos(angle) * right - np.sin(angle) * down + WIDTH / 2
        y = np.sin(angle) * right + np.cos(angle) * down + HEIGHT / 2
        return y, x
    shear = sign * 0.3 * level
    return (y, x + shear * y) if name == "ShearX" else (y + shear * x, x)


def agrees(after, y, x):
    """Whether an image whose channels are 4 x, 4 y and 200 was taken from (y, x)."""
    slack = 1e-6  # for pixels that come from the border itself
    inside = (x > -slack) & (x < WIDTH + slack) & (y > -slack) & (y < HEIGHT + slack)
    sure = (x < -slack) | (x > WIDTH + slack) | (y < -slack) | (y > HEIGHT + slack)
    core = (x > 2) & (x < WIDTH - 2) & (y > 2) & (y < HEIGHT - 2)
    assert core.sum() > 100 and sure.sum() > 10
    # A bicubic curve bends between the points of a straight line, by up to .1 pixels,
    # and Pillow cuts the fraction off.
    lacking = np.stack([4 * x, 4 * y], -1)[core] - after[core][:, :2]
    straight = -0.4 < lacking.min() and lacking.max() < 1.4
    filled = (after == FILL[3]).all(axis=-1)
    return straight and filled[sure].all() and (after[..., 2] == 200)[inside].all()


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY"])
@pytest.mark.parametrize("level", [0.5, 0.9, 1.0])
def test_rotate_and_shear(name, level):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    image = np.stack([4 * x, 4 * y, np.full_like(x, 200)], -1).astype(np.uint8)
    results = outcomes(name, image, level)
    for sign in (-1, 1):
        assert sum(agrees(after, *moved(name, level, sign)) for after in results) == 1


def test_grey_is_one_channel_of_colour():
    """Except for the colour of gaps, both modes give the same image."""
    grey = noise(1)
    colour = np.repeat(grey, 3, axis=-1)
    for name in NAMES:
        if name in MOVING:
            continue
        after = changed(name, colour, 0.7)
        np.testing.assert_array_equal(after[..., :1], changed(name, grey, 0.7), name)
    np.testing.assert_array_equal(changed("ColorIncreasing", grey, 0.7), grey)


@pytest.mark.parametrize("name", MOVING)
def test_gaps_in_grey_images(name):
    moved = changed(name, np.full((HEIGHT, WIDTH, 1), 255, np.uint8), 1.0)
    assert set(np.unique(moved)) == {117, 255}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "name", [*MOVING, *ENHANCING, "SolarizeIncreasing", "SolarizeAdd"]
)
def test_no_magnitude_no_change(name, channels):
    image = noise(channels)
    for seed in range(8):
        np.testing.assert_array_equal(changed(name, image, 0.0, seed), image)


@pytest.mark.parametrize("name", [*MOVING, *ENHANCING])
def test_either_sign_half_of_the_time(name):
    """200 draws: four deviations are .14."""
    image = noise(shape=(6, 8))
    first = changed(name, image, 1.0)
    same = [np.array_equal(changed(name, image, 1.0, s), first) for s in range(200)]
    assert np.mean(same) == pytest.approx(0.5, abs=0.14)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {*MOVING, *ENHANCING}))
def test_without_a_sign_nothing_is_drawn(name):
    random = np.random.default_rng(0)
    image = Image.fromarray(noise())
    randaugment.OPERATIONS[name](image, 0.5, random)
    assert random.random() == np.random.default_rng(0).random()


def drawn(magnitude, std, *, images=4000, number=2):
    random = np.random.default_rng(0)
    return [
        randaugment.draw(random, number=number, magnitude=magnitude, std=std)
        for _ in range(images)
    ]


def test_operations_are_drawn_alike_and_half_are_carried_out():
    """8000 draws. Four deviations are .022 for the half, and 64 for each of fifteen
    operations, of which 267 are expected."""
    plans = drawn(9.0, 0.5)
    names = [name for plan in plans for name, _ in plan]
    assert len(names) / 8000 == pytest.approx(0.5, abs=0.022)
    for name in NAMES:
        assert names.count(name) == pytest.approx(8000 / 30, abs=64)
    # None, one and two: 1/4, 1/2, 1/4. Twice the same: 1/15 of the latter.
    lengths = np.bincount([len(plan) for plan in plans]) / 4000
    np.testing.assert_allclose(lengths, [0.25, 0.5, 0.25], atol=0.032)
    twice = [plan[0][0] == plan[1][0] for plan in plans if len(plan) == 2]
    assert np.mean(twice) == pytest.approx(1 / 15, abs=0.032)


def test_levels_are_normal():
    """4000 levels on a scale of 0 to 1, four deviations of the mean being .0032. A
    magnitude above 10 is 10: 1/44 of them are more than two deviations above 9."""
    levels = np.asarray([level for plan in drawn(5.0, 0.5) for _, level in plan])
    assert levels.mean() == pytest.approx(0.5, abs=0.0032)
    assert levels.std() == pytest.approx(0.05, rel=0.05)
    assert len(np.unique(levels)) == len(levels)
    levels = np.asarray([level for plan in drawn(9.0, 0.5) for _, level in plan])
    assert levels.max() == 1.0
    assert (levels == 1.0).mean() == pytest.approx(1 / 44, abs=0.01)


def test_levels_stay_on_the_scale():
    low, high = (drawn(magnitude, 2.0, images=400) for magnitude in (0.0, 10.0))
    for plans, end in ((low, 0.0), (high, 1.0)):
        levels = np.asarray([level for plan in plans for _, level in plan])
        assert 0.0 <= levels.min() and levels.max() <= 1.0
        assert (levels == end).mean() == pytest.approx(0.5, abs=0.1)


def test_without_a_deviation_the_level_is_fixed():
    assert {level for plan in drawn(9.0, 0.0) for _, level in plan} == {0.9}


def augmented(image, seed, *, number=2, magnitude=9.0, std=0.5):
    random = np.random.default_rng(seed)
    return randaugment.apply(image, random, number=number, magnitude=magnitude, std=std)


@pytest.mark.parametrize("channels", [1, 3])
def test_apply(channels):
    """The drawn operations, one after the other."""
    image = noise(channels, low=40, high=200)
    before = image.copy()
    for seed in range(60):
        result = augmented(image, seed, number=3)
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
        np.testing.assert_array_equal(result, augmented(image, seed, number=3))
        random = np.random.default_rng(seed)
        expected = Image.fromarray(image.squeeze())
        for name, level in randaugment.draw(random, number=3, magnitude=9.0, std=0.5):
            expected = randaugment.OPERATIONS[name](expected, level, random)
        np.testing.assert_array_equal(result.squeeze(), np.asarray(expected))
    np.testing.assert_array_equal(image, before)


def test_seeds_differ():
    """A quarter of the images stay as they are, and autocontrast, equalize and invert
    give the same image each time; the others depend on a magnitude."""
    image = noise(low=40, high=200)
    results = [augmented(image, seed) for seed in range(400)]
    kept = np.mean([np.array_equal(after, image) for after in results])
    assert kept == pytest.approx(0.25, abs=0.09)  # four deviations
    assert len({after.tobytes() for after in results}) > 200


def test_no_operation():
    image = noise()
    np.testing.assert_array_equal(augmented(image, 0, number=0), image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (7, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_images(shape, channels):
    image = noise(channels, shape=shape)
    for name in NAMES:
        for seed in range(2):
            assert changed(name, image, 1.0, seed).shape == image.shape


def test_a_mirrored_view():
    """Not contiguous in memory."""
    image = noise(low=40, high=200)
    for seed in range(8):
        view = augmented(image[:, ::-1], seed)
        np.testing.assert_array_equal(view, augmented(image[:, ::-1].copy(), seed))
