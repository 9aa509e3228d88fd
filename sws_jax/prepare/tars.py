"""Tars of images, read in place: nothing is unpacked.

Either one tar for each split, train.tar and val.tar or test.tar or both, with members
CLASS/NAME, or ImageNet's own: ILSVRC2012_img_train.tar, a tar of one n########.tar for
each class, and ILSVRC2012_img_val.tar, which is flat, and whose classes are in a file
of their own.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tarfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from sws_jax.data import folder, prepared
from sws_jax.data.base import Unreadable, digest
from sws_jax.errors import UserError
from sws_jax.prepare.parts import SPLITS, Part, Source
from sws_jax.runtime import words

_IMAGENET = {
    "train": "ILSVRC2012_img_train.tar",
    "val": "ILSVRC2012_img_val.tar",
}
_BLOCK = 512  # bytes; in a tar, headers and contents begin at multiples of it


@dataclasses.dataclass(frozen=True)
class TarPart:
    """A split in a tar.

    Attributes:
      path: of the tar.
      names: bytes [n], CLASS/NAME or, where the tar is flat, NAME.
      labels: int32 [n].
      offsets, sizes: int64 [n], of the contents in the tar, in bytes.
      time: of the tar's last change, in nanoseconds.
    """

    path: str
    names: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    time: int

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[bytes, int]:
        size = int(self.sizes[index])
        try:
            with open(self.path, "rb") as file:
                content = os.pread(file.fileno(), size, int(self.offsets[index]))
        except OSError as error:
            raise Unreadable(
                f"{self.where(index)} cannot be read ({error.strerror})"
            ) from None
        if len(content) < size:
            raise Unreadable(f"{self.where(index)} is cut short")
        return content, int(self.labels[index])

    def where(self, index: int) -> str:
        return f"{os.fsdecode(self.names[index])} in {self.path}"

    def file_name(self, index: int) -> bytes:
        return self.names[index]

    def stamp(self, first: int, end: int) -> str:
        part = slice(first, end)
        names = b"\0".join(self.names[part].tolist())
        return digest(
            names,
            self.labels[part],
            self.offsets[part],
            self.sizes[part],
            np.asarray(self.time, np.int64),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    name: str  # CLASS/NAME, or NAME
    offset: int
    size: int


def find(path: str) -> dict[str, str]:
    """The tars of a folder by split, train, val or test; empty if there is no train."""
    for names in ({split: f"{split}.tar" for split in SPLITS}, _IMAGENET):
        present = {
            split: os.path.join(path, name)
            for split, name in names.items()
            if os.path.isfile(os.path.join(path, name))
        }
        if "train" in present:
            return present
    return {}


def open_source(path: str, tars: dict[str, str], *, labels: str = "") -> Source:
    """The images of a folder's tars.

    Args:
      path: of the folder.
      tars: the result of `find`.
      labels: a text file with the classes of a flat validation tar: one class for each
        image, in the order of their names, or lines NAME CLASS. If empty, the list of
        ImageNet's 50,000 that is part of TFDS is taken.

    Raises:
      UserError: the tars are damaged or hold something else.
    """
    if len(tars) == 1:
        raise UserError(
            f"{path} has {os.path.basename(tars['train'])} alone: put the tar of the "
            f"test or validation images beside it"
        )
    imagenet = os.path.basename(tars["train"]) == _IMAGENET["train"]
    classes: tuple[str, ...] = ()
    parts: dict[str, Part] = {}
    for split, tar in tars.items():
        members = list(_nested(tar) if imagenet and split == "train" else _plain(tar))
        if not members:
            raise UserError(f"{tar} holds no images ({' '.join(folder.EXTENSIONS)})")
        if imagenet and split == "val":
            members = sorted(members, key=lambda member: member.name)
            groups = _classes_of(tar, [member.name for member in members], labels)
        else:
            members = sorted(_in_classes(tar, members, split), key=_class_and_name)
            groups = [_class_and_name(member)[0] for member in members]
        if split == "train":
            classes = tuple(sorted(set(groups)))
        _check_classes(tar, set(groups), classes)
        parts[SPLITS[split]] = _part(tar, members, groups, classes)
    if labels and not imagenet:
        raise UserError("--val-labels is for ImageNet's tars; others hold CLASS/NAME")
    name = "imagenet2012" if imagenet else os.path.basename(os.path.abspath(path))
    kind = "ImageNet's tars" if imagenet else "tars"
    return Source(name, kind, classes, parts)


def _part(tar, members, groups, classes) -> TarPart:
    """The split of a tar's members, with the class of each in `groups`."""
    label_of = {name: label for label, name in enumerate(classes)}
    return TarPart(
        tar,
        np.asarray([os.fsencode(member.name) for member in members]),
        np.asarray([label_of[group] for group in groups], np.int32),
        np.asarray([member.offset for member in members], np.int64),
        np.asarray([member.size for member in members], np.int64),
        os.stat(tar).st_mtime_ns,
    )


def _class_and_name(member: _Member) -> tuple[str, str]:
    group, _, name = member.name.partition("/")
    return group, name


