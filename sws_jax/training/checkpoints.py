"""Checkpoints of a run, written by orbax, with a checksum of each array.

The items of a checkpoint are ``params``, ``opt``, ``ema`` where there is one, ``own``
where the objective has parameters of its own, ``clock`` and ``meta``. The data needs
none, as its position is the step. Orbax writes a checkpoint whole or not at all, but
does not notice a bit that flips afterwards. The checksums in ``meta`` notice it, on any
mesh and in any number of processes, and ``meta`` has a checksum of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from sws_jax import private, trees
from sws_jax.errors import Stopped, UserError
from sws_jax.models.description import Description
from sws_jax.runtime import processes
from sws_jax.storage import documents, paths, refusals
from sws_jax.storage.files import Unsent, Unwritable
from sws_jax.storage.names import BROKEN, CHECKPOINTS
from sws_jax.training import checksums, orbax_errors
from sws_jax.training.orbax_errors import BrokenCheckpoint

_LAYOUT = "stacked"
_POLL_SECONDS = 0.02
_WRITERS_SECONDS = 30.0  # to wait for other writers after one has failed
_NAMES = 4  # of missing leaves, and of surplus ones, in a refusal
_log = logging.getLogger(__name__)


class Saved(NamedTuple):
    """A checkpoint that was read.

    Attributes:
      step: updates behind it.
      items: those of ``params``, ``opt``, ``ema`` and ``own`` that were asked for.
      clock: as it was saved.
    """

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
      read_only: change no file, as the run may be under way.

    The one with the best ``val_top1`` is kept in any case.
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
        self._failed = False  # whether a write has failed, and that was raised
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
            os.path.join(self._directory, CHECKPOINTS), options=options
        )

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        return sorted(processes.decided(lambda: list(self._manager.all_steps())))

    def best_step(self) -> int | None:
        """The step of the checkpoint with the best ``val_top1``, if there is any."""
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
        """Starts to write a checkpoint; if an earlier write failed, that is raised.

        Args:
          step: updates made.
          items: ``params``, ``opt`` and, if there are any, ``ema`` and ``own``.
          clock: of `sws_jax.training.history.History`.
          description: of the network with these weights.
          val_top1: by which the best is kept; -1 where it was not measured.

        Raises:
          Unwritable: this or an earlier checkpoint cannot be written; complete ones
            stay.
        """
        self.wait()
        meta = {
            "layout": _LAYOUT,
            "description": description.to_dict(),
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
        """The newest checkpoint that is whole; broken ones are moved away, and logged.

        Args:
          like: for each item, abstract arrays with the shardings to restore onto.

        Returns:
          None where no checkpoint is whole.

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
        """Reads one checkpoint and checks it against its checksums.

        Raises:
          BrokenCheckpoint: it cannot be read, or something in it has changed.
          UserError: it is of another network.
        """
        with orbax_errors.reading():
            meta = self._meta(step)
        for name, tree in like.items():
            saved_names = set(meta["checksums"].get(name, {}))
            _refuse_other(step, name, set(trees.leaf_names(tree)), saved_names)
        with orbax_errors.reading():
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
        """Reads a checkpoint that the end of a run needs, as `restore` does.

        Raises:
          Stopped: the checkpoint is broken. It and all later ones were moved away, so
            that the same command trains from an earlier one.
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
        """The description of a step's weights."""
        with orbax_errors.reading():
            data = self._meta(step)["description"]
        return Description.from_dict(data)

    def wait(self) -> None:
        """Waits until all checkpoints are written; a failed write is raised, once."""
        if not self._failed:
            with self._writing():
                # A process whose write has failed must not wait with the others.
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
        """Raises `Unwritable` for whatever storage raises where a write fails."""
        try:
            yield
        except Exception as error:  # groups of errors among them
            self._failed = True
            if processes.is_loss(error) or _is_no_disk(error):
                raise
            folder = os.path.join(self._directory, CHECKPOINTS)
            refused = orbax_errors.is_refused(error)
            kind = Unsent if paths.is_remote(folder) and not refused else Unwritable
            failure = kind(f"a checkpoint in {folder}", error)
            orbax_errors.forget(error)
            if jax.process_count() == 1:  # else others may still write there
                private.join_writers(_WRITERS_SECONDS)
                # A bucket that does not answer cannot be cleaned either; the next start
                # does that.
                with contextlib.suppress(refusals.Unreachable, UserError):
                    orbax_errors.remove_unfinished(folder)
                    self._manager.reload()
            raise failure from None

    # The manager's own restore is not used. It ends in a barrier, in which the others
    # would wait for a process that cannot read its part.

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
        """Moves checkpoints with damaged metrics away: orbax would refuse to start."""
        steps = processes.decided(lambda: _unmeasured(self._directory))
        if steps:
            self._move_aside(steps)
        if steps and processes.is_first():
            _log.warning(
                "the metrics of checkpoints are damaged: the checkpoint of step %s is "
                "broken and was moved to %s",
                ", ".join(map(str, steps)),
                os.path.join(self._directory, BROKEN),
            )

    def _set_aside(self, steps: Sequence[int]) -> None:
        self._move_aside(steps)
        self._manager.reload()

    def _move_aside(self, steps: Sequence[int]) -> None:
        def move() -> None:
            for step in steps:
                source = os.path.join(self._directory, CHECKPOINTS, str(step))
                target = os.path.join(self._directory, BROKEN, str(step))
                paths.move(source, target)

        processes.first_does(move)


