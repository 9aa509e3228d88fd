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

import ml_collections

from sws_jax.data import prepared
from sws_jax.data.pipeline import epoch_images
from sws_jax.errors import UserError
from sws_jax.estimate import comparison, flops
from sws_jax.jobs import differences, fields, places, records
from sws_jax.jobs.rows import Run, closure
from sws_jax.models import weights
from sws_jax.reports.rows import Result
from sws_jax.runtime import checkout
from sws_jax.specs import Compute, Spec
from sws_jax.storage import documents, paths, runs
from sws_jax.storage.names import CONFIG, LEARNGENE_FILE, RUN, WEIGHTS
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
_PATHS = (
    "data.source", "init.network", "init.learngene", "phase.ancestor", "teacher.path",
)  # fmt: skip
# What stands for the needs of a run whose config cannot be read.
_UNREAD = "?"
# What is read of a written config, as `sws_jax.storage.documents.misfit` takes it.
_READ = {
    "compute": {"remat": bool},
    "data": {"repeats": int},
    "init": {"network": str, "learngene": str},
    "loss": {"kind": str},
    "phase": {"method": str},
    "teacher": {"path": str},
}


def of_task(task: Task, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What a run that ends says of itself.

    Args:
      task: of the run.
      config: of the run, with the network that it really has.
    """
    run = comparison.Run(
        task.role,
        task.network.spec,
        task.epochs,
        task.epoch_images,
        Compute(remat=task.recipe.compute.remat),
        task.recipe.teacher,
        flops.mean_step_flops(task.picks, task.total) if task.total else None,
    )
    plain = documents.plain(config.to_dict())
    more = {"config_hash": config_hash(plain), "version": checkout.version()}
    return {**_flops_of(run), **more}


def config_hash(config: Mapping[str, Any]) -> str:
    """12 hex digits that two runs share that compute the same, wherever they do so.

    All fields of a run count that differ from their defaults, with the network that
    the run really has. Not counted are its name, fields that change how it is computed
    and not what (those that are harmless on resuming), ``data.directory``,
    ``init.insist``, and the teacher of a run that has no use for it. Of a path its last
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
        is_idle = name.startswith("teacher.") and not _is_taught(config)
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
    """The results, each with what it stands on.

    ``before`` are the names of the runs that it needs, and of those that these need, as
    far as they are among the results. ``flops_before`` are the training FLOPs of all
    that it stands on; None where these are not known, as where a run starts from a file
    that the job did not train, or is distilled from one.

    Args:
      results: of these runs, and of others in the work directory.
      rows: the runs of the job.
      workdir: of the job.
    """
    own = {f"{RUN}{result['name']}": result["flops"] for result in results}
    needs = {
        f"{RUN}{run.name}": _needs(documents.plain(run.config.to_dict()), run.after)
        for run in rows
    }
    for path in own.keys() - needs.keys():
        needs[path] = _needs_as_written(places.resolve(path, workdir))
    whole = []
    for result in results:
        path = f"{RUN}{result['name']}"
        before = closure([path], needs) - {path}
        costs = [own.get(each) for each in before]
        known = [cost for cost in costs if cost is not None]
        more = {
            "before": sorted(p.removeprefix(RUN) for p in before if p in own),
            "flops_before": sum(known) if len(known) == len(costs) else None,
        }
        whole.append({**result, **more})
    return whole


def _needs(config: dict[str, Any], after: Sequence[str] = ()) -> set[str]:
    """Paths of all that a run needs: ``run:NAME`` of its job, and other files.

    Args:
      config: of the run.
      after: names of the runs that the job itself says it needs.
    """
    needed = {config["init"]["learngene"], config["init"]["network"]}
    if _is_taught(config):
        needed.add(config["teacher"]["path"])
    return {path for path in needed if path} | {f"{RUN}{name}" for name in after}


def _needs_as_written(directory: str) -> set[str]:
    """As `_needs`, of a run that is not of this job; as far as its config is read."""
    needed = {_UNREAD}
    with contextlib.suppress(UserError):
        config = _written_config(directory)
        needed |= _needs(config)
        earlier = places.earlier_phases(ml_collections.ConfigDict(config))
        needed = needed - {_UNREAD} | set(earlier.values())
    return needed


def _flops_of(run: comparison.Run) -> dict[str, int]:
    """Training FLOPs of a run, and those of its network."""
    return {"flops": round(run.flops), "flops_net": flops.forward_flops(run.spec)}


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
    if _is_taught(config) and config["teacher"]["path"]:
        path = places.resolve(config["teacher"]["path"], workdir)
        teacher = weights.describe(runs.weights_file(path)).spec
    images = epoch_images(data["train"]["images"], config["data"]["repeats"])
    compute = Compute(remat=config["compute"]["remat"])
    role, epochs = result["role"], result["epochs"]
    return _flops_of(comparison.Run(role, spec, epochs, images, compute, teacher))


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


def _is_taught(config: Mapping[str, Any]) -> bool:
    """Whether a run uses the teacher that its config may name, whatever for."""
    if not config["phase"]["method"]:
        return config["loss"]["kind"] != "none"
    try:
        return places.needs_teacher(ml_collections.ConfigDict(dict(config)))
    except UserError:  # It is of a method that is not here any more.
        return True


def _comparable(name: str, value: Any) -> Any:
    """The value of a field, as the same text on all machines and of all callers."""
    field = fields.RUN[name]
    if name in _PATHS and isinstance(value, str):
        is_name = value.startswith((RUN, prepared.PREFIX))
        return value if is_name else os.path.basename(value.rstrip("/"))
    takes_floats = isinstance(field.default, float) or field.item is float
    if takes_floats and isinstance(value, list):
        return [float(v) if isinstance(v, int) else v for v in value]
    if takes_floats and type(value) is int:
        return float(value)
    return value
