"""The directory of a run: whose it is, what is written in it, and who is at it.

With several processes all of them ask, and the first looks and writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from sws_jax.data import Dataset, fingerprint
from sws_jax.errors import UserError
from sws_jax.jobs import fields, places, recipes, start, teacher
from sws_jax.models import weights
from sws_jax.runtime import processes
from sws_jax.runtime.rendezvous import numbers
from sws_jax.specs import AuxViTSpec, ViTSpec
from sws_jax.storage import documents, files, locks, paths
from sws_jax.training import metrics
from sws_jax.training.checkpoints import DIRECTORY as CHECKPOINTS

RESULT = "result.json"
CONFIG = "config.json"
INPUTS = "inputs.json"
DATA, BEGUN = "data", "begun"  # in INPUTS
OPENED = "opened"  # in DATA: how its set was opened
LOCK = "lock"
# What a run writes once its config is there, and nothing else may be lost for.
_KEPT = (RESULT, CHECKPOINTS, teacher.WEIGHTS, places.LEARNGENE, metrics.METRICS)
_HARMLESS = fields.resuming(fields.HARMLESS)
_CHANGEABLE = fields.resuming(fields.CHANGEABLE)
_INSIST = "init.insist"
# Fields that a recipe sets to other values than those by which runs were computed
# before the fields were there; a run that began then goes on as it began.
_LATER = ("model.patch_bias_init",)
# What the documents of a run hold, as far as it is read; see `documents.misfit`.
_SCORE = {"epochs": float, "top1": float, "top5": float, "loss": float, "count": float}
_RESULT_HOLDS = {
    **dict.fromkeys(("name", "network", "method", "profile", "dataset"), str),
    **dict.fromkeys(("depth", "seed", "params", "stored_params"), int),
    **dict.fromkeys(("epochs", "layer_epochs", "val_top1", "seconds"), float),
    "hardware": str,
    "versions": {"jax?": str},
    "plan": [int],
    "test": [_SCORE, ...],
    "role?": str,
    "stages?": [int],
    "dtypes?": [{"dtype": str, "from_step": int}],
    "unreadable?": int,
    "unreadable_from?": (int, type(None)),
}
_BEGUN_HOLDS = {
    "older": bool,
    "later": [frozenset(_LATER)],
    **dict.fromkeys(_CHANGEABLE, str),
}
_INPUTS_HOLDS = {f"{DATA}?": fingerprint.HOLDS, f"{BEGUN}?": _BEGUN_HOLDS}


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
            return read_result(path) if paths.exists(path) else None

        return processes.decided(known)

    def finished(self) -> dict[str, Any]:
        """The result of a run that has just ended; nothing else is read again."""
        return processes.decided(lambda: read_result(self._file(RESULT)))

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Digests of the files that the run starts from, as it found them."""
        return places.inputs(self.config, self.workdir)

    def check_inputs(self) -> None:
        """Refuses files that were replaced while the run read them."""

        def changed() -> list[str]:
            now = places.inputs(self.config, self.workdir)
            then = self.inputs
            return [field for field in then if now.get(field) != then[field]]

        if found := processes.decided(changed):
            raise UserError(
                f"the file of {found[0]} has changed while {self.config.name} read it: "
                f"start it again once the file is whole"
            )

    def is_older(self) -> bool:
        """As the function of that name, in all processes."""
        return processes.decided(lambda: is_older(self.path, self.workdir))

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
                mine = held.enter_context(locks.claimed(lock))
                if mine:
                    files.sweep(self.path)
                return mine

            if not processes.decided(claim):
                raise Busy(f"another job is at the run in {self.path}")
            processes.check_shared(lock)
            yield

    def check_data(self, data: Dataset) -> tuple[dict[str, Any], list[str]]:
        """The fingerprint of the run's data, and lines to say of it.

        Raises:
          UserError: the run, or another of its job, began on other data; or processes
            read different ones.
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

        def compared() -> tuple[dict[str, Any], list[str]]:
            if (sibling := self._sibling()) is not None:
                refuse_other_data(sibling, data.name, now)
            then = known_data(self.path)
            if then is None:  # a run that has not begun, or did so with older software
                return now, []
            refuse_other_data(self.path, data.name, now)
            return fingerprint.completed(then, now), self._known_better(then, data.name)

        known, told = processes.decided(compared)
        return {**known, OPENED: _opening(self.config)}, told

    def check_finished(
        self,
        glance: Callable[[], Dataset | None],
        take: Callable[[Dataset], dict[str, Any]] = fingerprint.take,
    ) -> list[str]:
        """Holds a finished run to its data, as far as that is still there.

        Args:
          glance: opens the run's data; None where that would take long.
          take: its fingerprint.

        Returns:
          Lines to say.

        Raises:
          UserError: the run was trained on other data.
        """

        def compared() -> list[str]:
            then = known_data(self.path)
            if then is None:
                return []
            try:
                data = glance()
            except UserError as error:
                return [
                    f"{self.config.name}: is finished, and not compared with its data, "
                    f"which cannot be read ({error})"
                ]
            if data is None:
                return []
            now = take(data)
            refuse_other_data(self.path, data.name, now)
            if told := self._known_better(then, data.name):
                inputs = _inputs(self.path)
                known = fingerprint.completed(then, now)
                inputs[DATA] = {**known, OPENED: _opening(self.config)}
                # (What is only read, from another's directory, is read all the same.)
                with contextlib.suppress(files.Unwritable):
                    files.write_json(self._file(INPUTS), inputs)
            return told

        return processes.decided(compared)

    def _known_better(self, then: dict[str, Any], name: str) -> list[str]:
        """What is said where older software noted less of the data."""
        if fingerprint.is_whole(then):
            return []
        return [
            f"{self.config.name}: {name} is what this run began on as far as older "
            f"software noted it, by a few images; all labels and names are noted now"
        ]

    def _sibling(self) -> str | None:
        """The directory of another run of the job that began on the same source.

        (One is enough: each was compared with one before it.)
        """
        for name in paths.folders(self.workdir):
            path = os.path.join(self.workdir, name)
            if paths.absolute(path) == paths.absolute(self.path):
                continue
            then = known_data(path)
            if then is not None and then.get(OPENED) == _opening(self.config):
                return path
        return None

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
            begun = _begun(self.path) or _record(now, **_of_job(self.workdir))
            inputs = {**self.inputs, DATA: data, BEGUN: begun}
            # (Of a directory of older software the config alone says what it is.)
            files.write_json(self._file(INPUTS), inputs)
            files.write_json(self._file(CONFIG), now)
            return begun

        return processes.decided(write)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result, the last file of a run; in the first process alone."""
        files.write_json(self._file(RESULT), result)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)


