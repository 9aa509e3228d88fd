"""How a run began: what older software did otherwise, and the run goes on with.

Older software took the network of a run from its file without a word, whatever the
config said, and did not know some fields. A run or a job that it began keeps both.
"""

from __future__ import annotations

import os
from typing import Any

import ml_collections

from sws_jax.jobs import differences, model_fields, recipes, records
from sws_jax.models import weights
from sws_jax.runtime import processes
from sws_jax.specs import Trained
from sws_jax.storage import files, paths
from sws_jax.storage.names import CONFIG, INPUTS, LEARNGENE, RESULT, WEIGHTS


def as_begun(
    directory: str, config: ml_collections.ConfigDict, workdir: str
) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config with which a run goes on that older software began, or its job.

    Args:
      directory: of the run.
      config: as it is asked for.
      workdir: of the job.

    Returns:
      The config, and a line for each field that differs from what is asked for.
    """

    def look() -> dict[str, Any]:
        later = (beginning(directory) or of_job(workdir))["later"]
        return {"later": later, "against": _against(directory, config)}

    seen, lines, default = processes.decided(look), [], recipes.run()
    adapted = config.copy_and_resolve_references()
    for name in seen["later"]:
        group, _, field = name.rpartition(".")
        before = differences.value(default, name)
        wanted = differences.value(config, name)
        if before != wanted and field not in model_fields.followed(
            config, insist=False
        ):
            with adapted.unlocked():
                differences.value(adapted, group)[field] = before
            lines.append(
                f"{config.name}: goes on as it began, with {name} {before}: it was "
                f"begun before there was {wanted}"
            )
    for name, asked, trained in seen["against"]:
        lines.append(
            f"{config.name}: was trained with model.{name} {trained}, where the config "
            f"says {asked}"
        )
    return adapted, lines


def _against(
    directory: str, config: ml_collections.ConfigDict
) -> list[tuple[str, str, str]]:
    """Fields of the network that a finished run of older software has otherwise."""
    done = paths.exists(os.path.join(directory, RESULT))
    if not (done and beginning(directory).get("older")):
        return []
    for name in (WEIGHTS, LEARNGENE):
        path = os.path.join(directory, name)
        if paths.is_file(path) and (config.init.network or config.init.learngene):
            spec = weights.describe(path).spec
            assert isinstance(spec, Trained)  # It was trained here.
            return model_fields.against(config, spec)
    return []


def is_older(directory: str, workdir: str) -> bool:
    """Whether a run, or its job, was begun by software that knew no ``init.insist``.

    Args:
      directory: of the run.
      workdir: of the job.
    """
    return bool((beginning(directory) or of_job(workdir))["older"])


def keep_begun(workdir: str) -> None:
    """Notes that older software began a job, before its config is written anew."""
    if of_job(workdir)["older"]:
        path = os.path.join(workdir, INPUTS)
        files.write_json(path, {records.BEGUN: beginning(workdir)})


def of_job(workdir: str) -> dict[str, Any]:
    """How a run begins that is new in a job: as the job itself began."""
    begun = beginning(workdir)
    return {"older": begun.get("older", False), "later": begun.get("later", [])}


def beginning(directory: str) -> dict[str, Any]:
    """How the run or the job of a directory began; empty where none has.

    It is kept for as long as the run goes on, since its config is written anew at each
    start. See `sws_jax.jobs.differences.record`.
    """
    noted = records.read_inputs(directory).get(records.BEGUN)
    if noted is not None:
        return noted
    path = os.path.join(directory, CONFIG)
    if not paths.exists(path):
        return {}
    return differences.beginning_of(records.read_config(path))
