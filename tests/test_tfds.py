"""Sets that were prepared as array_record files, here without TensorFlow."""

import io
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import socket
import sys

import numpy as np
import pytest
from PIL import Image

from sws_jax import main, pixels
from sws_jax.data import load_dataset, pipeline, prepared, tfds
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError

from support import refusals
from support.tfds import CLASSES, SIZE, SPLITS, encoded, prepare, records


def opened(content, mode="RGB"):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert(mode))


@pytest.fixture(scope="session")
def prepared_set(tmp_path_factory):
    """A directory that holds one set; not to be written to."""
    root = tmp_path_factory.mktemp("tfds")
    prepare(root, SPLITS)
    return root


@pytest.fixture
def copy(prepared_set, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Refuses every connection to another machine."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


@pytest.fixture(autouse=True)
def silent(capfd):
    """Output has no warnings of libraries, and TensorFlow is not loaded."""
    yield
    out, error = capfd.readouterr()
    assert (out, error) == ("", "")
    assert "tensorflow" not in sys.modules


def load(root, name="insects", **settings):
    return load_dataset(f"tfds:{name}", directory=str(root), **settings)


def everything(split):
    return [split.read(i) for i in range(len(split))]


def same(part, expected, mode="RGB"):
    """Checks images and labels against those that Pillow reads."""
    assert len(part) == len(expected)
    for (image, label), (content, number) in zip(part, expected, strict=True):
        wanted = opened(content, mode)
        assert (image.dtype, type(label), label) == (np.uint8, int, number)
        np.testing.assert_array_equal(image, wanted.reshape(*wanted.shape[:2], -1))


def refusal(root, name="insects", **settings):
    return refusals.refusal(load, root, name, **settings)


# Images and labels


@pytest.mark.parametrize("gib", [0.0, 2.0], ids=["streamed", "held"])
def test_a_prepared_set(prepared_set, gib):
    dataset = load(prepared_set, memory_gib=gib, val_fraction=0.25)
    assert (dataset.name, dataset.class_names) == ("insects", tuple(CLASSES))
    assert dataset.image_shape == (*SIZE, 3)
    assert dataset.normalization == pixels.default_normalization(3)
    same(everything(dataset.test), SPLITS["test"])
    for name, count in (("train", 18), ("val", 6)):
        split = dataset.split(name)
        assert len(split) == count
        same(everything(split), [SPLITS["train"][i] for i in split.indices])
    assert not set(dataset.train.indices) & set(dataset.val.indices)


@pytest.mark.parametrize(
    "form, mode",
    [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "L"),
    ],
)
@pytest.mark.parametrize("channels", [3, None])
def test_all_is_rgb(form, mode, channels, tmp_path):
    splits = SPLITS | {"test": [(encoded(7, form, mode), 2)]}
    prepare(tmp_path, splits, channels=channels)
    dataset = load(tmp_path)
    assert dataset.image_shape == (*SIZE, 3)
    same(everything(dataset.test), splits["test"])


def test_grey_stays_grey(tmp_path):
    splits = {key: [(encoded(n, mode="L"), 0) for n in range(4)] for key in SPLITS}
    prepare(tmp_path, splits, channels=1)
    dataset = load(tmp_path, val_fraction=0.5)
    assert dataset.image_shape == (*SIZE, 1)
    assert dataset.normalization == pixels.default_normalization(1)
    same(everything(dataset.test), splits["test"], "L")


def test_other_features_are_left_alone(tmp_path):
    """Even features that need TensorFlow, or a network."""
    import tensorflow_datasets as library

    kinds = library.features
    prepare(
        tmp_path,
        SPLITS,
        file_name=(kinds.Text(), "a.jpg"),
        boxes=(kinds.Sequence({"box": kinds.BBoxFeature()}), []),
        image_again=(kinds.Image(), io.BytesIO(b"not an image at all")),
    )
    same(everything(load(tmp_path).test), SPLITS["test"])


