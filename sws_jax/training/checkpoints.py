"""Checkpoints of a run: orbax, asynchronous, each array with a checksum.

Items of one checkpoint: ``params``, ``opt``, ``ema`` (if kept), ``clock`` and
``meta``. The data needs none: its position is the step. Orbax writes a checkpoint
whole or not at all, but does not notice a bit that flips afterwards: the checksums in
``meta``, which has one of its own, do, on whatever mesh and in however many processes
it is read.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from sws_jax import private, specs, trees
from sws_jax.errors import Stopped, UserError
from sws_jax.models.description import Description
from sws_jax.runtime import processes
from sws_jax.storage import documents, paths, refusals
from sws_jax.storage.files import Unsent, Unwritable
from sws_jax.training import checksums

DIRECTORY = "checkpoints"
BROKEN = "broken_checkpoints"
_LAYOUT = "stacked"
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of what orbax is writing
_COMMITTED = "commit_success.txt"  # in a bucket, in what it has written
_POLL_SECONDS = 0.02
_NAMES = 4  # of each kind, in a refusal
_WRITERS_SECONDS = 30.0  # for which a write that has failed elsewhere is waited
_log = logging.getLogger(__name__)


class Saved(NamedTuple):
    """What a checkpoint gives back; `items` are ``params``, ``opt``, ``ema``."""

    step: int
    items: dict[str, trees.Tree]
    clock: dict[str, Any]


class Checkpoints:
    """The checkpoints in one run's directory.

    Args:
      directory: of the run; they go into ``checkpoints/`` in it.
      keep_last: newest checkpoints to keep; more than one, so that a broken newest
        has one before it.
      keep_steps: steps whose checkpoints stay for good.
      read_only: touch nothing, for looking at a run that may be under way.

    The one with the best ``val_top1`` is always kept.
    """

    def __init__(
        self,
        directory: str,
        *,
        keep_last: int = 2,
        keep_steps: Sequence[int] = (),
        read_only: bool = False,
    ):
        self._directory = paths.absolute(directory)
        self._failed = False  # a write has, and it was said
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(max(keep_last, 1)),
                checkpoint_managers.CustomSteps(list(keep_steps)),
                checkpoint_managers.BestN(get_metric_fn=_best, n=1),
            ]
        )
        if not read_only:
            self._set_unmeasured_aside()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else policy,
            best_fn=None if read_only else _best,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True,
        )
        self._manager = _Manager(
            os.path.join(self._directory, DIRECTORY), options=options
        )

    def steps(self) -> list[int]:
        """Of all complete checkpoints, oldest first."""
        return sorted(processes.decided(lambda: list(self._manager.all_steps())))

    def best_step(self) -> int | None:
        return processes.decided(self._manager.best_step)

    def save(
        self,
        step: int,
        items: dict[str, trees.Tree],
        *,
        clock: dict[str, Any],
        description: Description,
        val_top1: float,
    ) -> None:
        """Starts writing a checkpoint; a failed earlier write surfaces here.

        Args:
          step: updates made.
          items: ``params``, ``opt`` and, if kept, ``ema``.
          clock: of `sws_jax.training.metrics.Clock`, and whatever else of a run goes
            on.
          description: of the network as it is now.
          val_top1: by which the best is kept; -1 where it was not measured.

        Raises:
          Unwritable: this or an earlier one cannot be written; the complete ones stay.
        """
        self.wait()
        meta = {
            "layout": _LAYOUT,
            "description": specs.to_dict(description),
            "checksums": {name: checksums.of(tree) for name, tree in items.items()},
            "clock": _digest(clock),
            "val_top1": val_top1,
        }
        meta["digest"] = _digest(meta)
        args: dict[str, Any] = {k: ocp.args.StandardSave(v) for k, v in items.items()}
        args["clock"] = ocp.args.JsonSave(clock)
        args["meta"] = ocp.args.JsonSave(meta)
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(**args),
                metrics={"val_top1": val_top1},
                force=True,
            )

    def restore_newest(self, like: dict[str, trees.Tree]) -> Saved | None:
        """The newest checkpoint that is whole; broken ones are set aside, loudly.

        Args:
          like: for each item, abstract arrays with the shardings to restore onto.

        Returns:
          None where there is no usable checkpoint.

        Raises:
          UserError: the newest readable one is of another network.
        """
        for step in reversed(self.steps()):
            try:
                return self.restore(step, like)
            except BrokenCheckpoint as error:
                self._set_aside([step])
                older = [s for s in self.steps() if s < step]
                if processes.is_first():
                    _log.warning(
                        "the checkpoint of step %d is broken (%s) and was moved to %s; "
                        "falling back to %s",
                        step,
                        error,
                        os.path.join(self._directory, BROKEN),
                        f"step {older[-1]}" if older else "the start",
                    )
        return None

    def restore(self, step: int, like: dict[str, trees.Tree]) -> Saved:
        """One checkpoint, checked against its checksums.

        Raises:
          BrokenCheckpoint: it cannot be read or an array has changed.
          UserError: it is of another network.
        """
        with _reading():
            meta = self._meta(step)
        for name, tree in like.items():
            saved = meta["checksums"].get(name, {})
            _refuse_other(step, name, set(trees.leaf_names(tree)), set(saved))
        with _reading():
            items = {name: self._tree(step, name, tree) for name, tree in like.items()}
            clock = self._json(step, "clock")
            if _digest(clock) != meta["clock"]:
                raise BrokenCheckpoint("its clock is not what was saved")
        for name, tree in items.items():
            for leaf, checksum in checksums.of(tree).items():
                if checksum != meta["checksums"][name][leaf]:
                    raise BrokenCheckpoint(f"{name}/{leaf} is not what was saved")
        return Saved(step, items, clock)

    def restore_or_redo(self, step: int, like: dict[str, trees.Tree]) -> Saved:
        """As `restore`, for a step that a finished run still needs.

        Raises:
          Stopped: the checkpoint is broken; it and all later ones were set aside,
            so that the same command trains from before it.
        """
        try:
            return self.restore(step, like)
        except BrokenCheckpoint as error:
            self._set_aside([s for s in self.steps() if s >= step])
            older = self.steps()
            raise Stopped(
                f"the checkpoint of step {step} in {self._directory} is broken "
                f"({error}) and was moved to {BROKEN} with those after it: the same "
                f"command goes on from "
                + (f"step {older[-1]}" if older else "the start")
            ) from None

    def describe(self, step: int) -> Description:
        """What the weights of that step are."""
        with _reading():
            data = self._meta(step)["description"]
        return specs.from_dict(Description, data)

    def wait(self) -> None:
        """Until every save is on disk; a failed one raises, once."""
        if not self._failed:
            with self._writing():
                # (A process whose write has failed must not wait with the others.)
                while jax.process_count() > 1 and self._manager.is_saving_in_progress():
                    if self._manager.failure:
                        raise self._manager.failure
                    time.sleep(_POLL_SECONDS)
                self._manager.wait_until_finished()
                self._manager.check_for_errors()

    def close(self) -> None:
        self.wait()
        if not self._failed:
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What the storage layers raise where a checkpoint cannot be written."""
        try:
            yield
        except Exception as error:  # groups of errors among them
            self._failed = True
            if processes.is_loss(error) or _is_no_disk(error):
                raise
            folder = os.path.join(self._directory, DIRECTORY)
            again = paths.is_remote(folder) and not _is_refused(error)
            kind = Unsent if again else Unwritable
            failed = kind(f"a checkpoint in {folder}", error)
            _forget(error)
            if jax.process_count() == 1:  # others may write there still
                private.join_writers(_WRITERS_SECONDS)
                # (A bucket that is away is so for this too; the next start does it.)
                with contextlib.suppress(refusals.Unreachable, UserError):
                    _remove_unfinished(folder)
                    self._manager.reload()
            raise failed from None

    # (The manager's own reading ends in a barrier: a process that cannot read its part
    # would leave the others waiting there.)

    def _tree(self, step: int, item: str, like: trees.Tree) -> trees.Tree:
        args = ocp.args.StandardRestore(like)
        with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
            return handler.restore(self._item(step, item), args=args)

    def _json(self, step: int, item: str) -> dict[str, Any]:
        args = ocp.args.JsonRestore()
        with contextlib.closing(ocp.JsonCheckpointHandler()) as handler:
            return handler.restore(self._item(step, item), args=args)

    def _item(self, step: int, item: str):
        return self._manager.directory / str(step) / item

    def _meta(self, step: int) -> dict[str, Any]:
        meta = self._json(step, "meta")
        if "digests" in meta:
            raise UserError(
                f"the checkpoint of step {step} in {self._directory} has none of this "
                f"version's checksums: go on with the version that wrote it"
            )
        if meta.pop("digest", None) != _digest(meta):
            raise BrokenCheckpoint("its meta is not what was saved")
        if meta["layout"] != _LAYOUT:
            raise UserError(
                f"the checkpoint of step {step} has the layout {meta['layout']!r} and "
                f"not {_LAYOUT!r}"
            )
        return meta

    def _set_unmeasured_aside(self) -> None:
        """Moves away what orbax would not start with: metrics that are damaged."""
        bad = processes.decided(lambda: _unmeasured(self._directory))
        if bad:
            self._move_aside(bad)
        if bad and processes.is_first():
            _log.warning(
                "the metrics of checkpoints are damaged: the checkpoint of step %s is "
                "broken and was moved to %s",
                ", ".join(map(str, bad)),
                os.path.join(self._directory, BROKEN),
            )

    def _set_aside(self, steps: Sequence[int]) -> None:
        self._move_aside(steps)
        self._manager.reload()

    def _move_aside(self, steps: Sequence[int]) -> None:
        def move() -> None:
            for step in steps:
                source = os.path.join(self._directory, DIRECTORY, str(step))
                target = os.path.join(self._directory, BROKEN, str(step))
                paths.move(source, target)

        processes.first_does(move)


