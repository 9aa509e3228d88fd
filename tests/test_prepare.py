"""``python -m sws_jax prepare``: what it writes, and what it does about mishaps."""

import dataclasses
import importlib.util
import io
import itertools
import json
import os
import pathlib
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import types

import numpy as np
import pytest
from PIL import Image

from sws_jax import __main__
from sws_jax.data import arrays, base, images, load_dataset, tfds
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError
from sws_jax.prepare import manifests, parts, records, sets, sources, standard, work
from sws_jax.runtime import host

from support import children, refusals
from support import tfds as tfds_sets
from support.images import encoded, everything, fill, pixels, same, write

ROOT = pathlib.Path(__file__).parent.parent
TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
SMALL = ("--shard-mib=0.005", "--workers=1")  # several shards of a few small images
SIZE = (40, 60)


@pytest.fixture(scope="session")
def insects(tmp_path_factory):
    """A folder that is not to be written to."""
    root = tmp_path_factory.mktemp("images") / "insects"
    return fill(root, {"train": 6, "test": 2}, size=SIZE)


@pytest.fixture
def tree(insects, tmp_path):
    shutil.copytree(insects, tmp_path / "insects")
    return tmp_path / "insects"


def prepare(source, out, *flags):
    return __main__.main(["prepare", str(source), str(out), *SMALL, *flags])


def refused(capsys, source, out, *flags, code=2):
    """The message of a command, which is one sentence."""
    capsys.readouterr()
    assert prepare(source, out, *flags) == code
    return sentence(capsys.readouterr().err)


def sentence(error):
    """The message that a command prints, with the name of the program before it."""
    assert error.startswith("sws_jax: ") and error.endswith("\n"), error
    return refusals.sentence(error.removesuffix("\n"))


def content(directory):
    """The bytes of all files, by name."""
    by_name = {}
    for path in sorted(pathlib.Path(directory).rglob("*")):
        if path.is_file():
            by_name[str(path.relative_to(directory))] = path.read_bytes()
    return by_name


def shards(out, split="train", name="insects"):
    return sorted((out / name / "1.0.0").glob(f"{name}-{split}.array_record-*"))


def read(out, name="insects", **settings):
    return load_dataset(f"tfds:{name}", directory=str(out), **settings)


# Sets of records


def test_a_folder_becomes_a_set_with_the_same_pixels(insects, tmp_path, capsys):
    assert prepare(insects, tmp_path) == 0
    out = capsys.readouterr().out
    assert "folder: 18 train, 6 test images of 3 classes" in out
    assert re.search(r"insects/1.0.0: \d+ shards to make, .* free, about \d+ s", out)
    assert "data.source=tfds:insects" in out
    assert len(shards(tmp_path)) > 2
    result, expected = read(tmp_path), load_dataset(str(insects))
    assert result.class_names == expected.class_names
    for name in ("train", "val", "test"):
        same(everything(result.split(name)), everything(expected.split(name)))
    assert "tensorflow" not in sys.modules


