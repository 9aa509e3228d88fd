"""A set from its plan to its place: what is to be done, done, and known to be whole.

While it is made, a set stands in a directory beside its place (``incomplete.``), which
no reader takes for a set, with a manifest of the shards that are finished. When all
are, the directory is renamed. So a process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Any

from sws_jax.data import arrays
from sws_jax.data.base import Unreadable
from sws_jax.errors import UserError
from sws_jax.prepare import forms, sources, work
from sws_jax.prepare.forms import Entry, Form, Shard
from sws_jax.runtime import progress, words
from sws_jax.storage import documents, files

MANIFEST = "manifest.json"
_SAMPLE = 24  # images that are tried before all are made
VERSION = 1  # of the manifest's form


@dataclasses.dataclass(frozen=True)
class Request:
    """Attributes:
    form: of the set.
    place: its directory, once it is whole.
    options: that make the bytes what they are, as JSON holds them.
    unreadable: "stop", or "skip" to leave images out that cannot be read.
    workers: processes.
    """

    form: Form
    place: str
    options: dict[str, Any]
    unreadable: str = "stop"
    workers: int = 1

    @property
    def building(self) -> str:
        folder, name = os.path.split(os.path.abspath(self.place))
        return os.path.join(folder, f"incomplete.{name}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Attributes:
    kept: entries of shards that are whole, by name.
    todo: those to be made.
    changed: how many of these were made of a source that has changed since.
    damaged: names of those that have, and what is wrong with the first.
    described: whether the files that describe the set are whole, and of this source.
    directory: of what there is, or empty.
    """

    kept: dict[str, Entry]
    todo: list[Shard]
    changed: int = 0
    damaged: tuple[str, ...] = ()
    described: bool = False
    directory: str = ""

    @property
    def images(self) -> int:
        return sum(map(len, self.todo))


def plan(request: Request) -> Plan:
    """What is there, verified, and what is missing.

    Raises:
      UserError: at its place stands something else.
    """
    directory = _standing(request)
    manifest = _manifest(directory, request) if directory else {}
    entries: dict[str, Entry] = manifest.get("shards", {})
    shards = request.form.shards()
    current, changed = {}, 0
    for shard in shards:
        entry = entries.get(shard.name)
        if entry is None:
            continue
        if entry["source"] != forms.stamp(request.form.source, shard):
            changed += 1
        elif not (entry["left_out"] and request.unreadable == "stop"):
            current[shard.name] = entry
    about = manifest.get("files", {})
    bad = damage(directory, current | about, request.workers) if directory else {}
    # Whole, but in a file that gets another shape, and nothing of it stays there.
    renewed = request.form.renewed(directory) if directory else set()
    whole = {name: entry for name, entry in current.items() if name not in bad}
    kept = {n: entry for n, entry in whole.items() if entry["split"] not in renewed}
    changed += len(whole) - len(kept)
    # A source of fewer shards leaves some of another plan.
    lost = entries.keys() - {shard.name for shard in shards}
    changed = changed or len(lost)
    return Plan(
        kept,
        [shard for shard in shards if shard.name not in kept],
        changed,
        tuple(bad),
        bool(about) and not lost and not bad.keys() & about.keys(),
        directory,
    )


def room(request: Request, found: Plan, growth: float) -> tuple[int, int]:
    """Bytes that what is missing takes beside what it replaces, and those free.

    Raises:
      UserError: they are too few.
    """
    needed = request.form.room(found.directory, found.todo, growth, request.workers)
    folder, free = files.room(request.place)
    if needed > free:
        raise UserError(
            f"{request.place} needs {words.rounded(needed)} more, and {folder} has "
            f"{words.rounded(free)} free: make room, or take another OUT"
        )
    return needed, free


