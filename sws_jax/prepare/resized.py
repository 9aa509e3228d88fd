"""Images of one size as ``.npy`` files, which a run maps into memory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os

import numpy as np

from sws_jax.data import arrays, images
from sws_jax.data.transforms import Fit
from sws_jax.prepare import forms
from sws_jax.prepare.forms import Entry, How, Shard
from sws_jax.prepare.parts import Source
from sws_jax.storage import files

_ARRAYS = tuple(f"_{kind}.npy" for kind in arrays.KINDS)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images of one size in ``.npy`` files, one for each split.

    Each is scaled so that its shorter side is `size` (bicubic, antialiased), and the
    centre is cut out: the evaluation's view, see `sws_jax.data.transforms.Fit`.

    Attributes:
      name: of the set.
      size: pixels.
      shard_bytes: of pixels that are written, and verified, together.
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

    def room(self, directory: str, todo: list[Shard], growth: float, count: int) -> int:
        """Rows are written where they stand; a file of another shape goes before."""
        standing = forms.standing(directory)
        there = sum(standing[name] for name in standing if name.endswith(_ARRAYS))
        made = set(self.shards()) - set(todo)
        kept = sum(map(self._bytes_of, made))
        return max(sum(map(self._bytes_of, todo)) - max(there - kept, 0), 0)

    def _bytes_of(self, shard: Shard) -> int:
        return len(shard) * (self._image_bytes + 4)  # and its label

    def try_out(self, split: str, index: int) -> int:
        return self._pixels(split, index)[0].nbytes

    def begin(self, directory: str) -> None:
        """Files of the whole size, which take no room before they are filled.

        Those of a split that the source has lost are removed.
        """
        wanted = set()
        for split, part in self.source.parts.items():
            for path, dtype, shape in self._files(directory, split, len(part)):
                wanted.add(os.path.basename(path))
                if not arrays.holds(path, dtype, shape):
                    with files.replacing(path) as temporary:
                        np.lib.format.open_memmap(temporary, "w+", dtype, shape)
        for name in os.listdir(directory):
            if name.endswith(_ARRAYS) and name not in wanted:
                os.remove(os.path.join(directory, name))

    def renewed(self, directory: str) -> set[str]:
        """Those of another shape: the source has gained or lost images since."""
        return {
            split
            for split, part in self.source.parts.items()
            if not all(
                arrays.holds(*file) for file in self._files(directory, split, len(part))
            )
        }

    def make(self, directory: str, shard: Shard, how: How) -> Entry:
        count = len(self.source.parts[shard.split])
        (pixels, *about), (labels, *_) = self._files(directory, shard.split, count)
        left_out: list[str] = []
        made = hashlib.blake2b(digest_size=16)
        found = np.full(len(shard), -1, np.int32)  # the label of what is left out
        try:
            with open(pixels, "r+b") as file:
                file.seek(arrays.start_of(pixels) + shard.first * self._image_bytes)
                one = functools.partial(self._pixels, shard.split)
                for row, image in enumerate(
                    forms.each(shard, one, how, left_out, True)
                ):
                    content = bytes(self._image_bytes)
                    if image is not None:
                        content, found[row] = image[0].tobytes(), image[1]
                    made.update(content)
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with open(labels, "r+b") as file:
                file.seek(arrays.start_of(labels) + shard.first * 4)
                file.write(found.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise files.Unwritable(pixels, error) from None
        made.update(found.tobytes())
        return {
            "bytes": self._bytes_of(shard),
            "digest": made.hexdigest(),
            "images": len(shard) - len(left_out),
            "left_out": left_out,
            "rows": [shard.first, shard.end],
            "split": shard.split,
        }

    def finish(self, directory: str, entries: dict[str, Entry]) -> list[str]:
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
        about = {
            "name": self.name,
            "class_names": list(self.source.classes),
            "shape": [self.size, self.size, self.source.channels],
            "splits": splits,
            "made": "shorter side scaled to the size, bicubic with antialiasing, "
            "centre cut out; label -1: left out as unreadable",
        }
        files.write_json(os.path.join(directory, arrays.DESCRIPTION), about)
        return [arrays.DESCRIPTION]

    @property
    def _image_bytes(self) -> int:
        return self.size * self.size * self.source.channels

    def _files(self, directory: str, split: str, count: int):
        shape = (count, self.size, self.size, self.source.channels)
        return arrays.files_of(directory, split, shape)

    def _pixels(self, split: str, index: int) -> tuple[np.ndarray, int]:
        part = self.source.parts[split]
        encoded, label = part.read(index)
        image = images.decode(encoded, part.where(index), channels=self.source.channels)
        return Fit((self.size, self.size))(image), label
