"""The directory of a run: whose it is, what is written in it, and who is at it.

With several processes all of them ask, and the first looks and writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import ml_collections

from sws_jax.data import Dataset, fingerprint
from sws_jax.errors import UserError
from sws_jax.jobs import begun, differences, fingerprints, places, records
from sws_jax.runtime import processes
from sws_jax.storage import documents, files, locks, paths
from sws_jax.storage.names import (
    CHECKPOINTS,
    CONFIG,
    INPUTS,
    LEARNGENE_FILE,
    LOCK,
    METRICS,
    RESULT,
    WEIGHTS,
)

# What a run writes once its config is there: without a config, these are another's.
_OF_A_RUN = (RESULT, CHECKPOINTS, WEIGHTS, LEARNGENE_FILE, METRICS)


class Busy(UserError):
    """Another job is at this run."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The directory of one run.

    Attributes:
      path: of it.
      config: of the run.
      workdir: where ``run:NAME`` paths of the config are found.
    """

    path: str
    config: ml_collections.ConfigDict
    workdir: str

    def result(self) -> dict[str, Any] | None:
        """The run's result, or None where it has not finished.

        Raises:
          UserError: the directory is another run's.
        """

        def read_result() -> dict[str, Any] | None:
            refuse_other(self.path, self.config, self.workdir)
            path = self._file(RESULT)
            return records.read_result(path) if paths.exists(path) else None

        return processes.decided(read_result)

    def finished(self) -> dict[str, Any]:
        """The result of a run that has just ended; nothing else is read again."""
        return processes.decided(lambda: records.read_result(self._file(RESULT)))

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Digests of the files that the run starts from, as it found them."""
        return places.inputs(self.config, self.workdir)

    def check_inputs(self) -> None:
        """Refuses files that were replaced while the run read them."""
        processes.decided(lambda: self.check_unchanged(self.inputs))

    def check_unchanged(self, fields: Collection[str]) -> None:
        """As `check_inputs`, of some files and in this process alone.

        Args:
          fields: those that name the files.
        """
        now = places.inputs(self.config, self.workdir, fields)
        for name in sorted(self.inputs.keys() & set(fields)):
            if now.get(name) != self.inputs[name]:
                raise UserError(
                    f"the file of {name} has changed while {self.config.name} read it: "
                    f"start it again once the file is whole"
                )

    def is_older(self) -> bool:
        """Whether software without ``init.insist`` began the run, in all processes."""
        return processes.decided(lambda: begun.is_older(self.path, self.workdir))

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """This job alone is at the run, while the block lasts.

        Raises:
          Busy: another is.
          UserError: some processes do not see the directory.
        """
        path = self._file(LOCK)
        with contextlib.ExitStack() as lock:

            def claim() -> bool:
                ours = lock.enter_context(locks.claimed(path))
                if ours:
                    files.sweep(self.path)
                return ours

            if not processes.decided(claim):
                raise Busy(f"another job is at the run in {self.path}")
            processes.check_shared(path)
            yield

    def check_data(self, data: Dataset) -> tuple[dict[str, Any], list[str]]:
        """The fingerprint of the run's data, and lines to say of it.

        Raises:
          UserError: as `sws_jax.jobs.fingerprints.check`.
        """
        return fingerprints.check(self.path, self.config, self.workdir, data)

    def check_finished(
        self,
        open_data: Callable[[], Dataset | None],
        fingerprint_of: Callable[[Dataset], dict[str, Any]] = fingerprint.take,
    ) -> list[str]:
        """Compares a finished run with its data, as far as that still exists.

        Args, result and errors are those of `sws_jax.jobs.fingerprints.check_finished`.
        """
        return fingerprints.check_finished(
            self.path, self.config, open_data, fingerprint_of
        )

    def begin(
        self, config: ml_collections.ConfigDict, data: dict[str, Any]
    ) -> dict[str, Any]:
        """Writes what the run is.

        Args:
          config: of the run, with the network that it really has.
          data: its fingerprint.

        Returns:
          The fields that may change on the way, as the run began with them.
        """

        def write() -> dict[str, Any]:
            now = documents.plain(config.to_dict())
            beginning = begun.read_beginning(self.path) or differences.record(
                now, **begun.of_job(self.workdir)
            )
            inputs = {**self.inputs, records.DATA: data, records.BEGUN: beginning}
            # The config comes last: of a run that older software began, it alone says
            # how, until the inputs do.
            files.write_json(self._file(INPUTS), inputs)
            files.write_json(self._file(CONFIG), now)
            return beginning

        return processes.decided(write)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result, the last file of a run; in the first process alone."""
        files.write_json(self._file(RESULT), result)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)


def refuse_other(
    directory: str, config: ml_collections.ConfigDict, workdir: str
) -> None:
    """Refuses a directory that holds a run of another config or other files.

    Args:
      directory: of the run.
      config: of the run.
      workdir: where ``run:NAME`` paths of the config are found.

    Raises:
      UserError: naming the fields, or the files.
    """
    advice = "take another --workdir, or remove it"
    path = os.path.join(directory, CONFIG)
    if not paths.exists(path):
        kept = [name for name in _OF_A_RUN if _holds(directory, name)]
        if kept:
            raise UserError(
                f"{directory} holds {' and '.join(kept)} and no {CONFIG} to say of "
                f"which run: restore it, or {advice}"
            )
        return
    different = differing(config, path)
    if different:
        raise UserError(
            f"{directory} holds a run with another config (it differs in "
            f"{', '.join(different)}): {advice}"
        )
    if paths.exists(os.path.join(directory, RESULT)):
        _refuse_recomputing(directory, config)
    theirs = records.read_inputs(directory)
    ours = places.inputs(config, workdir)
    replaced = [name for name in ours if theirs.get(name, ours[name]) != ours[name]]
    if replaced:
        raise UserError(
            f"{directory} holds a run that started from another file than "
            f"{', '.join(replaced)} is now: {advice}"
        )


def differing(config: ml_collections.ConfigDict, path: str) -> list[str]:
    """Fields in which a written config differs and that change what is computed.

    Args:
      config: of a run or of a job.
      path: of a ``config.json``; nothing differs from one that is not there.
    """
    if not paths.exists(path):
        return []
    beginning = begun.read_beginning(os.path.dirname(path))
    older, later = beginning["older"], beginning["later"]
    written = records.read_config(path)
    return differences.between(config, written, older=older, later=later)


def _refuse_recomputing(directory: str, config: ml_collections.ConfigDict) -> None:
    """Refuses a finished run that is asked for as it was not computed."""
    written = records.read_config(os.path.join(directory, CONFIG))
    for name, before, now in differences.recomputed(config, written):
        raise UserError(
            f"{directory} holds a finished run with {name} {before}, and {now} "
            f"is asked for: ask for {before}, take another --workdir, or remove it"
        )


def _holds(directory: str, name: str) -> bool:
    """Whether a directory holds that file, or that directory with something in it."""
    path = os.path.join(directory, name)
    return bool(paths.names(path)) if paths.is_dir(path) else paths.exists(path)
