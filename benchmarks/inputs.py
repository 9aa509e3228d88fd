"""Images per second that reach a training step's door, for each core of the host.

Every source (digits, arrays of 32 px, a folder of JPEGs, a prepared TFDS set, the
folder resized to 224 px and mapped into memory), recipe and decoder, through the
batches that training and evaluation read. The JPEGs are drawn for the purpose, some
500 x 400 px at quality 90 and about as many bytes as ImageNet's, and come from the
system's file cache: a disk is not measured.

How to read it: `images_per_cpu_second` counts the processor time of this one process,
which reads in one thread, so it is what one core delivers however busy the machine is.
`images_per_second` is the same reading by the clock, and
`images_per_second_with_workers` by the clock with one worker process for each core. A
step that trains n images a second on an accelerator needs n / `images_per_cpu_second`
cores.

Sets in one array can live on the device (`data.on_device`), which then makes the same
batches of them. `device_over_host` says how many times as many images a second that
gives, in turns with the host's batches: to the device, and in training, of a network as
its recipe has it (digits, 32 px).
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from benchmarks import measure
from benchmarks.measure import Row, Settings
from benchmarks.step import weights
from sws_jax import sharding
from sws_jax.data import Dataset, load_dataset, pipeline, resident
from sws_jax.data.images import DECODERS
from sws_jax.data.pipeline import Reading
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError
from sws_jax.estimate import budgets
from sws_jax.jobs import build, model_fields, recipes
from sws_jax.runtime import host
from sws_jax.training import step as training_step


class Trained(NamedTuple):
    """How the network of a set is trained: its fields, and the name of its budget."""

    recipe: Callable[[Any], None]
    budget: str


RECIPES = {
    "padded crop + flip": Transform(crop="padded", flip=True),
    "resized crop + flip": Transform(crop="resized", flip=True),
    "resized crop + flip + RandAugment": Transform(
        crop="resized", flip=True, randaugment=2, magnitude=9.0
    ),
    "evaluation": None,  # no randomness: resized to 1 / 0.875, the centre cut out
}
EVAL_CROP = 0.875
BATCH = 32
PIXELS = 224  # of encoded images, as a network gets them
# Sets whose networks two CPU cores can train: recipe, and name of the budget.
TRAINED = {
    "digits": Trained(recipes.small, "digits"),
    "npz, 32 px": Trained(recipes.pixels32, "32px"),
}
_AHEAD = 16  # batches: more than are read ahead, or wait for a device
# Workers take seconds to start, so that they are timed with one recipe: DeiT's.
WITH_WORKERS = "resized crop + flip + RandAugment"


def run(settings: Settings) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for source, decoder, load in _sources(directory, settings):
            about: Row = {"source": source, "decoder": decoder}
            try:
                data = load()
            except (UserError, ImportError) as error:
                row = about | {"note": f"skipped: {error}"}
                measure.say("input", row)
                rows.append(row)
                continue
            for recipe, transform in RECIPES.items():
                row = about | {"recipe": recipe} | _measure(data, transform, settings)
                wanted = decoder != "opencv" and not settings.quick
                wanted = wanted or source == "digits"
                if recipe == WITH_WORKERS and wanted:
                    row |= _with_workers(data, transform, settings)
                measure.say("input", row)
                rows.append(row)
            for row in _on_device(source, data, settings) if decoder == "-" else ():
                measure.say("input", about | row)
                rows.append(about | row)
    return rows


def _on_device(source: str, data: Dataset, settings: Settings) -> Iterator[Row]:
    """Images that live on the device beside those that live on the host."""
    config = recipes.run()
    trained = TRAINED.get(source)
    if trained:
        trained.recipe(config)
        config.model.update(dict(budgets.SMALL[trained.budget].ancestor))
    else:
        config.transform.update(crop="padded", flip=True)
        config.global_batch_size = BATCH
    transform, size = build.transform(config), config.global_batch_size
    mesh = sharding.make_mesh(jax.devices()[:1])
    streams = {
        where: resident.batches(
            data,
            transform,
            mesh,
            on_device=where == "device",
            seed=0,
            global_batch_size=size,
        )
        for where in ("host", "device")
    }
    about: Row = {"recipe": "padded crop" + " + flip" * transform.flip, "batch": size}
    yield about | {"to": "device"} | _in_turns(streams, size, None, settings)
    if trained and not settings.quick:
        steps = _Steps(config, data, mesh)
        yield about | {"to": "training"} | _in_turns(streams, size, steps, settings)


class _Steps:
    """The steps of a network in training, each on the batch that it is called with."""

    def __init__(self, config: Any, data: Dataset, mesh: Any):
        height_and_width, channels = data.image_shape[:2], data.image_shape[2]
        spec = model_fields.network_spec(
            config,
            dict(
                image_size=height_and_width,
                channels=channels,
                num_classes=data.num_classes,
            ),
        )
        recipe = build.recipe(config, spec, data.normalization)
        self._program = training_step.program(recipe, mesh, config.global_batch_size)
        shardings = training_step.state_shardings(recipe, mesh)
        new = functools.partial(training_step.new_state, recipe)
        params = sharding.put(weights(spec), shardings.params)
        self._state = jax.jit(new, out_shardings=shardings)(params)
        self._key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))

    def __call__(self, batch: Any) -> Any:
        rate = np.float32(1e-4)
        self._state, numbers = self._program(self._state, self._key, batch, rate, None)
        return numbers


def _in_turns(
    streams: dict[str, Iterator[tuple[Any, int]]],
    size: int,
    use: Callable[[Any], Any] | None,
    settings: Settings,
) -> Row:
    """Images per second of the host's batches and of the device's, and their ratio.

    Args:
      streams: of the batches, by where they are made.
      size: images of a batch.
      use: what is done with each, if anything; returns what is to be waited for.
      settings: of the run.
    """
    length, repeats = (0.05, 2) if settings.quick else (1.0, 9)

    def used(stream: Iterator[tuple[Any, int]]) -> Any:
        batch, _ = next(stream)
        return use(batch) if use else batch

    def rate(stream: Iterator[tuple[Any, int]]) -> float:
        # What was read ahead while the other was timed is not a rate.
        started = [used(stream) for _ in range(_AHEAD)]
        jax.block_until_ready(started)
        before, images = time.perf_counter(), 0
        while time.perf_counter() - before < length:
            started = [*started[-_AHEAD:], used(stream)]
            sharding.hold_back(started)
            images += size
        jax.block_until_ready(started)
        return images / (time.perf_counter() - before)

    turns = [
        {where: rate(stream) for where, stream in streams.items()}
        for _ in range(repeats)
    ]
    row = {
        f"{where}_images_per_second": measure.figure([turn[where] for turn in turns])
        for where in streams
    }
    ratios = [turn["device"] / turn["host"] for turn in turns]
    return row | {"device_over_host": measure.figure(ratios)}


def _sources(
    directory: str, settings: Settings
) -> Iterator[tuple[str, str, Callable[[], Dataset]]]:
    """Name, decoder and how it is loaded."""
    yield "digits", "-", functools.partial(load_dataset, "digits")
    yield "npz, 32 px", "-", functools.partial(load_dataset, _npz(directory))
    images = _jpegs(160 if settings.quick else 320)
    # Nothing is held in memory: decoding is what is measured.
    encoded = functools.partial(load_dataset, image_size=PIXELS, memory_gib=0.0)
    root = _folder(directory, images)
    for decoder in DECODERS:
        yield "folder", decoder, functools.partial(encoded, root, decoder=decoder)
    for decoder in DECODERS:

        def prepared(decoder=decoder) -> Dataset:
            _prepare(directory)
            return encoded("tfds:drawn", directory=directory, decoder=decoder)

        yield "tfds", decoder, prepared
    yield "mapped, 224 px", "-", lambda: load_dataset(_mapped(directory, root))


def _measure(data: Dataset, transform: Transform | None, settings: Settings) -> Row:
    with contextlib.closing(_images(data, transform, Reading())) as counts:
        next(counts)
        per_cpu, per_second = [], []
        for _ in range(2 if settings.quick else 3):
            images, wall, cpu = _window(counts, 0.05 if settings.quick else 0.5)
            per_cpu.append(images / cpu)
            per_second.append(images / wall)
    return {
        "images_per_cpu_second": measure.figure(per_cpu),
        "images_per_second": measure.figure(per_second),
    }


def _with_workers(
    data: Dataset, transform: Transform | None, settings: Settings
) -> Row:
    workers = host.cores()
    reading = Reading(workers=workers)
    with contextlib.closing(_images(data, transform, reading)) as counts:
        # What the workers have read ahead while they were started is not a rate.
        for _ in range(4 * workers):
            next(counts)
        # Long windows, since whole batches arrive from several at once.
        length, repeats = (0.05, 2) if settings.quick else (1.5, 3)
        windows = [_window(counts, length) for _ in range(repeats)]
    rates = [images / wall for images, wall, _ in windows]
    return {"workers": workers, "images_per_second_with_workers": measure.figure(rates)}


def _window(counts: Iterator[int], length: float) -> tuple[int, float, float]:
    """Images, seconds by the clock and of this process's processor time."""
    wall, cpu, images = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < length:
        images += next(counts)
    return images, time.perf_counter() - wall, time.process_time() - cpu


