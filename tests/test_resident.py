"""Training images on the devices: the batches of the host, bit for bit."""

import contextlib
import dataclasses
import functools
import itertools
import re

import jax
import numpy as np
import pytest

from sws_jax import pixels, sharding
from sws_jax.data import arrays, pipeline, resident
from sws_jax.data.base import Arrays, Dataset, Subset
from sws_jax.data.resident import Device, Images
from sws_jax.data.transforms import Transform
from sws_jax.errors import UserError
from sws_jax.estimate import sizing
from sws_jax.jobs import train
from sws_jax.preview import dry_run
from sws_jax.training import loop, metrics

from support.runs import Script, tiny

SHAPE = (6, 5, 3)
SHIFTED = Transform(crop="padded", padding=2, flip=True)


def noise(count, shape=SHAPE):
    random = np.random.default_rng(0)
    images = random.integers(1, 256, (count, *shape), np.uint8)  # no pixel is black
    return Arrays(images, random.integers(0, 7, count).astype(np.int32))


def dataset(split, shape=SHAPE):
    return Dataset(
        name="noise",
        train=split,
        val=split,
        test=split,
        class_names=tuple("abcdefg"),
        image_shape=shape,
        normalization=pixels.default_normalization(shape[-1]),
    )


def mesh_of(*sizes):
    devices = jax.devices()[: np.prod(sizes)]
    return sharding.make_mesh(devices, dict(zip(sharding.AXES, sizes, strict=True)))


ONE = mesh_of(1, 1, 1)


def both(split, transform, steps, mesh, *, batch, shape=SHAPE, **settings):
    """The batches of the host and of the devices, on the same mesh."""
    data = dataset(split, shape)
    settings = dict(seed=3, global_batch_size=batch) | settings
    read = pipeline.train_batches(split, transform, size=shape[:2], **settings)
    drawn = pipeline.train_draws(len(split), transform, **settings)
    images = Images(data, transform, mesh)
    for rows, draws in itertools.islice(zip(read, drawn, strict=True), steps):
        assert rows.pop("skipped") == 0
        yield sharding.to_global(mesh, batch, rows), images.batch(batch, draws)


def same(host, device):
    """Values, types and shardings."""
    assert host.keys() == device.keys()
    for name, leaf in host.items():
        other = device[name]
        assert (leaf.dtype, leaf.sharding) == (other.dtype, other.sharding)
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other))


@pytest.mark.parametrize(
    "transform",
    [
        Transform(),
        Transform(flip=True),
        Transform(crop="padded", padding=1),
        Transform(crop="padded", padding=0, flip=True),
        SHIFTED,
        Transform(crop="padded", padding=9, flip=True),  # wider than the image
    ],
)
@pytest.mark.parametrize("batch", [1, 7, 30])
def test_the_batches_are_those_of_the_host(transform, batch):
    """Also where a batch crosses the end of an epoch, or holds more than one."""
    for host, device in both(noise(20), transform, 4, ONE, batch=batch):
        same(host, device)


@pytest.mark.parametrize("sizes", [(2, 1, 1), (2, 2, 2)])
def test_on_several_devices(sizes):
    """Each makes its own rows, and none sends anything to another."""
    mesh = mesh_of(*sizes)
    for host, device in both(noise(20), SHIFTED, 3, mesh, batch=8, repeats=3):
        same(host, device)
    program = resident._cut_on(mesh, 2).lower(
        *(
            jax.ShapeDtypeStruct(shape, dtype, sharding=place)
            for shape, dtype, place in (
                ((20, *SHAPE), np.uint8, sharding.replicated(mesh)),
                ((20,), np.int32, sharding.replicated(mesh)),
                ((8, 4), np.int32, sharding.batch_sharding(mesh)),
            )
        )
    )
    text = program.compile().as_text()
    assert not re.search("all-(gather|reduce|to-all)|permute", text)


def test_any_step_can_be_the_first():
    whole = list(both(noise(20), SHIFTED, 6, ONE, batch=8))
    rest = both(noise(20), SHIFTED, 2, ONE, batch=8, start_step=4)
    for (_, expected), (_, device) in zip(whole[4:], rest, strict=True):
        same(expected, device)


def test_rows_of_a_process_and_workers_draw_the_same():
    settings = dict(seed=5, global_batch_size=8)

    def drawn(**more):
        draws = pipeline.train_draws(20, SHIFTED, **settings, **more)
        return np.stack(list(itertools.islice(draws, 3)))

    parts = [drawn(rows=np.arange(8).reshape(2, -1)[i]) for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), drawn())
    reading = pipeline.Reading(workers=1)
    np.testing.assert_array_equal(drawn(reading=reading), drawn())


def mapped(tmp_path):
    """A set whose images are in a file, of which some were left out."""
    split = noise(20)
    path = str(tmp_path / "images.npy")
    np.save(path, split.images)
    rows = np.flatnonzero(split.labels != 3)
    return arrays.Mapped(path, split.labels[rows], rows)


@pytest.mark.parametrize("kind", ["subset", "subset of a subset", "mapped", "its part"])
def test_where_images_come_from(kind, tmp_path):
    split = noise(20)
    if kind in ("mapped", "its part"):
        split = mapped(tmp_path)
    if kind in ("subset", "its part"):
        split = Subset(split, np.array([5, 3, 11]))
    if kind == "subset of a subset":
        split = Subset(Subset(split, np.arange(4, 16)), np.array([7, 0, 2]))
    for host, device in both(split, SHIFTED, 2, ONE, batch=8):
        same(host, device)


GIB = 2**30
TAKEN = 20 * 6 * 5 * 3  # bytes


