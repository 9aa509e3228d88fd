"""Random changes of batches on the device: normalisation, erasing, mixup and cutmix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from sws_jax import sharding
from sws_jax.data import augment
from sws_jax.data.augment import Augment
from sws_jax.errors import UserError
from sws_jax.pixels import Normalization, normalize, renormalize

GREY = Normalization((0.5,), (0.25,))
COLOUR = Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 2.0))
KEY = jax.random.key(0)

compiled_mix = jax.jit(
    augment.mix, static_argnames=("mixup", "cutmix", "switch", "group")
)


def pixels(*shape):
    """Random uint8 images."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def mixed(key, x, targets, group, *, mixup=0.0, cutmix=0.0, switch=0.5):
    """`augment.mix`, from numpy to numpy."""
    out, t = compiled_mix(
        key,
        jnp.asarray(x, jnp.float32),
        jnp.asarray(targets, jnp.float32),
        mixup=mixup,
        cutmix=cutmix,
        switch=switch,
        group=group,
    )
    assert out.dtype == t.dtype == jnp.float32
    return np.asarray(out), np.asarray(t)


def partners(batch, group):
    """Position of every image's partner: its group, backwards."""
    return np.arange(batch).reshape(-1, group)[:, ::-1].reshape(-1)


def traceable(batch, height, width):
    """Images of which no two pixels are equal, and one class for each image."""
    x = np.arange(batch * height * width, dtype=np.float32)
    return x.reshape(batch, height, width, 1), np.eye(batch, dtype=np.float32)


