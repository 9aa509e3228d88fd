"""Sets of images: digits, arrays, their splits and their fingerprints."""

import dataclasses
import json
import math
import os
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sws_jax import pixels
from sws_jax.data import base, facts, fingerprint, load_dataset, pipeline
from sws_jax.data.base import Arrays
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError
from sws_jax.jobs import recipes, records
from sws_jax.jobs.directory import RunDirectory
from sws_jax.pixels import Normalization
from sws_jax.storage import documents, files
from sws_jax.storage.names import INPUTS

from support import refusals
from support.damage import header_of
from support.images import stacked


def rows(*splits):
    """Every labelled image as bytes, sorted."""
    content = []
    for split in splits:
        data = stacked(split)
        pairs = zip(data["image"], data["label"], strict=True)
        content += [image.tobytes() + label.tobytes() for image, label in pairs]
    return sorted(content)


def refusal(source, **settings):
    return refusals.refusal(load_dataset, str(source), **settings)


# Digits


def test_digits():
    digits = load_dataset("digits")
    assert digits.name == "digits"
    assert digits.class_names == tuple("0123456789")
    assert digits.num_classes == 10
    assert digits.image_shape == (8, 8, 1)
    sizes = [len(split) for split in (digits.train, digits.val, digits.test)]
    assert sizes == [1257, 140, 400]
    for name in ("train", "val", "test"):
        data = stacked(digits.split(name))
        assert (data["image"].dtype, data["label"].dtype) == (np.uint8, np.int32)
        assert data["image"].shape[1:] == (8, 8, 1)
        assert set(data["label"].tolist()) == set(range(10))


def test_digits_splits_are_a_partition():
    digits, raw = load_dataset("digits"), load_digits()
    images = np.round(raw.images * 255 / 16).astype(np.uint8)
    source = Arrays(images, raw.target.astype(np.int32))
    assert rows(digits.train, digits.val, digits.test) == rows(source)


def test_digits_are_split_the_same_every_time():
    first, again = load_dataset("digits"), load_dataset("digits")
    for name in ("train", "val", "test"):
        a, b = stacked(first.split(name)), stacked(again.split(name))
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_digits_normalization():
    digits = load_dataset("digits")
    images = [stacked(split)["image"] for split in (digits.train, digits.val)]
    scaled = np.concatenate(images) / 255.0
    assert len(scaled) == 1397
    assert digits.normalization.mean == pytest.approx([scaled.mean()], abs=2e-3)
    assert digits.normalization.std == pytest.approx([scaled.std()], abs=2e-3)


def test_digits_have_one_size():
    assert load_dataset("digits", image_size=8).image_shape == (8, 8, 1)
    assert "8 x 8 pixels, not 32 x 32" in refusal("digits", image_size=32)


def test_there_are_three_splits():
    with pytest.raises(UserError, match="'all'.*train, val or test"):
        load_dataset("digits").split("all")


# Held-out images


@pytest.mark.parametrize("fraction, count", [(0.1, 3), (0.25, 8), (0.5, 15), (0.9, 27)])
def test_holding_out(fraction, count):
    source = Arrays(np.arange(30, dtype=np.uint8), np.arange(30, dtype=np.int32))
    train, val = base.hold_out(source, fraction)
    assert (len(train), len(val)) == (30 - count, count)
    val_images, train_images = stacked(val), stacked(train)
    assert sorted([*train_images["label"], *val_images["label"]]) == list(range(30))
    for part in (train_images, val_images):
        np.testing.assert_array_equal(part["image"], part["label"])
    assert not np.array_equal(np.sort(val_images["label"]), np.arange(30)[:count])
    assert not np.array_equal(np.sort(val_images["label"]), np.arange(30)[-count:])


@pytest.mark.parametrize("source", ["digits", "npz"])
def test_holding_out_does_not_touch_the_test_set(source, request):
    path = "digits" if source == "digits" else request.getfixturevalue("good")
    few, many = (load_dataset(path, val_fraction=f) for f in (0.1, 0.5))
    assert len(few.val) < len(many.val)
    assert rows(few.train, few.val) == rows(many.train, many.val)
    for key in ("image", "label"):
        np.testing.assert_array_equal(stacked(few.test)[key], stacked(many.test)[key])