class _Manager(private.KeepsFailure, ocp.CheckpointManager):
    """Leaves notices of preemption to the run, which looks for them itself."""

    def reached_preemption(self, step: int) -> bool:
        return False


def load_params(
    directory: str, step: int | None, make_abstract
) -> tuple[int, trees.Tree, Description]:
    """The weights alone of a run's checkpoint, on this machine's first device.

    Args:
      directory: of the run.
      step: of the checkpoint; None takes the newest that is whole.
      make_abstract: from a spec to the abstract tree of its parameters.

    Returns:
      The step, the weights and their description.

    Raises:
      UserError: there is no such checkpoint.
    """
    on_first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
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
                    lambda leaf: jax.ShapeDtypeStruct(
                        leaf.shape, leaf.dtype, sharding=on_first
                    ),
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
    """Whether not the storage has failed, but memory or the program."""
    no_device_memory = jax.errors.JaxRuntimeError
    kinds = (MemoryError, TypeError, AttributeError, no_device_memory)
    return isinstance(error, kinds)


def _digest(document: dict[str, Any]) -> str:
    """A digest of a JSON object, the same once it was written and read."""
    text = json.dumps(document, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _unmeasured(directory: str) -> list[int]:
    """Steps of the checkpoints whose metrics are not those that were saved."""
    damaged = []
    folder = os.path.join(directory, CHECKPOINTS)
    for name in paths.folders(folder):
        path = os.path.join(folder, name, "metrics", "metrics")
        if name.isdigit() and paths.exists(path):
            try:
                measured = float(_best(documents.read_json(path)))
            except (UserError, KeyError, TypeError, ValueError):
                damaged.append(int(name))
                continue
            # Whether `meta` itself is damaged is seen when it is restored.
            with contextlib.suppress(OSError, UserError, KeyError):
                meta = documents.read_json(
                    os.path.join(folder, name, "meta", "metadata")
                )
                if meta["val_top1"] != measured:
                    damaged.append(int(name))
    return sorted(damaged)


def _best(metrics: dict[str, float]) -> float:
    return metrics["val_top1"]


def _refuse_other(step: int, item: str, wanted: set[str], saved: set[str]) -> None:
    """Refuses an item of a checkpoint with other leaves than a network has."""
    if wanted == saved:
        return
    lines = _few("-", wanted - saved) + _few("+", saved - wanted)
    raise UserError(
        f"the checkpoint of step {step} holds the {item} of another network "
        f"(- missing, + surplus): {'; '.join(lines)}"
    )


def _few(sign: str, names: set[str]) -> list[str]:
    """A line for each of the first names, and one for how many there are besides."""
    lines = [f"{sign} {name}" for name in sorted(names)[:_NAMES]]
    more = len(names) - len(lines)
    return lines + ([f"{sign} {more} more"] if more else [])
