"""Folders of image files, from the walk through them to a run on them."""

import io
import itertools
import os
import pickle
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from sws_jax import main
from sws_jax.data import (
    base,
    facts,
    fingerprint,
    folder,
    load_dataset,
    pipeline,
)
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError
from sws_jax.pixels import default_normalization
from sws_jax.storage import documents

from support import refusals
from support.images import SIZE, encoded, everything, fill, pixels, same, write
from support.runs import Script


def opened(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def tree(tmp_path):
    return fill(tmp_path / "insects", {"train": 8, "test": 2})


def rows(*splits):
    return sorted((x.tobytes(), y) for split in splits for x, y in everything(split))


def written(root, split):
    """The images as Pillow reads them, in the order of classes and names."""
    content = []
    for label, name in enumerate(sorted(os.listdir(root / split))):
        for path in sorted((root / split / name).iterdir()):
            content.append((opened(path.read_bytes()), label))
    return content


def refusal(source, **settings):
    return refusals.refusal(load_dataset, str(source), **settings)


# Images and classes


@pytest.mark.parametrize("gib", [0.0, 2.0], ids=["streamed", "held"])
def test_a_folder(tree, gib):
    dataset = load_dataset(str(tree), memory_gib=gib, val_fraction=0.25)
    assert (dataset.name, dataset.class_names) == ("insects", ("ant", "bee", "cat"))
    assert dataset.image_shape == (*SIZE, 3)
    assert dataset.normalization == default_normalization(3)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [18, 6, 6]
    same(everything(dataset.test), written(tree, "test"))
    expected = [(x.tobytes(), y) for x, y in written(tree, "train")]
    assert rows(dataset.train, dataset.val) == sorted(expected)


@pytest.mark.parametrize(
    "image, form",
    [
        (Image.fromarray(pixels(0)), "JPEG"),
        (Image.fromarray(pixels(1)).convert("CMYK"), "JPEG"),
        (Image.fromarray(pixels(2)).convert("L"), "JPEG"),
        (Image.fromarray(pixels(3, channels=4), "RGBA"), "PNG"),
        (Image.fromarray(pixels(4)).convert("P"), "PNG"),
        (Image.fromarray(pixels(5)).convert("P"), "GIF"),
        (Image.fromarray(pixels(6)).convert("1"), "PNG"),
        (Image.fromarray(pixels(7)), "WEBP"),
        (Image.fromarray(pixels(8)), "BMP"),
    ],
    ids=lambda v: v if isinstance(v, str) else v.mode,
)
def test_all_is_rgb(tree, image, form):
    content = encoded(image, form)
    write(tree / "test/ant" / f"000_.{form.lower()}", content)
    result = load_dataset(str(tree)).test.read(1)
    assert result[0].shape == (*SIZE, 3)
    same([result], [(opened(content), 0)])


def test_other_files_are_passed_over(tree):
    expected = everything(load_dataset(str(tree)).test)
    (tree / ".cache").mkdir()
    for name in (".DS_Store", "._000.png", "Thumbs.db", "notes.txt", "000.png.part"):
        write(tree / "test/bee" / name, b"no image")
    for name in ("test/.hidden/0.png", "test/list.csv", "test/bee/more.png/x.png"):
        write(tree / name, b"no image")
    same(everything(load_dataset(str(tree)).test), expected)


def test_extensions_in_capitals_and_odd_names(tree):
    for name in ("Ünder ß.PNG", "a" * 200 + ".JPEG", "-.jpg", "9.Png"):
        write(tree / "test/cat" / name, encoded(pixels(len(name)), "PNG"))
    dataset = load_dataset(str(tree), memory_gib=0)
    assert len(dataset.test) == 10
    same(everything(dataset.test), written(tree, "test"))


def test_classes_are_sorted_by_name(tmp_path):
    for name in ("n10", "n2", "B", "a"):
        write(tmp_path / "train" / name / "0.png", encoded(pixels(0), "PNG"))
        write(tmp_path / "test" / name / "0.png", encoded(pixels(0), "PNG"))
    dataset = load_dataset(str(tmp_path), val_fraction=0.5)
    assert dataset.class_names == ("B", "a", "n10", "n2")
    assert [label for _, label in everything(dataset.test)] == [0, 1, 2, 3]


def test_images_stand_in_the_order_of_their_names(tree, monkeypatch):
    """Whatever the order in which a disk lists them."""
    entries = folder._entries

    def backwards(path):
        return sorted(entries(path), key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(folder, "_entries", backwards)
    same(everything(load_dataset(str(tree)).test), written(tree, "test"))


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_lone_split_is_the_test_set(name, tmp_path):
    fill(tmp_path, {"train": 8, name: 2})
    dataset = load_dataset(str(tmp_path), val_fraction=0.5)
    same(everything(dataset.test), written(tmp_path, name))
    assert (len(dataset.train), len(dataset.val)) == (12, 12)
    assert not set(dataset.train.indices) & set(dataset.val.indices)


@pytest.mark.parametrize("gib", [0.0, 2.0], ids=["streamed", "held"])
def test_both_splits_are_what_they_are_called(gib, tmp_path):
    fill(tmp_path, {"train": 4, "val": 2, "test": 3})
    dataset = load_dataset(str(tmp_path), val_fraction=0.5, memory_gib=gib)
    for name in ("train", "val", "test"):
        same(everything(dataset.split(name)), written(tmp_path, name))


def test_images_of_several_sizes_need_a_size(tree):
    write(tree / "train/bee/003.png", encoded(pixels(0, (9, 30)), "PNG"))
    message = refusal(tree)
    assert str(tree / "train/ant/000.png") + " is 12 x 10 pixels" in message
    assert str(tree / "train/bee/003.png") + " is 9 x 30" in message
    assert "set data.image_size" in message
    dataset = load_dataset(str(tree), image_size=(8, 6))
    assert dataset.image_shape == (8, 6, 3)
    shapes = {image.shape for image, _ in everything(dataset.train)}
    shapes |= {image.shape for image, _ in everything(dataset.val)}
    assert shapes == {(12, 10, 3), (9, 30, 3)}


def test_a_size_of_ones_own(tree):
    assert load_dataset(str(tree), image_size=6).image_shape == (6, 6, 3)


def test_another_process_reads_the_same(tree):
    split = load_dataset(str(tree), memory_gib=0).train
    assert isinstance(split.split, folder.Files)
    same(everything(pickle.loads(pickle.dumps(split))), everything(split))


def test_a_million_files_take_little(tmp_path):
    names = np.asarray([f"n01440764_{n}.JPEG".encode() for n in range(100_000)])
    labels = np.zeros(len(names), np.int32)
    split = folder.Files(str(tmp_path), ("n01440764",), names, labels, "pillow")
    assert len(pickle.dumps(split)) < 40 * len(names)


# Batches and runs


def batches(data, count, **reading):
    """The first batches of a run with all augmentation."""
    transform = Transform(crop="resized", flip=True, randaugment=2)
    stream = pipeline.train_batches(
        data.train,
        transform,
        seed=5,
        global_batch_size=4,
        size=(8, 8),
        reading=pipeline.Reading(**reading),
    )
    return list(itertools.islice(stream, count))


def test_workers_threads_and_memory_change_nothing(tree):
    in_memory = batches(load_dataset(str(tree)), 7)
    streamed = load_dataset(str(tree), memory_gib=0)
    for reading in (dict(), dict(threads=3), dict(workers=2)):
        for batch, expected in zip(
            batches(streamed, 7, **reading), in_memory, strict=True
        ):
            np.testing.assert_array_equal(batch["image"], expected["image"])
            np.testing.assert_array_equal(batch["label"], expected["label"])
            assert batch["skipped"] == 0


def test_evaluation_is_in_order(tree):
    dataset = load_dataset(str(tree), memory_gib=0)
    fit = Fit(SIZE)
    evaluated = list(pipeline.eval_batches(dataset.test, fit, global_batch_size=4))
    images = np.concatenate([batch["image"] for batch in evaluated])[:6]
    np.testing.assert_array_equal(images, [x for x, _ in written(tree, "test")])


# Images that cannot be read


@pytest.fixture
def damaged(tmp_path):
    """24 training images, one of them a truncated JPEG."""
    root = fill(tmp_path / "insects", {"train": 8, "val": 2, "test": 2})
    whole = encoded(pixels(0, (40, 40)), "JPEG", quality=95)
    (root / "train/bee/002.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.mark.parametrize("gib", [0.0, 2.0], ids=["streamed", "held"])
def test_a_truncated_image_stops(damaged, gib):
    message = refusal(damaged, memory_gib=gib)
    assert f"{damaged}/train/bee/002.png is not a readable image" in message
    if gib:
        assert message.startswith("1 of 36 images cannot be read (data.unreadable=skip")


@pytest.mark.parametrize("gib, workers", [(0.0, 0), (2.0, 0), (0.0, 1)])
def test_a_truncated_image_is_skipped_and_counted(damaged, gib, workers):
    dataset = load_dataset(str(damaged), memory_gib=gib, unreadable="skip")
    stream = batches(dataset, 12, unreadable="skip", workers=workers)  # two epochs
    assert sum(batch["skipped"] for batch in stream) == 2
    labels = np.concatenate([batch["label"] for batch in stream])
    assert np.bincount(labels).tolist() == [16, 16, 16]  # the next one is a bee too


def test_an_image_that_turns_unreadable(tree):
    dataset = load_dataset(str(tree), memory_gib=0)
    (tree / "train/ant/001.png").unlink()
    with pytest.raises(base.Unreadable, match="there is no image .*001.png"):
        batches(dataset, 6)


def test_a_link_that_leads_nowhere_is_unreadable(tree):
    (tree / "test/ant/lost.png").symlink_to(tree / "gone.png")
    assert "lost.png" in refusal(tree)


@pytest.mark.parametrize("kind", ["pipe", "circle", "device"])
def test_what_is_no_regular_file_is_unreadable(kind, tree):
    """Neither a pipe without a writer nor /dev/zero blocks the reader."""
    path = tree / "test/ant/000.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"circle": path, "device": "/dev/zero"}[kind])
    for gib in (0.0, 2.0):
        assert f"{path} is not a readable image (" in refusal(tree, memory_gib=gib)
        dataset = load_dataset(str(tree), memory_gib=gib, unreadable="skip")
        with pytest.raises(base.Unreadable):
            dataset.test.read(0)
        assert dataset.test.read(1)[1] == 0
        assert facts.counts(dataset)["test"].tolist() == [2, 2, 2]


# Files that are passed over


def test_all_that_is_read_is_not_worth_a_word(tree):
    for name in ("train/.hidden/0.png", "train/ant/Thumbs.db", "test/ant/.DS_Store"):
        write(tree / name, b"no image")
    assert load_dataset(str(tree)).notes == ()


@pytest.mark.parametrize(
    "names, words",
    [
        (["train/0.png", "test/1.jpg"], "2 images beside the folders of classes"),
        (["train/0.png"], "1 image beside the folders of classes passed over ("),
        (
            ["train/ant/a/0.png", "train/ant/a/b/1.png", "test/bee/c/2.png"],
            "2 folders in the folders of classes passed over, with 3 images inside (",
        ),
        (
            ["train/__MACOSX/ant/0.png", "train/@eaDir/1.jpg"],
            "2 folders that cannot be classes passed over, with 2 images inside (",
        ),
        (
            ["train/ant/0.tif", "train/ant/1.tif", "test/cat/2.HEIC", "test/cat/list"],
            "4 files of types that are not read passed over (2 .tif, 1 .HEIC, 1 "
            "without an ending; the first: ",
        ),
    ],
    ids=["loose", "one", "nested", "litter", "types"],
)
def test_what_is_passed_over_is_counted(names, words, tree):
    expected = everything(load_dataset(str(tree)).test)
    for name in names:
        write(tree / name, encoded(pixels(0), "PNG"))
    dataset = load_dataset(str(tree))
    (note,) = dataset.notes
    assert words in note and f"the first: {tree}/" in note
    assert dataset.class_names == ("ant", "bee", "cat")
    same(everything(dataset.test), expected)


@pytest.mark.parametrize("gib", [0.0, 2.0], ids=["streamed", "held"])
def test_images_that_are_skipped_are_told_by_name(gib, tree):
    for name in ("train/bee/002.png", "test/ant/001.png"):
        (tree / name).write_bytes(b"no image")
    (note,) = load_dataset(str(tree), memory_gib=gib, unreadable="skip").notes
    assert note == (
        f"2 images cannot be read (passed over, the first: {tree}/train/bee/002.png)"
    )


def test_of_a_large_set_some_are_looked_at(tmp_path):
    root = fill(tmp_path / "many", {"train": 70, "test": 1}, ["a", "b"], size=(2, 2))
    (root / "train/a/000.png").write_bytes(b"no image")
    (note,) = load_dataset(str(root), memory_gib=0, unreadable="skip").notes
    assert note.startswith("1 image of the 66 that were looked at cannot be read (")


def test_images_of_a_class_without_its_folder(tree):
    for path in (tree / "train/bee").iterdir():
        path.rename(tree / "train" / path.name)
    (tree / "train/bee").rmdir()
    message = refusal(tree)
    assert f"has besides bee; 8 images in {tree}/train itself may be of it" in message


def test_a_class_whose_images_are_in_folders(tree):
    inside = tree / "train/bee/more"
    inside.mkdir()
    for path in (tree / "train/bee").glob("*.png"):
        path.rename(inside / path.name)
    assert "of its own, and 8 in folders in it: put some into it" in refusal(tree)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text(tmp_path):
    """A class and the set itself have names in Latin-1."""
    root = os.path.join(os.fsencode(tmp_path), b"men\xfc")
    for split, count in ((b"train", 4), (b"test", 2)):
        for name in (b"caf\xe9", b"tea"):
            for number in range(count):
                path = os.path.join(root, split, name, b"%d\xe9.png" % number)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(encoded(pixels(number), "PNG"))
    dataset = load_dataset(os.fsdecode(root), val_fraction=0.5)
    assert (dataset.name, dataset.class_names) == ("men\\udcfc", ("caf\\udce9", "tea"))
    assert len(everything(dataset.test)) == 4


def test_classes_in_another_unicode_form(tmp_path):
    """Names as a Mac writes them are the same classes, in the same order."""
    composed, apart = ["caf\u00e9", "cafz", "tea"], ["cafe\u0301", "cafz", "tea"]
    fill(tmp_path, {"train": 4}, composed)
    fill(tmp_path, {"test": 2}, apart)
    dataset = load_dataset(str(tmp_path), val_fraction=0.5)
    assert dataset.class_names == tuple(sorted(composed))
    labels = {name: number for number, name in enumerate(dataset.class_names)}
    for index, (_, label) in enumerate(everything(dataset.test)):
        folder_name = os.path.basename(
            os.path.dirname(dataset.stored["test"].where(index))
        )
        expected = "caf\u00e9" if folder_name == apart[0] else folder_name
        assert label == labels[expected]
    fill(tmp_path, {"train": 1}, apart)
    message = refusal(tmp_path)
    assert (
        "two classes are called 'caf\u00e9' (they differ in their Unicode form)"
        in message
    )


def test_a_folder_is_known_again(tree):
    """In memory or not: every name counts, and the pixels of some."""
    before = fingerprint.take(load_dataset(str(tree), memory_gib=0))
    assert fingerprint.take(load_dataset(str(tree))) == before
    (tree / "train/ant/007.png").rename(tree / "train/ant/008.png")
    now = fingerprint.take(load_dataset(str(tree)))
    assert fingerprint.differing(before, now) == ["train labels, names or pixels"]
    mended = encoded(pixels(0), "PNG", compress_level=0)
    (tree / "train/ant/008.png").rename(tree / "train/ant/007.png")
    at = load_dataset(str(tree)).train.indices[1]
    files_of = sorted((tree / "train").rglob("*.png"))
    files_of[at].write_bytes(mended)
    now = fingerprint.take(load_dataset(str(tree)))
    assert fingerprint.differing(before, now) == ["train images"]


def test_no_image_can_be_read(tree):
    for path in (tree / "test").rglob("*.png"):
        path.write_bytes(b"")
    for unreadable in ("stop", "skip"):
        message = refusal(tree, unreadable=unreadable)
        assert message.startswith(f"not one of 6 images can be read, the first: {tree}")


# Refusals


def test_a_missing_folder(tmp_path):
    path = tmp_path / "none"
    message = refusal(path)
    assert f"there is no dataset '{path}' (no such folder): data.source is" in message


def test_a_missing_folder_asked_for_directly(tmp_path):
    with pytest.raises(UserError, match="there is no folder of images .*none"):
        folder.load(
            str(tmp_path / "none"),
            val_fraction=0.1,
            image_size=None,
            decoder="pillow",
            memory_gib=1,
        )


@pytest.mark.parametrize(
    "present, words",
    [
        ((), "has no folder train: images stand in PATH/train/CLASS/"),
        (("test/ant",), "has no folder train"),
        (("train/ant",), "has neither a folder test nor val"),
        (("train", "test/ant"), "train holds no folders of classes"),
        (
            ("train/ant", "train/bee", "test/ant", "test/bee"),
            "train/ant holds no images",
        ),
    ],
    ids=["nothing", "no train", "no test", "no classes", "no images"],
)
def test_folders_that_miss_something(present, words, tmp_path):
    for name in present:
        (tmp_path / name).mkdir(parents=True)
    message = refusal(tmp_path)
    assert str(tmp_path) in message and words in message


def test_images_without_classes(tmp_path):
    for name in ("train/0.png", "train/1.png", "test/0.png"):
        write(tmp_path / name, encoded(pixels(0), "PNG"))
    message = refusal(tmp_path)
    assert f"{tmp_path}/train holds images, but no folders of classes" in message


def test_a_class_without_images(tree):
    for path in (tree / "train/bee").iterdir():
        path.rename(path.with_suffix(".tif"))
    assert f"{tree}/train/bee holds no images (.bmp .gif" in refusal(tree)


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_classes(split, tmp_path):
    classes = ["ant", "bee", "cat", "dog", "eel", "fox"]
    fill(tmp_path, {"train": 1, "val": 1, "test": 1}, classes)
    for name in classes[1:]:
        os.rename(tmp_path / split / name, tmp_path / split / name.upper())
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/{split} must have the classes of {tmp_path}")
    assert "lacks bee, cat, dog and 2 more" in message
    assert message.endswith("and has besides BEE, CAT, DOG and 2 more")


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "images.tar"
    path.write_bytes(b"")
    assert f"there is no dataset '{path}'" in refusal(path)


def test_a_val_fraction_that_leaves_nothing(tree):
    assert "data.val_fraction 0.0 must leave" in refusal(tree, val_fraction=0.0)


# From the command line


@pytest.fixture
def handlers():
    """Restores the handler of SIGTERM, which a job replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_run_passes_over_images_and_counts_them(
    tmp_path, capsys, handlers, monkeypatch
):
    """The result counts all, those before a restart too."""
    Script(monkeypatch)
    root = fill(tmp_path / "images", {"train": 27, "test": 2})
    path = root / "train/ant/004.png"
    path.write_bytes(path.read_bytes()[:40])
    config = os.path.join(os.path.dirname(__file__), "../configs/scratch_deit.py")
    directory = tmp_path / "runs" / "scratch-digits-L1"
    command = [
        f"--config={config}:depth=1,epochs=2,dataset={root},image_size=8",
        f"--workdir={tmp_path / 'runs'}",
        "--config.global_batch_size=8",
        "--config.evaluation.batch_size=8",
        "--config.checkpoint.every_epochs=1.0",
        "--config.data.unreadable=skip",
    ]
    assert main.main(command) == 0
    whole = documents.read_json(str(directory / "result.json"))
    assert whole["unreadable"] == 2
    (directory / "result.json").unlink()
    for newest in ("18", "19"):
        shutil.rmtree(directory / "checkpoints" / newest, ignore_errors=True)
    assert main.main(command) == 0
    assert "goes on from step 9 of 18" in capsys.readouterr().out
    again = documents.read_json(str(directory / "result.json"))
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}


@pytest.mark.parametrize("name, step", [("004", 3), ("009", 9)])
def test_a_run_that_stops_at_an_image_goes_on_from_there(
    name, step, tmp_path, capsys, handlers
):
    """Images 4 and 9 of 81 are not among the samples, and 9 is held out."""
    root = fill(tmp_path / "images", {"train": 27, "test": 2})
    path = root / f"train/ant/{name}.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    config = os.path.join(os.path.dirname(__file__), "../configs/scratch_deit.py")
    command = [
        f"--config={config}:depth=1,epochs=1,dataset={root},image_size=8",
        f"--workdir={tmp_path / 'runs'}",
        "--config.global_batch_size=8",
        "--config.evaluation.batch_size=8",
        "--config.checkpoint.every_epochs=0",
        "--config.data.memory_gib=0",
    ]
    directory = tmp_path / "runs" / "scratch-digits-L1"
    assert main.main(command) == 1
    error = capsys.readouterr().err
    assert f"{path} is not a readable image" in error and error.count("\n") == 1
    (kept,) = (p for p in (directory / "checkpoints").iterdir() if p.name.isdigit())
    assert kept.name == str(step)
    assert f"the same command goes on at step {step} of 9" in error
    path.write_bytes(whole)
    assert main.main(command) == 0
    assert f"goes on from step {kept.name} of 9" in capsys.readouterr().out
