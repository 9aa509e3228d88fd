"""What a form of a set brings, and what all forms share: shards, entries, digests."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sws_jax.data import arrays
from sws_jax.data.base import Unreadable, digest
from sws_jax.prepare.parts import Source

_BLOCK = 2**20  # bytes read at a time

Entry = dict[str, Any]  # of a finished shard, as JSON holds it
Stopped = Callable[[], bool]


class GivenUp(Exception):
    """A shard was left unfinished because all is to end."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Images of a split that are written together.

    Attributes:
      name: its file, or the rows of one (``train_images.npy[0:850]``).
      first, end: positions in the source.
    """

    name: str
    split: str
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


class Form(Protocol):
    """A set to be written; pickled, and handed to other processes."""

    @property
    def source(self) -> Source: ...

    @property
    def name(self) -> str: ...

    def shards(self) -> list[Shard]: ...

    def room(self, directory: str, todo: list[Shard], growth: float, count: int) -> int:
        """Bytes that must be free to make shards, beside those that they replace.

        Args:
          directory: of the set as far as it is made, or empty.
          growth: of an image whose encoding changes.
          count: of the shards that are written at a time.
        """
        ...

    def try_out(self, split: str, index: int) -> int:
        """Does to one image what will be done to all; the bytes that came of it."""
        ...

    def begin(self, directory: str) -> None: ...

    def renewed(self, directory: str) -> set[str]:
        """Splits whose files `begin` makes anew, with nothing of what they hold."""
        ...

    def make(self, directory: str, shard: Shard, how: How) -> Entry: ...

    def finish(self, directory: str, entries: dict[str, Entry]) -> list[str]:
        """Writes what describes the set; names of the files."""
        ...


@dataclasses.dataclass(frozen=True)
class How:
    """Attributes:
    unreadable: "stop", or "skip" to leave such images out.
    stopped: whether to give up.
    """

    unreadable: str = "stop"
    stopped: Stopped = bool


def standing(directory: str) -> dict[str, int]:
    """Bytes that a directory's files take on the disk, by name; of holes, none."""
    if not directory:
        return {}
    # (The unit is that of the system's call, whatever the disk's blocks.)
    return {
        entry.name: entry.stat(follow_symlinks=False).st_blocks * 512
        for entry in os.scandir(directory)
    }


def each(
    shard: Shard, one: Callable[[int], Any], how: How, left_out: list[str], gaps=False
) -> Iterator[Any]:
    """What `one` makes of each image; with `gaps`, None in place of one left out.

    Raises:
      Unreadable: an image cannot be read, and none may be left out.
    """
    for index in range(shard.first, shard.end):
        if how.stopped():
            raise GivenUp
        try:
            yield one(index)
        except Unreadable as error:
            if how.unreadable == "stop":
                raise
            left_out.append(str(error))
            if gaps:
                yield None


def checked(path: str, entry: Entry | None = None) -> Entry:
    """Bytes and digest of a file, or of the rows that an entry says."""
    if entry and "rows" in entry:
        return _checked_rows(path, entry)
    made = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while content := file.read(_BLOCK):
            made.update(content)
        return {"bytes": file.tell(), "digest": made.hexdigest()}


def _checked_rows(path: str, entry: Entry) -> Entry:
    made, read = hashlib.blake2b(digest_size=16), 0
    first, end = entry["rows"]
    labels = path.removesuffix("_images.npy") + "_labels.npy"
    for file_path in (path, labels):
        size = arrays.bytes_of_row(file_path)
        with open(file_path, "rb") as file:
            file.seek(arrays.start_of(file_path) + first * size)
            left = (end - first) * size
            while left and (content := file.read(min(left, _BLOCK))):
                made.update(content)
                left -= len(content)
                read += len(content)
    return {"bytes": read, "digest": made.hexdigest()}


def stamp(source: Source, shard: Shard) -> str:
    """What a shard's images, and the classes, are known by again."""
    part = source.parts[shard.split]
    names = "\n".join(source.classes).encode()
    return digest(names, part.stamp(shard.first, shard.end).encode())