def test_image_sizes(prepared_set, tmp_path):
    assert load(prepared_set, image_size=6).image_shape == (6, 6, 3)
    odd = [*SPLITS["train"], (encoded(0, size=(7, 9)), 0)]
    prepare(tmp_path, SPLITS | {"train": odd})
    message = refusal(tmp_path)
    assert "record 0 of tfds:insects, split train, is 12 x 10 pixels" in message
    assert "record 24 of tfds:insects, split train, is 7 x 9" in message
    assert load(tmp_path, image_size=6).train.split.read(24)[0].shape == (7, 9, 3)


# Splits


def test_validation_alone_is_the_test_set(tmp_path):
    prepare(tmp_path, {"train": SPLITS["train"], "validation": SPLITS["test"]})
    dataset = load(tmp_path, val_fraction=0.5)
    same(everything(dataset.test), SPLITS["test"])
    assert (len(dataset.train), len(dataset.val)) == (12, 12)


@pytest.mark.parametrize("gib", [0.0, 2.0], ids=["streamed", "held"])
def test_validation_and_test(gib, tmp_path):
    splits = SPLITS | {"validation": records(50, 4), "extra": records(60, 2)}
    prepare(tmp_path, splits)
    dataset = load(tmp_path, memory_gib=gib)
    for name, key in (("train", "train"), ("val", "validation"), ("test", "test")):
        same(everything(dataset.split(name)), splits[key])


def test_a_test_split_without_labels_is_left_alone(tmp_path):
    """As in ImageNet."""
    unlabelled = [(content, -1) for content, _ in records(50, 4)]
    splits = {"train": SPLITS["train"], "validation": SPLITS["test"]}
    prepare(tmp_path, splits | {"test": unlabelled})
    dataset = load(tmp_path, val_fraction=0.5)
    same(everything(dataset.test), SPLITS["test"])
    assert len(dataset.train) == 12


@pytest.mark.parametrize(
    "splits, words",
    [
        ({"test": SPLITS["test"]}, "its splits are test, with both in test"),
        ({"train": SPLITS["train"]}, "its splits are train, with both in train"),
        (
            {"train": SPLITS["train"], "test": [(encoded(0), -1)]},
            "its splits are train, test, with both in train",
        ),
    ],
    ids=["no train", "no test", "no labels"],
)
def test_a_split_that_is_needed(splits, words, tmp_path):
    prepare(tmp_path, splits)
    message = refusal(tmp_path)
    assert "tfds:insects needs images and labels in train, and in test" in message
    assert message.endswith(words)


def test_an_empty_split_is_none(copy):
    edit(copy, lambda info: info["splits"][1].update(shardLengths=["0"]))
    assert "with both in train" in refusal(copy)


# Directories and versions


def test_the_newest_version_or_the_one_asked_for(tmp_path):
    for version, count in (("1.9.0", 2), ("1.10.0", 3), ("0.11.0", 4)):
        prepare(tmp_path, SPLITS | {"test": records(0, count)}, version=version)
    (tmp_path / "insects" / "incomplete.X_2.0.0").mkdir()
    assert len(load(tmp_path).test) == 3
    dataset = load(tmp_path, "insects:0.11.0")
    assert (dataset.name, len(dataset.test)) == ("insects", 4)
    message = refusal(tmp_path, "insects:3.0.0")
    assert "is not prepared" in message
    assert "which holds 0.11.0, 1.9.0, 1.10.0: where TensorFlow" in message


def test_configurations(tmp_path):
    prepare(tmp_path, SPLITS, config="small")
    assert load(tmp_path).name == load(tmp_path, "insects/small").name == "insects"
    assert len(load(tmp_path, "insects/small:1.0.0").test) == 6
    prepare(tmp_path, SPLITS | {"test": records(0, 3)}, config="large")
    assert len(load(tmp_path, "insects/large").test) == 3
    message = refusal(tmp_path)
    assert message.endswith("take one of tfds:insects/large, tfds:insects/small")
    assert "tfds:insects/tiny is not prepared" in refusal(tmp_path, "insects/tiny")


def test_default_directories(prepared_set, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / "tensorflow_datasets") in refusal("", "cifar10")
    (tmp_path / "tensorflow_datasets").symlink_to(prepared_set)
    assert len(load("").test) == len(load("~/tensorflow_datasets").test) == 6
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    assert str(tmp_path / "none") in refusal("")


