"""Folders of image files, one folder for each class."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator

import numpy as np

from sws_jax.data import base, classes, images, memory
from sws_jax.errors import UserError
from sws_jax.runtime import words

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_LAYOUT = "images stand in PATH/train/CLASS/ and PATH/test/CLASS/ (or val)"
# Files and folders that systems and programs create: neither images nor classes.
_LITTER_FILES = ("Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r")
_LITTER_FOLDERS = (
    "$RECYCLE.BIN", "#recycle", "@Recycle", "@eaDir", "System Volume Information",
    "__MACOSX", "__pycache__", "lost+found",
)  # fmt: skip


def load(
    path: str,
    *,
    val_fraction: float,
    image_size: tuple[int, int] | None,
    decoder: str,
    memory_gib: float,
    unreadable: str = "stop",
) -> base.Dataset:
    """The images in ``PATH/train/CLASS/`` and in ``PATH/val/`` or ``PATH/test/``.

    With both val and test, they are the validation and the test images. With only
    one of them, whichever name it has, it is the test set (ImageNet is laid out with
    train and val), and validation images are held out of the training images.

    Args:
      path: of the folder.
      val_fraction: of the training images, held out where it applies.
      image_size: height and width for the network; None takes that of the images,
        which must then have one.
      decoder: see `sws_jax.data.images.decode`.
      memory_gib, unreadable: see `sws_jax.data.memory.hold`.

    Raises:
      UserError: the folder is laid out otherwise, or images cannot be read.
    """
    passed = PassedOver()
    splits = find(path, decoder, passed)
    train = splits["train"]
    if len(splits) == 2:
        splits = {"train": train, "test": splits[list(splits)[1]]}
    return memory.dataset(
        os.path.basename(os.path.abspath(path)),
        splits,
        train.classes,
        val_fraction=val_fraction,
        image_size=image_size,
        memory_gib=memory_gib,
        unreadable=unreadable,
        notes=tuple(passed.notes()),
    )


class PassedOver:
    """Counts files and folders of a set that are not read, and names the first ones."""

    def __init__(self) -> None:
        self._loose: list[str] = []  # images beside the folders of classes
        self._litter: list[str] = []  # folders that are no classes
        self._nested: list[str] = []  # folders within those of classes
        self._others = collections.Counter[str]()  # files of other types, by ending
        self._first_other = ""

    def in_split(self, root: str, loose: Iterable[str], litter: Iterable[str]) -> None:
        """Counts images and folders that are beside the folders of classes."""
        self._loose += [os.path.join(root, name) for name in sorted(loose)]
        self._litter += [os.path.join(root, name) for name in sorted(litter)]

    def in_class(self, path: str, files: Iterable[str], folders: Iterable[str]) -> None:
        """Counts files and folders that are among the images of a class."""
        files = sorted(files)
        self._others.update(os.path.splitext(name)[1] for name in files)
        if files and not self._first_other:
            self._first_other = os.path.join(path, files[0])
        self._nested += [os.path.join(path, name) for name in sorted(folders)]

    def hint(self, root: str) -> str:
        """Where to look for images of a class that a split lacks, for a message."""
        loose = [path for path in self._loose if os.path.dirname(path) == root]
        return (
            f"; {words.many(len(loose), 'image')} in {root} itself may be of it: give "
            f"every class a folder"
            if loose
            else ""
        )

    def notes(self) -> Iterator[str]:
        """A line for each kind of file or folder that is passed over."""
        if loose := self._loose:
            yield (
                f"{words.many(len(loose), 'image')} beside the folders of classes "
                f"passed over (the first: {classes.clean(loose[0])})"
            )
        for kind, folders in (("in the folders of classes", self._nested),
                              ("that cannot be classes", self._litter)):  # fmt: skip
            if inside := sum(map(_images_below, folders)):
                yield (
                    f"{words.many(len(folders), 'folder')} {kind} passed over, with "
                    f"{words.many(inside, 'image')} inside (the first: "
                    f"{classes.clean(folders[0])})"
                )
        if others := self._others:
            ends = others.most_common()
            counts = [f"{n:,} {end or 'without an ending'}" for end, n in ends]
            yield (
                f"{words.many(others.total(), 'file')} of types that are not read "
                f"passed over ({classes.clean(words.few(counts))}; the first: "
                f"{classes.clean(self._first_other)})"
            )


def _images_below(path: str) -> int:
    """Number of images anywhere in a folder."""
    return sum(len(_images(names)) for _, _, names in os.walk(path))


def has_classes(path: str) -> bool:
    """Whether a folder holds folders with images in them."""
    if not _is_dir(path):
        return False
    folders, _ = _apart(_entries(path))
    return any(_images(_apart(_entries(os.path.join(path, n)))[1]) for n in folders)


def find(path: str, decoder: str, passed: PassedOver | None = None) -> dict[str, Files]:
    """The splits of a folder by the names of their folders, train first.

    Args:
      path: of the folder.
      decoder: see `sws_jax.data.images.decode`.
      passed: counts what is not read.

    Raises:
      UserError: the folder is laid out otherwise.
    """
    present = [name for name in ("train", "val", "test") if _is_dir(path, name)]
    if not _is_dir(path):
        raise UserError(f"there is no folder of images {path}")
    if "train" not in present:
        raise UserError(f"{path} has no folder train: {_LAYOUT}")
    if len(present) == 1:
        raise UserError(f"{path} has neither a folder test nor val: {_LAYOUT}")
    passed = passed or PassedOver()
    splits = {
        name: _files(os.path.join(path, name), decoder, passed) for name in present
    }
    train = splits["train"]
    for name in present[1:]:
        _check_classes(train, splits[name], passed.hint(train.root))
    return splits


@dataclasses.dataclass(frozen=True)
class Files:
    """A split whose images are files, sorted by class and name.

    Attributes:
      root: the folder that holds the classes' folders.
      classes: names of these folders, in the order of the classes' names. A name may be
        in another Unicode form than its class, see `sws_jax.data.classes.clean`.
      names: bytes [n], of the files: one array, as ImageNet has over a million.
      labels: int32 [n].
      decoder: see `sws_jax.data.images.decode`.
    """

    root: str
    classes: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray
    decoder: str

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        path = self.where(index)
        encoded = images.read_bytes(path)
        pixels = images.decode(encoded, path, channels=3, decoder=self.decoder)
        return pixels, int(self.labels[index])

    def identity(self) -> str:
        """A digest of names and labels; to repair an image does not change it."""
        return base.digest(self.names, self.labels)

    def where(self, index: int) -> str:
        """The path of an image."""
        folder = self.classes[self.labels[index]]
        return os.path.join(self.root, folder, os.fsdecode(self.names[index]))


def _is_dir(*parts: str) -> bool:
    return os.path.isdir(os.path.join(*parts))


def _files(root: str, decoder: str, passed: PassedOver) -> Files:
    """The images of a split's folder."""
    folders, files = _apart(_entries(root))
    litter = [name for name in folders if name in _LITTER_FOLDERS]
    folders = sorted(set(folders) - set(litter), key=classes.clean)
    loose = _images(files)
    if not folders:
        holds = (
            "images, but no folders of classes" if loose else "no folders of classes"
        )
        raise UserError(f"{root} holds {holds}: {_LAYOUT}")
    classes.check(folders, root)
    passed.in_split(root, loose, litter)
    names: list[bytes] = []
    counts = []
    for name in folders:
        path = os.path.join(root, name)
        nested, files = _apart(_entries(path))
        image_names = _images(files)
        if not image_names:
            below = sum(_images_below(os.path.join(path, one)) for one in nested)
            inside = f" of its own, and {below:,} in folders in it" if below else ""
            raise UserError(
                f"{path} holds no images ({' '.join(EXTENSIONS)}){inside}: put some "
                f"into it, or remove this class"
            )
        if nested or len(image_names) < len(files):
            others = set(files) - set(image_names) - set(_LITTER_FILES)
            passed.in_class(path, others, nested)
        names += map(os.fsencode, sorted(image_names))
        counts.append(len(image_names))
    labels = np.repeat(np.arange(len(folders), dtype=np.int32), counts)
    return Files(root, tuple(folders), np.asarray(names), labels, decoder)


def _apart(entries: Iterable[os.DirEntry[str]]) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files, without hidden ones.

    A broken link, or one to itself, counts as a file, which then cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    for entry in entries:
        name = entry.name
        if name[0] == ".":
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False
        (folders if is_folder else files).append(name)
    return folders, files


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"{path} cannot be listed ({error.strerror})") from None


def _images(names: Iterable[str]) -> list[str]:
    return [
        name
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    ]


def _check_classes(train: Files, other: Files, hint: str) -> None:
    """Refuses a split whose classes are not those of the training images."""
    ours, theirs = (set(map(classes.clean, split.classes)) for split in (train, other))
    parts = [
        f"{verb} {words.few(sorted(names))}"
        for verb, names in (("lacks", ours - theirs), ("has besides", theirs - ours))
        if names
    ]
    if parts:
        raise UserError(
            f"{other.root} must have the classes of {train.root}, and "
            f"{' and '.join(parts)}{hint}"
        )