class _Manager(private.KeepsFailure, ocp.CheckpointManager):
    """Leaves notices of preemption to the run, which counts its own questions."""

    def reached_preemption(self, step: int) -> bool:
        return False


class BrokenCheckpoint(Exception):
    """A checkpoint cannot be read back as it was written."""


def load_params(
    directory: str, step: int | None, make_abstract
) -> tuple[int, trees.Tree, Description]:
    """The params alone of a run's checkpoint, on this machine's first device.

    Args:
      directory: of the run.
      step: of the checkpoint; None takes the newest that is whole.
      make_abstract: from a spec to the abstract tree of its params.

    Returns:
      step, params and their description.

    Raises:
      UserError: there is no such checkpoint.
    """
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    manager = Checkpoints(directory, read_only=True)
    try:
        steps = manager.steps()
        if step is not None and step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise UserError(
                f"{directory} has no checkpoint of step {step}; it has {known}"
            )
        for candidate in reversed(steps) if step is None else [step]:
            try:
                description = manager.describe(candidate)
                like = jax.tree.map(
                    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
                    make_abstract(description.spec),
                )
                saved = manager.restore(candidate, {"params": like})
                return candidate, saved.items["params"], description
            except BrokenCheckpoint as error:
                _log.warning("checkpoint %d is broken (%s)", candidate, error)
        raise UserError(f"{directory} has no checkpoint that can be read")
    finally:
        manager.close()