@pytest.mark.parametrize("fraction", [0.0, 0.0003, 0.9999])
@pytest.mark.parametrize("source", ["digits", "npz"])
def test_both_sides_keep_some(fraction, source, request):
    path = "digits" if source == "digits" else request.getfixturevalue("good")
    message = refusal(path, val_fraction=fraction)
    assert f"data.val_fraction {fraction} must leave some of the" in message


@pytest.mark.parametrize("fraction", [1.0, -0.1, math.nan])
def test_what_is_no_share(fraction):
    message = refusal("digits", val_fraction=fraction)
    what = "a number" if math.isnan(fraction) else "in [0, 1)"
    assert message == f"val_fraction must be {what}, and is {fraction}"


# Fingerprints


def few(images=6, **changes):
    """A set of equal images, with `changes` to its training images or names."""
    black = np.zeros((images, 2, 2, 1), np.uint8)
    split = Arrays(black, np.zeros(images, np.int32))
    train = changes.pop("train", split)
    names = changes.pop("names", ("ant", "bee"))
    shape, look = (2, 2, 1), pixels.default_normalization(1)
    return base.Dataset("few", train, split, split, names, shape, look)


class Gone(Arrays):
    """Images of which the last cannot be read."""

    def read(self, index):
        if index == len(self) - 1:
            raise base.Unreadable("gone")
        return super().read(index)


def test_a_set_is_known_again():
    """By its labels too; an image that cannot be read now, or could not, says nothing,
    and what the others say counts all the same."""

    def changed(*place, kind=Arrays):
        pixels, labels = np.zeros((6, 2, 2, 1), np.uint8), np.zeros(6, np.int32)
        for array, at in zip((pixels, labels), place, strict=False):
            if at is not None:
                array[at] = 1
        return few(train=kind(pixels, labels))

    before, gone = fingerprint.take(few()), fingerprint.take(changed(kind=Gone))
    for other, names in (
        (few(), []),
        (changed(0), ["train images"]),
        (changed(None, 0), ["train images"]),
        (changed(5), ["train images"]),
        (few(names=("ant", "wasp")), ["class names"]),
        (changed(0, kind=Gone), ["train images"]),
        (changed(kind=Gone), []),
    ):
        now = fingerprint.take(other)
        assert fingerprint.differing(before, now) == names
        assert fingerprint.differing(now, before) == names
    assert fingerprint.differing(gone, fingerprint.take(changed(5))) == []
    assert fingerprint.differing(fingerprint.take(changed(5)), gone) == []
    more = fingerprint.differing(before, fingerprint.take(few(7)))
    assert more == [f"{name} images (6 then, 7)" for name in ("train", "val", "test")]


@pytest.mark.parametrize("change", ["one label", "one pixel"])
def test_every_label_and_pixel_of_arrays_counts(change, tmp_path):
    """The images that a fingerprint reads of each split stay as they are."""
    images = np.zeros((1000, 2, 2, 1), np.uint8)
    arrays = dict(train_images=images, test_images=images)
    labels = np.arange(1000) % 3
    arrays |= dict(train_labels=labels, test_labels=labels)
    before = fingerprint.take(load_dataset(str(write(tmp_path, **arrays))))
    dataset = load_dataset(str(tmp_path / "mine.npz"))
    read = {int(dataset.train.indices[int(p)]) for p in before["train"]["samples"]}
    place = next(i for i in dataset.train.indices.tolist() if i not in read)
    name = "train_labels" if change == "one label" else "train_images"
    changed = arrays[name].copy()
    changed[place] += 1
    changed %= 3
    now = fingerprint.take(
        load_dataset(str(write(tmp_path, **arrays | {name: changed})))
    )
    assert fingerprint.differing(before, now) == ["train labels, names or pixels"]
    assert fingerprint.differing(now, json.loads(json.dumps(now))) == []


def older(known):
    """The fingerprint of an older version: four images of each split, as a list."""
    fingerprint = {"classes": known["classes"]}
    for name in ("train", "val", "test"):
        places = np.linspace(0, known[name]["images"] - 1, 4).astype(int)
        samples = [known[name]["samples"][str(place)] for place in places]
        fingerprint[name] = {"images": known[name]["images"], "samples": samples}
    return fingerprint