def _plain(path: str) -> Iterator[_Member]:
    """Members that are images."""
    with open(path, "rb") as file:
        for _, info in _walk(file, path):
            name = re.sub(r"^(\./)+", "", info.name)
            last = os.path.basename(name)
            if not last.lower().endswith(folder.EXTENSIONS) or last.startswith("."):
                continue
            if _is_file(info, f"{name} in {path}"):
                yield _Member(name, info.offset_data, info.size)


def _nested(path: str) -> Iterator[_Member]:
    """Images in the tars of a tar; the name of an inner tar is that of their class."""
    with open(path, "rb") as file:
        for tar, outer in _walk(file, path):
            within = f"{outer.name} in {path}"
            if not outer.name.endswith(".tar") or not _is_file(outer, within):
                continue
            group = os.path.basename(outer.name).removesuffix(".tar")
            window = tar.extractfile(outer)
            assert window is not None  # as it is a regular file
            for _, info in _walk(window, within):
                name = os.path.basename(info.name)
                if not name.lower().endswith(folder.EXTENSIONS):
                    continue
                if _is_file(info, f"{name} in {within}"):
                    start = outer.offset_data + info.offset_data
                    yield _Member(f"{group}/{name}", start, info.size)


def _is_file(info: tarfile.TarInfo, where: str) -> bool:
    """Whether a member is a file, whose bytes can be read in place.

    Raises:
      UserError: it is a link, or a sparse file.
    """
    if info.issym() or info.islnk() or info.issparse():
        raise UserError(
            f"{where} is a link or has holes, not the bytes of a file: make the tar "
            f"again, of files (tar --dereference)"
        )
    return info.isreg()


def _walk(
    file: IO[bytes], path: str
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All members of a tar.

    Raises:
      UserError: it is damaged, or cut off at the end.
    """
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                # The library would keep all members in memory, over a million.
                tar.members = []  # type: ignore[attr-defined]
                blocks = -(-info.size // _BLOCK) if info.isreg() else 0
                end = info.offset_data + blocks * _BLOCK
                yield tar, info
        file.seek(end)
        last = file.read(_BLOCK)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"{path} is no readable tar ({error}): a compressed one is unpacked first, "
            f"a damaged one fetched again"
        ) from None
    if last != bytes(_BLOCK):
        raise UserError(f"{path} is cut short after {end:,} bytes: fetch it again")


def _in_classes(path: str, members: list[_Member], split: str) -> list[_Member]:
    """Members CLASS/NAME, perhaps in a folder with the split's name."""
    in_classes = []
    for member in members:
        pieces = member.name.split("/")
        if len(pieces) == 3 and pieces[0] == split:
            pieces = pieces[1:]
        if len(pieces) == 1:
            raise UserError(
                f"{member.name} in {path} stands in no class: members are CLASS/NAME"
            )
        if len(pieces) == 2 and not pieces[0].startswith("."):
            in_classes.append(dataclasses.replace(member, name="/".join(pieces)))
    if not in_classes:
        raise UserError(f"{path} holds no images CLASS/NAME, but deeper ones alone")
    return in_classes


def _check_classes(tar: str, groups: set[str], classes: tuple[str, ...]) -> None:
    """Refuses a split whose classes are not those of the training images."""
    for verb, names in (
        ("lacks", set(classes) - groups),
        ("has besides", groups - set(classes)),
    ):
        if names:
            raise UserError(
                f"{tar} must have the classes of the training images, and {verb} "
                f"{words.few(sorted(names), most=1)}"
            )


def _classes_of(tar: str, names: list[str], path: str) -> list[str]:
    """The class of each image of a flat tar.

    Args:
      tar: its path, for messages.
      names: of the images, sorted.
      path: of a file with their classes; empty takes those of ImageNet.
    """
    if not path:
        return imagenet_classes(tar, names)
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.split() for line in file if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"--val-labels {path} cannot be read ({error})") from None
    if all(len(line) == 2 for line in lines):
        class_of = {name: group for name, group in lines}
        if missing := [name for name in names if name not in class_of]:
            raise UserError(
                f"{path} names no class of {missing[0]} and of {len(missing) - 1} "
                f"other images of {tar}"
            )
        return [class_of[name] for name in names]
    if not all(len(line) == 1 for line in lines) or len(lines) != len(names):
        raise UserError(
            f"{path} must name a class for each of the {len(names):,} images of {tar}, "
            f"one a line in the order of their names, or lines NAME CLASS, and has "
            f"{len(lines):,} lines"
        )
    if all(line[0].isdigit() for line in lines):
        raise UserError(
            f"{path} holds numbers, as the development kit's ground truth, whose order "
            f"is not that of the names: give the names of classes (n01440764)"
        )
    return [line[0] for line in lines]


def imagenet_classes(tar: str, names: list[str]) -> list[str]:
    """The classes of ImageNet's validation images, as TFDS lists them.

    Raises:
      UserError: the names are not those of all 50,000 images.
    """
    library = prepared.library()
    path = library.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
    labels = path.read_text().split() if path.exists() else []
    all_names = [f"ILSVRC2012_val_{n:08}.JPEG" for n in range(1, len(labels) + 1)]
    if not labels or names != all_names:
        raise UserError(
            f"{tar} holds {len(names):,} images, which are not the 50,000 whose "
            f"classes are known: name theirs in a file, with --val-labels"
        )
    return labels
