"""The sets of images that the runs of a job share."""

from __future__ import annotations

from typing import Any

import ml_collections

from sws_jax.data import Dataset, fingerprint, prepared, tfds
from sws_jax.jobs import build


class Datasets:
    """Opens each set once for all runs of a job, and its fingerprint with it."""

    def __init__(self) -> None:
        self._open: dict[str, Dataset] = {}
        # The last set whose fingerprint was taken, and that fingerprint.
        self._fingerprint: tuple[Dataset, dict[str, Any]] | None = None
        self._remarks: set[str] = set()  # Lines that `remarks` has returned.

    def open(self, config: ml_collections.ConfigDict) -> Dataset:
        """The set of a run, as `build.dataset` opens it."""
        key = self._key(config)
        if key not in self._open:
            self._open.clear()  # A set may take much memory, and few jobs have two.
            self._open[key] = build.dataset(config)
        data = self._open[key]
        build.transform(config).check_channels(data.image_shape[-1])
        return data

    def open_quickly(self, config: ml_collections.ConfigDict) -> Dataset | None:
        """The set of a run, without decoding or copying its images.

        Returns:
          None where the set is in a bucket, and not here.

        Raises:
          UserError: there is no such set any more, or not as it was.
        """
        light = config.copy_and_resolve_references().unlock()
        light.data.update(memory_gib=0.0, unreadable="skip")
        if self._key(config) in self._open:
            return self.open(config)
        data = config.data
        name = data.source.removeprefix(prepared.PREFIX)
        if name != data.source and not tfds.is_here(name, data.directory, data.cache):
            return None
        return self.open(light)

    def fingerprint(self, data: Dataset) -> dict[str, Any]:
        """The fingerprint of a set, taken once for successive runs on it."""
        if self._fingerprint is None or self._fingerprint[0] is not data:
            self._fingerprint = data, fingerprint.take(data)
        return self._fingerprint[1]

    @staticmethod
    def _key(config: ml_collections.ConfigDict) -> str:
        return repr(sorted(config.data.to_dict().items()))

    def remarks(self, data: Dataset) -> list[str]:
        """Lines on a set, each of them once."""
        lines = [f"{data.name}: {note}" for note in data.notes]
        new = [line for line in lines if line not in self._remarks]
        self._remarks.update(new)
        return new