def test_what_older_software_noted_counts_as_far_as_it_goes(tmp_path, capsys):
    run = RunDirectory(str(tmp_path / "run"), recipes.run(), str(tmp_path))
    inputs = str(tmp_path / "run" / INPUTS)
    known = fingerprint.take(few(20))
    files.write_json(inputs, {records.DATA: older(known)})
    now, (told,) = run.check_data(few(20))
    assert "stored" in now and "by a few images; all labels and names are noted" in told
    pixels, labels = np.zeros((20, 2, 2, 1), np.uint8), np.zeros(20, np.int32)
    pixels[6] = 1  # the second of four
    with pytest.raises(UserError, match="other data than few is now .other train ima"):
        run.check_data(few(20, train=Arrays(pixels, labels)))
    # A finished run is checked against it, and its fingerprint is completed too.
    (note,) = run.check_finished(lambda: few(20))
    assert "noted now" in note
    assert run.check_finished(lambda: few(20)) == []
    assert fingerprint.is_whole(documents.read_json(inputs)[records.DATA])
    with pytest.raises(UserError, match="20 then, 21"):
        run.check_finished(lambda: few(21))

    def gone():
        raise UserError("there is no few")

    (note,) = run.check_finished(gone)
    assert "not compared with its data, which cannot be read (there is no few)" in note


def test_runs_of_a_job_share_their_data(tmp_path):
    """A second run, perhaps of another process, is refused other data."""
    first, second = (
        RunDirectory(str(tmp_path / name), recipes.run(), str(tmp_path))
        for name in ("first", "second")
    )
    known, _ = first.check_data(few())
    files.write_json(str(tmp_path / "first" / INPUTS), {records.DATA: known})
    assert second.check_data(few())[0] == known
    with pytest.raises(UserError, match="first holds a run on other data than few"):
        second.check_data(few(7))
    other = recipes.run()
    other.data.source = "elsewhere"
    third = RunDirectory(str(tmp_path / "third"), other, str(tmp_path))
    third.check_data(few(7))


def test_a_run_remembers_what_it_has_seen(tmp_path):
    """Also while the image cannot be read: it must be the old one when it is back."""
    run = RunDirectory(str(tmp_path), recipes.run(), "")
    seen, _ = run.check_data(few())
    files.write_json(str(tmp_path / INPUTS), {records.DATA: seen})
    gone = Gone(np.zeros((6, 2, 2, 1), np.uint8), np.zeros(6, np.int32))
    assert run.check_data(few(train=gone)) == (seen, [])


# Arrays in a file


def arrays(shape=(6, 4, 3), **changes):
    """30 training and 8 test images, and three classes."""
    random = np.random.default_rng(0)
    content = dict(
        train_images=random.integers(0, 256, (30, *shape), np.uint8),
        train_labels=np.arange(30) % 3,
        test_images=random.integers(0, 256, (8, *shape), np.uint8),
        test_labels=np.arange(8) % 3,
        class_names=np.asarray(["ant", "bee", "cat"]),
    )
    content.update(changes)
    return {key: value for key, value in content.items() if value is not None}


def write(folder, **changes):
    path = folder / "mine.npz"
    np.savez(path, **arrays(**changes))
    return path


@pytest.fixture
def good(tmp_path):
    return str(write(tmp_path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, ">i2"])
def test_npz(save, dtype, tmp_path):
    content = arrays()
    labels = {
        key: content[key].astype(dtype) for key in ("train_labels", "test_labels")
    }
    save(tmp_path / "mine.npz", **content | labels)
    dataset = load_dataset(str(tmp_path / "mine.npz"))
    assert (dataset.name, dataset.class_names) == ("mine", ("ant", "bee", "cat"))
    assert dataset.image_shape == (6, 4, 3)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (27, 3, 8)
    source = Arrays(content["train_images"], content["train_labels"].astype(np.int32))
    assert rows(dataset.train, dataset.val) == rows(source)
    test = stacked(dataset.test)
    np.testing.assert_array_equal(test["image"], content["test_images"])
    np.testing.assert_array_equal(test["label"], content["test_labels"])
    assert (test["image"].dtype, test["label"].dtype) == (np.uint8, np.int32)
    assert dataset.normalization == Normalization(
        pixels.IMAGENET_MEAN, pixels.IMAGENET_STD
    )


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1)])
def test_npz_of_grey_images(shape, tmp_path):
    content = arrays(shape)
    dataset = load_dataset(str(write(tmp_path, shape=shape)))
    assert dataset.image_shape == (6, 4, 1)
    expected = content["test_images"].reshape(8, 6, 4, 1)
    np.testing.assert_array_equal(stacked(dataset.test)["image"], expected)
    assert dataset.normalization == Normalization((0.5,), (0.5,))


