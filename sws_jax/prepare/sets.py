"""Sets of images on a disk: what is present, what is missing, and making that.

An unfinished set is in ``incomplete.NAME`` beside its own directory, which no reader
takes for a set, with a manifest of its finished shards. When all are finished,
the directory is renamed. So a process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Any

from sws_jax.data.base import Unreadable
from sws_jax.errors import UserError
from sws_jax.prepare import forms, manifests, work
from sws_jax.prepare.forms import Form, Shard, ShardRecord
from sws_jax.runtime import progress, words
from sws_jax.storage import documents, files

_SAMPLE = 24  # images that are converted to estimate time and size


@dataclasses.dataclass(frozen=True)
class Request:
    """A set to be made.

    Attributes:
      form: of the set.
      directory: of the set, once it is whole.
      options: all that the bytes depend on, as JSON holds it.
      unreadable: "stop", or "skip" to leave images out that cannot be read.
      workers: number of processes.
    """

    form: Form
    directory: str
    options: dict[str, Any]
    unreadable: str = "stop"
    workers: int = 1

    @property
    def building(self) -> str:
        """The directory of the unfinished set."""
        folder, name = os.path.split(os.path.abspath(self.directory))
        return os.path.join(folder, f"incomplete.{name}")


@dataclasses.dataclass(frozen=True)
class Inventory:
    """What is present of a set, and what is missing.

    Attributes:
      kept: entries of shards that are whole, by name.
      todo: shards to be made.
      changed: number of shards whose source has changed since they were made.
      damaged: names of files or rows that are damaged.
      described: whether the files that describe the set are whole, and of this source.
      directory: of the set, finished or not; empty if there is none.
    """

    kept: dict[str, ShardRecord]
    todo: list[Shard]
    changed: int = 0
    damaged: tuple[str, ...] = ()
    described: bool = False
    directory: str = ""

    @property
    def images(self) -> int:
        """Number of images in the shards to be made."""
        return sum(map(len, self.todo))


def inspect(request: Request) -> Inventory:
    """Verifies what is present of a set.

    Raises:
      UserError: its directory is taken by something else.
    """
    directory = _present(request)
    manifest = _manifest(directory, request) if directory else {}
    entries: dict[str, ShardRecord] = manifest.get("shards", {})
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
    described = manifest.get("files", {})
    bad: dict[str, str] = {}
    renewed: set[str] = set()
    if directory:
        bad = manifests.damage(directory, current | described, request.workers)
        renewed = request.form.renewed(directory)
    # A whole shard is lost where its file is replaced by one of another shape.
    whole = {name: entry for name, entry in current.items() if name not in bad}
    kept = {n: entry for n, entry in whole.items() if entry["split"] not in renewed}
    changed += len(whole) - len(kept)
    # Where the source has fewer shards than before, some belong to none of it.
    surplus = entries.keys() - {shard.name for shard in shards}
    changed = changed or len(surplus)
    return Inventory(
        kept,
        [shard for shard in shards if shard.name not in kept],
        changed,
        tuple(bad),
        bool(described) and not surplus and not bad.keys() & described.keys(),
        directory,
    )


def check_space(
    request: Request, inventory: Inventory, growth: float
) -> tuple[int, int]:
    """Refuses a set for which the disk has too few free bytes.

    Args:
      request, inventory: of the set.
      growth: as in `Form.bytes_needed`.

    Returns:
      Bytes that missing shards need besides those that they replace, and free bytes.

    Raises:
      UserError: there are too few.
    """
    needed = request.form.bytes_needed(
        inventory.directory, inventory.todo, growth, request.workers
    )
    folder, free = files.free_space(request.directory)
    if needed > free:
        raise UserError(
            f"{request.directory} needs {words.rounded(needed)} more, and {folder} has "
            f"{words.rounded(free)} free: make room, or take another OUT"
        )
    return needed, free


def sample(request: Request, inventory: Inventory) -> tuple[float, float]:
    """Seconds that an image takes one process, and the factor by which it grows.

    Both are estimated from a few images. One that cannot be read is passed over here,
    and reported when its shard is made.
    """
    form = request.form
    positions = [(shard.split, n) for shard in inventory.todo for n in _few(shard)]
    chosen = positions[:: max(len(positions) // _SAMPLE, 1)][:_SAMPLE]
    seconds, before, after = [], 0, 0
    for split, index in chosen:
        start = time.perf_counter()
        try:
            converted = form.try_out(split, index)
        except Unreadable:
            continue
        seconds.append(time.perf_counter() - start)
        before += int(form.source.parts[split].sizes[index])
        after += converted
    if len(seconds) > 1:
        seconds.remove(max(seconds))  # it loaded libraries, or waited for a disk
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    return mean, max(after / max(before, 1), 1.0) if seconds else 1.0


def make(request: Request, inventory: Inventory) -> None:
    """Makes the missing shards, and renames the unfinished directory to the set's own.

    Raises:
      UserError: an image cannot be read, or a file cannot be written. Finished shards
        stay.
    """
    directory, building = request.directory, request.building
    _begin(request)
    path = os.path.join(building, manifests.MANIFEST)
    manifest, entries = _make_shards(request, inventory, path)
    empty = [
        split
        for split in request.form.source.parts
        if not any(e["images"] for e in entries.values() if e["split"] == split)
    ]
    if empty:
        raise UserError(f"not one image of split {empty[0]} can be read: mend them")
    names = request.form.finish(building, entries)
    described = {n: forms.checked(os.path.join(building, n)) for n in names}
    files.write_json(path, manifest | {"files": described})
    os.rename(building, directory)
    _sync(os.path.dirname(os.path.abspath(directory)))


def _begin(request: Request) -> None:
    """Makes the directory of the unfinished set, of a finished one if there is one."""
    directory, building = request.directory, request.building
    try:
        if os.path.isdir(directory):
            os.rename(directory, building)
        os.makedirs(building, exist_ok=True)
        files.sweep(building)
        request.form.begin(building)
    except OSError as error:
        raise files.Unwritable(building, error) from None


def _make_shards(
    request: Request, inventory: Inventory, path: str
) -> tuple[dict[str, Any], dict[str, ShardRecord]]:
    """Makes the missing shards, and writes the manifest after each of them.

    Args:
      request, inventory: of the set.
      path: of the manifest.

    Returns:
      The manifest, and the entries of all shards in their order.
    """
    form = request.form
    entries = dict(inventory.kept)
    manifest = {
        "version": manifests.VERSION,
        "options": request.options,
        "shards": entries,
    }
    files.write_json(path, manifest)
    make_shard = work.Make(form, request.building, request.unreadable)
    try:
        with progress.Bar(form.name, inventory.images, "images") as bar:
            # Closed at the end, so that no process still writes when others begin.
            with contextlib.closing(
                work.run(make_shard, inventory.todo, request.workers)
            ) as finished:
                for shard, entry in finished:
                    stamp = forms.stamp(form.source, shard)
                    entries[shard.name] = entry | {"source": stamp}
                    files.write_json(path, manifest)
                    bar.advance(len(shard))
    except Unreadable as error:
        raise UserError(
            f"{error}: mend or remove it and give the same command again, or leave "
            f"such images out with --unreadable skip"
        ) from None
    return manifest, {shard.name: entries[shard.name] for shard in form.shards()}


def _present(request: Request) -> str:
    """The directory of the set, unfinished or finished; empty if there is none.

    Raises:
      UserError: there are both, or something else.
    """
    ours = [
        directory
        for directory in (request.building, request.directory)
        if os.path.exists(os.path.join(directory, manifests.MANIFEST))
    ]
    if len(ours) == 2:
        raise UserError(f"there are both {ours[0]} and {ours[1]}: remove one of them")
    if ours:
        return ours[0]
    if os.path.exists(request.directory) and (
        not os.path.isdir(request.directory) or os.listdir(request.directory)
    ):
        raise UserError(
            f"{request.directory} is there, and this command has not made it: take "
            f"another --name, or remove it"
        )
    return ""


def _manifest(directory: str, request: Request) -> dict[str, Any]:
    """The manifest of a set, refused if it was made with other options."""
    manifest = manifests.read(directory)
    differing = documents.differing(
        manifest["options"], documents.plain(request.options)
    )
    if differing:
        raise UserError(
            f"{directory} was prepared with another {', '.join(differing)}: take "
            f"another --name, or remove it"
        )
    return manifest


def _few(shard: Shard) -> list[int]:
    """Positions of a few images of a shard, the first among them."""
    middle = (shard.first + shard.end) // 2
    many = range(shard.first, shard.end, max(len(shard) // _SAMPLE, 1))
    return sorted({shard.first, middle, *many})


def _sync(directory: str) -> None:
    """Has the disk write the names in a directory."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
