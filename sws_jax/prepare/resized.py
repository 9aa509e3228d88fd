"""Images of one size as ``.npy`` files, which a run maps into memory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from typing import IO

import numpy as np

from sws_jax.data import arrays, images
from sws_jax.data.transforms import Fit
from sws_jax.prepare import forms
from sws_jax.prepare.forms import How, Shard, ShardRecord
from sws_jax.prepare.parts import Source
from sws_jax.storage import files

_ARRAYS = tuple(f"_{kind}.npy" for kind in arrays.KINDS)


@contextlib.contextmanager
def _overwriting(path: str, offset: int) -> Iterator[IO[bytes]]:
    """The file of an array, at a byte of its elements; it is synced at the end."""
    with open(path, "r+b") as file:
        file.seek(arrays.start_of(path) + offset)
        yield file
        file.flush()
        os.fsync(file.fileno())


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images of one size in ``.npy`` files, one for each split.

    Each image is scaled so that its shorter side is `size`, bicubic with antialiasing,
    and its centre is cut out: the view of an evaluation, see
    `sws_jax.data.transforms.Fit`.

    Attributes:
      source: the images.
      name: of the set.
      size: height and width in pixels.
      shard_bytes: bytes of pixels that are written, and verified, together.
    """

    source: Source
    name: str
    size: int
    shard_bytes: int

    def shards(self) -> list[Shard]:
        rows = max(self.shard_bytes // self._image_bytes, 1)
        return [
            Shard(f"{split}_images.npy[{first}:{end}]", split, first, end)
            for split, part in self.source.parts.items()
            for first in range(0, len(part), rows)
            for end in [min(first + rows, len(part))]
        ]

    def bytes_needed(
        self, directory: str, todo: list[Shard], growth: float, count: int
    ) -> int:
        """See `Form`; rows are overwritten, files of another shape removed first."""
        present = forms.standing(directory)
        taken = sum(present[name] for name in present if name.endswith(_ARRAYS))
        kept = sum(map(self._bytes_of, set(self.shards()) - set(todo)))
        reused = max(taken - kept, 0)
        return max(sum(map(self._bytes_of, todo)) - reused, 0)

    def _bytes_of(self, shard: Shard) -> int:
        return len(shard) * (self._image_bytes + 4)  # a label has four bytes

    def try_out(self, split: str, index: int) -> int:
        return self._pixels(split, index)[0].nbytes

    def begin(self, directory: str) -> None:
        """Creates files of the full size, which take no room before they are filled.

        Files of a split that the source no longer has are removed.
        """
        names = set()
        for split, part in self.source.parts.items():
            for path, dtype, shape in self._files(directory, split, len(part)):
                names.add(os.path.basename(path))
                if not arrays.holds(path, dtype, shape):
                    with files.replacing(path) as temporary:
                        np.lib.format.open_memmap(temporary, "w+", dtype, shape)
        for name in os.listdir(directory):
            if name.endswith(_ARRAYS) and name not in names:
                os.remove(os.path.join(directory, name))

    def renewed(self, directory: str) -> set[str]:
        """Splits with files of another shape: the source has gained or lost images."""
        return {
            split
            for split, part in self.source.parts.items()
            if not all(
                arrays.holds(*file) for file in self._files(directory, split, len(part))
            )
        }

    def make(self, directory: str, shard: Shard, how: How) -> ShardRecord:
        count = len(self.source.parts[shard.split])
        both_files = self._files(directory, shard.split, count)
        (images_path, *_), (labels_path, *_) = both_files
        left_out: list[str] = []
        state = hashlib.blake2b(digest_size=16)
        labels = np.full(len(shard), -1, np.int32)  # -1 marks an image that is left out
        one = functools.partial(self._pixels, shard.split)
        pairs = forms.each(shard, one, how, left_out, gaps=True)
        try:
            with _overwriting(images_path, shard.first * self._image_bytes) as file:
                for row, pair in enumerate(pairs):
                    content = bytes(self._image_bytes)
                    if pair is not None:
                        content, labels[row] = pair[0].tobytes(), pair[1]
                    state.update(content)
                    file.write(content)
            with _overwriting(labels_path, shard.first * 4) as file:
                file.write(labels.tobytes())
        except OSError as error:
            raise files.Unwritable(images_path, error) from None
        state.update(labels.tobytes())
        return {
            "bytes": self._bytes_of(shard),
            "digest": state.hexdigest(),
            "images": len(shard) - len(left_out),
            "left_out": left_out,
            "rows": [shard.first, shard.end],
            "split": shard.split,
        }

    def finish(self, directory: str, entries: dict[str, ShardRecord]) -> list[str]:
        splits = {
            split: {
                "rows": len(part),
                "images": sum(
                    entry["images"]
                    for entry in entries.values()
                    if entry["split"] == split
                ),
            }
            for split, part in self.source.parts.items()
        }
        description = {
            "name": self.name,
            "class_names": list(self.source.classes),
            "shape": [self.size, self.size, self.source.channels],
            "splits": splits,
            "made": "shorter side scaled to the size, bicubic with antialiasing, "
            "centre cut out; label -1: left out as unreadable",
        }
        files.write_json(os.path.join(directory, arrays.DESCRIPTION), description)
        return [arrays.DESCRIPTION]

    @property
    def _image_bytes(self) -> int:
        return self.size * self.size * self.source.channels

    def _files(self, directory: str, split: str, count: int):
        shape = (count, self.size, self.size, self.source.channels)
        return arrays.files_of(directory, split, shape)

    def _pixels(self, split: str, index: int) -> tuple[np.ndarray, int]:
        """A resized image and its label."""
        part = self.source.parts[split]
        encoded, label = part.read(index)
        image = images.decode(encoded, part.where(index), channels=self.source.channels)
        return Fit((self.size, self.size))(image), label