def test_a_normalization_of_ones_own(good):
    dataset = load_dataset(good, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert dataset.normalization == Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("size", [(8, 4), (4, 16), 5])
def test_a_size_of_ones_own(size, good):
    """The images keep their size, as the pipeline scales them."""
    dataset = load_dataset(good, image_size=size)
    height, width = (size, size) if isinstance(size, int) else size
    assert dataset.image_shape == (height, width, 3)
    (batch,) = pipeline.eval_batches(
        dataset.test, Fit((height, width)), global_batch_size=8
    )
    assert batch["image"].shape == (8, height, width, 3)
    by_hand = [Fit((height, width))(image) for image in arrays()["test_images"]]
    np.testing.assert_array_equal(batch["image"], np.stack(by_hand))


def test_splits_of_two_sizes(tmp_path):
    path = write(tmp_path, test_images=np.zeros((8, 5, 5, 3), np.uint8))
    message = refusal(path)
    assert "(6, 4, 3)" in message and "(5, 5, 3)" in message


def test_validation_images_of_ones_own(tmp_path):
    images = np.full((5, 6, 4, 3), 7, np.uint8)
    path = write(tmp_path, val_images=images, val_labels=np.arange(5) % 3)
    dataset = load_dataset(str(path), val_fraction=0.5)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (30, 5, 8)
    np.testing.assert_array_equal(stacked(dataset.val)["image"], images)
    np.testing.assert_array_equal(stacked(dataset.val)["label"], np.arange(5) % 3)


def test_arrays_that_are_not_read_are_named(tmp_path):
    path = write(tmp_path, extra=np.zeros(3), valid_images=np.zeros(3))
    notes = load_dataset(str(path)).notes
    assert notes == ("arrays that are not read: extra, valid_images",)


# Classes without training images


def test_a_class_without_a_training_image(tmp_path):
    names = np.asarray(["ant", "bee", "cat", "dodo"])
    path = write(tmp_path, class_names=names, test_labels=np.arange(8) % 4)
    (note,) = load_dataset(str(path)).notes
    assert note.startswith("1 class without a training image: dodo (nothing is learned")


def test_classes_whose_only_images_are_held_out(tmp_path):
    names = np.asarray([f"rare{i}" for i in range(30)])
    path = write(tmp_path, class_names=names, train_labels=np.arange(30))
    dataset = load_dataset(str(path), val_fraction=0.2)
    lost = sorted(dataset.val.labels.tolist())
    lost_note, unseen = dataset.notes
    assert "6 classes without a training image, as the only ones are held" in lost_note
    assert f"rare{lost[0]}, rare{lost[1]}, rare{lost[2]} and 3 more" in lost_note
    assert unseen.startswith("27 classes without a test image: rare3, rare4, rare5 and")


def test_images_are_counted_by_class(good):
    dataset = load_dataset(good, val_fraction=0.1)
    counts = facts.counts(dataset)
    assert (counts["train"] + counts["val"]).tolist() == [10, 10, 10]
    assert counts["test"].tolist() == [3, 3, 2]
    assert list(facts.summary(dataset))[2] == "test ant: 3, bee: 3, cat: 2"
    many = dataclasses.replace(dataset, class_names=tuple("abcdefghijklmnop"))
    assert list(facts.summary(many))[2] == "test 0 of d to 3 of a"


def test_test_images_that_were_trained_on_are_counted(good, tmp_path):
    assert facts.repeated(load_dataset(good)) == 0
    content = arrays()
    both = content["test_images"].copy()
    both[:3] = content["train_images"][[0, 7, 29]]
    assert facts.repeated(load_dataset(str(write(tmp_path, test_images=both)))) == 3


def test_a_set_that_is_called_like_a_built_in_one(tmp_path, monkeypatch):
    """Its name is not the built-in set's, which `evaluate` would score instead."""
    write(tmp_path).rename(tmp_path / "digits.npz")
    assert load_dataset(str(tmp_path / "digits.npz")).name == "./digits"
    monkeypatch.chdir(tmp_path)
    assert load_dataset("digits").num_classes == 10


# Refusals


@pytest.mark.parametrize(
    "names, words",
    [
        (["ant", "bee", "ant"], "two classes are called 'ant': "),
        (["ant", "", "cat"], "class 1 has no name"),
        (["caf\u00e9", "tea", "cafe\u0301"], "differ in their Unicode form"),
    ],
)
def test_names_of_classes_that_do_not_tell_them_apart(names, words, tmp_path):
    message = refusal(write(tmp_path, class_names=np.asarray(names)))
    assert f"{tmp_path}/mine.npz: " in message and words in message


def test_a_name_that_breaks_lines_is_escaped(tmp_path):
    path = write(tmp_path, class_names=np.asarray(["ant\n", "be\te", "cafe\u0301"]))
    assert load_dataset(str(path)).class_names == ("ant\\n", "be\\te", "caf\u00e9")


@pytest.mark.parametrize(
    "shape", [(3, 16, 16), (1, 8, 8), (4, 32, 24)], ids=["RGB", "grey", "RGBA"]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_channels_stand_last(shape, split, tmp_path):
    path = write(tmp_path, **{f"{split}_images": np.zeros((30, *shape), np.uint8)})
    message = refusal(path)
    assert f"{split}_images.transpose(0, 2, 3, 1)" in message
    assert f"{shape[0]} x {shape[1]} pixels of {shape[2]} channels" in message


def test_many_channels_are_no_mistake(tmp_path):
    path = write(tmp_path, shape=(6, 4, 13))
    assert load_dataset(str(path)).image_shape == (6, 4, 13)


@pytest.mark.parametrize("shape", [(0, 4, 3), (6, 0, 3), (6, 4, 0)])
def test_images_have_pixels(shape, tmp_path):
    message = refusal(write(tmp_path, shape=shape))
    assert f"train_images are [30, {', '.join(map(str, shape))}], without" in message


@pytest.mark.parametrize("key", ["val_images", "val_labels"])
def test_half_of_a_validation_set(key, tmp_path):
    other = {"val_images": "val_labels", "val_labels": "val_images"}[key]
    path = write(tmp_path, **{key: np.zeros(3, np.uint8)})
    assert f"{path} lacks {other}; a dataset holds" in refusal(path)


@pytest.mark.parametrize("source", ["cifar", "images/", "digits.csv", ""])
def test_an_unknown_source(source):
    message = refusal(source)
    assert f"there is no dataset {source!r}" in message
    assert "digits" in message and ".npz" in message


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "data.zip"
    path.write_text("")
    assert "(a file, and its name does not end in .npz)" in refusal(path)


def test_the_home_directory(good, monkeypatch):
    monkeypatch.setenv("HOME", os.path.dirname(good))
    assert load_dataset(f"~/{os.path.basename(good)}").name == "mine"


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    zeros = {
        f"{split}_labels": np.zeros(n, int) for split, n in (("train", 30), ("test", 8))
    }
    path = write(tmp_path, class_names=np.asarray(["all"]), **zeros)
    assert "has the one class all, and a classifier needs two" in refusal(path)


@pytest.mark.parametrize("size", [-1, (8, 0)])
def test_sizes_are_pixels(size):
    assert "image_size must be at least 1" in refusal("digits", image_size=size)


def test_a_missing_file(tmp_path):
    path = tmp_path / "none.npz"
    assert refusal(path) == f"there is no dataset file {path}"


def test_a_folder(tmp_path):
    path = tmp_path / "folder.npz"
    path.mkdir()
    assert refusal(path) == f"there is no dataset file {path}"


@pytest.mark.parametrize("content", [b"", b"image,label\n0,1\n", b"\x80\x04K\x01."])
def test_another_file_renamed(content, tmp_path):
    path = tmp_path / "renamed.npz"
    path.write_bytes(content)
    message = refusal(path)
    assert f"{path} is damaged or no .npz file" in message
    assert "pickle" not in message  # numpy's own words advise to load it unsafely


def test_a_single_array_renamed(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    path = (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    assert f"{path} is damaged or no .npz file" in refusal(path)


def test_another_archive_renamed(tmp_path):
    path = tmp_path / "archive.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert f"{path} lacks train_images" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file(share, tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert f"{path} is damaged or no .npz file" in refusal(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file(save, tmp_path):
    path = tmp_path / "mine.npz"
    save(path, **arrays())
    whole = bytearray(path.read_bytes())
    whole[66:100] = b"\xff" * 34  # the start of the first array; no deflate block
    path.write_bytes(whole)
    assert f"{path} is not a readable .npz" in refusal(path)


@pytest.mark.parametrize(
    "member, words",
    [
        (b"no array at all", "magic string is not correct"),
        (header_of((10**12, 4, 4)), "not as large as its header says"),
        (header_of((-1,)) + b"1", "not as large as its header says"),
    ],
)
@pytest.mark.parametrize("key", ["class_names", "train_images"])
def test_a_member_that_is_not_what_it_claims(key, member, words, tmp_path):
    path = tmp_path / "mine.npz"
    others = arrays()
    del others[key]
    np.savez(path, **others)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{key}.npy", member)
    message = refusal(path)
    assert f"{path} is not a readable .npz of plain arrays" in message
    assert words in message


@pytest.mark.parametrize("key", ["class_names", "train_images"])
def test_pickled_objects(key, tmp_path):
    path = write(tmp_path, **{key: arrays()[key].astype(object)})
    message = refusal(path)
    assert f"{path} is not a readable .npz of plain arrays" in message


@pytest.mark.parametrize("missing", [("class_names",), ("test_images", "test_labels")])
def test_missing_arrays(missing, tmp_path):
    path = write(tmp_path, **dict.fromkeys(missing))
    assert f"{path} lacks {', '.join(missing)}; a dataset holds" in refusal(path)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "images, words",
    [
        (np.zeros((30, 6, 4, 3), np.float32), "float32 [30, 6, 4, 3]"),
        (np.zeros((30, 6, 4, 3), np.int64), "int64 [30, 6, 4, 3]"),
        (np.zeros((30, 24), np.uint8), "uint8 [30, 24]"),
        (np.zeros((0, 6, 4, 3), np.uint8), "uint8 [0, 6, 4, 3]"),
    ],
)
def test_images_are_bytes(split, images, words, tmp_path):
    path = write(tmp_path, **{f"{split}_images": images})
    message = refusal(path)
    assert f"{split}_images must be uint8" in message
    assert message.endswith(f"and is {words}")


@pytest.mark.parametrize("split, count", [("train", 30), ("test", 8)])
@pytest.mark.parametrize("change", [-1, 1])
def test_lengths_agree(split, count, change, tmp_path):
    labels = np.zeros(count + change, np.int32)
    message = refusal(write(tmp_path, **{f"{split}_labels": labels}))
    assert f"{split}_labels must be one integer for each of the {count}" in message
    assert message.endswith(f"int32 [{count + change}]")


@pytest.mark.parametrize(
    "labels", [np.zeros(8), np.zeros((8, 3), int), np.asarray(["ant"] * 8)]
)
def test_labels_are_integers(labels, tmp_path):
    message = refusal(write(tmp_path, test_labels=labels))
    assert "test_labels must be one integer for each of the 8 images" in message


@pytest.mark.parametrize("split, count", [("train", 30), ("test", 8)])
@pytest.mark.parametrize("label, words", [(3, "from 0 to 3"), (-1, "from -1 to 2")])
def test_labels_are_classes(split, count, label, words, tmp_path):
    labels = np.arange(count) % 3
    labels[4] = label
    message = refusal(write(tmp_path, **{f"{split}_labels": labels}))
    assert f"{split}_labels go {words}, but there are 3 class names" in message


@pytest.mark.parametrize(
    "names", [np.asarray("ant"), np.asarray([b"ant", b"bee", b"cat"]), np.arange(3)]
)
def test_class_names_are_strings(names, tmp_path):
    message = refusal(write(tmp_path, class_names=names))
    assert "class_names must be one string for each class" in message


@pytest.mark.parametrize("source, channels", [("digits", 1), ("npz", 3)])
def test_a_mean_of_another_length(source, channels, request):
    path = "digits" if source == "digits" else request.getfixturevalue("good")
    message = refusal(path, mean=(0.5, 0.5), std=(0.5, 0.5))
    assert f"{path} has {channels} channels" in message
    assert message.endswith("data.mean and data.std have 2")


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(mean=(0.5,)), "data.std is empty: give both"),
        (dict(std=(0.5,)), "data.mean is empty: give both"),
        (dict(mean=(0.5,), std=(0.5, 0.5)), "has 1 and 2"),
        (dict(mean=(0.5,), std=(0.0,)), "must be above 0"),
    ],
)
def test_an_impossible_normalization(settings, words):
    assert words in refusal("digits", **settings)
