"""Folders of image files, one folder for each class."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

import numpy as np

from sws_jax.data import base, images, memory
from sws_jax.errors import UserError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_LAYOUT = "images stand in PATH/train/CLASS/ and PATH/test/CLASS/ (or val)"


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
    found = find(path, decoder)
    train = found["train"]
    if len(found) == 2:
        found = {"train": train, "test": found[list(found)[1]]}
    return memory.dataset(
        os.path.basename(os.path.abspath(path)),
        found,
        train.classes,
        val_fraction=val_fraction,
        image_size=image_size,
        memory_gib=memory_gib,
        unreadable=unreadable,
    )


def find(path: str, decoder: str) -> dict[str, Files]:
    """The splits of a folder by the names of their folders, train first.

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
    found = {name: _files(os.path.join(path, name), decoder) for name in present}
    for name in present[1:]:
        _check_classes(found["train"], found[name])
    return found


@dataclasses.dataclass(frozen=True)
class Files:
    """A split whose images are files, sorted by class and name.

    Attributes:
      root: the folder that holds the classes' folders.
      classes: names of these, sorted.
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

    def where(self, index: int) -> str:
        folder = self.classes[self.labels[index]]
        return os.path.join(self.root, folder, os.fsdecode(self.names[index]))


def _is_dir(*parts: str) -> bool:
    return os.path.isdir(os.path.join(*parts))


def _files(root: str, decoder: str) -> Files:
    visible = [entry for entry in _entries(root) if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in visible if entry.is_dir())
    loose = _images(entry.name for entry in visible)
    if not classes:
        holds = (
            "images, but no folders of classes" if loose else "no folders of classes"
        )
        raise UserError(f"{root} holds {holds}: {_LAYOUT}")
    names: list[bytes] = []
    counts = []
    for name in classes:
        # A link that leads nowhere counts: it is an image that cannot be read.
        entries = _entries(os.path.join(root, name))
        files = _images(entry.name for entry in entries if not entry.is_dir())
        if not files:
            raise UserError(
                f"{os.path.join(root, name)} holds no images ({' '.join(EXTENSIONS)}): "
                f"put some into it, or remove this class"
            )
        names += map(os.fsencode, sorted(files))
        counts.append(len(files))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Files(root, tuple(classes), np.asarray(names), labels, decoder)


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


def _check_classes(train: Files, other: Files) -> None:
    missing = sorted(set(train.classes) - set(other.classes))
    surplus = sorted(set(other.classes) - set(train.classes))
    parts = [
        f"{words} {_few(names)}"
        for words, names in (("lacks", missing), ("has besides", surplus))
        if names
    ]
    if parts:
        raise UserError(
            f"{other.root} must have the classes of {train.root}, and "
            f"{' and '.join(parts)}"
        )


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
