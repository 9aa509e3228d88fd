"""Encoded images in array_record files, laid out as TFDS lays out its sets."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from sws_jax.data import images, prepared
from sws_jax.prepare import forms
from sws_jax.prepare.forms import How, Shard, ShardRecord
from sws_jax.prepare.parts import Source
from sws_jax.storage import files

# How files begin that TFDS's Image feature decodes: JPEG, PNG, GIF and BMP.
_KEPT = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
_SHARD_OVERHEAD = 192 * 2**10  # bytes of an array_record file beside its records
_RECORD_OVERHEAD = 128  # bytes, of a record's label, names and place


@dataclasses.dataclass(frozen=True)
class Records:
    """Encoded images in array_record files.

    The bytes of JPEG, PNG, GIF and BMP are kept. Other formats, as WebP, which TFDS
    cannot decode, become a PNG of the same pixels. Every image is decoded once, to
    check that it can be read.

    Attributes:
      source: the images.
      name, version: of the set.
      shard_bytes: bytes of encoded images in a file, about.
    """

    source: Source
    name: str
    version: str
    shard_bytes: int

    def shards(self) -> list[Shard]:
        shards = []
        for split, part in self.source.parts.items():
            total = int(part.sizes.sum())
            count = min(max(math.ceil(total / self.shard_bytes), 1), len(part))
            bounds = np.linspace(0, len(part), count + 1).astype(int).tolist()
            for index, (first, end) in enumerate(
                zip(bounds[:-1], bounds[1:], strict=True)
            ):
                file = f"{self.name}-{split}.array_record-{index:05}-of-{count:05}"
                shards.append(Shard(file, split, first, end))
        return shards

    def bytes_needed(
        self, directory: str, todo: list[Shard], growth: float, count: int
    ) -> int:
        """See `Form`; surplus files are removed first.

        A file stays until its replacement is whole, so that those which are written at
        a time take room twice.
        """
        present = forms.standing(directory)
        pairs = [
            (self._bytes_of(shard, growth), present.get(shard.name, 0))
            for shard in todo
        ]
        added = sum(max(new - old, 0) for new, old in pairs)
        freed = sum(present[name] for name in self._surplus(present))
        twice = sorted(min(pair) for pair in pairs)[-count:]
        return max(added - freed, 0) + sum(twice)

    def _bytes_of(self, shard: Shard, growth: float) -> int:
        sizes = self.source.parts[shard.split].sizes[shard.first : shard.end]
        content = int(sizes.sum() * growth) + len(shard) * _RECORD_OVERHEAD
        return content + _SHARD_OVERHEAD

    def try_out(self, split: str, index: int) -> int:
        return len(self._record(split, index))

    def begin(self, directory: str) -> None:
        """Removes files of another number of shards, whose names differ."""
        for name in self._surplus(os.listdir(directory)):
            os.remove(os.path.join(directory, name))

    def _surplus(self, names: Iterable[str]) -> list[str]:
        """Names of array_record files that are no shards of the set."""
        shards = {shard.name for shard in self.shards()}
        return [n for n in names if ".array_record-" in n and n not in shards]

    def renewed(self, directory: str) -> set[str]:
        """None, as each file is replaced as a whole."""
        return set()

    def make(self, directory: str, shard: Shard, how: How) -> ShardRecord:
        from array_record.python.array_record_module import (
            ArrayRecordReader,
            ArrayRecordWriter,
        )

        path = os.path.join(directory, shard.name)
        left_out: list[str] = []
        with files.replacing(path) as temporary:
            # As TFDS does: one record in a group, for reading in any order.
            one = functools.partial(self._record, shard.split)
            writer = ArrayRecordWriter(temporary, "group_size:1")
            try:
                try:
                    for record in forms.each(shard, one, how, left_out):
                        writer.write(record)
                finally:
                    writer.close()
                entry = forms.checked(temporary)
                reader = ArrayRecordReader(temporary)
                records = reader.num_records()
                reader.close()
            except RuntimeError as error:  # array_record's, whatever the cause
                reason = str(error).partition(";")[0].rpartition(": ")[2]
                raise files.Unwritable(path, OSError(reason)) from None
            if records != len(shard) - len(left_out):
                raise files.Unwritable(path, OSError(f"it holds {records:,} records"))
        return entry | {
            "images": len(shard) - len(left_out),
            "left_out": left_out,
            "split": shard.split,
        }

    def finish(self, directory: str, entries: dict[str, ShardRecord]) -> list[str]:
        core = prepared.library().core
        template = core.ShardedFileTemplate(
            data_dir=directory,
            dataset_name=self.name,
            split=None,
            filetype_suffix="array_record",
        )
        infos = []
        for split in self.source.parts:
            of_split = [e for e in entries.values() if e["split"] == split]
            infos.append(
                core.SplitInfo(
                    name=split,
                    shard_lengths=[entry["images"] for entry in of_split],
                    num_bytes=sum(entry["bytes"] for entry in of_split),
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
        """The record of an image, as TFDS serialises it."""
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
        """Without objects of TFDS: another process makes them itself."""
        cached = ("_features", "_serializer")
        return {key: value for key, value in vars(self).items() if key not in cached}