@pytest.mark.parametrize("name", ["cifar10", "imagenet2012:5.1.0", "imagenet_v2/x"])
def test_a_known_set_that_is_not_prepared(name, tmp_path):
    message = refusal(tmp_path, name)
    assert f"tfds:{name} is not prepared in {tmp_path} (data.directory): " in message
    assert message.endswith(f"python -m sws_jax prepare tfds:{name} {tmp_path}")


@pytest.mark.parametrize(
    "name, hint", [("cifar_10", "tfds:cifar10"), ("CIFAR10", "tfds:cifar10"), ("q", "")]
)
def test_an_unknown_set(name, hint, tmp_path):
    message = refusal(tmp_path, name)
    assert f"there is no tfds:{name}: TFDS knows no {name}, and none" in message
    assert message.endswith(f"perhaps {hint} is meant" if hint else "directory)")


def test_a_bare_name_that_TFDS_knows():
    with pytest.raises(UserError, match=r"'cifar10' \(perhaps tfds:cifar10 is meant\)"):
        load_dataset("cifar10")


@pytest.mark.parametrize("name", ["", "a b", "a:1", "a/b/c", "../x", "a:1.0.0:2"])
def test_a_name_of_another_form(name, tmp_path):
    assert "is not of the form tfds:NAME, tfds:NAME/CONFIG" in refusal(tmp_path, name)


def test_without_the_library(monkeypatch, prepared_set):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "pip install tensorflow-datasets" in refusal(prepared_set)
    with pytest.raises(UserError, match="there is no dataset 'cifar': data.source is"):
        load_dataset("cifar")


# Damage


def place(root, name):
    return root / "insects" / "1.0.0" / name


def edit(root, change, name="dataset_info.json"):
    path = place(root, name)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shard(root, split="train"):
    return place(root, f"insects-{split}.array_record-00000-of-00001")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("share", [None, 0.0, 0.3, 0.5, 0.999])
def test_missing_and_truncated_files(share, split, copy):
    path = shard(copy, split)
    whole = path.read_bytes()
    path.unlink() if share is None else path.write_bytes(
        whole[: int(share * len(whole))]
    )
    message = refusal(copy)
    assert f"1 of 1 files of split {split} in {path.parent} are missing or" in message
    assert path.name in message


def test_fewer_records_than_there_should_be(copy):
    edit(copy, lambda info: info["splits"][0].update(shardLengths=["7"]))
    assert re.search(r"first: .*, (24|6) records of 7\)$", refusal(copy))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [None, "", "{", '{"splits": 3}', "[]"])
def test_incomplete_descriptions(name, content, copy):
    path = place(copy, name)
    path.unlink() if content is None else path.write_text(content)
    assert f"{path.parent} is not a complete TFDS set, prepare it" in refusal(copy)


def test_another_file_format(copy):
    edit(copy, lambda info: info.update(fileFormat="tfrecord"))
    message = refusal(copy)
    path = place(copy, "")
    assert f"{path} is prepared as tfrecord, and reading in any order needs" in message
    assert message.endswith(
        f"tfds convert_format --dataset_version_dir={path} "
        f"--out_file_format=array_record"
    )


def test_array_records_beside_another_format(copy):
    """As the advised conversion leaves a set."""
    changes = dict(fileFormat="tfrecord", alternativeFileFormats=["array_record"])
    edit(copy, lambda info: info.update(changes))
    same(everything(load(copy).test), SPLITS["test"])


def test_features_that_are_needed(tmp_path):
    import tensorflow_datasets as library

    kinds = library.features
    for n, (others, words) in enumerate(
        [
            (dict(image=(None, 0)), "has label (ClassLabel)"),
            (dict(label=(None, 0)), "has image (Image)"),
            (dict(label=(kinds.Scalar(np.int64), 3)), "(Image), label (Scalar)"),
            (dict(image=(kinds.Text(), "x")), "image (Text)"),
        ]
    ):
        prepare(tmp_path / str(n), SPLITS, **others)
        message = refusal(tmp_path / str(n))
        assert "tfds:insects needs a feature image of 8 bits and a feature" in message
        assert words in message