def test_splits_are_what_they_are_called(tmp_path):
    root = fill(tmp_path / "three", {"train": 2, "val": 1, "test": 3})
    assert prepare(root, tmp_path / "out") == 0
    result, expected = read(tmp_path / "out", "three"), load_dataset(str(root))
    for name in ("train", "val", "test"):
        same(everything(result.split(name)), everything(expected.split(name)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_encoded_images_are_kept_or_become_the_same_pixels(form, tree, tmp_path):
    original = encoded(pixels(5), form)
    write(tree / f"test/ant/000_.{form.lower()}", original)
    assert prepare(tree, tmp_path / "out") == 0
    splits, _ = tfds.splits(str(tmp_path / "out/insects/1.0.0"), "insects", "pillow")
    kept = splits["test"].encoded(1)[0]
    assert (kept == original) == (form != "WEBP")
    expected = load_dataset(str(tree), image_size=32).test.read(1)
    same([splits["test"].read(1)], [expected])
    with Image.open(io.BytesIO(kept)) as image:
        assert image.format == ("PNG" if form == "WEBP" else form)


@pytest.mark.parametrize(
    "folder, name",
    [
        ("102flowers", "images_102flowers"),
        ("2024", "images_2024"),
        ("_x", "x"),
        ("été à 3", "ete_a_3"),
        ("花", "images"),
        ("MIT-67", "mit_67"),
    ],
)
def test_names_that_tfds_takes(folder, name, tree, tmp_path, capsys):
    from tensorflow_datasets.core import naming

    source = tree.rename(tmp_path / folder)
    shutil.rmtree(source / "train/bee")
    shutil.rmtree(source / "test/bee")
    assert naming.is_valid_dataset_and_class_name(name)
    assert prepare(source, tmp_path / "out") == 0
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert (
        last_line == f"prepared: data.source=tfds:{name} data.directory={tmp_path}/out"
    )
    dataset = read(tmp_path / "out", name)
    assert len(dataset.train) + len(dataset.val) == 12 and len(dataset.test) == 4


def make_tars(tree, where, prefix=""):
    where.mkdir()
    for split in ("train", "test"):
        with tarfile.open(where / f"{split}.tar", "w") as tar:
            # Not in the order of names, which the members of a tar need not have.
            for path in sorted((tree / split).rglob("*"), reverse=True):
                tar.add(path, prefix + str(path.relative_to(tree / split)), False)
    return where


@pytest.mark.parametrize("prefix", ["", "./", "SPLIT"])
def test_tars_give_the_bytes_of_their_folder(prefix, tree, tmp_path):
    where = tmp_path / "tars" / "insects"
    where.parent.mkdir()
    write(tree / "train/ant/.hidden.png", b"no image")
    write(tree / "train/bee/notes.txt", b"no image")
    if prefix == "SPLIT":
        where.mkdir()
        for split in ("train", "test"):
            with tarfile.open(where / f"{split}.tar", "w") as tar:
                tar.add(tree / split, split)
    else:
        make_tars(tree, where, prefix)
    assert prepare(tree, tmp_path / "a") == prepare(where, tmp_path / "b") == 0
    a, b = content(tmp_path / "a"), content(tmp_path / "b")
    assert a.keys() == b.keys()
    differing = {os.path.basename(name) for name in a if a[name] != b[name]}
    assert differing == {"manifest.json"}  # which names the source


def imagenet(where, count=4):
    """The two tars, of few images and two classes; the validation images' labels."""
    names, labels = ("n01440764", "n01443537"), []
    where.mkdir(parents=True)

    def add(tar, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    with tarfile.open(where / "ILSVRC2012_img_train.tar", "w") as outer:
        for i, name in enumerate(names):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as inner:
                for n in range(count):
                    data = encoded(pixels(10 * i + n), "JPEG")
                    add(inner, f"{name}_{n}.JPEG", data)
            add(outer, f"{name}.tar", file.getvalue())
    with tarfile.open(where / "ILSVRC2012_img_val.tar", "w") as tar:
        for n in reversed(range(3)):
            data = encoded(pixels(100 + n), "JPEG")
            add(tar, f"ILSVRC2012_val_{n + 1:08}.JPEG", data)
            labels.insert(0, names[(n + 1) % 2])
    return where, labels


@pytest.mark.parametrize("named", [False, True])
def test_the_tars_of_imagenet(named, tmp_path, capsys):
    where, labels = imagenet(tmp_path / "tars")
    lines = [
        f"ILSVRC2012_val_{n + 1:08}.JPEG {label}" if named else label
        for n, label in enumerate(labels)
    ]
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n")
    flags = [f"--val-labels={tmp_path / 'labels.txt'}"]
    message = refused(capsys, where, tmp_path / "out", *flags)
    assert "train has 8 images of 1,281,167 and validation has 3 images of" in message
    assert prepare(where, tmp_path / "out", "--partial", *flags) == 0
    dataset = read(tmp_path / "out", "imagenet2012", val_fraction=0.25)
    assert dataset.class_names == ("n01440764", "n01443537")
    names = [label == "n01443537" for label in labels]
    assert [label for _, label in everything(dataset.test)] == names
    wanted = [encoded(pixels(100 + n), "JPEG") for n in range(3)]
    for (image, _), data in zip(everything(dataset.test), wanted, strict=True):
        with Image.open(io.BytesIO(data)) as opened:
            np.testing.assert_array_equal(image, np.asarray(opened))
    assert len(dataset.train) + len(dataset.val) == 8


def test_the_classes_of_all_validation_images_are_known():
    """As TFDS lists them: fifty of each."""
    from sws_jax.prepare import tars

    names = [f"ILSVRC2012_val_{n:08}.JPEG" for n in range(1, 50_001)]
    labels = tars.imagenet_classes("val.tar", names)
    assert labels[:3] == ["n01751748", "n09193705", "n02105855"]
    groups, counts = np.unique(labels, return_counts=True)
    assert len(groups) == 1000 and set(counts) == {50}


# Arrays


def resized(data, size):
    return [(Fit((size, size))(image), label) for image, label in data]


@pytest.mark.parametrize("kind", ["folder", "tars", "prepared set"])
def test_arrays_hold_the_evaluations_view(kind, tree, tmp_path, capsys):
    write(tree / "train/cat/wide.png", encoded(pixels(3, (33, 90)), "PNG"))
    source = tree
    if kind == "tars":
        source = make_tars(tree, tmp_path / "tars")
    elif kind == "prepared set":
        assert prepare(tree, tmp_path / "records") == 0
        source = tmp_path / "records" / "insects"
    assert prepare(source, tmp_path / "out", "--size=32", "--name=small-32") == 0
    assert f"{kind}: 19 train, 6 test images" in capsys.readouterr().out
    path = tmp_path / "out" / "small-32"
    dataset = load_dataset(str(path))
    wanted = load_dataset(str(tree), image_size=32)
    assert dataset.image_shape == (32, 32, 3)
    assert dataset.class_names == wanted.class_names
    for name in ("train", "val", "test"):
        same(
            everything(dataset.split(name)), resized(everything(wanted.split(name)), 32)
        )
    images = np.load(path / "train_images.npy", mmap_mode="r")
    assert (images.shape, images.dtype) == ((19, 32, 32, 3), np.uint8)
    again = pickle.loads(pickle.dumps(dataset.train))
    same(everything(again), everything(dataset.train))
    assert isinstance(again.split, arrays.Mapped)


def test_arrays_of_256_give_the_published_evaluation_of_224_exactly(tmp_path):
    """Resized to 256 and cut to 224: what is resized already is cut alone."""
    evaluation = Fit((224, 224), 0.875)
    for shape in ((300, 401), (411, 257), (256, 300), (100, 90)):
        image = pixels(1, shape)
        kept = Fit((256, 256))(image)
        np.testing.assert_array_equal(evaluation(kept), evaluation(image))


def test_grey_sets_stay_grey(tmp_path):
    rows = [(tfds_sets.encoded(n, mode="L"), n % 3) for n in range(6)]
    tfds_sets.prepare(tmp_path, {"train": rows, "test": rows[:3]}, channels=1)
    assert prepare(tmp_path / "insects", tmp_path / "out", "--size=8") == 0
    dataset = load_dataset(str(tmp_path / "out/insects-8"), val_fraction=0.5)
    assert dataset.image_shape == (8, 8, 1)
    wanted = load_dataset("tfds:insects", directory=str(tmp_path), val_fraction=0.5)
    for (image, _), (other, _) in zip(
        everything(dataset.test), resized(everything(wanted.test), 8), strict=True
    ):
        np.testing.assert_array_equal(image, other)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda p: (p / "train_images.npy").unlink(), "train_images.npy is missing or"),
        (lambda p: cut(p / "test_images.npy"), "test_images.npy is missing or damaged"),
        (lambda p: np.save(p / "test_labels.npy", np.zeros(6)), "test_labels.npy is"),
        (
            lambda p: np.save(p / "test_labels.npy", np.full(6, 3, np.int32)),
            "has labels up to 3, and there are 3 classes",
        ),
        (lambda p: (p / "test_labels.npy").write_bytes(b""), "test_labels.npy is"),
        (lambda p: (p / "arrays.json").write_text("{"), "arrays.json is damaged"),
        (lambda p: (p / "arrays.json").write_text("{}"), "arrays.json is damaged"),
    ],
    ids=range(7),
)
def test_damaged_arrays_are_refused_when_they_are_loaded(
    spoil, words, insects, tmp_path
):
    assert prepare(insects, tmp_path, "--size=8") == 0
    spoil(tmp_path / "insects-8")
    with pytest.raises(UserError, match=words) as caught:
        load_dataset(str(tmp_path / "insects-8"))
    assert "prepare the set again" in str(caught.value)
    assert prepare(insects, tmp_path, "--size=8") == 0
    assert prepare(insects, tmp_path / "other", "--size=8") == 0
    assert content(tmp_path / "insects-8") == content(tmp_path / "other/insects-8")


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


# Images that cannot be read