def known_data(directory: str) -> dict[str, Any] | None:
    """The fingerprint of the data that the run of a directory began on, if any."""
    return _inputs(directory).get(DATA)


def other_data(directory: str, name: str, now: dict[str, Any]) -> str:
    """What is wrong, in words, where the run of a directory began on other data.

    Args:
      directory: of the run.
      name: of the set that it would go on with, and `now` its fingerprint.
    """
    then = known_data(directory)
    names = fingerprint.differing(then, now) if then else []
    if not names:
        return ""
    return (
        f"{directory} holds a run on other data than {name} is now (other "
        f"{', '.join(names)})"
    )


def refuse_other_data(directory: str, name: str, now: dict[str, Any]) -> None:
    """Refuses a set that is not the one that the run of a directory began on.

    Raises:
      UserError: see `other_data`.
    """
    if wrong := other_data(directory, name, now):
        raise UserError(f"{wrong}: bring the old data back, or take another --workdir")


def _opening(config: ml_collections.ConfigDict) -> list[Any]:
    """The fields that decide which images a run has: equal ones open the same set."""
    names = ("source", "directory", "val_fraction", "decoder")
    return [config.data[name] for name in names]


def read_result(path: str) -> dict[str, Any]:
    """The result of a finished run, with all that a report takes from it.

    Args:
      path: of a ``result.json`` that is there.

    Raises:
      UserError: something is missing in it, or of another type.
    """
    return documents.read_json(path, holds=_RESULT_HOLDS)


def _inputs(directory: str) -> dict[str, Any]:
    """What a run or a job started from; nothing where that was not written."""
    path = os.path.join(directory, INPUTS)
    return documents.read_json(path, holds=_INPUTS_HOLDS) if paths.exists(path) else {}


def _config(path: str) -> dict[str, Any]:
    """A written config, in which groups of fields are groups; others are compared."""
    groups = {k: v for k, v in _defaults().items() if isinstance(v, dict)}
    return documents.read_json(path, holds={f"{name}?": {} for name in groups})


def refuse_other(
    directory: str, config: ml_collections.ConfigDict, workdir: str
) -> None:
    """Refuses a directory that holds a run of another config or other files."""
    advice = "take another --workdir, or remove it"
    path = os.path.join(directory, CONFIG)
    if not paths.exists(path):
        begun = [n for n in _KEPT if _holds(directory, n)]
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
    if paths.exists(os.path.join(directory, RESULT)):
        _refuse_recomputing(directory, config)
    theirs = _inputs(directory)
    mine = places.inputs(config, workdir)
    names = [name for name in mine if theirs.get(name, mine[name]) != mine[name]]
    if names:
        raise UserError(
            f"{directory} holds a run that started from another file than "
            f"{', '.join(names)} is now: {advice}"
        )