def test_classes_without_names(copy):
    place(copy, "label.labels.txt").unlink()
    assert load(copy).class_names == ("0", "1", "2")


def test_labels_are_classes(copy):
    place(copy, "label.labels.txt").unlink()
    label = {"numClasses": "2"}
    edit(
        copy,
        lambda info: info["featuresDict"]["features"]["label"].update(classLabel=label),
        "features.json",
    )
    message = refusal(copy)
    assert "10 of 30 images cannot be read" in message
    assert message.endswith("split train, has the label 2, and there are 2 classes")


TRUNCATED = encoded(0, "JPEG", size=(40, 40))[:-300]
DAMAGED = SPLITS | {"train": [*SPLITS["train"][:9], (TRUNCATED, 0), *records(0, 5)]}


@pytest.mark.parametrize("gib", [0.0, 2.0], ids=["streamed", "held"])
def test_a_truncated_image(gib, tmp_path):
    prepare(tmp_path, DAMAGED)
    message = refusal(tmp_path, memory_gib=gib)
    assert "record 9 of tfds:insects, split train, is not a readable image" in message
    assert message.startswith("1 of 21 images" if gib else "record 9")
    dataset = load(tmp_path, memory_gib=gib, unreadable="skip", val_fraction=0.2)
    part = dataset.train if 9 in dataset.train.indices else dataset.val
    whole = Fit(SIZE)
    reading = pipeline.Reading(unreadable="skip")
    evaluated = pipeline.eval_batches(part, whole, global_batch_size=4, reading=reading)
    assert sum(batch["weight"].sum() for batch in evaluated) == len(part) - 1


def test_a_record_that_cannot_be_read(copy):
    """Bits are flipped in the middle of a file."""
    path = shard(copy)
    content = bytearray(path.read_bytes())
    content[3000:3100] = b"\xff" * 100
    path.write_bytes(content)
    for gib in (0.0, 2.0):
        message = refusal(copy, memory_gib=gib)
        assert "tfds:insects, split train, is not a readable record" in message


# Batches and runs


def batches(data, count, **reading):
    """The first batches of a run with all augmentation."""
    stream = pipeline.train_batches(
        data.train,
        Transform(crop="resized", flip=True, randaugment=2),
        seed=5,
        global_batch_size=4,
        size=(8, 8),
        reading=pipeline.Reading(**reading),
    )
    return list(itertools.islice(stream, count))


@pytest.mark.slow
def test_workers_threads_and_memory_change_nothing(prepared_set):
    in_memory = batches(load(prepared_set), 7)
    streamed = load(prepared_set, memory_gib=0)
    for reading in (dict(), dict(threads=3), dict(workers=2)):
        for batch, expected in zip(
            batches(streamed, 7, **reading), in_memory, strict=True
        ):
            np.testing.assert_array_equal(batch["image"], expected["image"])
            np.testing.assert_array_equal(batch["label"], expected["label"])
            assert batch["skipped"] == 0


def test_another_process_opens_the_files_itself(prepared_set):
    path = prepared.find("insects", str(prepared_set))
    split = tfds.Records(path, "insects", "train", 24, 3, 3, "pillow")
    same(everything(split), SPLITS["train"])
    again = pickle.loads(pickle.dumps(split))
    assert "_opened" in vars(split) and "_opened" not in vars(again)
    same(everything(again), SPLITS["train"])


def test_a_run(prepared_set, tmp_path, capfd):
    before = signal.getsignal(signal.SIGTERM)
    config = os.path.join(os.path.dirname(__file__), "../configs/scratch_deit.py")
    code = main.main(
        [
            f"--config={config}:depth=1,epochs=1,dataset=tfds:insects,image_size=8",
            f"--workdir={tmp_path / 'runs'}",
            f"--config.data.directory={prepared_set}",
            "--config.global_batch_size=8",
            "--config.evaluation.batch_size=8",
            "--config.log_steps=1",
        ]
    )
    signal.signal(signal.SIGTERM, before)
    out, error = capfd.readouterr()
    assert code == 0, error
    assert "step 3/3" in out