def _images(
    data: Dataset, transform: Transform | None, reading: Reading
) -> Generator[int, None, None]:
    """How many images each batch brings, without end."""
    size = data.image_shape[:2]
    if transform is not None:
        batches = pipeline.train_batches(
            data.train,
            transform,
            seed=0,
            global_batch_size=BATCH,
            size=size,
            reading=reading,
        )
        for batch in batches:
            yield len(batch["image"])
    fit = Fit(size, EVAL_CROP)
    for _ in itertools.count():
        for batch in pipeline.eval_batches(
            data.test, fit, global_batch_size=BATCH, reading=reading
        ):
            yield int(batch["weight"].sum())


def _npz(directory: str) -> str:
    random = np.random.default_rng(0)
    path = os.path.join(directory, "arrays.npz")
    arrays: dict[str, Any] = {}
    for split, count in (("train", 2048), ("test", 256)):
        arrays[f"{split}_images"] = random.integers(
            0, 256, (count, 32, 32, 3), np.uint8
        )
        arrays[f"{split}_labels"] = np.arange(count) % 2
    np.savez(path, **arrays, class_names=np.asarray(["even", "odd"]))
    return path


def _jpegs(count: int) -> list[Image.Image]:
    """Smooth shapes with some grain: JPEG finds as much in them as in a photo."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        width, height = (int(n) for n in random.integers((400, 340), (600, 460)))
        coarse = random.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        grain = random.normal(scale=6.0, size=(height, width, 3))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        images.append(Image.fromarray(pixels))
    return images


def _folder(directory: str, images: list[Image.Image]) -> str:
    root = os.path.join(directory, "folder")
    for i, image in enumerate(images):
        split = "test" if i % 5 == 0 else "train"
        place = os.path.join(root, split, "odd" if i % 2 else "even")
        os.makedirs(place, exist_ok=True)
        image.save(os.path.join(place, f"{i}.jpg"), quality=90)
    return root


def _mapped(directory: str, root: str) -> str:
    """The folder's images, as ``python -m sws_jax prepare --size`` writes them."""
    from sws_jax.prepare import resized, sets, sources

    form = resized.Arrays(sources.open_source(root), "mapped", PIXELS, 2**27)
    request = sets.Request(form, os.path.join(directory, "mapped"), {})
    sets.make(request, sets.inspect(request))
    return request.directory


def _prepare(directory: str) -> None:
    """Prepares the set ``drawn`` from the folder's files, without TensorFlow."""
    if os.path.exists(os.path.join(directory, "drawn")):
        return
    import tensorflow_datasets as tfds

    root = os.path.join(directory, "folder")

    class Drawn(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "drawn"

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(None, None, 3), encoding_format="jpeg"
                    ),
                    "label": tfds.features.ClassLabel(names=["even", "odd"]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(split) for split in ("train", "test")
            }

        def _generate_examples(self, split):
            for label in ("even", "odd"):
                folder = os.path.join(root, split, label)
                for name in sorted(os.listdir(folder)):
                    path = os.path.join(folder, name)
                    yield f"{label}/{name}", {"image": path, "label": label}

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of a download
        Drawn(data_dir=directory, file_format="array_record").download_and_prepare()
