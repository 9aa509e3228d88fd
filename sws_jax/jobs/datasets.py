"""The sets of images that the runs of a job train on."""

from __future__ import annotations

from typing import Any

import ml_collections

from sws_jax.data import Dataset, fingerprint, tfds
from sws_jax.jobs import build


class Datasets:
    """The sets that the runs of a job train on, each opened once for all of them."""

    def __init__(self) -> None:
        self._open: dict[str, Dataset] = {}
        self._known: tuple[Dataset, dict[str, Any]] | None = None
        self._told: set[str] = set()

    def of(self, config: ml_collections.ConfigDict) -> Dataset:
        """The set of a run, as `build.dataset` opens it."""
        key = self._key(config)
        if key not in self._open:
            self._open.clear()  # a set may take much memory, and few jobs have two
            self._open[key] = build.dataset(config)
        found = self._open[key]
        build.transform(config).check_channels(found.image_shape[-1])
        return found

    def glance(self, config: ml_collections.ConfigDict) -> Dataset | None:
        """The set of a run, without what takes long: its images are neither decoded
        nor copied. None where it is in a bucket, and not here.

        Raises:
          UserError: there is no such set any more, or not as it was.
        """
        light = config.copy_and_resolve_references().unlock()
        light.data.update(memory_gib=0.0, unreadable="skip")
        if self._key(config) in self._open:
            return self.of(config)
        data = config.data
        name = data.source.removeprefix(tfds.PREFIX)
        if name != data.source and not tfds.is_here(name, data.directory, data.cache):
            return None
        return self.of(light)

    def fingerprint(self, data: Dataset) -> dict[str, Any]:
        """Of the set that finished runs are compared with, one after the other."""
        if self._known is None or self._known[0] is not data:
            self._known = data, fingerprint.take(data)
        return self._known[1]

    @staticmethod
    def _key(config: ml_collections.ConfigDict) -> str:
        return repr(sorted(config.data.to_dict().items()))

    def remarks(self, data: Dataset) -> list[str]:
        """What is to be said of a set, once."""
        lines = [f"{data.name}: {note}" for note in data.notes]
        new = [line for line in lines if line not in self._told]
        self._told.update(new)
        return new
