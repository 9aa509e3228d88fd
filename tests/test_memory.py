"""Which sets are held in memory, and what is refused before a run starts."""

import collections
import dataclasses

import numpy as np
import pytest

from sws_jax.data import base, memory
from sws_jax.data.base import Unreadable
from sws_jax.errors import UserError
from sws_jax.runtime import progress


@dataclasses.dataclass
class Pictures:
    """Images of random pixels and given shapes, some of them unreadable."""

    name: str
    shapes: list
    bad: tuple = ()
    labels = None  # that only a look at the images tells

    def __post_init__(self):
        self.reads = collections.Counter()

    def __len__(self):
        return len(self.shapes)

    def read(self, index):
        self.reads[index] += 1
        if index in self.bad:
            raise Unreadable(f"{self.where(index)} is no image")
        random = np.random.default_rng(index)
        return random.integers(0, 256, self.shapes[index], np.uint8), index % 7

    def where(self, index):
        return f"{self.name}/{index}"


def alike(name, count, shape=(4, 5, 3), bad=()):
    return Pictures(name, [shape] * count, bad)


def hold(splits, memory_gib=1.0, unreadable="stop"):
    samples = {key: memory.Sample.of(split) for key, split in splits.items()}
    return memory.hold(
        splits, samples, memory_gib=memory_gib, name="mine", unreadable=unreadable
    )


def same(split, source):
    assert len(split) == len(source)
    for i in range(len(source)):
        image, label = split.read(i)
        expected, number = source.read(i)
        np.testing.assert_array_equal(image, expected)
        assert (image.dtype, type(label), label) == (np.uint8, int, number)


# Sets that fit


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 5000])
def test_images_of_one_shape_are_one_array(count):
    splits = {"train": alike("train", count), "test": alike("test", 3)}
    loaded = hold(splits)
    for key, split in splits.items():
        assert max(split.reads.values()) <= 2  # as a sample, and for good
        assert isinstance(loaded[key], base.Arrays)
        assert loaded[key].images.shape == (len(split), 4, 5, 3)
        assert (loaded[key].images.dtype, loaded[key].labels.dtype) == (
            np.uint8,
            np.int32,
        )
        same(loaded[key], split)


@pytest.mark.parametrize("seed", range(3))
def test_images_of_many_shapes_are_a_list(seed):
    random = np.random.default_rng(seed)
    shapes = [(*random.integers(1, 9, 2), 3) for _ in range(200)]
    source = Pictures("train", shapes)
    loaded = hold({"train": source})["train"]
    assert isinstance(loaded.images, list)
    same(loaded, source)


def test_one_odd_image_outside_of_the_sample():
    source = Pictures("train", [(4, 5, 3)] * 1000)
    source.shapes[1] = (6, 5, 3)
    assert 1 not in memory.Sample.of(source).shapes
    same(hold({"train": source})["train"], source)


IMAGE_GIB = 4 * 5 * 3 / 2**30


@pytest.mark.parametrize(
    "images, fits",
    [(300, True), (300.5, True), (299.5, False), (150, False), (0, False)],
)
def test_the_budget_is_for_all_splits_together(images, fits):
    splits = {key: alike(key, 100) for key in ("train", "val", "test")}
    loaded = hold(splits, images * IMAGE_GIB)
    assert [loaded[key] is split for key, split in splits.items()] == [not fits] * 3


def test_the_estimate_is_of_the_mean():
    """The estimate counts large images among the samples at their size."""
    shapes = [(4, 5, 3), (8, 10, 3)] * 500
    source = Pictures("train", shapes)
    exact = 1000 * 2.5
    assert hold({"train": source}, 1.2 * exact * IMAGE_GIB)["train"] is not source
    assert hold({"train": source}, 0.8 * exact * IMAGE_GIB)["train"] is source