@pytest.mark.parametrize("form", [(), ("--size=16",)], ids=["records", "arrays"])
def test_unreadable_images(form, tree, tmp_path, capsys):
    out, broken = tmp_path / "out", tree / "train/bee/002.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-40])
    message = refused(capsys, tree, out, *form)
    assert f"{broken} is not a readable image" in message
    assert "--unreadable skip" in message
    name = "insects-16" if form else "insects"
    unfinished = out / name if form else out / name / "1.0.0"
    assert not unfinished.exists()
    with pytest.raises(UserError):
        load_dataset(str(out / name)) if form else read(out)

    assert prepare(tree, out, *form, "--unreadable=skip") == 0
    output = capsys.readouterr().out
    assert f"1 images are left out, the first: {broken}" in output
    assert re.search(r"\d+ shards to make, [1-9]\d* are there", output)
    left = load_dataset(str(out / name)) if form else read(out)
    broken.unlink()
    wanted = everything(load_dataset(str(tree)).train)
    wanted += everything(load_dataset(str(tree)).val)
    wanted = resized(wanted, 16) if form else wanted
    key = [(image.tobytes(), label) for image, label in wanted]
    pairs = [*everything(left.train), *everything(left.val)]
    assert sorted((image.tobytes(), label) for image, label in pairs) == sorted(key)

    broken.write_bytes(whole)
    assert prepare(tree, out, *form) == 0  # without skip: that shard alone
    assert "the source has changed since: 1 shards are made anew" in (
        capsys.readouterr().out
    )
    assert prepare(tree, tmp_path / "other", *form) == 0
    assert content(out / name) == content(tmp_path / "other" / name)


def test_no_image_of_a_split_can_be_read(tree, tmp_path, capsys):
    for path in (tree / "test").rglob("*.png"):
        path.write_bytes(b"")
    message = refused(capsys, tree, tmp_path / "out", "--unreadable=skip")
    assert "not one image of split test can be read" in message


# Damage and changed sources


@pytest.mark.parametrize("form", [(), ("--size=16",)], ids=["records", "arrays"])
def test_what_is_damaged_is_named_and_made_anew_alone(form, insects, tmp_path, capsys):
    assert prepare(insects, tmp_path, *form) == 0
    directory = tmp_path / ("insects-16" if form else "insects/1.0.0")
    check = [
        "prepare",
        "--check",
        str(tmp_path / ("insects-16" if form else "insects")),
    ]
    assert __main__.main(check) == 0
    assert "18 train, 6 test images, all " in capsys.readouterr().out
    before = content(directory)
    victims = {
        "train_images.npy" if form else shards(tmp_path)[1].name: None,
        "arrays.json" if form else "features.json": None,
    }
    for name in victims:
        path = directory / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.write_bytes(data)
    times = {p: p.stat().st_mtime_ns for p in directory.iterdir()}
    assert __main__.main(check) == 2
    message = sentence(capsys.readouterr().err)
    # The manifest is not counted as a part. Parts of arrays are rows.
    assert f"2 of {5 if form else len(before) - 1} parts of" in message
    assert min(victims) in message and "its digest differs" in message
    assert "given again, makes them anew, and those alone" in message
    assert prepare(insects, tmp_path, *form) == 0
    out = capsys.readouterr().out
    assert "damaged, and made anew: " in out and all(name in out for name in victims)
    assert content(directory) == before
    if not form:
        kept = {p.name for p, t in times.items() if p.stat().st_mtime_ns == t}
        assert kept == {
            p.name for p in [*shards(tmp_path), *shards(tmp_path, "test")]
        } - {*victims}
    assert __main__.main(check) == 0


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("train_images.npy", b"|u1", b"|i1"),
        ("test_labels.npy", b"<i4", b"<u4"),
        ("train_images.npy", b"'fortran_order': False", b"'fortran_order': True "),
    ],
)
def test_damage_in_a_header(file, old, new, insects, tmp_path, capsys):
    """The rows are whole, and the header of their file is damaged."""
    assert prepare(insects, tmp_path, "--size=8") == 0
    directory = tmp_path / "insects-8"
    before = content(directory)
    assert before[file].count(old) == 1
    (directory / file).write_bytes(before[file].replace(old, new))
    check = ["prepare", "--check", str(directory)]
    assert __main__.main(check) == 2
    message = sentence(capsys.readouterr().err)
    assert "1 of 3 parts of" in message or "2 of 3 parts of" in message
    split = file.partition("_")[0]
    assert f"{split}_images.npy[0:" in message and "another type or shape" in message
    with pytest.raises(UserError, match=f"{file} is missing or damaged"):
        load_dataset(str(directory))
    assert prepare(insects, tmp_path, "--size=8") == 0
    output = capsys.readouterr().out
    assert "damaged, and made anew: " in output and "has changed" not in output
    assert content(directory) == before
    assert __main__.main(check) == 0


def test_a_shard_that_is_gone(insects, tmp_path, capsys):
    assert prepare(insects, tmp_path) == 0
    shards(tmp_path)[0].unlink()
    assert __main__.main(["prepare", "--check", str(tmp_path / "insects")]) == 2
    error = sentence(capsys.readouterr().err)
    assert "00000-of-" in error and "(it is missing)" in error


