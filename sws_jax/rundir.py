"""The directory of a run: whose it is, what is written in it, and who is at it.

With several processes all of them ask, and the first looks and writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

import ml_collections

from sws_jax import files, paths, places, presets, processes
from sws_jax.checkpoints import DIRECTORY as CHECKPOINTS
from sws_jax.data import Dataset, fingerprint
from sws_jax.errors import UserError
from sws_jax.rendezvous import numbers

RESULT = "result.json"
CONFIG = "config.json"
INPUTS = "inputs.json"
DATA = "data"  # in INPUTS
LOCK = "lock"
# Fields that change how a run is computed or watched, and not what it computes (the
# type of numbers does, and a run may all the same go on in another; it says so).
_HARMLESS = (
    "checkpoint.every_epochs",
    "checkpoint.keep_last",
    "compute.dtype",
    "compute.remat",
    "compute.unroll",
    "data.cache",
    "data.memory_gib",
    "data.threads",
    "data.unreadable",
    "data.workers",
    "log_steps",
    "mesh.data",
    "mesh.dry_run",
    "mesh.fsdp",
    "mesh.tensor",
)


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

        def known() -> dict[str, Any] | None:
            refuse_other(self.path, self.config, self.workdir)
            path = self._file(RESULT)
            return files.read_json(path) if paths.exists(path) else None

        return processes.decided(known)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """This job alone is at the run, while the block lasts.

        Raises:
          Busy: another is.
          UserError: some processes do not see the directory.
        """
        lock = self._file(LOCK)
        with contextlib.ExitStack() as held:

            def claim() -> bool:
                mine = held.enter_context(files.claimed(lock))
                if mine:
                    files.sweep(self.path)
                return mine

            if not processes.decided(claim):
                raise Busy(f"another job is at the run in {self.path}")
            processes.check_shared(lock)
            yield

    def check_data(self, data: Dataset) -> dict[str, Any]:
        """The fingerprint of the run's data.

        Raises:
          UserError: the run began on other data, or processes read different ones.
        """
        now = fingerprint.take(data)
        text = json.dumps(now, sort_keys=True).encode()
        said = processes.everyone(zlib.crc32(text) >> 1)
        other = [n for n, mine in enumerate(said) if mine != said[0]]
        if other:
            raise UserError(
                f"{numbers(other)} of {len(said)} read other data than process 0: give "
                f"all hosts the same {data.name}"
            )

        def compared() -> dict[str, Any]:
            path = self._file(INPUTS)
            then = files.read_json(path).get(DATA) if paths.exists(path) else None
            if then is None:  # a run that has not begun, or did so with older software
                return now
            names = fingerprint.differing(then, now)
            if names:
                raise UserError(
                    f"{self.path} holds a run on other data than {data.name} is now "
                    f"(other {', '.join(names)}): bring the old data back, or take "
                    f"another --workdir"
                )
            return then

        return processes.decided(compared)

    def begin(self, data: dict[str, Any]) -> str:
        """Writes what the run is.

        Args:
          data: its fingerprint.

        Returns:
          The type of numbers that it was computed in until now.
        """

        def write() -> str:
            path, config = self._file(CONFIG), self.config
            before = files.read_json(path) if paths.exists(path) else {}
            files.write_json(path, files.plain(config.to_dict()))
            inputs = {**places.inputs(config, self.workdir), DATA: data}
            files.write_json(self._file(INPUTS), inputs)
            return before.get("compute", {}).get("dtype", config.compute.dtype)

        return processes.decided(write)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result, the last file of a run; in the first process alone."""
        files.write_json(self._file(RESULT), result)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)


def refuse_other(
    directory: str, config: ml_collections.ConfigDict, workdir: str
) -> None:
    """Refuses a directory that holds a run of another config or other files."""
    advice = "take another --workdir, or remove it"
    path = os.path.join(directory, CONFIG)
    if not paths.exists(path):
        begun = [n for n in (RESULT, CHECKPOINTS) if _holds(directory, n)]
        if begun:
            raise UserError(
                f"{directory} holds {' and '.join(begun)} and no {CONFIG} to say of "
                f"which run: restore it, or {advice}"
            )
        return
    names = differing(config, path)
    if names:
        raise UserError(
            f"{directory} holds a run with another config (it differs in "
            f"{', '.join(names)}): {advice}"
        )
    path = os.path.join(directory, INPUTS)
    theirs = files.read_json(path) if paths.exists(path) else {}
    mine = places.inputs(config, workdir)
    names = [name for name in mine if theirs.get(name, mine[name]) != mine[name]]
    if names:
        raise UserError(
            f"{directory} holds a run that started from another file than "
            f"{', '.join(names)} is now: {advice}"
        )


def _holds(directory: str, name: str) -> bool:
    """Whether a directory holds that file, or that directory with something in it."""
    path = os.path.join(directory, name)
    return bool(paths.names(path)) if paths.is_dir(path) else paths.exists(path)


def differing(config: ml_collections.ConfigDict, path: str) -> list[str]:
    """Fields in which a written config differs and that change what is computed.

    A field that the software did not know then had today's default.

    Args:
      config: of a run or of a job.
      path: of a ``config.json``; nothing differs from one that is not there.
    """
    if not paths.exists(path):
        return []
    theirs = files.merged(files.plain(presets.run().to_dict()), files.read_json(path))
    found = files.differing(theirs, files.plain(config.to_dict()))
    return [name for name in found if name not in _HARMLESS]