@pytest.mark.parametrize(
    "choice, device, there",
    [
        ("yes", Device("cpu", None), True),
        ("no", Device("gpu", GIB), False),
        ("auto", Device("cpu", GIB), False),  # measured
        ("auto", Device("gpu", 10 * TAKEN), True),
        ("auto", Device("gpu", 10 * TAKEN - 1), False),
        ("auto", Device("tpu", None), False),
    ],
)
def test_where_they_live(choice, device, there):
    assert resident.lives_there(choice, dataset(noise(20)), SHIFTED, device) == there


@pytest.mark.parametrize(
    "split, shape, transform, words",
    [
        (noise(4), SHAPE, Transform(crop="resized"), "transform.crop is resized"),
        (noise(4), SHAPE, Transform(randaugment=2), "transform.randaugment is 2"),
        (noise(4), (12, 10, 3), SHIFTED, "images of 6 x 5 pixels are resized to 12 x"),
        (
            Arrays([*noise(2).images, *noise(2, (4, 4, 3)).images], np.zeros(4, int)),
            SHAPE,
            SHIFTED,
            "are not held in memory as one array .*prepare SOURCE OUT --size=6 makes",
        ),
    ],
)
def test_what_devices_cannot_do_is_refused_and_not_chosen(
    split, shape, transform, words
):
    data, plenty = dataset(split, shape), Device("gpu", GIB)
    with pytest.raises(UserError, match=f"data.on_device is yes, and .*{words}"):
        resident.lives_there("yes", data, transform, plenty)
    assert not resident.lives_there("auto", data, transform, plenty)


def test_a_config_is_refused_before_its_data_are_read(tmp_path):
    config = tiny(data=dict(on_device="yes", source="/nowhere.npz"))
    config.transform.crop = "resized"
    with pytest.raises(
        UserError, match="on_device is yes, .*transform.crop is resized"
    ):
        train.train(config, str(tmp_path))
    config.transform.crop = "padded"
    with pytest.raises(UserError, match="there is no dataset file /nowhere.npz"):
        train.train(config, str(tmp_path))


class Seen(Script):
    """A script that remembers the batches that its steps are handed."""

    def __init__(self, patch):
        super().__init__(patch)
        self.batches = []

    def _step(self, state, key, raw, rate, teacher):
        self.batches.append(raw)
        return super()._step(state, key, raw, rate, teacher)


def test_a_run_trains_on_the_same_batches(tmp_path, monkeypatch, capsys):
    """It is stopped on the devices, and goes on there, and on the host."""
    script = Seen(monkeypatch)
    config = tiny(steps=4, save_every=4, transform=dict(flip=True))
    train.train(config, str(tmp_path / "host"))
    expected, script.batches = script.batches, []
    size = f"{1257 * 64 / 1024:.3g} KiB"
    line = "digits: 1,257 training images in the memory of {}, " + size
    assert line.format("the host") in capsys.readouterr().out

    for choice, more in (("yes", 2), ("yes", 1), ("auto", 4)):  # steps
        config.data.on_device = choice
        answers = iter([False] * (more - 1) + [True])
        stops = pytest.raises(loop.Preempted) if more < 4 else contextlib.nullcontext()
        with stops:
            train.train(
                config, str(tmp_path), should_stop=functools.partial(next, answers)
            )
        where = "each device" if choice == "yes" else "the host"
        assert line.format(where) in capsys.readouterr().out
    for host, device in zip(expected, script.batches, strict=True):
        same(host, device)
    (row,) = metrics.read(str(tmp_path / "run"))
    assert row["step"] == 4


def test_a_sheet_counts_them(monkeypatch, tmp_path, capsys):
    sheet = sizing.Sheet(2**30, 2**31, 0, 0, 0, None, (), 0, images=2**28)
    assert sheet.total == 3.25 * 2**30
    assert "2 GiB optimiser, 256 MiB training images; 3.25 GiB in all" in str(sheet)
    assert "take data.on_device=no, a smaller" in sizing.warning(sheet, 2**30)
    without = dataclasses.replace(sheet, images=0)
    assert "on_device" not in sizing.warning(without, 2**30)


def test_a_dry_run_counts_them(tmp_path, monkeypatch, capsys):
    """Of digits, which are read: on a GPU auto takes them there."""
    made = sizing.Sheet(1, 1, 0, 0, 1, 1, (), 0)
    monkeypatch.setattr(
        sizing,
        "sheet",
        lambda *_, images, **__: dataclasses.replace(made, images=images),
    )
    for machine, choice, counted in (
        ("8xH100", "auto", "78.6 KiB"),
        ("8xH100", "no", ""),
        ("8", "auto", ""),  # it is not known what they are
        ("8", "yes", "78.6 KiB"),
    ):
        config = tiny(data=dict(on_device=choice))
        config.mesh.dry_run = machine
        with config.unlocked():
            config.job = "single"
        dry_run.run(config, str(tmp_path))
        text = capsys.readouterr().out
        assert ("images: those of training, which every" in text) == bool(counted)
        assert (" 78.6 KiB " in text) == bool(counted)
        assert "not counted" not in text


def test_a_dry_run_says_what_it_does_not_count(tmp_path, monkeypatch, capsys):
    """Of a set that is not read it cannot tell how large it is."""
    sheet = sizing.Sheet(1, 1, 0, 0, 1, 1, (), 0)
    monkeypatch.setattr(sizing, "sheet", lambda *_, **__: sheet)
    for crop, noted in (("padded", True), ("resized", False)):
        config = tiny(
            data=dict(source="/nowhere.npz", image_size=32), transform=dict(crop=crop)
        )
        config.mesh.dry_run = "8xH100"
        with config.unlocked():
            config.job = "single"
        dry_run.run(config, str(tmp_path))
        assert ("=auto: not counted, at most" in capsys.readouterr().out) == noted
