"""Holds a run to the data that it began on, by the fingerprint in its directory."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import ml_collections

from sws_jax.data import Dataset, fingerprint
from sws_jax.errors import UserError
from sws_jax.jobs import records
from sws_jax.runtime import processes
from sws_jax.runtime.rendezvous import numbers
from sws_jax.storage import files, paths
from sws_jax.storage.names import INPUTS

_OPENED = "opened"  # beside a fingerprint: how the set was opened


def check(
    directory: str, config: ml_collections.ConfigDict, workdir: str, data: Dataset
) -> tuple[dict[str, Any], list[str]]:
    """The fingerprint of a run's data, and lines to say of it.

    Args:
      directory: of the run.
      config: of the run.
      workdir: of its job.
      data: that it is to train on.

    Raises:
      UserError: the run, or another of its job, began on other data; or processes
        read different ones.
    """
    now = fingerprint.take(data)
    text = json.dumps(now, sort_keys=True).encode()
    digests = processes.everyone(zlib.crc32(text) >> 1)
    others = [n for n, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise UserError(
            f"{numbers(others)} of {len(digests)} read other data than process 0: give "
            f"all hosts the same {data.name}"
        )

    def compared() -> tuple[dict[str, Any], list[str]]:
        if (sibling := _sibling(directory, config, workdir)) is not None:
            refuse_other_data(sibling, data.name, now)
        then = known_data(directory)
        if then is None:  # the run has not begun, or older software began it
            return now, []
        refuse_other_data(directory, data.name, now)
        return fingerprint.completed(then, now), _known_better(config, then, data.name)

    known, lines = processes.decided(compared)
    return {**known, _OPENED: _opening(config)}, lines


def check_finished(
    directory: str,
    config: ml_collections.ConfigDict,
    open_data: Callable[[], Dataset | None],
    fingerprint_of: Callable[[Dataset], dict[str, Any]],
) -> list[str]:
    """Holds a finished run to its data, as far as that is still there.

    Args:
      directory: of the run.
      config: of the run.
      open_data: opens the run's data; None where that would take long.
      fingerprint_of: takes the fingerprint of a set.

    Returns:
      Lines to say.

    Raises:
      UserError: the run was trained on other data.
    """

    def compared() -> list[str]:
        then = known_data(directory)
        if then is None:
            return []
        try:
            data = open_data()
        except UserError as error:
            return [
                f"{config.name}: is finished, and not compared with its data, "
                f"which cannot be read ({error})"
            ]
        if data is None:
            return []
        now = fingerprint_of(data)
        refuse_other_data(directory, data.name, now)
        if lines := _known_better(config, then, data.name):
            inputs = records.read_inputs(directory)
            known = fingerprint.completed(then, now)
            inputs[records.DATA] = {**known, _OPENED: _opening(config)}
            # A directory of another user, which may only be read, stops nothing.
            with contextlib.suppress(files.Unwritable):
                files.write_json(os.path.join(directory, INPUTS), inputs)
        return lines

    return processes.decided(compared)


def known_data(directory: str) -> dict[str, Any] | None:
    """The fingerprint of the data that the run of a directory began on, if any."""
    return records.read_inputs(directory).get(records.DATA)


def other_data(directory: str, name: str, now: dict[str, Any]) -> str:
    """A sentence where the run of a directory began on other data; empty else.

    Args:
      directory: of the run.
      name: of the set that it would go on with.
      now: fingerprint of that set.
    """
    then = known_data(directory)
    parts = fingerprint.differing(then, now) if then else []
    if not parts:
        return ""
    return (
        f"{directory} holds a run on other data than {name} is now (other "
        f"{', '.join(parts)})"
    )


def refuse_other_data(directory: str, name: str, now: dict[str, Any]) -> None:
    """Refuses a set that is not the one that the run of a directory began on.

    Raises:
      UserError: see `other_data`.
    """
    if wrong := other_data(directory, name, now):
        raise UserError(f"{wrong}: bring the old data back, or take another --workdir")


def _known_better(
    config: ml_collections.ConfigDict, then: dict[str, Any], name: str
) -> list[str]:
    """A line where the fingerprint is one of older software, which took less."""
    if fingerprint.is_whole(then):
        return []
    return [
        f"{config.name}: {name} is what this run began on as far as older "
        f"software noted it, by a few images; all labels and names are noted now"
    ]


def _sibling(
    directory: str, config: ml_collections.ConfigDict, workdir: str
) -> str | None:
    """The directory of another run of the job that began on the same source.

    One is enough, as each was compared with one before it.
    """
    for name in paths.folders(workdir):
        path = os.path.join(workdir, name)
        if paths.absolute(path) == paths.absolute(directory):
            continue
        then = known_data(path)
        if then is not None and then.get(_OPENED) == _opening(config):
            return path
    return None


def _opening(config: ml_collections.ConfigDict) -> list[Any]:
    """The fields that decide which images a run has: equal ones open the same set."""
    names = ("source", "directory", "val_fraction", "decoder")
    return [config.data[name] for name in names]
