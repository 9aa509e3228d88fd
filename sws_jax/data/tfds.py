"""Sets that TensorFlow Datasets has prepared, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from typing import Any

import numpy as np

from sws_jax.data import base, images, memory, prepared, staging
from sws_jax.data.prepared import PREFIX
from sws_jax.errors import UserError

_SPLITS = ("train", "validation", "test")


def load(
    name: str,
    *,
    directory: str,
    cache: str = "",
    val_fraction: float,
    image_size: tuple[int, int] | None,
    decoder: str,
    memory_gib: float,
    unreadable: str = "stop",
) -> base.Dataset:
    """A labelled set that was prepared as array_record files.

    The files describe the set, so that a set of one's own needs no code here. Where
    both splits ``validation`` and ``test`` are labelled, they are the validation and
    the test images. Where one of them is, as in ImageNet, whose test labels are
    withheld, it is the test set, and validation images are held out of the training
    images.

    Args:
      name: NAME, NAME:VERSION, NAME/CONFIG or NAME/CONFIG:VERSION; without a version
        the newest that is prepared.
      directory: the one that holds NAME, perhaps in a bucket; empty is TFDS_DATA_DIR or
        ~/tensorflow_datasets.
      cache: see `sws_jax.data.staging.staged`.
      val_fraction: of the training images, held out where it applies.
      image_size: height and width for the network; None takes that of the images,
        which must then have one.
      decoder: see `sws_jax.data.images.decode`.
      memory_gib, unreadable: see `sws_jax.data.memory.hold`.

    Raises:
      UserError: the set is unknown, not prepared, damaged or has no labelled images.
    """
    path = staging.staged(prepared.find(name, root(directory)), cache)
    labelled, class_names = splits(path, name, decoder)
    if len(labelled) == 3:
        labelled["val"] = labelled.pop("validation")
    elif "validation" in labelled:
        labelled["test"] = labelled.pop("validation")
    return memory.dataset(
        re.split("[/:]", name)[0],
        labelled,
        class_names,
        val_fraction=val_fraction,
        image_size=image_size,
        memory_gib=memory_gib,
        unreadable=unreadable,
    )


def is_here(name: str, directory: str, cache: str = "") -> bool:
    """Whether a prepared set is on this machine; arguments as of `load`.

    Raises:
      UserError: there is no such prepared set.
    """
    path = prepared.find(name, root(directory))
    return not staging.awaited(path, cache)[1]


def root(directory: str) -> str:
    """The directory that holds prepared sets: `directory`, or TFDS's own if empty."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return os.path.expanduser(directory or default)


def splits(
    path: str, name: str, decoder: str
) -> tuple[dict[str, Records], tuple[str, ...]]:
    """The labelled splits of a prepared version, train first, and its classes.

    Args:
      path: of its directory.
      name: for messages.
      decoder: see `sws_jax.data.images.decode`.

    Raises:
      UserError: it is damaged or has no labelled images.
    """
    info = prepared.builder(path).info
    channels, class_names = described(info.features, name)
    labelled = {}
    for split in _SPLITS:
        if split in info.splits and info.splits[split].num_examples:
            prepared.check_shards(info.splits[split], path)
            count = info.splits[split].num_examples
            records = Records(
                path, name, split, count, len(class_names), channels, decoder
            )
            if split == "train" or records.labelled:
                labelled[split] = records
    if "train" not in labelled or len(labelled) == 1:
        raise UserError(
            f"{PREFIX}{name} needs images and labels in train, and in test or "
            f"validation: its splits are {', '.join(info.splits) or 'none'}, with both "
            f"in {', '.join(labelled) or 'none'}"
        )
    return labelled, class_names


@dataclasses.dataclass(frozen=True)
class Records:
    """A split in array_record files.

    Attributes:
      path: of the prepared version's directory.
      name, split: of the set and its split.
      count: of records.
      classes: number of classes.
      channels: 1 or 3, of the decoded images.
      decoder: see `sws_jax.data.images.decode`.
    """

    path: str
    name: str
    split: str
    count: int
    classes: int
    channels: int
    decoder: str

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> np.ndarray | None:
        """None: they are in the records."""
        return None

    def identity(self) -> str:
        """A digest of the files' names, sizes and numbers of records."""
        info = prepared.builder(self.path).info.splits[self.split]
        names = sorted(info.filenames)
        sizes = [os.path.getsize(os.path.join(self.path, name)) for name in names]
        return base.digest(repr((names, sizes, list(info.shard_lengths))).encode())

    def read(self, index: int) -> tuple[np.ndarray, int]:
        encoded, label = self.encoded(index)
        where = self.where(index)
        if not 0 <= label < self.classes:
            raise base.Unreadable(
                f"{where} has the label {label}, and there are {self.classes} classes"
            )
        pixels = images.decode(
            encoded, where, channels=self.channels, decoder=self.decoder
        )
        return pixels, label

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The image as it is stored, and its label."""
        source, features, decoders = self._opened
        try:
            record = features.deserialize_example_np(source[index], decoders=decoders)
            return record["image"], int(record["label"])
        except Exception as error:  # of any kind, of three libraries
            raise base.Unreadable(
                f"{self.where(index)} is not a readable record "
                f"({prepared.reason(error)})"
            ) from None

    @property
    def labelled(self) -> bool:
        """Whether it has labels; where they are withheld, they are below 0."""
        try:
            return self.encoded(0)[1] >= 0
        except base.Unreadable:
            return True  # the image is refused or passed over with the others

    def where(self, index: int) -> str:
        """The record of an image, for messages."""
        return f"record {index} of {PREFIX}{self.name}, split {self.split},"

    @functools.cached_property
    def _opened(self) -> tuple[Any, Any, dict[str, Any]]:
        """The encoded records, and how to read image and label of one.

        Other features are not read, as they may need TensorFlow.
        """
        tfds = prepared.library()
        builder = prepared.builder(self.path)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(self.split, deserialize_method=raw)
        features = {key: builder.info.features[key] for key in ("image", "label")}
        decoders = {"image": tfds.decode.SkipDecoding()}
        return source, tfds.features.FeaturesDict(features), decoders

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: another process opens them itself."""
        return {key: value for key, value in vars(self).items() if key != "_opened"}


def described(features: Any, name: str) -> tuple[int, tuple[str, ...]]:
    """Channels of a set's images, and names of its classes.

    Args:
      features: of the set, as TFDS describes them.
      name: for messages.

    Raises:
      UserError: they are no images of 8 bits with labels of classes.
    """
    kinds = prepared.library().features
    by_name = dict(features.items()) if isinstance(features, kinds.FeaturesDict) else {}
    image, label = by_name.get("image"), by_name.get("label")
    if not (
        isinstance(image, kinds.Image)
        and image.np_dtype == np.uint8
        and isinstance(label, kinds.ClassLabel)
        and label.num_classes
    ):
        pairs = sorted(by_name.items())
        shown = ", ".join(f"{key} ({type(kind).__name__})" for key, kind in pairs)
        raise UserError(
            f"{PREFIX}{name} needs a feature image of 8 bits and a feature label of "
            f"classes, and has {shown or 'none'}"
        )
    return 1 if image.shape[-1] == 1 else 3, tuple(label.names)