def test_a_source_that_changed(tree, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(tree, out) == 0
    times = [path.stat().st_mtime_ns for path in shards(out)]
    changed = tree / "train/ant/000.png"
    size = changed.stat().st_size  # which decides how many shards there are
    others = (encoded(pixels(n, SIZE), "PNG") for n in itertools.count(77))
    other = next(data for data in others if len(data) <= size)
    write(changed, other.ljust(size, b"\0"))
    assert prepare(tree, out) == 0
    assert "source has changed since: 1 shards are made" in capsys.readouterr().out
    after = [path.stat().st_mtime_ns for path in shards(out)]
    assert [a == b for a, b in zip(times, after, strict=True)].count(False) == 1
    for n in range(6):
        (tree / f"train/cat/{n:03}.png").unlink()
    write(tree / "train/cat/only.png", encoded(pixels(78, SIZE), "PNG"))
    assert prepare(tree, out) == 0
    assert prepare(tree, tmp_path / "fresh") == 0
    assert content(out) == content(tmp_path / "fresh")


def grown(tree):
    """Adds images after the others, whose shards stay the same."""
    for n in range(7):
        write(tree / f"train/cat/more_{n}.png", encoded(pixels(80 + n, SIZE), "PNG"))


def shrunk(tree):
    """Removes the images of the last shard of arrays of 16 pixels."""
    for path in (tree / "train/cat").iterdir():
        if path.name != "000.png":
            path.unlink()
    (tree / "train/bee/005.png").unlink()


def without_validation(tree):
    shutil.rmtree(tree / "val")


@pytest.mark.parametrize("form", [(), ("--size=16",)], ids=["records", "arrays"])
@pytest.mark.parametrize("change", [grown, shrunk, without_validation])
def test_a_source_that_grew_or_shrank(change, form, tree, tmp_path, capsys):
    """The completed set has the bytes and pixels of one that is made from nothing."""
    shutil.copytree(tree / "test", tree / "val")
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    assert prepare(tree, out, *form) == 0
    change(tree)
    capsys.readouterr()
    assert prepare(tree, out, *form) == 0
    output = capsys.readouterr().out
    assert "the source has changed since: " in output and "damaged" not in output
    name = "insects-16" if form else "insects"
    assert __main__.main(["prepare", "--check", str(out / name)]) == 0
    capsys.readouterr()
    assert prepare(tree, fresh, *form) == 0
    assert content(out) == content(fresh)
    dataset = load_dataset(str(out / name)) if form else read(out)
    wanted = load_dataset(str(tree))
    for split in ("train", "val", "test"):
        data = everything(wanted.split(split))
        same(everything(dataset.split(split)), resized(data, 16) if form else data)
    assert prepare(tree, out, *form) == 0
    assert "is prepared already, and whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, words",
    [(["--shard-mib=0.01"], "another shard_mib"), ([], "another source")],
)
def test_another_request_for_the_same_place(
    flags, words, tree, insects, tmp_path, capsys
):
    assert prepare(insects, tmp_path / "out") == 0
    before = content(tmp_path / "out")
    source = insects if flags else tree
    assert words in refused(capsys, source, tmp_path / "out", *flags)
    assert content(tmp_path / "out") == before


def test_what_this_command_has_not_made_is_let_be(insects, tmp_path, capsys):
    write(tmp_path / "insects/1.0.0/dataset_info.json", b"{}")
    assert "this command has not made it" in refused(capsys, insects, tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"version": 1, "options": {}, "shards": {"a": {}}}']
)
def test_a_manifest_that_is_damaged(text, insects, tmp_path, capsys):
    assert prepare(insects, tmp_path) == 0
    (tmp_path / "insects/1.0.0/manifest.json").write_text(text)
    message = refused(capsys, insects, tmp_path)
    assert "manifest.json" in message


def test_what_is_there_already(insects, tmp_path, capsys):
    assert prepare(insects, tmp_path) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert prepare(insects, tmp_path) == 0
    assert "is prepared already, and whole" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


# Estimates and refusals