def _refuse_recomputing(directory: str, config: ml_collections.ConfigDict) -> None:
    """Refuses a finished run that is asked for as it was not computed."""
    now = documents.plain(config.to_dict())
    then = documents.merged(now, _config(os.path.join(directory, CONFIG)))
    for name in _CHANGEABLE:
        before, wanted = _value(then, name), _value(now, name)
        if before != wanted:
            raise UserError(
                f"{directory} holds a finished run with {name} {before}, and {wanted} "
                f"is asked for: ask for {before}, take another --workdir, or remove it"
            )


def as_begun(
    directory: str, config: ml_collections.ConfigDict, workdir: str
) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config with which a run goes on that older software began, or its job.

    Args:
      directory: of the run.
      config: as it is asked for.
      workdir: of the job.

    Returns:
      The config, and a line for each field that it has otherwise.
    """

    def look() -> dict[str, Any]:
        later = (_begun(directory) or _of_job(workdir))["later"]
        return {"later": later, "against": _against(directory, config)}

    found, told, default = processes.decided(look), [], recipes.run()
    made = config.copy_and_resolve_references()
    for name in found["later"]:
        group, _, field = name.rpartition(".")
        before, wanted = _value(default, name), _value(config, name)
        if before != wanted and field not in start.followed(config, insist=False):
            with made.unlocked():
                _value(made, group)[field] = before
            told.append(
                f"{config.name}: goes on as it began, with {name} {before}: it was "
                f"begun before there was {wanted}"
            )
    for name, asked, shown in found["against"]:
        told.append(
            f"{config.name}: was trained with model.{name} {shown}, where the config "
            f"says {asked}"
        )
    return made, told


def _against(directory: str, config) -> list[tuple[str, str, str]]:
    """What a finished run has otherwise that older software trained."""
    done = paths.exists(os.path.join(directory, RESULT))
    if not (done and _begun(directory).get("older")):
        return []
    for name in (teacher.WEIGHTS, places.LEARNGENE):
        path = os.path.join(directory, name)
        if paths.is_file(path) and (config.init.network or config.init.learngene):
            spec = weights.describe(path).spec
            assert isinstance(spec, ViTSpec | AuxViTSpec)  # no other is trained
            return start.against(config, spec)
    return []


def is_older(directory: str, workdir: str) -> bool:
    """Whether software began a run, or its job, that let files decide without a word.

    Args:
      directory: of the run.
      workdir: of the job.
    """
    return bool((_begun(directory) or _of_job(workdir))["older"])


def keep_begun(workdir: str) -> None:
    """Notes that older software began a job, before its config is written anew."""
    if _of_job(workdir)["older"]:
        path = os.path.join(workdir, INPUTS)
        files.write_json(path, {BEGUN: _begun(workdir)})


def _of_job(workdir: str) -> dict[str, Any]:
    """What a run that has not begun has from its job."""
    begun = _begun(workdir)
    return {"older": begun.get("older", False), "later": begun.get("later", [])}


def _begun(directory: str) -> dict[str, Any]:
    """How the run or the job of a directory began; nothing where none has.

    Kept for as long as the run goes on, since its config is written anew at each start.
    """
    known = _inputs(directory).get(BEGUN)
    if known is not None:
        return known
    path = os.path.join(directory, CONFIG)
    if not paths.exists(path):
        return {}
    then = _config(path)
    older = _value(then, _INSIST, default=None) is None
    later = [name for name in _LATER if _value(then, name, default=None) is None]
    return _record(documents.merged(_defaults(), then), older=older, later=later)


def _record(config: dict[str, Any], *, older: bool, later: list[str]) -> dict[str, Any]:
    """What `_begun` gives back.

    Args:
      older: see `is_older`.
      later: fields of `_LATER` that the software did not know.
    """
    changeable = {name: _value(config, name) for name in _CHANGEABLE}
    return {"older": older, "later": later, **changeable}


def _defaults() -> dict[str, Any]:
    return documents.plain(recipes.run().to_dict())


def _value(tree: Any, name: str, **absent: Any) -> Any:
    """What a dotted name stands for in nested mappings.

    Args:
      absent: ``default``, where there may be none.
    """
    for part in name.split("."):
        if absent and part not in tree:
            return absent["default"]
        tree = tree[part]
    return tree


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
    begun = _begun(os.path.dirname(path))
    theirs = documents.merged(_defaults(), _config(path))
    mine = documents.plain(config.to_dict())
    found = documents.differing(_uninsisted(theirs), _uninsisted(mine))
    followed = start.followed(config, insist=not begun["older"])
    allowed = {*_HARMLESS, *_CHANGEABLE, *begun["later"]}
    allowed |= {f"model.{name}" for name in followed}
    return [name for name in found if name not in allowed]


def _uninsisted(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what was asked for by name: it is compared by its values."""
    made = {k: _uninsisted(v) if isinstance(v, dict) else v for k, v in config.items()}
    if isinstance(made.get("init"), dict):
        made["init"].pop("insist", None)
        if not made["init"]:
            del made["init"]
    return made