def test_normalize():
    images = np.asarray([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    x = normalize(jnp.asarray(images), COLOUR)
    expected = [(0.0 - 0.1) / 0.4, (0.2 - 0.2) / 0.5, (1.0 - 0.3) / 2.0]
    np.testing.assert_allclose(x.reshape(-1), expected, atol=1e-7)
    assert x.dtype == jnp.float32


def test_renormalize():
    other = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    images = jnp.asarray(pixels(2, 3, 4, 3))
    x = normalize(images, COLOUR)
    y = renormalize(x, COLOUR, other)
    np.testing.assert_allclose(y, normalize(images, other), atol=1e-5)
    np.testing.assert_allclose(renormalize(y, other, COLOUR), x, atol=1e-5)


def test_renormalizing_to_the_same_changes_no_bit():
    x = normalize(jnp.asarray(pixels(2, 3, 4, 3)), COLOUR)
    same = Normalization(COLOUR.mean, COLOUR.std)
    np.testing.assert_array_equal(renormalize(x, COLOUR, same), x)


compiled_erase = jax.jit(
    augment.erase, static_argnames=("probability", "area", "aspect")
)


def erased(probability, *, area=(0.02, 1 / 3), aspect=(0.3, 3.3), batch=600, side=40):
    """Images of nines, erased in part, and a mask of the erased pixels."""
    nines = jnp.full((batch, side, side, 2), 9.0)
    images = compiled_erase(
        KEY, nines, probability=probability, area=area, aspect=aspect
    )
    images = np.asarray(images)
    return images, (images != 9.0).all(axis=-1)


def extent(where):
    """Heights and widths of the rectangles; refuses any other shape."""
    rows, columns = where.any(axis=2), where.any(axis=1)
    np.testing.assert_array_equal(where, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # without gaps
        assert (np.abs(np.diff(line.astype(int), axis=1)).sum(axis=1) <= 2).all()
    return rows.sum(axis=1), columns.sum(axis=1)


def test_erasing_takes_rectangles_of_some_images():
    """Shares and aspects as asked for, and all over the image."""
    images, where = erased(0.25)
    hit = where.any(axis=(1, 2))
    assert 0.2 < hit.mean() < 0.3  # 3 deviations of 600 images
    np.testing.assert_array_equal(images[~hit], 9.0)
    _, where = erased(1.0)
    assert where.any(axis=(1, 2)).all()
    tall, wide = extent(where)
    share, ratio = tall * wide / 40**2, tall / wide
    assert share.min() >= 0.01 and share.max() <= 0.35  # rounded to whole pixels
    assert 0.15 < share.mean() < 0.2  # uniform: (.02 + .33) / 2
    assert ratio.min() >= 0.25 and ratio.max() <= 4.0
    assert 0.4 < (tall > wide).mean() < 0.6  # as many upright as lying
    covered = where.mean(axis=0)
    assert covered.min() > 0.0 and covered[20, 20] > covered[0, 0]


def test_erased_squares_are_anywhere():
    """Rows and columns are not correlated: 400 draws, four deviations."""
    _, where = erased(1.0, area=(1 / 16, 1 / 16), aspect=(1.0, 1.0), batch=400, side=16)
    assert [set(sides) for sides in extent(where)] == [{4}, {4}]
    top, left = (where.any(axis=axis).argmax(axis=1) for axis in (2, 1))
    assert set(top) == set(left) == set(range(13))
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.2


def test_erased_pixels_are_noise():
    images, where = erased(1.0)
    noise = images[where]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1.0) < 0.02
    assert len(np.unique(noise)) > 0.9 * noise.size  # for each pixel and channel


def test_an_image_that_no_rectangle_fits_stays_whole():
    images, _ = erased(1.0, area=(1.0, 1.0), batch=8)
    np.testing.assert_array_equal(images, 9.0)


def test_no_erasing():
    images, _ = erased(0.0, batch=50)
    np.testing.assert_array_equal(images, 9.0)


def test_mixup():
    """Lambda is read off the targets: each image is a class of its own."""
    group = 3
    x = np.random.default_rng(0).normal(size=(12, 4, 5, 3)).astype(np.float32)
    out, targets = mixed(KEY, x, np.eye(12), group, mixup=0.8)
    partner = partners(12, group)
    own = np.diag(targets)[::group]
    assert len(np.unique(own)) == 12 // group  # groups draw apart
    assert (0 < own).all() and (own < 1).all()
    lam = np.repeat(own, group)
    expected = lam[:, None] * np.eye(12) + (1 - lam)[:, None] * np.eye(12)[partner]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    lam = lam[:, None, None, None]
    np.testing.assert_allclose(out, lam * x + (1 - lam) * x[partner], atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix(seed):
    group = 4
    x, classes = traceable(8, 7, 5)
    out, targets = mixed(jax.random.key(seed), x, classes, group, cutmix=1.0)
    partner = partners(8, group)
    pasted = out != x
    np.testing.assert_array_equal(out[pasted], x[partner][pasted])
    pasted = pasted[..., 0]
    for start in range(0, 8, group):
        box = pasted[start]
        np.testing.assert_array_equal(pasted[start : start + group], [box] * group)
        rows, columns = box.any(axis=1), box.any(axis=0)
        np.testing.assert_array_equal(box, np.outer(rows, columns))
        for line in (rows, columns):  # one run without a gap
            assert np.abs(np.diff(line.astype(int), prepend=0, append=0)).sum() <= 2
    kept = 1 - pasted.mean(axis=(1, 2))[:, None]
    expected = kept * classes + (1 - kept) * classes[partner]
    np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_the_box_has_an_area_of_one_minus_lambda():
    """A large alpha fixes lambda at 1/2: sides of sqrt(1/2) x 32 = 22.6 and
    sqrt(1/2) x 16 = 11.3, in even whole pixels, less what the border cuts off."""
    x, classes = traceable(128, 32, 16)
    out, _ = mixed(KEY, x, classes, 2, cutmix=1e6)
    boxes = (out != x)[::2, :, :, 0]
    heights, widths = boxes.any(axis=2).sum(axis=1), boxes.any(axis=1).sum(axis=1)
    assert (heights.max(), widths.max()) == (22, 10)
    assert heights.min() >= 11 and widths.min() >= 5  # centred on the border
    corners = boxes[:, [0, 0, -1, -1], [0, -1, 0, -1]].any(axis=0)
    assert corners.all()  # the centre may be anywhere


def black_and_white(switch):
    """Ten thousand pairs of a black image, class 0, and a white one, class 1."""
    x = np.tile(np.asarray([0.0, 1.0])[:, None, None, None], (10_000, 2, 2, 1))
    classes = np.tile(np.eye(2), (10_000, 1))
    return mixed(KEY, x, classes, 2, mixup=0.8, cutmix=1.0, switch=switch)


@pytest.mark.parametrize("switch", [0.0, 0.25, 1.0])
def test_the_switch_is_the_share_of_cutmix(switch):
    """Cutmix leaves every pixel as it was in one of the two images."""
    out, targets = black_and_white(switch)
    whole = np.isin(out, [0.0, 1.0]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(whole[::2], whole[1::2])
    # A lambda of mixup may round to 0 or 1, but rarely.
    assert whole.mean() == pytest.approx(switch, abs=0.02 if switch < 1 else 0.0)
    # Either way the target is the share of each class in the pixels.
    np.testing.assert_allclose(targets[:, 1], out.mean(axis=(1, 2, 3)), atol=1e-5)


def test_lambda_is_beta_distributed():
    """Beta(0.8, 0.8) has mean 1/2 and variance 1 / (4 (2 x 0.8 + 1))."""
    _, targets = black_and_white(switch=0.0)
    lam = targets[::2, 0]
    assert lam.mean() == pytest.approx(0.5, abs=0.01)
    assert lam.var() == pytest.approx(1 / (4 * 2.6), rel=0.04)


def test_cutmix_draws_the_published_lambda():
    """Beta(1) is uniform: boxes of sqrt(1 - lambda) of each side, a centre anywhere,
    cut off at the border; ten thousand of them, drawn here once more with numpy."""
    size, pairs = 16, 10_000
    x = np.tile(np.asarray([0.0, 1.0])[:, None, None, None], (pairs, size, size, 1))
    classes = np.tile(np.eye(2), (pairs, 1))
    _, targets = mixed(KEY, x, classes, 2, cutmix=1.0)
    random = np.random.default_rng(0)
    half = (np.sqrt(random.uniform(size=pairs)) * size).astype(int) // 2
    sides = []
    for _ in range(2):
        centre = random.integers(0, size, pairs)
        ends = [np.clip(centre + sign * half, 0, size) for sign in (-1, 1)]
        sides.append(ends[1] - ends[0])
    kept = 1 - sides[0] * sides[1] / size**2
    lambdas = targets[::2, 0]
    assert lambdas.mean() == pytest.approx(kept.mean(), abs=0.01)
    assert lambdas.std() == pytest.approx(kept.std(), abs=0.01)
    assert (lambdas == 1).mean() == pytest.approx((kept == 1).mean(), abs=0.01)


def test_nothing_on_leaves_the_batch_alone():
    images, labels = pixels(6, 4, 4, 1), np.asarray([3, 1, 4, 1, 0, 2])
    x, targets = Augment()(KEY, jnp.asarray(images), jnp.asarray(labels), 5, GREY)
    expected = (images / 255.0 - 0.5) / 0.25
    np.testing.assert_allclose(x, expected, atol=1e-6)
    np.testing.assert_array_equal(targets, np.eye(5)[labels])


def test_mixing_smoothed_labels():
    """No group means the whole batch: the partner of image i is image 3 - i."""
    settings = Augment(mixup=1.0, label_smoothing=0.2)
    images, labels = pixels(4, 4, 4, 1), np.arange(4)
    run = jax.jit(lambda *batch: settings(KEY, *batch, 5, GREY))
    x, targets = (np.asarray(part) for part in run(images, labels))
    smooth = 0.04 + 0.8 * np.eye(4, 5)
    lam = (targets[0, 0] - 0.04) / 0.8
    assert 0 < lam < 1
    expected = lam * smooth + (1 - lam) * smooth[::-1]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    plain = (images / 255.0 - 0.5) / 0.25
    np.testing.assert_allclose(x, lam * plain + (1 - lam) * plain[::-1], atol=1e-5)


FULL = dict(erase=0.5, mixup=0.8, cutmix=1.0, label_smoothing=0.1)


@functools.cache
def compiled(group, mesh=None):
    """Everything on; a batch of 16, split over the mesh if there is one."""
    settings = Augment(**FULL, mix_group=group)

    def run(key, images, labels):
        return settings(key, images, labels, 10, GREY)

    images = jax.ShapeDtypeStruct((16, 6, 6, 1), np.uint8)
    labels = jax.ShapeDtypeStruct((16,), np.int32)
    places = {}
    if mesh is not None:
        rows = sharding.batch_sharding(mesh)
        in_shardings = (sharding.replicated(mesh), rows, rows)
        places = dict(in_shardings=in_shardings, out_shardings=rows)
    return jax.jit(run, **places).lower(KEY, images, labels).compile()


def augmented(key, group, mesh=None):
    batch = pixels(16, 6, 6, 1), np.arange(16, dtype=np.int32) % 10
    if mesh is None:
        return compiled(group)(key, *batch)
    key = jax.device_put(key, sharding.replicated(mesh))
    return compiled(group, mesh)(key, *sharding.to_global(mesh, 16, batch))


def test_same_key_same_batch():
    first, again, other = (augmented(jax.random.key(seed), 2) for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_what_is_mixed_does_not_follow_from_what_is_erased():
    """Erasing and mixing have a key each."""
    _, targets = augmented(KEY, 2)
    smooth = 0.01 + 0.9 * np.eye(10)[np.arange(16) % 10]
    x, mix_key = np.zeros((16, 6, 6, 1)), jax.random.split(KEY)[1]
    _, expected = mixed(mix_key, x, smooth, 2, mixup=0.8, cutmix=1.0)
    np.testing.assert_allclose(targets, expected, atol=1e-6)


@pytest.mark.parametrize("group, stays", [(0, False), (2, True)])
def test_devices_do_not_change_the_batch(group, stays):
    """Two images on each of eight devices: pairs stay where they are."""
    mesh = sharding.make_mesh()
    assert sharding.shard_count(mesh) == 8
    alone, split = augmented(KEY, group), augmented(KEY, group, mesh)
    for a, b in zip(alone, split, strict=True):
        assert {shard.data.shape[0] for shard in b.addressable_shards} == {2}
        np.testing.assert_allclose(b, a, atol=1e-6)
    text = compiled(group, mesh).as_text()
    moves = ("all-gather", "all-to-all", "collective-permute")
    assert any(move in text for move in moves) != stays


@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_batches_of_whole_groups(size):
    Augment(mixup=1.0, mix_group=2).check_batch(size)
    Augment(mixup=1.0).check_batch(size)
    with pytest.raises(UserError, match=f"{size} does not divide into mixup groups"):
        Augment(mixup=1.0, mix_group=3).check_batch(size)


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(label_smoothing=1.0), "label_smoothing must be in .0, 1.*is 1.0"),
        (dict(label_smoothing=-0.1), "label_smoothing must be in .0, 1.*is -0.1"),
        (dict(mixup=-1.0), "must be at least 0"),
        (dict(cutmix=-1.0), "must be at least 0"),
        (dict(erase=1.5), "erase must be in .0, 1.*is 1.5"),
        (dict(erase_area=(0.5, 0.1)), "erase_area must be two numbers"),
        (dict(erase_area=(0.5, 1.1)), "up to 1, and is .0.5, 1.1"),
        (dict(erase_aspect=(0.0, 1.0)), "erase_aspect must be two numbers"),
        (dict(mix_group=-1), "must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        Augment(**fields)


def test_pixels_are_normalised_once():
    x = normalize(jnp.asarray(pixels(2, 4, 4, 1)), GREY)
    with pytest.raises(TypeCheckError, match="images"):
        normalize(x, GREY)