def test_a_disk_that_is_too_small(insects, tmp_path, capsys):
    message = refused(capsys, insects, tmp_path, "--size=200000")
    assert re.search(
        r"insects-200000 needs \d+\.\d GiB more, and .* free: make", message
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [(), ("--size=100",)], ids=["records", "arrays"])
def test_files_may_not_be_large(form, insects, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        message = refused(capsys, insects, tmp_path, *form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message.endswith(" cannot be written (File too large)")
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ([] if form else ["manifest.json"])


@pytest.mark.parametrize("form", [(), ("--size=8",)], ids=["records", "arrays"])
def test_a_dry_run_writes_nothing(form, tree, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(tree, out, "--dry-run", *form) == 0
    output = capsys.readouterr().out
    assert "18 train, 6 test images" in output and "shards to make" in output
    assert not out.exists()
    # Nor into a set that is present and damaged.
    assert prepare(tree, out, *form) == 0
    (tree / "train/ant/000.png").unlink()
    cut(next(out.rglob("*array_record*") if not form else out.rglob("*.npy")))
    before = content(tmp_path)
    assert prepare(tree, out, "--dry-run", *form) == 0
    assert "shards to make" in capsys.readouterr().out
    assert content(tmp_path) == before


def space(monkeypatch, free):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free)
    )


def taken(directory):
    """Bytes that a file takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def with_another_class(tree):
    """Changes all shards, and the size of none."""
    for split in ("train", "test"):
        (tree / split / "cat").rename(tree / split / "dog")


def test_rows_are_replaced_where_they_stand(tree, tmp_path, monkeypatch, capsys):
    out, needed = tmp_path / "out", 24 * (64 * 64 * 3 + 4)
    with monkeypatch.context() as patch:
        space(patch, needed - 1)
        assert " needs 288.1 KiB more" in refused(capsys, tree, out, "--size=64")
        space(patch, needed)
        assert prepare(tree, out, "--size=64") == 0
    with_another_class(tree)
    space(monkeypatch, 0)
    capsys.readouterr()
    assert prepare(tree, out, "--size=64") == 0
    output = capsys.readouterr().out
    assert "24 shards are made anew" in output and ", 0 bytes of 0 bytes free" in output
    assert load_dataset(str(out / "insects-64")).class_names[-1] == "dog"


def test_rows_that_are_not_written_yet_take_room(tree, tmp_path, monkeypatch, capsys):
    """A sparse file has its full size from the beginning."""
    out, broken = tmp_path / "out", tree / "train/ant/001.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    assert "not a readable image" in refused(capsys, tree, out, "--size=64")
    broken.write_bytes(whole)
    left = taken(out / "incomplete.insects-64")
    assert left < 5 * 64 * 64 * 3  # of 24 rows
    space(monkeypatch, 17 * 64 * 64 * 3)
    assert " more, and " in refused(capsys, tree, out, "--size=64")


def test_files_are_replaced_one_by_one(tree, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert prepare(tree, out) == 0
    old = [path.stat().st_blocks * 512 for path in out.rglob("*array_record*")]
    with_another_class(tree)

    def bytes_needed(directory, shard_bytes=5242):
        source = sources.open_source(str(tree))
        form = records.Records(source, "insects", "1.0.0", shard_bytes)
        return form.bytes_needed(str(directory), form.shards(), 1.0, 1)

    # Estimates are larger than the files, so that no file has too little room.
    afresh, growth = bytes_needed(""), 2**14
    assert max(old) + growth < sum(old) < afresh
    # Files of another number of shards are removed before the one shard is written.
    assert bytes_needed(out / "insects/1.0.0", 2**20) == max(
        bytes_needed("", 2**20) - sum(old), 0
    )
    with monkeypatch.context() as patch:
        space(patch, afresh - sum(old))
        assert " more, and " in refused(capsys, tree, out)
        space(patch, afresh - sum(old) + max(old) + growth)
        assert prepare(tree, out) == 0
    assert f"{len(old)} shards are made anew" in capsys.readouterr().out


def test_more_workers_than_cores_take_no_less_time(
    insects, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(host, "cores", lambda: 2)
    monkeypatch.setattr(sets, "sample", lambda request, inventory: (10.0, 1.0))
    for workers, duration in ((1, "4 min 0 s"), (2, "2 min 0 s"), (8, "2 min 0 s")):
        assert prepare(insects, tmp_path, "--dry-run", f"--workers={workers}") == 0
        assert f"about {duration} with {workers} worker" in capsys.readouterr().out


def tar_of(path, names, kind="w", **about):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, kind) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            for key, value in about.items():
                setattr(info, key, value)
            data = b"" if about else encoded(pixels(0), "PNG")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.parent


GOOD = ("a/0.png", "b/0.png")


def mistakes(tmp_path):
    """For each refusal: the source, flags, and words of the message."""
    where = tmp_path / "source"
    test = where / "test.tar"
    yield "none", tmp_path / "none", (), "there is no folder"
    yield (
        "file",
        tar_of(where / "train.tar", GOOD) / "train.tar",
        (),
        "a file: name the",
    )
    yield "alone", tar_of(where / "train.tar", GOOD), (), "train.tar alone: put"
    tar_of(test, GOOD)
    yield "other", tar_of(test, ("a/0.png",)), (), "training images, and lacks b"
    yield "more", tar_of(test, (*GOOD, "c/0.png")), (), "has besides c"
    yield "loose", tar_of(test, (*GOOD, "0.png")), (), "0.png in .* stands in no class"
    yield "deep", tar_of(test, ("x/y/z/0.png",)), (), "but deeper ones alone"
    yield "empty", tar_of(test, ("a/x.txt",)), (), "test.tar holds no images"
    yield "gzip", tar_of(test, GOOD, "w:gz"), (), "no readable tar .*unpacked first"
    link = dict(type=tarfile.SYMTYPE, linkname="b/0.png")
    yield "link", tar_of(test, ("a/0.png",), **link), (), "is a link or has holes"
    tar_of(test, GOOD)
    test.write_bytes(test.read_bytes()[:700])
    yield "cut", where, (), "test.tar is (no readable tar|cut short)"
    tar_of(test, GOOD)
    end = test.read_bytes().rstrip(b"\0")
    test.write_bytes(end + bytes(-len(end) % 512))
    yield "end", where, (), "test.tar is cut short after"
    tar_of(test, GOOD)
    (where / "train").mkdir()
    yield "both", where, (), "holds both train.tar and a folder train"
    (where / "train").rmdir()
    yield "labels", where, ("--val-labels=x",), "is for ImageNet's tars"


@pytest.mark.parametrize("of", ["image", "tar"])
def test_links_in_the_tars_of_imagenet_are_refused(of, tmp_path, capsys):
    where, _ = imagenet(tmp_path / "tars")
    link = tarfile.TarInfo("n1_9.JPEG" if of == "image" else "n1.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "n0"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(link)
    inner = tarfile.TarInfo("n2.tar")
    inner.size = len(file.getvalue())
    with tarfile.open(where / "ILSVRC2012_img_train.tar", "a") as tar:
        if of == "image":
            tar.addfile(inner, io.BytesIO(file.getvalue()))
        else:
            tar.addfile(link)
    message = refused(capsys, where, tmp_path / "out", "--partial")
    within = " in n2.tar" if of == "image" else ""
    assert f"{link.name}{within} in {where}/ILSVRC2012_img_train.tar is a" in message


def test_tars_that_are_refused(tmp_path, capsys):
    for key, source, flags, words in mistakes(tmp_path):
        message = refused(capsys, source, tmp_path / "out", *flags)
        assert re.search(words, message), (key, message)
        assert not any((tmp_path / "out").iterdir()), key


@pytest.mark.parametrize(
    "lines, words",
    [
        (["n01440764"], "and has 1 lines"),
        (["1", "2", "1"], "holds numbers, as the development kit's"),
        (["n01440764"] * 3, "lacks n01443537"),
        (["x.JPEG n01440764"], "names no class of ILSVRC2012_val_00000001.JPEG"),
        (None, "cannot be read"),
        ("", "whose classes are known: name theirs"),
    ],
)
def test_labels_of_validation_images_that_do_not_fit(lines, words, tmp_path, capsys):
    where, _ = imagenet(tmp_path / "tars")
    file = tmp_path / "labels.txt"
    if lines:
        file.write_text("\n".join(lines))
    flags = [] if lines == "" else [f"--val-labels={file}"]
    assert words in refused(capsys, where, tmp_path / "out", "--partial", *flags)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--size=0"], "--size must be at least 1, and is 0"),
        (["--workers=0"], "--workers is at least 1"),
        (["--shard-mib=0"], "--shard-mib above 0"),
        (["--shard-mib=nan"], "--shard-mib above 0"),
        (["--name=a b"], "'a b' is not made of letters"),
        *(
            ([f"--name={name}", *dry], f"{name!r} is not made of letters, digits and")
            for name in ("_x", "été", "2024", "a-b")
            for dry in ([], ["--dry-run"])
        ),
        (["--name=../x", "--size=8"], "'../x' is not made of letters"),
        (["--name="], "--name is empty"),
        (["--name=imagenet2012"], "train has 18 images of 1,281,167"),
        (["--manual-dir=x"], "--manual-dir is for a SOURCE tfds:NAME"),
        (["--val-labels=x"], "--val-labels is for tars"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(flags, words, insects, tmp_path, capsys):
    assert words in refused(capsys, insects, tmp_path, *flags)
    assert list(tmp_path.iterdir()) == []


def test_more_mistakes(insects, tmp_path, capsys):
    assert "gs://b/out is no path on" in refused(capsys, insects, "gs://b/out")
    write(tmp_path / "file", b"")
    assert "file" in refused(capsys, insects, tmp_path / "file" / "out")
    assert prepare(insects, tmp_path / "out") == 0
    message = refused(capsys, tmp_path / "out/insects", tmp_path / "out")
    assert "is prepared already; --size N makes" in message
    for arguments in (["prepare"], ["prepare", str(insects)]):
        assert __main__.main(arguments) == 2
        assert "takes a SOURCE and an OUT" in sentence(capsys.readouterr().err)
    assert __main__.main(["prepare", "--check", str(insects)]) == 2
    assert "holds no whole set" in sentence(capsys.readouterr().err)


def test_a_name_that_is_no_line_of_text(tmp_path, capsys):
    root = fill(tmp_path / "odd", {"train": 1, "test": 1}, ["a", "b "])
    assert "cannot be written as a line" in refused(capsys, root, tmp_path / "out")


def test_another_process_that_prepares_the_same(insects, tmp_path, capsys):
    from sws_jax.storage import locks

    with locks.claimed(str(tmp_path / ".insects.lock")) as alone:
        assert alone
        message = refused(capsys, insects, tmp_path)
    assert "another process is preparing" in message


# Sets of TFDS


@pytest.mark.skipif(TENSORFLOW, reason="TensorFlow is installed, and would be used")
def test_without_tensorflow(tmp_path, capsys):
    message = refused(capsys, "tfds:cifar10", tmp_path)
    assert "with TensorFlow, which is not installed: pip install tensorflow-cpu" in (
        message
    )


@pytest.fixture
def builder():
    """A set that TFDS knows by its name, and prepares without TensorFlow."""
    import tensorflow_datasets as library

    library.disable_progress_bar()
    asked = []

    class PrepareMoths(library.core.GeneratorBasedBuilder):
        VERSION = library.core.Version("2.0.0")

        def _info(self):
            kinds = library.features
            return library.core.DatasetInfo(
                builder=self,
                features=kinds.FeaturesDict(
                    {
                        "image": kinds.Image(shape=(None, None, 3)),
                        "label": kinds.ClassLabel(names=["day", "night"]),
                    }
                ),
            )

        def _split_generators(self, manager):
            asked.append(os.fspath(manager.manual_dir))
            return {
                "train": self._generate_examples(8),
                "test": self._generate_examples(2),
            }

        def _generate_examples(self, count):
            for n in range(count):
                image = io.BytesIO(encoded(pixels(n), "PNG"))
                yield n, {"image": image, "label": n % 2}

        MANUAL_DOWNLOAD_INSTRUCTIONS = "files of one's own"

    yield asked
    library.core.registered._DATASET_REGISTRY.pop("prepare_moths")


def test_tfds_prepares_what_it_knows(builder, tmp_path, capsys):
    manual = tmp_path / "manual"
    write(manual / "moths.zip", b"")
    request = standard.Request("prepare_moths", str(tmp_path), str(manual))
    place = standard.make(request)
    assert place == str(tmp_path / "prepare_moths/2.0.0")
    assert builder == [str(manual)]
    dataset = read(tmp_path, "prepare_moths", val_fraction=0.5)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4, 4, 2)
    assert "tensorflow" not in sys.modules
    check = ["prepare", "--check", str(tmp_path / "prepare_moths")]
    assert __main__.main(check) == 0
    assert "8 train, 2 test images, all " in capsys.readouterr().out
    assert standard.find(request, 1) == place
    cut(next(pathlib.Path(place).glob("*test*")))
    assert __main__.main(check) == 2
    assert "given again, makes them anew\n" in capsys.readouterr().err
    assert standard.find(request, 1) == ""
    assert standard.make(request) == place and len(builder) == 2
    assert __main__.main(check) == 0
    # Resized arrays of it need no TensorFlow, since it is prepared.
    assert prepare("tfds:prepare_moths", tmp_path, "--size=8") == 0
    dataset = load_dataset(str(tmp_path / "prepare_moths-8"), val_fraction=0.5)
    assert dataset.image_shape == (8, 8, 3)


def test_tfds_prepares_fewer_images_than_are_known(builder, tmp_path, monkeypatch):
    monkeypatch.setitem(parts.COUNTS, "prepare_moths", {"train": 9})
    write(tmp_path / "manual/moths.zip", b"")
    request = standard.Request("prepare_moths", str(tmp_path), str(tmp_path / "manual"))
    place = tmp_path / "prepare_moths/2.0.0"
    with pytest.raises(
        UserError, match="train has 8 images of 9: .* stays in .*incomplete"
    ):
        standard.make(request)
    assert not place.exists()
    taken = dataclasses.replace(request, partial=True)
    assert standard.make(taken) == str(place) and len(builder) == 1  # not again
    assert standard.find(request, 1) == str(place)


@pytest.fixture
def moths(builder, tmp_path):
    """A set that TFDS has prepared by itself; its directory."""
    import tensorflow_datasets as library

    write(tmp_path / "manual/moths.zip", b"")
    config = library.download.DownloadConfig(manual_dir=str(tmp_path / "manual"))
    tfds_builder = library.builder(
        "prepare_moths", data_dir=str(tmp_path), file_format="array_record"
    )
    tfds_builder.download_and_prepare(download_config=config)
    return tmp_path / "prepare_moths/2.0.0"


def test_what_tfds_has_prepared_by_itself(moths, tmp_path, capsys):
    before = content(tmp_path)
    for flags in ((), ("--size=8",)):
        assert prepare("tfds:prepare_moths", tmp_path, "--dry-run", *flags) == 0
        assert content(tmp_path) == before
    assert prepare("tfds:prepare_moths", tmp_path) == 0
    assert __main__.main(["prepare", "--check", str(tmp_path / "prepare_moths")]) == 0
    assert "8 train, 2 test images, all " in capsys.readouterr().out


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace(path):
    """With a whole file, of fewer records."""
    shutil.copy(next(path.parent.glob("*-test.array_record*")), path)


@pytest.mark.parametrize(
    "spoil, problem",
    [(halve, ""), (pathlib.Path.unlink, ""), (replace, r", 2 records of 8\)")],
    ids=["halved", "missing", "another"],
)
def test_what_tfds_has_prepared_by_itself_and_is_damaged(
    spoil, problem, moths, builder, tmp_path, capsys, monkeypatch
):
    spoil(next(moths.glob("*-train.array_record*")))
    before = content(tmp_path)

    def without(name):
        raise UserError(f"{name} needs TensorFlow")

    with monkeypatch.context() as patch:
        patch.setattr(standard, "check_tensorflow", without)
        assert prepare("tfds:prepare_moths", tmp_path) == 2
        out, error = capsys.readouterr()
        words = "1 of 1 files of split train in .* are missing or damaged, "
        assert re.search(words + f".*prepare_moths-train.*{problem}\n", out)
        assert "needs TensorFlow" in sentence(error) and "prepared:" not in out
        message = refused(capsys, "tfds:prepare_moths", tmp_path, "--dry-run")
        assert "which is not prepared" in message
    assert content(tmp_path) == before  # no manifest, which would call it whole
    request = standard.Request("prepare_moths", str(tmp_path), str(tmp_path / "manual"))
    assert standard.find(request, 1) == ""
    assert standard.make(request) == str(moths) and len(builder) == 2
    assert standard.find(request, 1) == str(moths)


def test_a_set_that_tfds_left_damaged_is_not_taken(builder, tmp_path, monkeypatch):
    """It is prepared again, although it is where TFDS puts finished sets."""
    monkeypatch.setitem(parts.COUNTS, "prepare_moths", {"train": 9})
    write(tmp_path / "manual/moths.zip", b"")
    request = standard.Request("prepare_moths", str(tmp_path), str(tmp_path / "manual"))
    with pytest.raises(UserError, match="train has 8 images of 9"):
        standard.make(request)
    left = tmp_path / "incomplete.tfds.prepare_moths/prepare_moths/2.0.0"
    halve(next(left.glob("*-train.array_record*")))
    place = standard.make(dataclasses.replace(request, partial=True))
    assert len(builder) == 2 and standard.find(request, 1) == place


def test_what_tfds_has_downloaded_or_begun_takes_no_more_room(
    tmp_path, monkeypatch, capsys
):
    info = types.SimpleNamespace(
        name="moths", full_name="moths/1.0.0", download_size=4000, dataset_size=500
    )
    begun = tmp_path / "begun"
    arguments = (info, str(tmp_path), str(begun))
    space(monkeypatch, 1500)
    with pytest.raises(UserError, match="needs 4.4 KiB, and .* has 1.5 KiB free"):
        standard.check_space(*arguments)
    folder = tmp_path / "downloads" / "moths" / "deep"
    write(folder / "whole.zip", bytes(3000))
    with pytest.raises(UserError, match="needs 4.4 KiB"):  # TFDS does not know it
        standard.check_space(*arguments)
    write(folder / "whole.zip.INFO", b"{}")
    write(tmp_path / "downloads/wasps/other.zip", bytes(1000))
    write(tmp_path / "downloads/wasps/other.zip.INFO", b"{}")
    standard.check_space(*arguments)
    assert "1.5 KiB with its downloads, 1.5 KiB free" in capsys.readouterr().out
    info.download_size = 2000  # as TFDS knew it, which may be old
    standard.check_space(*arguments)
    assert "500 bytes with its downloads" in capsys.readouterr().out
    info.dataset_size = 1600
    with pytest.raises(UserError, match="needs 1.6 KiB"):
        standard.check_space(*arguments)
    write(begun / "moths/2.0.0.incomplete/half", bytes(200))
    standard.check_space(*arguments)


def test_what_tfds_does_not_know(tmp_path):
    with pytest.raises(UserError, match="TFDS has no no_such_set"):
        standard.make(standard.Request("no_such_set", str(tmp_path)))


def test_a_damaged_set_stands_until_there_is_a_whole_one(builder, tmp_path):
    write(tmp_path / "manual/moths.zip", b"")
    request = standard.Request("prepare_moths", str(tmp_path), str(tmp_path / "manual"))
    place = standard.make(request)
    whole = content(place)
    cut(next(pathlib.Path(place).glob("*test*")))
    before = content(place)
    assert standard.find(request, 1) == ""
    without = dataclasses.replace(request, manual_dir=str(tmp_path / "none"))
    with pytest.raises(UserError, match="TFDS cannot prepare prepare_moths"):
        standard.make(without)
    assert content(place) == before != whole
    assert standard.make(request) == place
    assert content(place).keys() == whole.keys()
    assert standard.find(request, 1) == place
    left = {path.name for path in tmp_path.iterdir()} - {"downloads"}
    assert left == {"prepare_moths", "manual"}


MOTHS = """
import os, pathlib, time
import tensorflow_datasets as library

class WaitingMoths(library.core.GeneratorBasedBuilder):
    VERSION = library.core.Version("2.0.0")

    def _info(self):
        label = library.features.ClassLabel(names=["day", "night"])
        features = library.features.FeaturesDict({"label": label})
        return library.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        here = pathlib.Path(os.environ["MOTHS"])
        (here / "began").write_text(str(os.getpid()))
        while not (here / "go").exists():
            time.sleep(0.01)
        if (here / "fail").exists():
            raise ValueError("no moths tonight")
        for n in range(4):
            yield n, {"label": n % 2}
"""
# As if TensorFlow were installed, which such labels do not need.
WAITING = """
import sys
from sws_jax import __main__
from sws_jax.prepare import standard
standard.check_tensorflow = lambda name: None
sys.exit(__main__.main(["prepare", "tfds:waiting_moths", sys.argv[1]]))
"""


@pytest.fixture
def waiting(tmp_path):
    """A command, and its process of TFDS, in which the set waits."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/sitecustomize.py").write_text(MOTHS)
    path = [str(tmp_path / "code"), str(ROOT)]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path / "out")],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "MOTHS": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    began = tmp_path / "began"
    while not (began.exists() and began.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process, int(began.read_text())
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_tfds_in_its_process_and_a_second_command(waiting, tmp_path, capsys):
    process, _ = waiting
    out = tmp_path / "out"
    message = refused(capsys, "tfds:waiting_moths:2.0.0", out)
    assert "another process is preparing tfds:waiting_moths:2.0.0" in message
    (tmp_path / "go").touch()
    done = children.ended(process)
    assert done.code == 0, done.err
    assert "how long TFDS takes is not known beforehand" in done.out
    assert "Generating train examples" in done.err  # its bar
    assert __main__.main(["prepare", "--check", str(out / "waiting_moths")]) == 0
    assert {path.name for path in out.iterdir()} - {"downloads"} == {"waiting_moths"}


@pytest.mark.slow
def test_tfds_fails_in_its_process(waiting, tmp_path):
    process, _ = waiting
    (tmp_path / "fail").touch()
    (tmp_path / "go").touch()
    done = children.ended(process)
    assert done.code == 2
    assert "TFDS cannot prepare waiting_moths (" in done.refusal()
    assert "no moths tonight" in done.refusal()


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)]
)
def test_tfds_ends_with_the_command(number, code, waiting):
    """Otherwise it would go on writing without a lock."""
    process, inner = waiting
    process.send_signal(number)
    assert process.wait() == code
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{inner}") and not zombie(inner):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def zombie(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return state.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow is not installed")
def test_tfds_with_tensorflow(tmp_path, capsys):
    """ImageNet's builder, on tars of a few images."""
    where, _ = imagenet(tmp_path / "tars")
    code = prepare(
        "tfds:imagenet2012", tmp_path / "out", f"--manual-dir={where}", "--partial"
    )
    assert code == 0, capsys.readouterr().err
    dataset = read(tmp_path / "out", "imagenet2012", val_fraction=0.5)
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (4, 3, 1000)


