"""What is written: encoded images as TFDS lays them out, or resized ones as arrays."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sws_jax.data import arrays, images
from sws_jax.data.base import Unreadable
from sws_jax.data.transforms import Fit
from sws_jax.prepare import sources
from sws_jax.prepare.sources import Source
from sws_jax.storage import files

# How files begin that TFDS's Image feature decodes: JPEG, PNG, GIF and BMP.
_KEPT = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
_SHARD_OVERHEAD = 192 * 2**10  # bytes of an array_record file beside its records
_RECORD_OVERHEAD = 128  # bytes, of a record's label, names and place
_BLOCK = 2**20  # bytes read at a time
_ARRAYS = tuple(f"_{kind}.npy" for kind in arrays.KINDS)

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


@dataclasses.dataclass(frozen=True)
class Records:
    """Encoded images in array_record files.

    JPEG, PNG, GIF and BMP are kept byte by byte; others (WebP), which TFDS could not
    decode, become a PNG of the same pixels. Every image is decoded once, to be known
    readable.

    Attributes:
      name, version: of the set.
      shard_bytes: of source that a file holds, about.
    """

    source: Source
    name: str
    version: str
    shard_bytes: int

    def shards(self) -> list[Shard]:
        found = []
        for split, part in self.source.parts.items():
            total = int(part.sizes.sum())
            count = min(max(math.ceil(total / self.shard_bytes), 1), len(part))
            bounds = np.linspace(0, len(part), count + 1).astype(int).tolist()
            for index, (first, end) in enumerate(
                zip(bounds[:-1], bounds[1:], strict=True)
            ):
                file = f"{self.name}-{split}.array_record-{index:05}-of-{count:05}"
                found.append(Shard(file, split, first, end))
        return found

    def room(self, directory: str, todo: list[Shard], growth: float, count: int) -> int:
        """A file goes when there is a new one, those of another plan before."""
        standing = _standing(directory)
        pairs = [
            (self._bytes_of(shard, growth), standing.get(shard.name, 0))
            for shard in todo
        ]
        more = sum(max(new - old, 0) for new, old in pairs)
        gone = sum(standing[name] for name in self._surplus(standing))
        beside = sorted(min(pair) for pair in pairs)[-count:]
        return max(more - gone, 0) + sum(beside)

    def _bytes_of(self, shard: Shard, growth: float) -> int:
        sizes = self.source.parts[shard.split].sizes[shard.first : shard.end]
        content = int(sizes.sum() * growth) + len(shard) * _RECORD_OVERHEAD
        return content + _SHARD_OVERHEAD

    def try_out(self, split: str, index: int) -> int:
        return len(self._record(split, index))

    def begin(self, directory: str) -> None:
        """Removes files that an earlier plan named otherwise."""
        for name in self._surplus(os.listdir(directory)):
            os.remove(os.path.join(directory, name))

    def _surplus(self, names: Iterable[str]) -> list[str]:
        wanted = {shard.name for shard in self.shards()}
        return [n for n in names if ".array_record-" in n and n not in wanted]

    def renewed(self, directory: str) -> set[str]:
        """None: a file's name says how many there are, and each is made whole."""
        return set()

    def make(self, directory: str, shard: Shard, how: How) -> Entry:
        from array_record.python.array_record_module import (
            ArrayRecordReader,
            ArrayRecordWriter,
        )

        path = os.path.join(directory, shard.name)
        left_out: list[str] = []
        with files.replacing(path) as temporary:
            # TFDS's own option: one record to a group, for reading in any order.
            one = functools.partial(self._record, shard.split)
            writer = ArrayRecordWriter(temporary, "group_size:1")
            try:
                try:
                    for record in _each(shard, one, how, left_out):
                        writer.write(record)
                finally:
                    writer.close()
                entry = checked(temporary)
                reader = ArrayRecordReader(temporary)
                found = reader.num_records()
                reader.close()
            except RuntimeError as error:  # the library's, of any cause
                reason = str(error).partition(";")[0].rpartition(": ")[2]
                raise files.Unwritable(path, OSError(reason)) from None
            if found != len(shard) - len(left_out):
                raise files.Unwritable(path, OSError(f"it holds {found:,} records"))
        return entry | {
            "images": len(shard) - len(left_out),
            "left_out": left_out,
            "split": shard.split,
        }

    def finish(self, directory: str, entries: dict[str, Entry]) -> list[str]:
        from sws_jax.data import prepared

        core = prepared.library().core
        template = core.ShardedFileTemplate(
            data_dir=directory,
            dataset_name=self.name,
            split=None,
            filetype_suffix="array_record",
        )
        infos = []
        for split in self.source.parts:
            mine = [entry for entry in entries.values() if entry["split"] == split]
            infos.append(
                core.SplitInfo(
                    name=split,
                    shard_lengths=[entry["images"] for entry in mine],
                    num_bytes=sum(entry["bytes"] for entry in mine),
                    filename_template=template.replace(split=split),
                )
            )
        prepared.library().folder_dataset.write_metadata(
            data_dir=directory,
            features=self._features,
            split_infos=infos,
            version=self.version,
            filename_template=template,
            check_data=False,
        )
        return ["dataset_info.json", "features.json", "label.labels.txt"]

    def _record(self, split: str, index: int) -> bytes:
        part = self.source.parts[split]
        encoded, label = part.read(index)
        pixels = images.decode(encoded, part.where(index), channels=3)
        if not encoded.startswith(_KEPT):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            encoded = file.getvalue()
        example = self._serializer.get_tf_example(
            {"image": encoded, "label": label, "file_name": part.file_name(index)}
        )
        return example.SerializeToString(deterministic=True)

    @functools.cached_property
    def _features(self) -> Any:
        from sws_jax.data import prepared

        kinds = prepared.library().features
        return kinds.FeaturesDict(
            {
                "image": kinds.Image(shape=(None, None, 3)),
                "label": kinds.ClassLabel(names=list(self.source.classes)),
                "file_name": kinds.Text(),
            }
        )

    @functools.cached_property
    def _serializer(self) -> Any:
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        return ExampleSerializer(self._features.get_serialized_info())

    def __getstate__(self) -> dict[str, Any]:
        """Another process makes these itself."""
        kept = ("_features", "_serializer")
        return {key: value for key, value in vars(self).items() if key not in kept}


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
        standing = _standing(directory)
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
                for row, image in enumerate(_each(shard, one, how, left_out, True)):
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


def _standing(directory: str) -> dict[str, int]:
    """Bytes that a directory's files take on the disk, by name; of holes, none."""
    if not directory:
        return {}
    # (The unit is that of the system's call, whatever the disk's blocks.)
    return {
        entry.name: entry.stat(follow_symlinks=False).st_blocks * 512
        for entry in os.scandir(directory)
    }


def _each(
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
    return sources.digest(names, part.stamp(shard.first, shard.end).encode())
