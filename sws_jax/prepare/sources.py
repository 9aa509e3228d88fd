"""Sources of images to prepare: folders, tars, and sets that are prepared already."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from sws_jax.data import folder, images, prepared, tfds
from sws_jax.data.base import digest
from sws_jax.errors import UserError
from sws_jax.prepare import tars
from sws_jax.prepare.parts import SPLITS, Part, Source


@dataclasses.dataclass(frozen=True)
class FolderPart:
    """A folder of folders of images.

    Attributes:
      files: of the split.
      sizes, times: int64 [n], bytes, and nanoseconds of the last change; 0 for a broken
        link.
    """

    files: folder.Files
    sizes: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, files: folder.Files) -> FolderPart:
        sizes, times = np.zeros((2, len(files)), np.int64)
        for index in range(len(files)):
            try:
                status = os.stat(files.where(index))
            except OSError:  # reported as unreadable when it is read
                continue
            sizes[index], times[index] = status.st_size, status.st_mtime_ns
        return cls(files, sizes, times)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[bytes, int]:
        return images.read_bytes(self.where(index)), int(self.files.labels[index])

    def where(self, index: int) -> str:
        return self.files.where(index)

    def file_name(self, index: int) -> bytes:
        return os.fsencode(os.path.relpath(self.where(index), self.files.root))

    def stamp(self, first: int, end: int) -> str:
        part = slice(first, end)
        names = b"\0".join(self.files.names[part].tolist())
        return digest(
            names, self.files.labels[part], self.sizes[part], self.times[part]
        )


@dataclasses.dataclass(frozen=True)
class RecordsPart:
    """A split of a set that is prepared as array_record files.

    Attributes:
      records: of the split.
      sizes: int64 [n], the mean size of a record.
      files: a digest of names, sizes and times of the files.
    """

    records: tfds.Records
    sizes: np.ndarray
    files: str

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> tuple[bytes, int]:
        return self.records.encoded(index)

    def where(self, index: int) -> str:
        return self.records.where(index)

    def file_name(self, index: int) -> bytes:
        return f"{self.records.split}/{index}".encode()

    def stamp(self, first: int, end: int) -> str:
        return digest(self.files.encode(), f"{first}:{end}".encode())


def open_source(path: str, *, labels: str = "") -> Source:
    """The images of a path.

    Args:
      path: a folder with folders of images (see `sws_jax.data.folder`), a folder with
        a tar for each split (see `sws_jax.prepare.tars`), or a prepared set.
      labels: a file with the classes of ImageNet's validation images; see
        `sws_jax.prepare.tars.open_source`.

    Raises:
      UserError: it holds none of these, or has another layout.
    """
    if not os.path.isdir(path):
        hint = (
            " (a file: name the folder that holds it)" if os.path.isfile(path) else ""
        )
        raise UserError(f"there is no folder {path} to prepare{hint}")
    tar_files = tars.find(path)
    if labels and not tar_files:
        raise UserError(f"--val-labels is for tars, and {path} holds none")
    if tar_files and os.path.isdir(os.path.join(path, "train")):
        raise UserError(
            f"{path} holds both {os.path.basename(tar_files['train'])} and a folder "
            f"train: leave one of them there"
        )
    if tar_files:
        return _checked(tars.open_source(path, tar_files, labels=labels))
    if directory := _prepared(path):
        return _of_records(directory)
    name = os.path.basename(os.path.abspath(path))
    passed = folder.PassedOver()
    splits = folder.find(path, "pillow", passed)
    parts: dict[str, Part] = {
        SPLITS[split]: FolderPart.of(files) for split, files in splits.items()
    }
    notes = tuple(passed.notes())
    return _checked(Source(name, "folder", splits["train"].classes, parts, notes=notes))


def _checked(source: Source) -> Source:
    """A source whose names of classes can be written to a text file, one a line."""
    for name in source.classes:
        if name != name.strip() or not name.isprintable():
            raise UserError(
                f"the class {name!r} has a name that cannot be written as a line of "
                f"text: rename it"
            )
    return source


def _prepared(path: str) -> str:
    """The directory of a prepared version: `path`, or the newest in it; or empty."""
    versions = [os.path.join(path, v) for v in reversed(prepared.versions(path))]
    candidates = [path, *versions]
    return next((p for p in candidates if os.path.isfile(f"{p}/dataset_info.json")), "")


def _of_records(path: str) -> Source:
    """The images of a prepared version."""
    info = prepared.builder(path).info
    splits, classes = tfds.splits(path, info.name, "pillow")
    parts: dict[str, Part] = {}
    channels = 3
    for split, records in splits.items():
        names = sorted(info.splits[split].filenames)
        stats = [os.stat(os.path.join(path, name)) for name in names]
        lines = [
            f"{name} {stat.st_size} {stat.st_mtime_ns}"
            for name, stat in zip(names, stats, strict=True)
        ]
        size = sum(stat.st_size for stat in stats) // max(len(records), 1)
        sizes = np.full(len(records), size, np.int64)
        parts[split] = RecordsPart(records, sizes, digest("\n".join(lines).encode()))
        channels = records.channels
    return Source(info.name, "prepared set", classes, parts, channels)