def test_what_takes_long_is_announced(monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    monkeypatch.setattr(memory, "_QUIET_SECONDS", 1e6)
    hold({"train": alike("train", 1500)})
    assert lines == []
    monkeypatch.setattr(memory, "_QUIET_SECONDS", 0.0)
    hold({"train": alike("train", 1500), "test": alike("test", 500)})
    assert lines == ["mine: decoding 2,000 images into memory, 0.00 GiB"]
    hold({"train": alike("train", 1500)}, memory_gib=0)
    assert len(lines) == 1


# Samples


@pytest.mark.parametrize("count", [1, 2, 5, 64, 65, 1000])
def test_a_sample_is_spread(count):
    source = alike("train", count)
    taken = sorted(memory.Sample.of(source).shapes)
    assert len(taken) == min(count, 64) == len(source.reads)
    assert (taken[0], taken[-1]) == (0, count - 1)
    gaps = np.diff(taken)
    assert count == 1 or gaps.max() - gaps.min() <= 1


def test_one_shape_is_the_shape():
    splits = {"train": alike("train", 20), "test": alike("test", 4)}
    result = dataset(splits)
    assert result.image_shape == (4, 5, 3)
    assert dataset(splits, image_size=(8, 6)).image_shape == (8, 6, 3)


@pytest.mark.parametrize("key, index", [("train", 19), ("test", 2)])
def test_two_shapes_are_refused(key, index):
    splits = {"train": alike("train", 20), "test": alike("test", 4)}
    splits[key].shapes[index] = (9, 7, 3)
    with pytest.raises(UserError) as caught:
        dataset(splits)
    words = (
        f"as train/0 is 4 x 5 pixels and {key}/{index} is 9 x 7: set data.image_size"
    )
    assert words in str(caught.value)
    assert dataset(splits, image_size=(8, 6)).image_shape == (8, 6, 3)


def test_an_odd_image_is_found_among_all_that_are_held():
    """One outside of the samples; only sets in memory are searched for it."""
    splits = {"train": alike("train", 200), "test": alike("test", 4)}
    splits["train"].shapes[1] = (9, 7, 3)
    with pytest.raises(UserError, match="and train/1 is 9 x 7: set data.image_size"):
        dataset(splits)
    assert dataset(splits, memory_gib=0.0).image_shape == (4, 5, 3)


def dataset(splits, **settings):
    arguments = dict(
        val_fraction=0.25, image_size=None, memory_gib=1.0, unreadable="stop"
    )
    return memory.dataset("mine", splits, list("abcdefg"), **arguments | settings)


@pytest.mark.parametrize("gib", [0.0, 1.0])
def test_splits(gib):
    splits = {"train": alike("train", 20), "test": alike("test", 4)}
    result = dataset(splits, memory_gib=gib)
    assert [len(result.split(key)) for key in ("train", "val", "test")] == [15, 5, 4]
    assert result.train.split is result.val.split
    assert (result.train.split is splits["train"]) == (gib == 0)
    for part in (result.train, result.val):
        same(part, base.Subset(splits["train"], part.indices))
    own = dataset(splits | {"val": alike("val", 3)}, val_fraction=0.0, memory_gib=gib)
    assert [len(own.split(key)) for key in ("train", "val", "test")] == [20, 3, 4]


def test_a_bad_fraction_is_refused_before_all_is_decoded():
    splits = {"train": alike("train", 1000), "test": alike("test", 4)}
    with pytest.raises(UserError, match="data.val_fraction 1.0 must leave"):
        dataset(splits, val_fraction=1.0)
    assert len(splits["train"].reads) == 64


# Images that cannot be read


def test_all_bad_images_are_counted():
    splits = {
        "train": alike("train", 5000, bad=(77, 0, 4999)),
        "test": alike("test", 4),
    }
    with pytest.raises(Unreadable) as caught:
        hold(splits)
    assert str(caught.value) == (
        "3 of 5,004 images cannot be read (data.unreadable=skip passes over them), the "
        "first: train/0 is no image"
    )


def test_bad_images_are_left_to_who_reads_them():
    splits = {"train": alike("train", 200, bad=(3, 0)), "test": alike("test", 4)}
    loaded = hold(splits, unreadable="skip")
    assert isinstance(loaded["test"], base.Arrays)
    for index in (3, 0):
        with pytest.raises(Unreadable, match=f"train/{index} is no image"):
            loaded["train"].read(index)
    splits["train"].bad = ()  # repaired
    same(loaded["train"], splits["train"])


@pytest.mark.parametrize("index", [0, 199])
def test_bad_images_of_a_set_that_is_not_held(index):
    splits = {"train": alike("train", 200), "test": alike("test", 200, bad=(index,))}
    with pytest.raises(Unreadable, match=f"^test/{index} is no image: mend it"):
        hold(splits, memory_gib=0)
    assert hold(splits, memory_gib=0, unreadable="skip") == splits
    assert len(splits["test"].reads) == 64


@pytest.mark.parametrize("unreadable", ["stop", "skip"])
def test_nothing_but_bad_images(unreadable):
    splits = {"train": alike("train", 200), "test": alike("test", 9, bad=range(9))}
    with pytest.raises(
        Unreadable, match="^not one of 9 images can be .* first: test/0"
    ):
        hold(splits, unreadable=unreadable)


def test_a_mistake_in_the_program_is_not_an_unreadable_image(monkeypatch):
    def wrong(self, index):
        raise TypeError("no such thing")

    monkeypatch.setattr(Pictures, "read", wrong)
    with pytest.raises(TypeError, match="no such thing"):
        hold({"train": alike("train", 3)}, unreadable="skip")
