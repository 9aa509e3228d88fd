"""Compares the config that a run is asked for with the one that was written for it.

Nothing is read here: a written config is a nested dict, as ``config.json`` holds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_collections

from sws_jax.jobs import fields, model_fields, recipes
from sws_jax.storage import documents

HARMLESS = fields.resuming(fields.HARMLESS)
CHANGEABLE = fields.resuming(fields.CHANGEABLE)
# Fields that a recipe sets to other values than those by which runs were computed
# before the fields were there; a run that began then goes on as it began.
LATER = ("model.patch_bias_init",)
_INSIST = "init.insist"


def defaults() -> dict[str, Any]:
    """The config of a run in which nothing was set."""
    return documents.plain(recipes.run().to_dict())


def value(tree: Any, name: str, **absent: Any) -> Any:
    """The value of a field in nested mappings.

    Args:
      tree: a config, or its nested dict.
      name: of the field, dotted.
      absent: ``default``, where the field may be missing.
    """
    for part in name.split("."):
        if absent and part not in tree:
            return absent["default"]
        tree = tree[part]
    return tree


def between(
    config: ml_collections.ConfigDict,
    written: dict[str, Any],
    *,
    older: bool,
    later: Iterable[str],
) -> list[str]:
    """Fields in which a written config differs and that change what is computed.

    A field that the software did not know then had today's default.

    Args:
      config: of a run or of a job.
      written: its config as it was written.
      older: whether software wrote it that knew no ``init.insist``.
      later: fields of `LATER` that this software did not know.
    """
    theirs = documents.merged(defaults(), written)
    ours = documents.plain(config.to_dict())
    for side in (theirs, ours):
        if "job" in side:
            side["job"] = fields.OLDER_JOBS.get(side["job"], side["job"])
    undecided = model_fields.undecided(config, insist=not older)
    ignored = {*HARMLESS, *CHANGEABLE, *later, *(f"model.{name}" for name in undecided)}
    different = documents.differing(_without_insist(theirs), _without_insist(ours))
    return [name for name in different if name not in ignored]


def recomputed(
    config: ml_collections.ConfigDict, written: dict[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Fields that may change while a run goes on, and differ: (name, before, now)."""
    ours = documents.plain(config.to_dict())
    theirs = documents.merged(ours, written)
    pairs = [(name, value(theirs, name), value(ours, name)) for name in CHANGEABLE]
    return [(name, before, now) for name, before, now in pairs if before != now]


def beginning_of(written: dict[str, Any]) -> dict[str, Any]:
    """How the run began whose config was written by whatever version; see `record`."""
    older = value(written, _INSIST, default=None) is None
    later = [name for name in LATER if value(written, name, default=None) is None]
    return record(documents.merged(defaults(), written), older=older, later=later)


def record(config: dict[str, Any], *, older: bool, later: list[str]) -> dict[str, Any]:
    """How a run begins: its changeable fields, and what its software did not know.

    Args:
      config: of the run.
      older, later: as in `between`.
    """
    changeable = {name: value(config, name) for name in CHANGEABLE}
    return {"older": older, "later": later, **changeable}


def _without_insist(config: dict[str, Any]) -> dict[str, Any]:
    """A config without ``insist`` in any group: fields are compared by their values."""
    copy = {
        key: _without_insist(item) if isinstance(item, dict) else item
        for key, item in config.items()
    }
    if isinstance(copy.get("init"), dict):
        copy["init"].pop("insist", None)
        if not copy["init"]:
            del copy["init"]
    return copy
