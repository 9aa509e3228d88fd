"""Checks of what the runs read: images, a teacher, weights to start from."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from sws_jax import convert, sharding, trees
from sws_jax.data import Dataset, facts, fingerprint, pipeline
from sws_jax.data.base import Subset, is_decoded
from sws_jax.doctor import unstaged
from sws_jax.doctor.base import (
    PROBLEM,
    Case,
    Finding,
    Unknown,
    ok,
    problem,
    warning,
)
from sws_jax.errors import UserError
from sws_jax.jobs import build, fingerprints, initial, places, preflight, start, teacher
from sws_jax.jobs.places import Images, Origin
from sws_jax.jobs.rows import Run
from sws_jax.methods import learngenes
from sws_jax.models import networks
from sws_jax.prepare import parts
from sws_jax.runtime import words
from sws_jax.runtime.host import cores
from sws_jax.specs import Spec
from sws_jax.storage import runs

_IMAGES = 256  # The most images of a batch that are read.


def data(case: Case) -> Iterator[Finding]:
    """The images and classes of the job, and whether runs began on others."""
    config = case.config.copy_and_resolve_references().unlock()
    # A run reads what fits into memory first, which may take minutes.
    config.data.memory_gib = 0.0
    with case.asking(unstaged.root(config)):
        waiting = unstaged.find(config)
        dataset = waiting.data if waiting else build.dataset(config)
        case.data = dataset
    yield from _not_whole(dataset)
    if waiting:
        yield waiting.described()
        yield waiting.fits()
        raise Unknown("its images are not here yet: a run copies them when it begins")
    height, width, channels = dataset.image_shape
    yield from _begun_on_others(case, dataset)
    for note in dataset.notes:
        yield warning(f"{dataset.name}: {note}")
    if repeated := facts.repeated(dataset):
        yield warning(
            f"{dataset.name}: {repeated:,} of {len(dataset.test):,} test images are "
            f"training or validation images too, pixel by pixel",
            "take them out of one of the two: the accuracy says more than is true",
        )
    totals = ", ".join(f"{len(dataset.split(name)):,} {name}" for name in facts.SPLITS)
    yield ok(
        f"{dataset.name}: {totals} images, {dataset.num_classes:,} classes, {height} x "
        f"{width} x {channels}; by class: {'; '.join(facts.summary(dataset))}"
    )


def _not_whole(dataset: Dataset) -> Iterator[Finding]:
    """A warning for a set of a well-known name that has another number of images."""
    counts = {"train": len(dataset.train), "validation": len(dataset.val)}
    if isinstance(dataset.train, Subset):
        # The validation images were held out of the training images.
        counts = {"train": sum(counts.values()), "validation": len(dataset.test)}
    # `prepare --size` appends the size of resized images to the name.
    name = re.sub(r"-\d+$", "", dataset.name)
    if miscounts := parts.miscounts(name, counts):
        yield warning(
            f"{dataset.name} is not whole, {miscounts}",
            "python -m sws_jax prepare SOURCE OUT, of all its files (docs/data.md); or "
            "go on, if a part is what you want",
        )


def _begun_on_others(case: Case, dataset: Dataset) -> Iterator[Finding]:
    """A problem for each run that began on other data."""
    if case.index or case.states.get("directory") == PROBLEM:
        return
    own = None
    for row in case.rows:
        directory = os.path.join(case.workdir, row.name)
        if fingerprints.known_data(directory) is None:
            continue
        own = own or fingerprint.take(dataset)
        if difference := fingerprints.other_data(directory, dataset.name, own):
            yield problem(
                difference, "bring the old data back, or take another --workdir"
            )


def reading(case: Case) -> Iterator[Finding]:
    """One batch of the first run that trains, read as the run reads it."""
    dataset = case.data
    assert dataset is not None
    row = next((r for r in case.rows if r.config.schedule.total_epochs), case.rows[0])
    config, split = row.config, dataset.train
    mesh = sharding.make_mesh(sizes=config.mesh)
    own = sharding.own_rows(mesh, config.global_batch_size)
    before = time.perf_counter()
    batches = pipeline.train_batches(
        split,
        build.transform(config),
        seed=config.seed,
        global_batch_size=config.global_batch_size,
        size=dataset.image_shape[:2],
        repeats=config.data.repeats,
        rows=own[:_IMAGES],
        # Images are read in this thread alone, so that the time is that of one core.
        reading=pipeline.Reading(unreadable=config.data.unreadable),
    )
    batch = next(batches)
    seconds = time.perf_counter() - before
    yield from _unusable(batch, dataset)
    images = batch["image"]
    rate = len(images) / seconds
    # This process reads its part of an epoch.
    epoch = len(split) * len(own) / config.global_batch_size
    epoch /= rate * min(max(config.data.workers, 1), cores())
    text = (
        f"{len(images)} images {'x'.join(map(str, images.shape[1:]))}, "
        f"{images.min()} to {images.max()}, in {seconds:.2g} s: {rate:,.0f} a second "
        f"on one core; an epoch of {row.name} takes {_duration(epoch)} to read"
    )
    idle = cores() - 1
    can_share = not config.data.workers and idle and not _is_in_memory(dataset, config)
    if can_share and jax.default_backend() != "cpu":
        yield warning(
            f"{text}, and this host has {cores()} cores",
            f"--config.data.workers={idle} reads up to {rate * idle:,.0f} a second",
        )
    else:
        yield ok(text)


def _is_in_memory(dataset: Dataset, config) -> bool:
    """Whether a run decodes all images into memory before it begins."""
    count = sum(len(dataset.split(name)) for name in ("train", "val", "test"))
    size = np.prod(dataset.train.read(0)[0].shape)
    return is_decoded(dataset.train) or count * size / 2**30 <= config.data.memory_gib


def _unusable(batch, dataset: Dataset) -> Iterator[Finding]:
    """What makes a batch useless for training."""
    images, labels = batch["image"], batch["label"]
    if int(batch["skipped"]):
        yield warning(
            f"{int(batch['skipped'])} images could not be read and were passed over "
            f"(data.unreadable)",
            "mend them",
        )
    if images.min() == images.max():
        yield problem(
            f"all pixels of a batch are {images.min()}: the images are empty",
            "python -m sws_jax show_batch draws a batch: look at it",
        )
    if labels.min() < 0 or labels.max() >= dataset.num_classes:
        yield problem(
            f"labels are {labels.min()} to {labels.max()}, and {dataset.name} has "
            f"{dataset.num_classes} classes",
            "prepare the set again",
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 60 else words.clock(seconds)


def ans_net(case: Case) -> Iterator[Finding]:
    """The teachers that runs are distilled from; without data, their files alone."""
    distilled: dict[tuple[str, str], Run] = {}
    for row in case.waiting():
        if places.needs_teacher(row.config):
            key = row.config.teacher.path, row.config.teacher.dtype
            distilled.setdefault(key, row)
    for (path, _), row in distilled.items():
        if trainer := case.trained_by(path):
            yield ok(f"{row.name}: the job trains it itself ({trainer})")
        else:
            path = places.resolve(path, case.workdir)
            with case.asking(path):
                yield from _teacher(row.config, path, case)
    if not distilled:
        yield ok("none is needed: no run is distilled")


def _teacher(config, path: str, case: Case) -> Iterator[Finding]:
    """Loads a teacher as the run does, and checks its numbers.

    Args:
      config: of a run that is distilled.
      path: of the teacher's file.
      case: whose data the teacher must fit, if they are known.
    """
    remarks: list[str] = []
    try:
        if case.data is None:
            network = teacher.load_teacher(path, dtype=config.teacher.dtype).network
        else:
            loaded = build.load_teacher(config, case.data, case.workdir, remarks.append)
            assert loaded is not None  # The run is distilled.
            network = loaded.network
    except UserError as error:
        yield _converted(path, error)
        return
    for name, leaf in trees.flatten(network.params).items():
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            yield problem(
                f"{path} holds values in {name} that are not numbers",
                "copy the file again, or train the teacher again",
            )
            return
    for remark in remarks:
        yield warning(remark, "compare the two lists (python -m sws_jax describe)")
    about = network.description
    assert about is not None  # Files have one.
    accuracy = (
        f", top-1 {about.accuracy:.1%} when trained" if about.accuracy >= 0 else ""
    )
    classes = f"{network.spec.num_classes:,} classes"
    unknown = "" if case.data else "; whether it fits the data is not known"
    yield ok(f"{path}: {network.spec.name}, {classes}{accuracy}{unknown}")


def _converted(path: str, error: UserError) -> Finding:
    """The problem of a teacher that cannot be used, and whether it can be converted."""
    if "sws_jax convert" not in str(error) and os.path.splitext(path)[1] not in (
        ".pth",
        ".pt",
        ".bin",
        ".npz",
    ):
        return problem(str(error))
    try:
        _, layout = convert.load(path)
    except UserError as reason:
        return problem(f"{path} is no teacher, and cannot be converted: {reason}")
    return problem(
        f"{path} is another program's ({layout.name})",
        f"python -m sws_jax convert {path} teacher.safetensors, and take that file",
    )


def weights(case: Case) -> Iterator[Finding]:
    """The learngenes and networks that runs start from, loaded as a run loads them."""
    files_of: dict[str, list[str]] = {}
    read_by: dict[str, list[str]] = {}
    trained: dict[str, list[str]] = {}
    for row in case.waiting():
        init = row.config.init
        for path in filter(None, (init.learngene, init.network)):
            _note(case, path, row, files_of, trained)
        for path in places.earlier_phases(row.config).values():
            _note(case, path, row, read_by, trained)
    rows = {row.name: row for row in case.rows}
    if problems := list(_unstartable(case, files_of)):
        yield from problems
        return
    for path, names in files_of.items():
        remarks: list[str] = []
        with case.asking(places.resolve(path, case.workdir)):
            for name in names:
                spec = _start(rows[name].config, case, remarks)
        yield ok(
            f"{path}: {spec.name}"
            + (f" and {len(names) - 1} more start from it" if names[1:] else "")
            + "".join(f"; {text}" for text in dict.fromkeys(remarks))
        )
    for path, names in read_by.items():
        resolved = places.resolve(path, case.workdir)
        with case.asking(resolved):
            spec = networks.load_network(runs.weights_file(resolved)).spec
        yield ok(f"{path}: {spec.name}, from which {words.few(names)} is computed")
    for trainer, names in trained.items():
        yield ok(f"the job trains {trainer} first, for {words.few(names)}")
    if not (files_of or read_by or trained):
        yield ok("none: every run starts from its seed")


def _note(
    case: Case,
    path: str,
    row: Run,
    files_of: dict[str, list[str]],
    trained: dict[str, list[str]],
) -> None:
    """Adds a run to those that need a file, or an earlier run of the job."""
    if trainer := case.trained_by(path):
        trained.setdefault(trainer, []).append(row.name)
    else:
        files_of.setdefault(path, []).append(row.name)


def _unstartable(case: Case, paths: Iterable[str]) -> Iterator[Finding]:
    """Runs that cannot start as configured, by the descriptions of their files."""
    with contextlib.ExitStack() as asking:
        for path in paths:
            asking.enter_context(case.asking(places.resolve(path, case.workdir)))
        images = None
        if case.data is not None and case.is_sized:
            images = Images.of(case.data)
        answers = start.Answers(images, case.workdir, case.older)
        wrong: dict[str, list[str]] = {}
        waiting = case.waiting()
        for row in case.rows:
            # A finished run may still be the one that another starts from.
            if row not in waiting and places.initial_file_is_outside(row.config):
                continue
            try:
                answers.answer_for(row.name, row.config)
            except UserError as error:
                wrong.setdefault(str(error), []).append(row.name)
        if not wrong and case.is_readable:
            preflight.check_alike(case.rows, answers, case.workdir)
    for text, names in wrong.items():
        yield problem(f"{words.few(names)}: {text}")


def _start(config, case: Case, remarks: list[str]) -> Spec:
    """The network that a run starts with; without data, the one in its file.

    Remarks on it are appended to `remarks`.
    """
    if case.data is not None and case.is_sized:
        on_difference = remarks.append if case.older(config.name) else None
        return initial.initial_network(
            config, case.data, case.workdir, remarks.append, on_difference=on_difference
        ).spec
    remarks.append("whether it fits the data is not known")
    path = places.initial_file(config, case.workdir)
    load = learngenes.load_learngene if config.init.learngene else networks.load_network
    about = load(path).description
    assert about is not None  # Files have one.
    on_difference = remarks.append if case.older(config.name) else None
    start.answer(config, None, Origin(path, about), on_difference=on_difference)
    return about.spec