def sample(request: Request, found: Plan) -> tuple[float, float]:
    """Seconds that an image takes one process, and how it grows, from a few of them.

    An image that cannot be read is passed over: it is met again.
    """
    form = request.form
    places = [(shard.split, n) for shard in found.todo for n in _few(shard)]
    chosen = places[:: max(len(places) // _SAMPLE, 1)][:_SAMPLE]
    seconds, before, after = [], 0, 0
    for split, index in chosen:
        start = time.perf_counter()
        try:
            made = form.try_out(split, index)
        except Unreadable:
            continue
        seconds.append(time.perf_counter() - start)
        before += int(form.source.parts[split].sizes[index])
        after += made
    if len(seconds) > 1:
        seconds.remove(max(seconds))  # which loaded libraries, or waited for a disk
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    return mean, max(after / max(before, 1), 1.0) if seconds else 1.0


def make(request: Request, found: Plan) -> None:
    """Makes what is missing, and puts the set in its place.

    Raises:
      UserError: an image cannot be read, or a file not written; what is finished stays.
    """
    place, building = request.place, request.building
    try:
        if os.path.isdir(place):
            os.rename(place, building)
        os.makedirs(building, exist_ok=True)
        files.sweep(building)
        request.form.begin(building)
    except OSError as error:
        raise files.Unwritable(building, error) from None
    entries = dict(found.kept)
    manifest = {"version": VERSION, "options": request.options, "shards": entries}
    path = os.path.join(building, MANIFEST)
    files.write_json(path, manifest)
    task = work.Make(request.form, building, request.unreadable)
    try:
        with progress.Bar(request.form.name, found.images, "images") as bar:
            # Closed here: no process writes on when others may begin.
            with contextlib.closing(
                work.run(task, found.todo, request.workers)
            ) as made:
                for shard, entry in made:
                    source = {"source": forms.stamp(request.form.source, shard)}
                    entries[shard.name] = entry | source
                    files.write_json(path, manifest)
                    bar.advance(len(shard))
    except Unreadable as error:
        raise UserError(
            f"{error}: mend or remove it and give the same command again, or leave "
            f"such images out with --unreadable skip"
        ) from None
    # As they are planned: the shards of a split have an order.
    ordered = {shard.name: entries[shard.name] for shard in request.form.shards()}
    empty = [
        split
        for split in request.form.source.parts
        if not any(e["images"] for e in ordered.values() if e["split"] == split)
    ]
    if empty:
        raise UserError(f"not one image of split {empty[0]} can be read: mend them")
    about = request.form.finish(building, ordered)
    described = {n: forms.checked(os.path.join(building, n)) for n in about}
    files.write_json(path, manifest | {"files": described})
    os.rename(building, place)
    _sync(os.path.dirname(os.path.abspath(place)))


def damage(directory: str, entries: dict[str, Entry], workers: int) -> dict[str, str]:
    """What is wrong with which of the files or rows, by name, sorted."""
    total = sum(entry["bytes"] for entry in entries.values())
    found = {}
    with progress.Bar("verifying", total // 2**20, "MiB") as bar:
        # Processes take longer to start than little takes to read.
        several = workers if total > 2**30 else 1
        task, items = work.Check(directory), list(entries.items())
        with contextlib.closing(work.run(task, items, several)) as checked:
            for (name, entry), problem in checked:
                bar.advance(entry["bytes"] // 2**20)
                if problem:
                    found[name] = problem
    if arrays.DESCRIPTION in entries.keys() - found.keys():
        # A header says what the bytes mean, and may be damaged where they are not.
        wrong = arrays.misfits(directory)
        for name, entry in entries.items():
            if entry.get("split") in wrong:
                found.setdefault(name, "its file has another type or shape")
    return dict(sorted(found.items()))


def check(path: str, workers: int) -> str:
    """Reads a set again, all of it, and says what it is in a sentence.

    Args:
      path: OUT/NAME, or the directory that holds the manifest.

    Raises:
      UserError: it has none, or is damaged; the sentence names the first of the files.
    """
    from sws_jax.data import prepared

    inside = [path, *(os.path.join(path, v) for v in reversed(prepared.versions(path)))]
    directory = next((p for p in inside if os.path.isfile(f"{p}/{MANIFEST}")), "")
    if not directory:
        raise UserError(
            f"{path} holds no whole set that this command has prepared: it has no "
            f"{MANIFEST}"
        )
    manifest = _read(directory)
    if "files" not in manifest:
        raise UserError(f"{directory} is not finished: give the same command again")
    entries = manifest["shards"] | manifest["files"]
    bad = damage(directory, entries, workers)
    if bad:
        first = next(iter(bad))
        alone = "" if manifest["options"].get("kind") == "tfds" else ", and those alone"
        raise UserError(
            f"{len(bad)} of {len(entries)} parts of {directory} are damaged, the first "
            f"{first} ({bad[first]}): the command that prepared it, given again, makes "
            f"them anew{alone}"
        )
    total = sum(entry["bytes"] for entry in entries.values())
    counts = dict.fromkeys(sources.SPLITS.values(), 0)  # in this order
    for entry in manifest["shards"].values():
        counts[entry["split"]] = counts.get(entry["split"], 0) + entry["images"]
    images = ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)
    return (
        f"{directory}: {images} images, all {len(entries)} parts "
        f"({words.rounded(total)}) are as they were written"
    )


def _standing(request: Request) -> str:
    """The directory of the set as far as it is made; a whole one comes second."""
    known = [
        directory
        for directory in (request.building, request.place)
        if os.path.exists(os.path.join(directory, MANIFEST))
    ]
    if len(known) == 2:
        raise UserError(f"there are both {known[0]} and {known[1]}: remove one of them")
    if known:
        return known[0]
    if os.path.exists(request.place) and (
        not os.path.isdir(request.place) or os.listdir(request.place)
    ):
        raise UserError(
            f"{request.place} is there, and this command has not made it: take another "
            f"--name, or remove it"
        )
    return ""


def _manifest(directory: str, request: Request) -> dict[str, Any]:
    manifest = _read(directory)
    other = documents.differing(manifest["options"], documents.plain(request.options))
    if other:
        raise UserError(
            f"{directory} was prepared with another {', '.join(other)}: take another "
            f"--name, or remove it"
        )
    return manifest


def _read(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, MANIFEST)
    remedy = f"remove {directory} and prepare the set again"
    manifest = documents.read_json(path, remedy=remedy)
    groups: dict[str, dict] = {"options": {}, "shards?": {}, "files?": {}}
    wrong = documents.misfit(manifest, groups)
    for group in ("shards", "files"):
        entries = {} if wrong else manifest.get(group, {})
        kept = {"bytes": int, "digest": str}
        wrong = wrong or documents.misfit(entries, dict.fromkeys(entries, kept), group)
    if wrong or manifest.get("version") != VERSION:
        why = f" ({wrong})" if wrong else ""
        raise UserError(f"{path} is damaged{why}, or of another version: {remedy}")
    return manifest


def _few(shard: Shard) -> list[int]:
    middle = (shard.first + shard.end) // 2
    many = range(shard.first, shard.end, max(len(shard) // _SAMPLE, 1))
    return sorted({shard.first, middle, *many})


def _sync(directory: str) -> None:
    """The rename itself reaches the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
