"""A prepared set in a bucket that a run copies first, as far as it is known before."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile

import numpy as np

from sws_jax import pixels
from sws_jax.data import Dataset, base, prepared, staging, tfds
from sws_jax.doctor.base import Finding, ok, problem
from sws_jax.errors import UserError
from sws_jax.jobs import build
from sws_jax.runtime import words
from sws_jax.storage import files, paths

# The small files of a version's directory that describe the large ones.
_DESCRIPTION = ("dataset_info.json", "features.json")
_NAMES = ".labels.txt"  # of classes


@dataclasses.dataclass(frozen=True)
class Counted:
    """A split whose images are not here: only their number is known."""

    count: int

    @property
    def labels(self) -> np.ndarray | None:
        return None

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[np.ndarray, int]:
        raise base.Unreadable(f"image {index} is in a bucket, and not copied yet")


@dataclasses.dataclass(frozen=True)
class Unstaged:
    """A version of a set that is not, or not completely, on this machine.

    Attributes:
      path: of its directory in the bucket.
      target: where a run copies it to.
      size: bytes that are missing there.
      data: as far as it is known: no images, `val` and `test` are the splits of these
        names, and a height and width that are not known are 0.
    """

    path: str
    target: str
    size: int
    data: Dataset

    def described(self) -> Finding:
        """The finding on the set's own description."""
        data = self.data
        splits = dict(train=data.train, validation=data.val, test=data.test)
        text = ", ".join(f"{len(s):,} {name}" for name, s in splits.items() if len(s))
        if not len(data.train) or not (len(data.val) or len(data.test)):
            return problem(
                f"{self.path} needs images in train, and in test or validation, and "
                f"has {text or 'none'}",
                "prepare the set again",
            )
        height, width, channels = data.image_shape
        size = f"{height} x {width} x {channels}" if height else f"{channels} channels"
        classes = f"{data.num_classes:,} classes"
        return ok(f"{self.path}: {text} images, {classes}, {size}")

    def fits(self) -> Finding:
        """The finding on the room for the copy."""
        folder, free = files.free_space(self.target)
        text = (
            f"{words.size(self.size)} of {self.path} are copied to {self.target} "
            f"first, where {words.size(free)} are free"
        )
        if self.size + staging.RESERVE > free:
            return problem(text, "make room, or give data.cache another directory")
        return ok(text)


def root(config) -> str:
    """The path that a config's data is read from."""
    source = config.data.source
    is_set = source.startswith(prepared.PREFIX)
    return tfds.root(config.data.directory) if is_set else source


def find(config) -> Unstaged | None:
    """The set of a config, if it is in a bucket and has to be copied.

    Raises:
      UserError: there is none, or a run would refuse it.
    """
    source, directory = config.data.source, root(config)
    if not source.startswith(prepared.PREFIX) or not paths.is_remote(directory):
        return None
    # It raises for a bucket that does not answer, which would else look like a bucket
    # without the set.
    paths.exists(directory)
    name = source.removeprefix(prepared.PREFIX)
    path = prepared.find(name, directory)
    target, size = staging.awaited(path, config.data.cache)
    return Unstaged(path, target, size, _data(path, name, config)) if size else None


def _data(path: str, name: str, config) -> Dataset:
    """A set by its description alone."""
    with tempfile.TemporaryDirectory(prefix="sws_jax_") as folder:
        for file in paths.names(path):
            if file in _DESCRIPTION or file.endswith(_NAMES):
                paths.fetch(os.path.join(path, file), os.path.join(folder, file))
        try:
            info = prepared.builder(folder).info
            channels, class_names = tfds.described(info.features, name)
        except UserError as error:
            raise UserError(str(error).replace(folder, path)) from None
    build.transform(config).check_channels(channels)
    own = info.features["image"].shape[:2]
    size = (config.data.image_size,) * 2 if config.data.image_size else own
    counts = {split: about.num_examples for split, about in info.splits.items()}
    normalization = pixels.default_normalization(channels)
    if config.data.mean or config.data.std:
        mean, std = tuple(config.data.mean), tuple(config.data.std)
        normalization = pixels.Normalization(mean, std)
    return Dataset(
        name=re.split("[/:]", name)[0],
        train=Counted(counts.get("train", 0)),
        val=Counted(counts.get("validation", 0)),
        test=Counted(counts.get("test", 0)),
        class_names=class_names,
        image_shape=(*(size if all(size) else (0, 0)), channels),
        normalization=normalization,
    )
