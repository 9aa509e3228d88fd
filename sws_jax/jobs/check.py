"""Refuses a config that is wrong whatever its data and its files are."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Collection

import ml_collections

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.jobs import build, fields, model_fields, places, recipes
from sws_jax.models import profiles
from sws_jax.storage.names import CONFIG, INPUTS, LEARNGENE_FILE, LOCK, REPORT_FILES

_LONGEST_NAME = 255  # bytes, of most file systems
# Files that a job writes beside its runs' directories.
_FILES = (
    *REPORT_FILES, LEARNGENE_FILE, CONFIG, INPUTS, LOCK,
)  # fmt: skip


def check_run(config: ml_collections.ConfigDict) -> None:
    """Refuses a run as `check` and `check_teacher` do."""
    check(config)
    check_teacher(config)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what is wrong whatever the data and the files are.

    Args:
      config: of a run.

    Raises:
      UserError: naming the field.
    """
    _check_name(config.name)
    check_fields(config)
    profiles.find(config.profile)
    build.check_objects(config)
    patch = config.model.patch_size
    smallest = dict(image_size=(patch, patch), channels=1, num_classes=1)
    model_fields.network_spec(config, smallest)
    known = set(recipes.run().model)
    if unknown := [n for n in model_fields.insisted(config) if n not in known]:
        raise UserError(
            f"init.insist names fields of model, and {unknown[0]!r} is none: they are "
            f"{', '.join(sorted(known))}"
        )


def check_teacher(config: ml_collections.ConfigDict) -> None:
    """Refuses a run that is distilled and names no teacher.

    The config of a job may name none, as its runs get theirs from each other.
    """
    if places.needs_teacher(config) and not config.teacher.path:
        what, phase = f"loss.kind {config.loss.kind!r}", config.phase
        if phase.method:
            what = f"phase {phase.name} of {phase.method}"
        raise UserError(
            f"{what} needs a teacher: give its weights file or run directory as "
            f"teacher.path"
        )


def check_fields(
    config: ml_collections.ConfigDict, groups: Collection[str] = ()
) -> None:
    """Refuses a value out of the range that `sws_jax.jobs.fields` gives its field.

    Args:
      config: of a run.
      groups: whose fields are checked, or fields that are in none; empty: all.

    Raises:
      UserError: naming the field.
    """
    for name, field in fields.RUN.items():
        if groups and name.partition(".")[0] not in groups:
            continue
        field.check(name, functools.reduce(operator.getitem, name.split("."), config))


def check_job(config: ml_collections.ConfigDict) -> None:
    """Refuses a value out of its range in what a job has beside its runs' fields.

    Args:
      config: of a job.

    Raises:
      UserError: naming the field.
    """
    for name, field in fields.JOB.items():
        group, _, last = name.rpartition(".")
        values = config.get(group, {}) if group else config
        if last in values:
            field.check(name, values[last])


def _check_name(name: str) -> None:
    """Refuses what is no name of a directory in the work directory."""
    if not name or os.path.basename(name) != name or "\\" in name:
        why = ""
    elif not name.isprintable():
        why = ": it has characters that do not print"
    elif name.startswith("."):
        why = ": it begins with a dot"
    elif len(os.fsencode(name)) > _LONGEST_NAME:
        why = f": it is longer than {_LONGEST_NAME} bytes"
    elif name.lower() in _FILES:
        why = ": the work directory has a file of that name"
    else:
        return
    raise UserError(
        f"name is the run's directory in the work directory, and cannot be "
        f"{arguments.quoted(name)}{why}"
    )
