"""``evaluate``, ``predict`` and ``show_batch``, on files as users have them."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import specs
from sws_jax.commands import show_batch
from sws_jax.data import load_dataset
from sws_jax.models.networks import Network

from support.digits import DIGITS, describe, network_of
from support.images import encoded, fill, pixels, stacked, write
from support.networks import TINY, aux_spec, params_of
from support.networks import logits_of as apply

ROOT = pathlib.Path(__file__).parent.parent
NAMES = tuple("zero one two three four five six seven eight nine".split())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Networks and a learngene, as they leave a run, and pictures; good and broken."""
    folder = tmp_path_factory.mktemp("files")
    for seed in (1, 2):
        network = network_of(specs.ViTSpec(depth=2, **TINY), seed)
        sws_jax.save_network(str(folder / f"net{seed}.safetensors"), network)
    for name, changes, fields in (
        ("named", {}, dict(class_names=NAMES)),
        ("elsewhere", {}, dict(dataset="somewhere")),
        ("five", dict(num_classes=5), dict(class_names=NAMES[:5])),
        ("features", dict(num_classes=0), dict(class_names=())),
    ):
        network = network_of(specs.ViTSpec(depth=2, **{**TINY, **changes}), 1, **fields)
        sws_jax.save_network(str(folder / f"{name}.safetensors"), network)
    aux = aux_spec((1, 2))
    about = describe(kind="aux_net", net=aux.net, stages=aux.stages, method="sws")
    gene = sws_jax.extract(Network(aux, params_of(aux, 3), about))
    sws_jax.save_learngene(str(folder / "gene.safetensors"), gene)
    whole = (folder / "net1.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    (folder / "text.safetensors").write_text("these are no weights\n" * 20)
    (folder / "text.png").write_text("this is no picture\n")
    (folder / "empty").mkdir()
    digit(0, folder / "digit.png")
    picture = (folder / "digit.png").read_bytes()
    (folder / "cut.png").write_bytes(picture[: len(picture) // 2])
    return folder


def digit(position, path):
    pixels = DIGITS.test.read(position)[0][..., 0]
    Image.fromarray(pixels).save(path)
    return pixels


def logits_of(network, images):
    """Of uint8 images [n, 8, 8, 1], normalised here and not by the package."""
    mean, std = DIGITS.normalization.mean[0], DIGITS.normalization.std[0]
    x = ((images / 255.0 - mean) / std).astype(np.float32)
    return np.asarray(apply(network.spec, network.params, x))


def top1(network, split="test"):
    rows = stacked(DIGITS.split(split))
    hits = logits_of(network, rows["image"]).argmax(axis=1) == rows["label"]
    return int(hits.sum()), len(hits)


def evaluated(capsys, *argv):
    """label -> (data, images, top-1) of what a command printed."""
    assert tools.main(["evaluate", *map(str, argv)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["weights", "data", "images", "top-1", "top-5", "loss"]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]
    return {row[0]: (row[1], int(row[2]), row[3]) for row in rows}


@pytest.mark.parametrize("size", [40, 512])
def test_evaluate_counts_every_image_once(size, files, capsys):
    path = files / "net1.safetensors"
    hits, count = top1(sws_jax.load_network(str(path)))
    assert count == 400 and 0 < hits < 400
    scores = evaluated(capsys, path, "--batch-size", size)
    assert scores == {str(path): ("digits/test", 400, f"{hits / 400:.2%}")}


def test_evaluate_another_split(files, capsys):
    path = files / "net1.safetensors"
    hits, count = top1(sws_jax.load_network(str(path)), "val")
    assert count == 140
    scores = evaluated(capsys, path, "--split", "val")
    assert scores == {str(path): ("digits/val", count, f"{hits / count:.2%}")}


def test_evaluate_the_images_that_were_held_out(tmp_path, capsys):
    """As many as the run held out, and not a share of its training images."""
    spec = specs.ViTSpec(depth=2, **TINY)
    path = tmp_path / "net.safetensors"
    sws_jax.save_network(str(path), network_of(spec, 1, val_fraction=0.3))
    assert tools.main(["evaluate", str(path), "--split", "val"]) == 0
    expected = len(load_dataset("digits", val_fraction=0.3).val)
    assert re.search(rf"digits/val +{expected} ", capsys.readouterr().out)
    assert expected != len(DIGITS.val)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_network_is_shown_what_it_was_scored_on(interpolation, tmp_path, capsys):
    """Half of each side: the 8 x 8 pixels in the middle of 16 x 16."""
    path = tmp_path / "net.safetensors"
    network = network_of(
        specs.ViTSpec(depth=2, **TINY), 1, eval_crop=0.5, interpolation=interpolation
    )
    method = Image.Resampling[interpolation.upper()]
    sws_jax.save_network(str(path), network)
    rows = stacked(DIGITS.test)
    doubled = [
        np.asarray(Image.fromarray(image[..., 0]).resize((16, 16), method))
        for image in rows["image"]
    ]
    middle = np.stack(doubled)[:, 4:12, 4:12, None]
    classes = logits_of(network, middle).argmax(axis=1)
    hits = int((classes == rows["label"]).sum())
    assert hits != top1(network)[0]
    assert evaluated(capsys, path)[str(path)][2] == f"{hits / 400:.2%}"
    digit(0, tmp_path / "digit.png")
    (shown,) = predicted(capsys, path, tmp_path / "digit.png").values()
    assert shown[0][0] == DIGITS.class_names[classes[0]]


def test_a_network_whose_images_were_squeezed(tmp_path, capsys):
    """A wide image is named as what it is when it is squeezed beforehand."""
    path = tmp_path / "net.safetensors"
    spec = specs.ViTSpec(depth=2, **TINY)
    for mode, same in (("squash", True), ("center", False)):
        sws_jax.save_network(path, network_of(spec, 1, crop_mode=mode))
        wide = Image.fromarray(DIGITS.test.read(0)[0][..., 0]).resize((40, 16))
        wide.save(tmp_path / "wide.png")
        wide.resize((8, 8), Image.Resampling.BICUBIC).save(tmp_path / "narrow.png")
        one, other = predicted(
            capsys, path, tmp_path / "wide.png", tmp_path / "narrow.png"
        ).values()
        assert (one == other) == same
        assert tools.main(["describe", str(path)]) == 0
        assert ("squeezed into their shape" in capsys.readouterr().out) == same


def test_evaluate_a_learngene_at_a_depth(files, capsys):
    path = files / "gene.safetensors"
    hits, _ = top1(sws_jax.expand(sws_jax.load_learngene(str(path)), depth=4))
    scores = evaluated(capsys, path, "--depth", 4)
    assert scores == {f"{path} at depth 4": ("digits/test", 400, f"{hits / 400:.2%}")}


def test_evaluate_several_files(files, capsys):
    paths = [files / "net1.safetensors", files / "net2.safetensors"]
    hits = [top1(sws_jax.load_network(str(path)))[0] for path in paths]
    assert hits[0] != hits[1]
    assert evaluated(capsys, *paths) == {
        str(path): ("digits/test", 400, f"{n / 400:.2%}")
        for path, n in zip(paths, hits, strict=True)
    }


def test_evaluate_on_other_data(files, tmp_path, capsys):
    """Normalised as in training, whatever the data's own normalisation."""
    path, data = files / "net1.safetensors", tmp_path / "mine.npz"
    rows = {kind: some[:30] for kind, some in stacked(DIGITS.test).items()}
    arrays = {
        f"{split}_{kind}s": rows[kind]
        for split in ("train", "test")
        for kind in ("image", "label")
    }
    np.savez(data, class_names=np.asarray(DIGITS.class_names), **arrays)
    network = sws_jax.load_network(str(path))
    hits = (logits_of(network, rows["image"]).argmax(axis=1) == rows["label"]).sum()
    scores = evaluated(capsys, path, "--data", data)
    assert scores == {str(path): ("mine/test", 30, f"{hits / 30:.2%}")}


def test_describe_counts_the_images_of_a_set(tmp_path, capsys):
    """Of several sizes, of every class and split, with what is passed over."""
    root = fill(tmp_path / "insects", {"train": 4, "test": 2})
    (root / "train/ant/003.png").rename(root / "train/ant/003.tif")
    write(root / "train/bee/004.png", encoded(pixels(0, (9, 30)), "PNG"))
    assert tools.main(["describe", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["set", "insects"]
    assert lines[1].endswith("6 test, 9 to 12 x 10 to 30 x 3")
    assert "1 file of types that are not read passed over (1 .tif;" in lines[3]
    rows = [line.split() for line in lines[-3:]]
    assert [row[0] for row in rows] == ["ant", "bee", "cat"]
    assert [int(row[1]) + int(row[2]) for row in rows] == [3, 5, 4]
    assert [row[3] for row in rows] == ["2", "2", "2"]


def test_describe_says_how_a_folder_of_images_is_laid_out(tmp_path, capsys):
    """And not that it is no run's; of a job's directory nothing changes."""
    root = fill(tmp_path / "insects", {"train": 1})
    assert tools.main(["describe", str(root / "train")]) == 2
    error = capsys.readouterr().err
    assert "has no folder train: images stand in" in error and error.count("\n") == 1
    (tmp_path / "job" / "run").mkdir(parents=True)
    write(tmp_path / "job" / "report.png", b"")
    assert tools.main(["describe", str(tmp_path / "job")]) == 2
    assert "holds no weights.safetensors" in capsys.readouterr().err


def test_a_picture_of_anothers_is_kept(tmp_path, capsys, monkeypatch):
    """By its default name; one of these is drawn anew."""
    monkeypatch.chdir(tmp_path)
    command = ["show_batch", f"--config={ROOT}/configs/smoke.py", "--images=1"]
    for _ in range(2):
        assert tools.main(command) == 0
    (tmp_path / "batch.png").write_text("dear to me")
    assert tools.main(command) == 2
    assert "there is a batch.png that is no such picture" in capsys.readouterr().err
    assert (tmp_path / "batch.png").read_text() == "dear to me"


def test_evaluate_goes_by_the_names_of_classes(files, tmp_path, capsys):
    """The same numbers, whatever the order in which a set or a head has them."""
    path, renamed = files / "net1.safetensors", tmp_path / "renamed.safetensors"
    network = sws_jax.load_network(str(path))
    names, about = DIGITS.class_names, network.description
    expected = evaluated(capsys, path)[str(path)]
    places = np.random.default_rng(0).permutation(10)
    data = tmp_path / "mine.npz"
    arrays = {}
    for split in ("train", "test"):
        split_arrays = stacked(DIGITS.split(split))
        arrays[f"{split}_images"] = split_arrays["image"]
        arrays[f"{split}_labels"] = np.argsort(places)[split_arrays["label"]]
    np.savez(data, class_names=np.asarray(names)[places], **arrays)
    assert evaluated(capsys, path, "--data", data)[str(path)][1:] == expected[1:]
    # Neither the names nor the places say which is which.
    mixed = about.replace(class_names=(*names[1:], "zero"))
    sws_jax.save_network(str(renamed), dataclasses.replace(network, description=mixed))
    assert tools.main(["evaluate", str(renamed)]) == 2
    assert "class '1' is output 0 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "about", ["names", "count", "channels", "shape", "shifted", "folder", "tfds"]
)
def test_evaluate_scores_no_set_of_another_who_has_its_name(
    about, files, tmp_path, capsys, monkeypatch
):
    network = sws_jax.load_network(str(files / "net1.safetensors"))
    description, spec = network.description, network.spec
    if (
        about == "names"
    ):  # a user's set of ten classes, of before it was called ./digits
        description = description.replace(class_names=tuple("abcdefghij"))
    if about == "shifted":  # as many count from one
        description = description.replace(class_names=tuple(map(str, range(1, 11))))
    if about in ("count", "channels"):
        spec = spec.replace(**{"num_classes" if about == "count" else "channels": 3})
        look = sws_jax.pixels.default_normalization(spec.channels)
        description = description.replace(net=spec, class_names=(), normalization=look)
    if about == "shape":
        spec = spec.replace(image_size=(16, 16))
        description = description.replace(net=spec)
    if about in ("folder", "tfds"):
        description = description.replace(
            dataset={"folder": "./digits", "tfds": "cifar10"}[about]
        )
    path = tmp_path / "net.safetensors"
    params = params_of(spec)
    sws_jax.save_network(str(path), sws_jax.Network(spec, params, description))
    (tmp_path / "cifar10" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert tools.main(["evaluate", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--data" in error


def predicted(capsys, *argv):
    """path -> [(class, probability)] of what a command printed."""
    assert tools.main(["predict", *map(str, argv)]) == 0
    classes = {}
    for line in capsys.readouterr().out.splitlines():
        path, _, rest = line.partition(": ")
        shown = [part.rsplit(" ", 1) for part in rest.split(", ")]
        classes[path] = [(name, percent) for name, percent in shown]
    return classes


@pytest.mark.parametrize("weights", ["named", "gene"])
def test_predict_names_classes_with_their_softmax(weights, files, tmp_path, capsys):
    path = str(files / f"{weights}.safetensors")
    if weights == "gene":
        network = sws_jax.expand(sws_jax.load_learngene(path), depth=3)  # its own
    else:
        network = sws_jax.load_network(path)
    names = NAMES if weights == "named" else DIGITS.class_names
    images = [tmp_path / f"{n}.png" for n in range(3)]
    pixels = np.stack([digit(n, image) for n, image in enumerate(images)])[..., None]
    predictions = predicted(capsys, path, *images, "--top", 10)
    scores = np.exp(logits_of(network, pixels))
    scores /= scores.sum(axis=1, keepdims=True)
    assert list(predictions) == [str(image) for image in images]
    for row, image in zip(scores, images, strict=True):
        shown = predictions[str(image)]
        assert [name for name, _ in shown] == [names[i] for i in np.argsort(-row)]
        values = [float(percent.removesuffix("%")) / 100 for _, percent in shown]
        np.testing.assert_allclose(values, np.sort(row)[::-1], atol=0.5e-3 + 1e-5)


def test_predict_shows_the_first_three(files, capsys):
    path, image = files / "net1.safetensors", files / "digit.png"
    shown = predicted(capsys, path, image)[str(image)]
    assert len(shown) == 3
    assert predicted(capsys, path, image, "--top", 1) == {str(image): shown[:1]}


def test_predict_fits_any_picture_to_the_network(files, tmp_path, capsys):
    """Colour as grey, another size cropped and scaled; here nothing is lost."""
    path, plain = files / "net1.safetensors", files / "digit.png"
    with Image.open(plain) as image:
        colour = image.convert("RGB")
    wide = Image.new("RGB", (12, 8), (255, 0, 0))
    wide.paste(colour, (2, 0))
    colour.save(tmp_path / "colour.png")
    wide.save(tmp_path / "wide.png")
    predictions = predicted(
        capsys, path, plain, tmp_path / "colour.png", tmp_path / "wide.png"
    )
    assert len(predictions) == 3
    assert len({tuple(shown) for shown in predictions.values()}) == 1


def test_predict_without_class_names(files, tmp_path, capsys):
    path, image = tmp_path / "anonymous.safetensors", files / "digit.png"
    spec = specs.ViTSpec(depth=2, **TINY)
    sws_jax.save_network(str(path), network_of(spec, 1, class_names=()))
    (shown,) = predicted(capsys, path, image, "--top", 10).values()
    assert sorted(name for name, _ in shown) == [f"class {n}" for n in range(10)]


@pytest.mark.parametrize(
    "command, words",
    [
        ("evaluate none.safetensors", "there is no weights file none.safetensors"),
        ("evaluate net1.safetensors none.safetensors", "no weights file none.safeten"),
        ("evaluate text.safetensors", "text.safetensors is not a readable .safetens"),
        ("evaluate cut.safetensors", "it may be cut off: copy it again"),
        ("evaluate empty", "the directory empty holds no weights.safetensors, no"),
        ("evaluate net1.safetensors --split all", "is not one of train, val, test"),
        ("evaluate net1.safetensors --depth 4", "only a learngene is expanded"),
        ("evaluate net1.safetensors --step 4", "a step is chosen in a run's direct"),
        ("evaluate gene.safetensors --step 4", "a step is chosen in a run's direct"),
        ("evaluate gene.safetensors --depth 0", "whole number from 1 to 1024, and"),
        ("evaluate gene.safetensors --depth -2", "whole number from 1 to 1024, and"),
        ("evaluate empty --step 4", "empty has no checkpoint of step 4"),
        ("evaluate net1.safetensors --batch-size 12", "take a multiple of 8"),
        ("evaluate net1.safetensors --batch-size 0", "--batch-size must be at least 1"),
        ("evaluate net1.safetensors --data nope", "there is no dataset 'nope'"),
        ("evaluate net1.safetensors --data nope.npz", "no dataset file nope.npz"),
        ("evaluate elsewhere.safetensors", "trained on 'somewhere'; say where tha"),
        ("evaluate five.safetensors", "has 5 classes and digits has 10"),
        ("predict none.safetensors digit.png", "no weights file none.safetensors"),
        ("predict text.safetensors digit.png", "not a readable .safetensors file"),
        ("predict cut.safetensors digit.png", "it may be cut off: copy it again"),
        ("predict net1.safetensors none.png", "there is no image none.png"),
        ("predict net1.safetensors text.png", "text.png is not a readable image"),
        ("predict net1.safetensors cut.png", "cut.png is not a readable image"),
        ("predict net1.safetensors empty", "empty is not a readable image"),
        ("predict net1.safetensors digit.png --depth 4", "only a learngene is expan"),
        ("predict net1.safetensors digit.png --step 4", "a step is chosen in a run"),
        ("predict features.safetensors digit.png", "has no classes to name"),
    ],
)
def test_mistakes_are_answered_in_one_line(command, words, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    code = tools.main(command.split())
    out, error = capsys.readouterr()
    assert code == 2
    assert error.startswith("sws_jax: ") and error.count("\n") == 1
    assert words in error
    assert "Traceback" not in error and out == ""
    assert sorted(files.rglob("*")) == before  # looking leaves nothing behind


# show_batch


def test_show_batch(tmp_path, capsys):
    """The very pixels and labels of a step of the run."""
    config = ROOT / "configs" / "scratch_deit.py"
    path = tmp_path / "batch.png"
    argv = ["--step=3", "--images=10", f"--out={path}", f"--config={config}:depth=1"]
    changed = ["--config.transform.flip=True", "--config.augment.erase=1.0"]
    assert tools.main(["show_batch", *argv, *changed]) == 0
    out = capsys.readouterr().out
    assert "10 of the 64 images of step 3 of scratch-digits-L1, digits, 8 x 8" in out
    with Image.open(path) as sheet:
        assert min(sheet.size) > 300
    shown = path.read_bytes()
    assert tools.main(["show_batch", *argv]) == 0
    assert path.read_bytes() != shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["batch.png"]


def test_show_batch_of_a_run_of_the_job(tmp_path, capsys):
    config = f"--config={ROOT / 'configs' / 'smoke.py'}"
    out = f"--out={tmp_path / 'batch.png'}"
    assert tools.main(["show_batch", config, out, "--run=des-L02"]) == 0
    assert "of des-L02, digits" in capsys.readouterr().out


@pytest.mark.parametrize(
    "shares, words",
    [
        ((0.0, 1.0, 0.0), "bee"),
        ((0.0, 0.3, 0.7), "a cat that sits\u2026 70%\nbee 30%"),
        ((0.004, 0.996, 0.0), "bee"),
    ],
)
def test_labels_of_a_sheet(shares, words):
    names = ("ant", "bee", "a cat that sits on a mat")
    assert show_batch.label(np.asarray(shares), names) == words


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "--config=FILE is missing"),
        (["--config=configs/none.py"], "configs/none.py"),
        (["--config=SMOKE", "--run=nope"], "no run 'nope'; it has ancestor, aux"),
        (["--config=SMOKE", "--step=-1"], "--step is 0 to 2^31 - 1"),
        (["--config=SMOKE", "--step=2147483648"], "--step is 0 to 2^31 - 1"),
        (["--config=SMOKE", "--images=0"], "--images at least 1"),
        (["--config=SMOKE", "--out=FOLDER/sheet"], "sheet.png"),
        (["--config=SMOKE", "--config.global_batch_size=0"], "must be at least 1"),
        (["--config=SMOKE", "--config.data.image_size=-1"], "at least 0, and is -1"),
        (["--config=SMOKE", "--stpe=1"], "no flag --stpe"),
        (["--config=SMOKE", "--config.data.source=nope"], "there is no dataset 'nope'"),
        (["--config=SMOKE", "--out=FOLDER/none/none.txt"], "cannot be written"),
    ],
)
def test_sheets_that_cannot_be_drawn(argv, words, tmp_path, capsys):
    places = {"SMOKE": str(ROOT / "configs" / "smoke.py"), "FOLDER": str(tmp_path)}
    for name, path in places.items():
        argv = [argument.replace(name, path) for argument in argv]
    assert tools.main(["show_batch", *argv]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
