"""What a row of results says beside scores: training FLOPs, the config and the code.

`of_task` gives what one run knows of itself; its result keeps it. `completed` gives the
same for a result of older software, as far as the run's directory says it. What only
several runs together say, `with_before` adds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sws_jax.data import prepared
from sws_jax.data.pipeline import epoch_images
from sws_jax.errors import UserError
from sws_jax.estimate import comparison, flops
from sws_jax.jobs import differences, fields, places, records
from sws_jax.jobs.rows import Run
from sws_jax.models import weights
from sws_jax.reports.rows import Result
from sws_jax.runtime import checkout
from sws_jax.specs import Compute, Spec
from sws_jax.storage import documents, paths, runs
from sws_jax.storage.names import CONFIG, LEARNGENE_FILE, WEIGHTS
from sws_jax.training.task import Task

# What is not known of a run. `flops` are those of all its training steps, `flops_net`
# those of the logits of one image.
_UNKNOWN: dict[str, Any] = {
    "flops": None,
    "flops_net": None,
    "config_hash": "",
    "version": "",
}
# Fields that say what a run is called and where things lie, or how it was asked for.
_NOT_COMPUTED = {"name", "data.directory", "init.insist", *differences.HARMLESS}
# Fields whose value may be a path, of which only the last name counts.
_PATHS = ("data.source", "init.network", "init.learngene", "teacher.path")
# What is read of a written config, as `sws_jax.storage.documents.misfit` takes it.
_READ = {
    "compute": {"remat": bool},
    "data": {"repeats": int},
    "init": {"network": str, "learngene": str},
    "loss": {"kind": str},
    "teacher": {"path": str},
}


def of_task(task: Task, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that ends says of itself.

    Args:
      task: of the run.
      config: of the run, as its ``config.json`` holds it.
    """
    return {
        **_flops_of(
            task.network.spec,
            task.epochs,
            task.epoch_images,
            remat=task.recipe.compute.remat,
            teacher=None if task.teacher is None else task.teacher.network.spec,
        ),
        "config_hash": config_hash(config),
        "version": checkout.version(),
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """12 hex digits that two runs share that compute the same, wherever they do so.

    All fields of a run count that differ from their defaults, with the network that
    the run really has. Not counted are its name, fields that change how it is computed
    and not what (those that are harmless on resuming), ``data.directory``,
    ``init.insist``, and the teacher of a run that is not distilled. Of a path its last
    name counts alone. The bytes of images and of weights are not looked at, and neither
    is the code.

    Args:
      config: of the run, as its ``config.json`` holds it.
    """
    config = documents.merged(differences.defaults(), dict(config))
    counted = {}
    for name, field in fields.RUN.items():
        value = _comparable(name, differences.value(config, name))
        is_default = value == _comparable(name, documents.plain(field.default))
        is_idle = name.startswith("teacher.") and not _is_distilled(config)
        if not (is_default or is_idle or name in _NOT_COMPUTED):
            counted[name] = value
    text = json.dumps(counted, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def completed(result: Result, workdir: str) -> Result:
    """A result with what older software did not keep, as far as its directory says it.

    Args:
      result: of a run whose directory is in the work directory.
      workdir: of the job.
    """
    if _UNKNOWN.keys() <= result.keys():
        return result
    directory = os.path.join(workdir, result["name"])
    known = dict(_UNKNOWN)
    # A file that is damaged or gone says nothing; a run that needs it refuses it.
    with contextlib.suppress(UserError):
        config = _written_config(directory)
        known["config_hash"] = config_hash(config)
        spec = _trained_spec(directory)
        known["flops_net"] = flops.forward_flops(spec)
        known |= _flops_as_written(result, config, spec, directory, workdir)
    return {**known, **result}


def with_before(
    results: Sequence[Result], rows: Iterable[Run], workdir: str
) -> list[Result]:
    """The results, each with ``flops_before``: training FLOPs of all it stands on.

    None where these are not known: of a run that starts from a file that the job did
    not train, or is distilled from one.

    Args:
      results: of these runs, and of others in the work directory.
      rows: the runs of the job.
      workdir: of the job.
    """
    own = {result["name"]: result["flops"] for result in results}
    needs = {
        run.name: _needs(documents.plain(run.config.to_dict()), run.after)
        for run in rows
    }
    for name in own.keys() - needs.keys():
        with contextlib.suppress(UserError):
            needs[name] = _needs(_written_config(os.path.join(workdir, name)))
    return [
        {**result, "flops_before": _sum_before(result["name"], needs, own)}
        for result in results
    ]


def _sum_before(
    name: str,
    needs: Mapping[str, set[str] | None],
    own: Mapping[str, int | None],
) -> int | None:
    """Training FLOPs of the runs that a run needs, and of those that these need.

    Args:
      name: of the run.
      needs: the runs that each one needs; None where it needs something else, too.
      own: training FLOPs of each run, where they are known.
    """
    before: set[str] = set()
    to_ask = {name}
    while to_ask:
        needed = needs.get(to_ask.pop())
        if needed is None:
            return None
        to_ask |= needed - before
        before |= needed
    known = [value for each in before if (value := own.get(each)) is not None]
    return sum(known) if len(known) == len(before) else None


def _needs(config: dict[str, Any], after: Sequence[str] = ()) -> set[str] | None:
    """The runs of its job that a run needs; None where it needs other files.

    Args:
      config: of the run.
      after: the runs that the job itself says it needs.
    """
    needed = [config["init"]["learngene"], config["init"]["network"]]
    if _is_distilled(config):
        needed.append(config["teacher"]["path"])
    needed = [path for path in needed if path]
    if not all(path.startswith(places.RUN) for path in needed):
        return None
    return {*after, *(path.removeprefix(places.RUN) for path in needed)}


def _flops_of(
    spec: Spec, epochs: float, images: int, *, remat: bool, teacher: Spec | None
) -> dict[str, int]:
    """Training FLOPs of a run, and those of its network.

    Args:
      spec: of its network.
      epochs: of its training.
      images: of an epoch.
      remat: whether blocks are computed again.
      teacher: whose forward is part of every step.
    """
    # The role of a run decides what it is counted for, and not what it costs.
    run = comparison.Run("", spec, epochs, images, Compute(remat=remat), teacher)
    return {"flops": round(run.flops), "flops_net": flops.forward_flops(spec)}


def _flops_as_written(
    result: Result, config: dict[str, Any], spec: Spec, directory: str, workdir: str
) -> dict[str, int]:
    """As `_flops_of`; nothing where the number of images is not known.

    Raises:
      UserError: a file that is needed for it is damaged or gone.
    """
    data = records.read_inputs(directory).get(records.DATA)
    if data is None:
        return {}
    teacher = None
    if _is_distilled(config):
        path = places.resolve(config["teacher"]["path"], workdir)
        teacher = weights.describe(runs.weights_file(path)).spec
    images = epoch_images(data["train"]["images"], config["data"]["repeats"])
    remat = config["compute"]["remat"]
    return _flops_of(spec, result["epochs"], images, remat=remat, teacher=teacher)


def _written_config(directory: str) -> dict[str, Any]:
    """The config of a run, with the defaults of fields that are newer than it.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = os.path.join(directory, CONFIG)
    if not paths.exists(path):
        raise UserError(f"there is no {path}")
    config = documents.merged(differences.defaults(), records.read_config(path))
    if wrong := documents.misfit(config, _READ):
        raise UserError(f"{path} is damaged ({wrong})")
    return config


def _trained_spec(directory: str) -> Spec:
    """The network that a run has trained.

    Raises:
      UserError: its weights are damaged or gone.
    """
    files = [os.path.join(directory, name) for name in (WEIGHTS, LEARNGENE_FILE)]
    return weights.describe(next(filter(paths.exists, files), files[0])).spec


def _is_distilled(config: Mapping[str, Any]) -> bool:
    return config["loss"]["kind"] != "none"


def _comparable(name: str, value: Any) -> Any:
    """The value of a field, as the same text on all machines and of all callers."""
    field = fields.RUN[name]
    if name in _PATHS and isinstance(value, str):
        is_name = value.startswith((places.RUN, prepared.PREFIX))
        return value if is_name else os.path.basename(value.rstrip("/"))
    takes_floats = isinstance(field.default, float) or field.item is float
    if takes_floats and isinstance(value, list):
        return [float(v) if isinstance(v, int) else v for v in value]
    if takes_floats and type(value) is int:
        return float(value)
    return value