# Killed processes


def command(*arguments):
    return [sys.executable, "-m", "sws_jax", "prepare", *map(str, arguments)]


def start(*arguments, **settings):
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, text=True, stderr=subprocess.PIPE, **settings
    )


@pytest.fixture(scope="session")
def larger(tmp_path_factory):
    """A folder that takes a while, and is not to be written to."""
    root = tmp_path_factory.mktemp("larger") / "insects"
    return fill(root, {"train": 24, "test": 2}, size=(200, 220))


@pytest.mark.slow
@pytest.mark.parametrize("form", [(), ("--size=64",)], ids=["records", "arrays"])
def test_killed_and_done_again_in_parallel(form, larger, tmp_path):
    """The bytes are those of a serial run without interruption."""
    flags = ["--shard-mib=0.02", *form]
    folder = tmp_path / "out" / ("" if form else "insects")
    building = folder / ("incomplete.insects-64" if form else "incomplete.1.0.0")
    manifest = building / manifests.MANIFEST
    process = start(larger, tmp_path / "out", *flags, "--workers=2")
    deadline = time.monotonic() + 60
    while done(manifest) < 12:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    before = done(manifest)
    assert 12 <= before < 78
    assert not (folder / ("insects-64" if form else "1.0.0")).exists()
    process = start(
        larger, tmp_path / "out", *flags, "--workers=2", stdout=subprocess.PIPE
    )
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert f"{before} are there" in out
    serial = ["prepare", str(larger), str(tmp_path / "serial"), *flags, "--workers=1"]
    assert __main__.main(serial) == 0
    assert content(tmp_path / "out") == content(tmp_path / "serial")
    whole = folder / ("insects-64" if form else "1.0.0")
    entries = json.loads((whole / manifests.MANIFEST).read_text())["shards"]
    checks = work.run(work.Verify(str(whole)), list(entries.items()), 2)
    assert [problem for _, problem in checks] == [""] * len(entries)


