"""What the runs read: images, a teacher, weights to start from."""

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
from sws_jax.jobs.origins import Images, Origin
from sws_jax.jobs.rows import Run
from sws_jax.methods import learngenes
from sws_jax.models import networks
from sws_jax.prepare import parts
from sws_jax.runtime import words
from sws_jax.runtime.host import cores
from sws_jax.specs import Spec

_IMAGES = 256  # of a batch that are read, at most


def data(case: Case) -> Iterator[Finding]:
    """The images and classes of the job, and whether runs began on others."""
    config = case.config.copy_and_resolve_references().unlock()
    # What fits is held in memory once a run starts, which may take minutes.
    config.data.memory_gib = 0.0
    with case.asking(unstaged.root(config)):
        waiting = unstaged.find(config)
        case.data = found = waiting.data if waiting else build.dataset(config)
    yield from _not_whole(found)
    if waiting:
        yield waiting.described()
        yield waiting.fits()
        raise Unknown("its images are not here yet: a run copies them when it begins")
    height, width, channels = found.image_shape
    yield from _begun_on_others(case, found)
    for note in found.notes:
        yield warning(f"{found.name}: {note}")
    if again := facts.repeated(found):
        yield warning(
            f"{found.name}: {again:,} of {len(found.test):,} test images are training "
            f"or validation images too, pixel by pixel",
            "take them out of one of the two: the accuracy says more than is true",
        )
    totals = ", ".join(f"{len(found.split(name)):,} {name}" for name in facts.SPLITS)
    yield ok(
        f"{found.name}: {totals} images, {found.num_classes:,} classes, {height} x "
        f"{width} x {channels}; by class: {'; '.join(facts.summary(found))}"
    )


def _not_whole(found: Dataset) -> Iterator[Finding]:
    """A set of a well-known name that lacks images (or has too many)."""
    counts = {"train": len(found.train), "validation": len(found.val)}
    if isinstance(found.train, Subset):  # validation images are of the training images
        counts = {"train": sum(counts.values()), "validation": len(found.test)}
    name = re.sub(r"-\d+$", "", found.name)  # resized, as `prepare --size` calls it
    if wrong := parts.miscounts(name, counts):
        yield warning(
            f"{found.name} is not whole, {wrong}",
            "python -m sws_jax prepare SOURCE OUT, of all its files (docs/data.md); or "
            "go on, if a part is what you want",
        )


def _begun_on_others(case: Case, found: Dataset) -> Iterator[Finding]:
    if case.index or case.states.get("directory") == PROBLEM:
        return
    now = None
    for row in case.rows:
        directory = os.path.join(case.workdir, row.name)
        if fingerprints.known_data(directory) is None:
            continue
        now = now or fingerprint.take(found)
        if wrong := fingerprints.other_data(directory, found.name, now):
            yield problem(wrong, "bring the old data back, or take another --workdir")


def reading(case: Case) -> Iterator[Finding]:
    """One batch of the first run that trains, made as the run makes it."""
    found = case.data
    assert found is not None
    row = next((r for r in case.rows if r.config.schedule.total_epochs), case.rows[0])
    config, split = row.config, found.train
    mesh = sharding.make_mesh(sizes=config.mesh)
    own = sharding.own_rows(mesh, config.global_batch_size)
    before = time.perf_counter()
    batches = pipeline.train_batches(
        split,
        build.transform(config),
        seed=config.seed,
        global_batch_size=config.global_batch_size,
        size=found.image_shape[:2],
        repeats=config.data.repeats,
        rows=own[:_IMAGES],
        # In this thread alone: the time is that of one core.
        reading=pipeline.Reading(unreadable=config.data.unreadable),
    )
    batch = next(batches)
    seconds = time.perf_counter() - before
    yield from _wrong(batch, found, config)
    images = batch["image"]
    rate = len(images) / seconds
    epoch = len(split) * len(own) / config.global_batch_size  # this process's part
    epoch /= rate * min(max(config.data.workers, 1), cores())
    text = (
        f"{len(images)} images {'x'.join(map(str, images.shape[1:]))}, "
        f"{images.min()} to {images.max()}, in {seconds:.2g} s: {rate:,.0f} a second "
        f"on one core; an epoch of {row.name} takes {_duration(epoch)} to read"
    )
    idle = cores() - 1
    alone = not config.data.workers and idle and not _is_held(found, config)
    if alone and jax.default_backend() != "cpu":
        yield warning(
            f"{text}, and this host has {cores()} cores",
            f"--config.data.workers={idle} reads up to {rate * idle:,.0f} a second",
        )
    else:
        yield ok(text)


