"""The interface of a form of a set, and what forms share: shards, records, digests."""

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

# What a manifest says of a finished shard, or of a file that describes the set.
ShardRecord = dict[str, Any]
Stopped = Callable[[], bool]


class GivenUp(Exception):
    """A shard is left unfinished because the command is to end."""


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
    """A set to be written, which is pickled for other processes."""

    @property
    def source(self) -> Source: ...

    @property
    def name(self) -> str: ...

    def shards(self) -> list[Shard]:
        """All shards of the set, in order."""
        ...

    def bytes_needed(
        self, directory: str, todo: list[Shard], growth: float, count: int
    ) -> int:
        """Bytes that must be free to write shards, besides those that they replace.

        Args:
          directory: of the unfinished set, or empty.
          todo: the shards to write.
          growth: factor by which an image grows that is encoded anew.
          count: number of shards that are written at a time.
        """
        ...

    def try_out(self, split: str, index: int) -> int:
        """Converts one image without writing it; the bytes of the result."""
        ...

    def begin(self, directory: str) -> None:
        """Removes files that the set no longer has, and creates empty ones."""
        ...

    def renewed(self, directory: str) -> set[str]:
        """Splits whose files `begin` replaces by empty ones."""
        ...

    def make(self, directory: str, shard: Shard, how: How) -> ShardRecord:
        """Writes a shard, and returns its entry for the manifest."""
        ...

    def finish(self, directory: str, entries: dict[str, ShardRecord]) -> list[str]:
        """Writes the files that describe the set, and returns their names."""
        ...


@dataclasses.dataclass(frozen=True)
class How:
    """How shards are made.

    Attributes:
      unreadable: "stop", or "skip" to leave unreadable images out.
      stopped: says whether to give up.
    """

    unreadable: str = "stop"
    stopped: Stopped = bool


def standing(directory: str) -> dict[str, int]:
    """Bytes on the disk of a directory's files, by name; holes in them take none."""
    if not directory:
        return {}
    # The unit of `st_blocks` is 512 bytes, whatever the size of the disk's blocks.
    return {
        entry.name: entry.stat(follow_symlinks=False).st_blocks * 512
        for entry in os.scandir(directory)
    }


def each(
    shard: Shard, one: Callable[[int], Any], how: How, left_out: list[str], gaps=False
) -> Iterator[Any]:
    """The results of `one` for the images of a shard.

    Args:
      shard: whose images are read.
      one: converts the image at a position.
      how: see `How`.
      left_out: gets a message for each image that is left out.
      gaps: yields None in place of such an image.

    Raises:
      Unreadable: an image cannot be read, and none may be left out.
      GivenUp: the command is to end.
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


def checked(path: str, entry: ShardRecord | None = None) -> ShardRecord:
    """Bytes and digest of a file, or of the rows of an entry."""
    if entry and "rows" in entry:
        return _checked_rows(path, entry)
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while content := file.read(_BLOCK):
            state.update(content)
        return {"bytes": file.tell(), "digest": state.hexdigest()}


def _checked_rows(path: str, entry: ShardRecord) -> ShardRecord:
    """Bytes and digest of rows of a split's images, and of their labels."""
    state, total = hashlib.blake2b(digest_size=16), 0
    first, end = entry["rows"]
    labels = path.removesuffix("_images.npy") + "_labels.npy"
    for file_path in (path, labels):
        size = arrays.bytes_of_row(file_path)
        with open(file_path, "rb") as file:
            file.seek(arrays.start_of(file_path) + first * size)
            left = (end - first) * size
            while left and (content := file.read(min(left, _BLOCK))):
                state.update(content)
                left -= len(content)
                total += len(content)
    return {"bytes": total, "digest": state.hexdigest()}


def stamp(source: Source, shard: Shard) -> str:
    """A fingerprint of a shard's images and of the classes of the set."""
    part = source.parts[shard.split]
    names = "\n".join(source.classes).encode()
    return digest(names, part.stamp(shard.first, shard.end).encode())