def done(manifest):
    try:
        return len(json.loads(manifest.read_text())["shards"])
    except FileNotFoundError:
        return 0


def finished(building):
    """Number of finished shards; no file is left half written."""
    assert not [p.name for p in building.iterdir() if p.name.startswith(".")]
    return done(building / manifests.MANIFEST)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code, to_all, early",
    [
        (signal.SIGINT, 130, False, False),
        (signal.SIGTERM, 75, True, False),
        (signal.SIGINT, 130, True, True),
    ],
)
def test_asked_to_end(number, code, to_all, early, larger, tmp_path):
    """A signal is sent to the command or to all processes, also while they start."""
    flags = ["--shard-mib=0.02", "--workers=2"]
    process = start(
        larger, tmp_path / "out", *flags, stdout=subprocess.PIPE, start_new_session=True
    )
    manifest = tmp_path / "out/insects/incomplete.1.0.0" / manifests.MANIFEST
    deadline = time.monotonic() + 60
    while not manifest.exists() if early else done(manifest) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    if early:
        time.sleep(0.3)  # the server of processes loads what they need
    asked = time.monotonic()
    (os.killpg if to_all else os.kill)(process.pid, number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (code, "")
    assert out.endswith("stopped: the same command goes on\n")
    assert time.monotonic() - asked < 20
    assert finished(manifest.parent) < 78
    assert not (tmp_path / "out/.insects.lock").exists()


@pytest.mark.parametrize("form", [(), ("--size=16",)], ids=["records", "arrays"])
def test_asked_to_end_in_the_midst_of_a_shard(
    form, insects, tmp_path, monkeypatch, capsys
):
    decode, calls, before = images.decode, [], signal.getsignal(signal.SIGTERM)

    def asked(*args, **settings):
        calls.append(args)
        if len(calls) == 24 + 11:  # after those that are tried
            signal.raise_signal(signal.SIGTERM)
        return decode(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(images, "decode", asked)
        assert prepare(insects, tmp_path / "out", *form) == 75
    out, error = capsys.readouterr()
    assert out.endswith("\nstopped: the same command goes on\n") and error == ""
    assert signal.getsignal(signal.SIGTERM) == before
    folder = tmp_path / "out" / ("" if form else "insects")
    kept = finished(folder / ("incomplete.insects-16" if form else "incomplete.1.0.0"))
    assert kept > 0
    assert prepare(insects, tmp_path / "out", *form) == 0
    assert f", {kept} are there" in capsys.readouterr().out
    assert prepare(insects, tmp_path / "other", *form) == 0
    assert content(tmp_path / "out") == content(tmp_path / "other")


@pytest.mark.slow
def test_an_unreadable_image_ends_all_workers(tree, tmp_path):
    (tree / "train/cat/005.png").write_bytes(b"")
    process = start(tree, tmp_path / "out", "--shard-mib=0.005", "--workers=2")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cat/005.png is not a readable image" in sentence(error)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["records", "arrays"])
def test_a_folder_of_jpegs_prepared_looked_at_and_trained_on(form, tmp_path):
    """By the three commands alone, as docs/data.md has them."""
    root, out, runs = tmp_path / "beetles", tmp_path / "data", tmp_path / "runs"
    for split, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("bark", "dung", "stag")):
            for n in range(count):
                data = encoded(pixels(10 * label + n, SIZE), "JPEG")
                write(root / split / name / f"{n}.jpg", data)

    def command(*words):
        arguments = [sys.executable, "-m", *map(str, words)]
        settings = children.environment()
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        done = children.ended(process)
        assert done.code == 0, (done.out, done.err)
        return done.out

    size = ["--size=16"] if form == "arrays" else []
    output = command("sws_jax", "prepare", root, out, *size)
    source = f"{out / 'beetles-16'}" if size else "tfds:beetles"
    taken = f"data.source={source}" + ("" if size else f" data.directory={out}")
    assert output.splitlines()[-1] == f"prepared: {taken}"
    job = [
        f"--config={ROOT / 'configs/scratch_deit.py'}:depth=1,epochs=2,"
        f"dataset={source},image_size=8",
        f"--workdir={runs}",
        "--config.global_batch_size=8",
        "--config.evaluation.batch_size=8",
        "--config.log_steps=1",
    ]
    if not size:
        job.append(f"--config.data.directory={out}")
    findings = command("sws_jax", "doctor", *job)
    assert "3 classes" in findings, findings
    assert "step 4/4" in command("sws_jax.main", *job)


def test_the_splits_are_those_that_a_run_reads(insects, tmp_path):
    """One held-out choice for folder, records and arrays: all have one length."""
    assert prepare(insects, tmp_path) == prepare(insects, tmp_path, "--size=8") == 0
    kinds = [load_dataset(str(insects)), read(tmp_path)]
    kinds.append(load_dataset(str(tmp_path / "insects-8")))
    indices = [kind.val.indices.tolist() for kind in kinds]
    assert indices[0] == indices[1] == indices[2]
    assert all(isinstance(kind.train, base.Subset) for kind in kinds)