def _is_held(found: Dataset, config) -> bool:
    """Whether a run decodes all images into memory before it begins."""
    count = sum(len(found.split(name)) for name in ("train", "val", "test"))
    size = np.prod(found.train.read(0)[0].shape)
    return is_decoded(found.train) or count * size / 2**30 <= config.data.memory_gib


def _wrong(batch, found: Dataset, config) -> Iterator[Finding]:
    """What a batch has that no training could use."""
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
    if labels.min() < 0 or labels.max() >= found.num_classes:
        yield problem(
            f"labels are {labels.min()} to {labels.max()}, and {found.name} has "
            f"{found.num_classes} classes",
            "prepare the set again",
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 60 else words.clock(seconds)


def ans_net(case: Case) -> Iterator[Finding]:
    """The teachers that runs are distilled from; without data, by themselves."""
    asked: dict[tuple[str, str], Run] = {}
    for row in case.waiting():
        if build.needs_teacher(row.config):
            asked.setdefault((row.config.teacher.path, row.config.teacher.dtype), row)
    for (path, _), row in asked.items():
        if by := case.trained_by(path):
            yield ok(f"{row.name}: the job trains it itself ({by})")
        else:
            path = places.resolve(path, case.workdir)
            with case.asking(path):
                yield from _teacher(row.config, path, case)
    if not asked:
        yield ok("none is needed: no run is distilled")


def _teacher(config, path: str, case: Case) -> Iterator[Finding]:
    told: list[str] = []
    try:
        if case.data is None:
            made = teacher.load_teacher(path, dtype=config.teacher.dtype)
        else:
            found = build.load_teacher(config, case.data, case.workdir, told.append)
            assert found is not None  # a run that is distilled
            made = found
    except UserError as error:
        yield _converted(path, error)
        return
    network = made.network
    for name, leaf in trees.flatten(network.params).items():
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            yield problem(
                f"{path} holds values in {name} that are not numbers",
                "copy the file again, or train the teacher again",
            )
            return
    for text in told:
        yield warning(text, "compare the two lists (python -m sws_jax describe)")
    about = network.description
    assert about is not None  # of a file
    scored = f", top-1 {about.accuracy:.1%} when trained" if about.accuracy >= 0 else ""
    classes = f"{network.spec.net.num_classes:,} classes"
    alone = "" if case.data else "; whether it fits the data is not known"
    yield ok(f"{path}: {network.spec.name}, {classes}{scored}{alone}")


def _converted(path: str, error: UserError) -> Finding:
    """A teacher that cannot be used as it is; perhaps it can be converted."""
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
    """The learngenes and networks that runs start from, made ready as a run does."""
    files_of: dict[str, list[str]] = {}
    trained: dict[str, list[str]] = {}
    for row in case.waiting():
        init = row.config.init
        for path in filter(None, (init.learngene, init.network)):
            by = case.trained_by(path)
            (trained if by else files_of).setdefault(by or path, []).append(row.name)
    rows = {row.name: row for row in case.rows}
    if wrong := list(_unstartable(case, files_of)):
        yield from wrong
        return
    for path, names in files_of.items():
        told: list[str] = []
        with case.asking(places.resolve(path, case.workdir)):
            for name in names:
                spec = _start(rows[name].config, case, told)
        yield ok(
            f"{path}: {spec.name}"
            + (f" and {len(names) - 1} more start from it" if names[1:] else "")
            + "".join(f"; {text}" for text in dict.fromkeys(told))
        )
    for by, names in trained.items():
        yield ok(f"the job trains {by} first, for {words.few(names)}")
    if not files_of and not trained:
        yield ok("none: every run starts from its seed")


def _unstartable(case: Case, paths: Iterable[str]) -> Iterator[Finding]:
    """Runs that no weights start as they are asked for, by what their files say."""
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
            # (What is done may still be what another starts from.)
            if row not in waiting and places.initial_file_is_outside(row.config):
                continue
            try:
                answers.of(row.name, row.config)
            except UserError as error:
                wrong.setdefault(str(error), []).append(row.name)
        if not wrong and case.is_readable:
            preflight.check_alike(case.rows, answers, case.workdir)
    for text, names in wrong.items():
        yield problem(f"{words.few(names)}: {text}")


def _start(config, case: Case, told: list[str]) -> Spec:
    """The network that a run starts with; without data, what its file holds."""
    if case.data is not None and case.is_sized:
        older = case.older(config.name)
        differs = told.append if older else None
        return initial.start(
            config, case.data, case.workdir, told.append, differs=differs
        ).spec
    told.append("whether it fits the data is not known")
    path = places.initial_file(config, case.workdir)
    load = learngenes.load_learngene if config.init.learngene else networks.load_network
    about = load(path).description
    assert about is not None  # of a file
    older = case.older(config.name)
    differs = told.append if older else None
    start.answer(config, None, Origin(path, about), differs=differs)
    return about.spec