def _is_no_disk(error: Exception) -> bool:
    """Whether it is no storage that has failed, but memory, or the program."""
    # (JAX's own: no memory on a device.)
    kinds = (MemoryError, TypeError, AttributeError, jax.errors.JaxRuntimeError)
    return isinstance(error, kinds)


def _is_refused(error: BaseException) -> bool:
    """Whether a bucket has refused to be written, which it will do again."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_refused, error.exceptions))
    # (The words are those of tensorstore, which has one kind of error.)
    words = re.search(r"\b(PERMISSION_DENIED|UNAUTHENTICATED)\b", str(error))
    rights = refusals.verdict(error) is refusals.Cause.RIGHTS
    inner = error.__cause__
    return rights or words is not None or bool(inner and _is_refused(inner))


def _digest(said: dict[str, Any]) -> str:
    """Of a JSON object, as it is read back."""
    text = json.dumps(said, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _remove_unfinished(folder: str) -> None:
    """Removes what a write that has failed leaves in a folder of checkpoints."""
    for name in paths.folders(folder):
        path = os.path.join(folder, name)
        if _is_unfinished(path):
            paths.remove(path)


def _is_unfinished(path: str) -> bool:
    """Whether orbax has begun a checkpoint there, and not ended it."""
    if paths.is_remote(path):  # where nothing is renamed: an object marks the end
        return not paths.exists(os.path.join(path, _COMMITTED))
    return _UNFINISHED in path


def _unmeasured(directory: str) -> list[int]:
    """Steps of the checkpoints whose metrics are not those that were saved."""
    bad = []
    folder = os.path.join(directory, DIRECTORY)
    for name in paths.folders(folder):
        path = os.path.join(folder, name, "metrics", "metrics")
        if name.isdigit() and paths.exists(path):
            try:
                measured = float(_best(documents.read_json(path)))
            except (UserError, KeyError, TypeError, ValueError):
                bad.append(int(name))
                continue
            # (What is wrong with `meta` itself is found when it is restored.)
            with contextlib.suppress(OSError, UserError, KeyError):
                meta = documents.read_json(
                    os.path.join(folder, name, "meta", "metadata")
                )
                if meta["val_top1"] != measured:
                    bad.append(int(name))
    return sorted(bad)


def _best(metrics: dict[str, float]) -> float:
    return metrics["val_top1"]


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Whatever the storage layers raise over damaged bytes, by one name.

    Damage that one process meets breaks the checkpoint for all.
    """
    broken: BrokenCheckpoint | None = None
    try:
        yield
    except (UserError, MemoryError):
        raise
    except BrokenCheckpoint as error:
        broken = error
    except Exception as error:  # groups of errors among them
        if processes.is_loss(error):
            raise
        text = " ".join(str(error).split())[:160]
        broken = BrokenCheckpoint(f"{type(error).__name__}: {text}")
        _forget(error)
    failed = [n for n, bad in enumerate(processes.everyone(broken is not None)) if bad]
    if failed:
        raise broken or BrokenCheckpoint(f"as process {failed[0]} found")


def _forget(error: BaseException) -> None:
    """Drops an error with the half-done reads that orbax leaves behind.

    Collected later, at exit perhaps, each of them would print a traceback.
    """
    traceback.clear_frames(error.__traceback__)
    for part in getattr(error, "exceptions", ()):
        traceback.clear_frames(part.__traceback__)
    error.__traceback__ = error.__context__ = error.__cause__ = None
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _refuse_other(step: int, item: str, wanted: set[str], found: set[str]) -> None:
    if wanted == found:
        return
    lines = _few("-", wanted - found) + _few("+", found - wanted)
    raise UserError(
        f"the checkpoint of step {step} holds the {item} of another network "
        f"(- missing, + surplus): {'; '.join(lines)}"
    )


def _few(sign: str, names: set[str]) -> list[str]:
    """A line for each of the first names, and one for how many there are besides."""
    lines = [f"{sign} {name}" for name in sorted(names)[:_NAMES]]
    more = len(names) - len(lines)
    return lines + ([f"{sign} {more} more"] if more else [])
