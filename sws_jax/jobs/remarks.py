"""Settings that do something else than a user may think, a line for each.

None of them is wrong. Each line has the number that shows what the setting does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import ml_collections
from jax.sharding import Mesh

from sws_jax import sharding
from sws_jax.jobs import model_fields, phases, places, recipes
from sws_jax.methods import base
from sws_jax.models import networks
from sws_jax.runtime import words
from sws_jax.specs import Spec
from sws_jax.storage.names import RUN
from sws_jax.training import roles
from sws_jax.training.durations import Durations
from sws_jax.training.optim import Schedule

# Share of the first weights in a moving average at the end of a run, from which on a
# line is due.
_LARGE_SHARE = 0.01
# Share of the peak that a rate should reach: with a warm-up of a fifth of the run it
# reaches 0.9.
_NEAR_PEAK = 0.8
_SAMPLES = 1000  # of the rate of a run
_DEPTHS = "the depths are those of compare.depths"
_SEEDS = "runs have the job's seed, and compare.seeds after it"
# Fields of a job's groups that its rows decide, and what they take instead.
_DECIDED = {
    "tune": {
        "model.depth": _DEPTHS,
        "seed": _SEEDS,
        "init.learngene": "descendants start from the job's learngene",
    },
    "scratch": {
        "model.depth": _DEPTHS,
        "seed": _SEEDS,
        "schedule.total_epochs": "nets from scratch train as long as the tuning, and "
        "compare.long_epochs",
    },
}


# A function of a run's config that is true where the run uses a field, and the reason
# where it does not. The rules are for fields that were set by name, since a recipe sets
# many that it does not use. In `USED`, the name of a group ends in a dot.
Rule = tuple[Callable[[Any], Any], str]
_MIXED: Rule = (
    lambda c: c.augment.mixup or c.augment.cutmix,
    "augment.mixup and augment.cutmix are 0",
)
_RESIZED: Rule = (
    lambda c: c.transform.crop == "resized", "transform.crop is not resized"
)  # fmt: skip
_OPERATIONS: Rule = (
    lambda c: c.transform.randaugment, "transform.randaugment is 0"
)  # fmt: skip
_ERASED: Rule = (lambda c: c.augment.erase, "augment.erase is 0")
_DISTILLED: Rule = (places.needs_teacher, "loss.kind is none")
_SOFT: Rule = (
    lambda c: c.loss.kind == "soft" or not base.is_usual(phases.objective(c)),
    "loss.kind is not soft",
)
_OF_TFDS: Rule = (
    lambda c: c.data.source.startswith("tfds:"), "data.source is not tfds:NAME"
)  # fmt: skip
_TRAINED: Rule = (
    lambda c: c.schedule.total_epochs,
    "nothing is trained, as schedule.total_epochs is 0",
)
_AT_FIRST: Rule = (
    lambda c: not (c.init.network or c.init.learngene),
    "the weights are those of a file",
)
USED: dict[str, Rule] = {
    "transform.padding": (
        lambda c: c.transform.crop == "padded", "transform.crop is not padded"
    ),
    "transform.scale": _RESIZED,
    "transform.ratio": _RESIZED,
    "transform.magnitude": _OPERATIONS,
    "transform.magnitude_std": _OPERATIONS,
    "augment.mix_switch": (
        lambda c: c.augment.mixup and c.augment.cutmix,
        "augment.mixup and augment.cutmix are not both on",
    ),
    "augment.mix_group": _MIXED,
    "augment.erase_area": _ERASED,
    "augment.erase_aspect": _ERASED,
    "data.directory": _OF_TFDS,
    "data.cache": _OF_TFDS,
    "data.decoder": (
        lambda c: c.data.source != "digits" and not c.data.source.endswith(".npz"),
        "the images of data.source are arrays",
    ),
    "data.on_device": _TRAINED,
    "data.threads": (lambda c: not c.data.workers, "data.workers read in its place"),
    "loss.alpha": _DISTILLED,
    "loss.tau": _SOFT,
    "loss.reduction": _SOFT,
    "teacher.min_accuracy": _DISTILLED,
    "schedule.warmup_rate": (
        lambda c: c.schedule.warmup_epochs, "schedule.warmup_epochs is 0"
    ),
    "schedule.minimum": (
        lambda c: c.schedule.kind != "constant", "schedule.kind is constant"
    ),
    "ema_start": (lambda c: c.ema, "ema is 0"),
    "model.depth": (
        lambda c: c.phase.method
        or not (c.model.stages or c.init.plan or c.init.allotment),
        "model.stages, init.plan or init.allotment say it",
    ),
    "model.init_std": (
        # A fresh head on the weights of a file starts by it too.
        lambda c: c.model.weight_init == "normal",
        "model.weight_init is not normal",
    ),
    "model.patch_bias_init": _AT_FIRST,
    "model.pos_embed_std": _AT_FIRST,
    "checkpoint.keep_last": (
        lambda c: c.checkpoint.every_epochs, "checkpoint.every_epochs is 0"
    ),
    "transform.": _TRAINED,
    "augment.": _TRAINED,
    "optimizer.": _TRAINED,
    "schedule.": _TRAINED,
    "checkpoint.": _TRAINED,
    "replay.": _TRAINED,
    "loss.": _TRAINED,
    "ema": _TRAINED,
    "accum_steps": _TRAINED,
    "log_steps": _TRAINED,
}  # fmt: skip
# Roles of the rows that use a group of changes or a field of a comparison; else why no
# row does.
ROLES = {
    "ancestor": (
        (roles.ANCESTOR,), "a teacher is given, or the job trains no ancestor"
    ),
    "tune": (roles.DESCENDANTS, "the job tunes nothing"),
    "scratch": (roles.SCRATCH, "compare.level is not full"),
    "compare.long_epochs": ((roles.SCRATCH_LONG,), "compare.level is not full"),
}  # fmt: skip


def of_named(
    config: ml_collections.ConfigDict, names: Iterable[str], rows: Sequence[Any]
) -> list[str]:
    """Lines on fields that were set by name, and that no row of a job uses.

    Args:
      config: of the job.
      names: dotted, of fields of the job: `sws_jax.jobs.commandline.named`.
      rows: of the job: `sws_jax.jobs.rows.runs`.
    """
    lines = []
    for name in dict.fromkeys(names):
        group, _, field = name.partition(".")
        grouped = group in recipes.CHANGES
        if grouped and field in _DECIDED.get(group, {}):
            continue  # `of_job` tells it
        if name == "compare.long_epochs" and config.compare.level == "full":
            continue  # it is used, even where the tuning's epochs make it no row
        why = _unused(field if grouped else name, group if grouped else name, rows)
        if why:
            value = config
            for part in name.split("."):
                value = value[part]
            lines.append(f"{name}={value} is not used: {why}")
    return lines


def _unused(field: str, scope: str, rows: Sequence[Any]) -> str:
    """Why no row of a scope uses a field; empty where one does."""
    if scope in ROLES:
        of_scope, why = ROLES[scope]
        rows = [row for row in rows if row.role in of_scope]
        if not rows:
            return why
    if field.startswith("schedule.") and all(r.role == roles.UNTUNED for r in rows):
        return "compare.level is untuned, which trains no descendant"
    reasons = [_why(field, row.config) for row in rows]
    return "" if "" in reasons else reasons[0]


def _why(field: str, config) -> str:
    """Why one run does not use a field; empty where it does."""
    for name in (field, f"{field.partition('.')[0]}."):
        # The field that says that nothing is trained is used, unlike its group.
        if name in USED and not (name[-1] == "." and field == "schedule.total_epochs"):
            used, why = USED[name]
            if not used(config):
                return why
    return ""


def of_run(
    config: ml_collections.ConfigDict, durations: Durations, schedule: Schedule
) -> list[str]:
    """Lines on the settings of a run.

    Args:
      config: of the run.
      durations: that turn its epochs into steps.
      schedule: of its learning rate.
    """
    if not schedule.total_steps:
        return []
    lines = [
        *_average(config, schedule.total_steps),
        *_rates(config, schedule),
        *_milestones(config),
        *_targets(config),
        *_images(config, durations),
        *_starts(config),
        *_replay(config, schedule.total_steps),
    ]
    return [f"{config.name}: {line}" for line in lines]


def of_mesh(config, spec: Spec, mesh: Mesh) -> list[str]:
    """Lines on what a mesh does not divide.

    Args:
      config: of the run.
      spec: of its network.
      mesh: its devices.
    """
    lines = []
    boxed = networks.abstract_params(spec, boxed=True)
    if left := sharding.undivided(boxed, mesh):
        lines.append(f"replicated, as they do not divide: {', '.join(left)}")
    augment, size = config.augment, config.global_batch_size
    group, own = augment.mix_group or size, size // sharding.shard_count(mesh)
    if (augment.mixup or augment.cutmix) and own % group:
        lines.append(
            f"mixup groups of {group} images span devices, which pass them on; an "
            f"augment.mix_group that divides {own} keeps them"
        )
    return lines


def of_job(config: ml_collections.ConfigDict, names: Collection[str]) -> list[str]:
    """Lines on fields of a job's groups that its rows decide otherwise.

    Args:
      config: of the job.
      names: of its runs.
    """
    if "compare" not in config:
        return []
    lines, model = [], config.model
    if config.job == "descendants" and "depth" in model_fields.insisted(config):
        lines.append(f"model.depth={model.depth} is not used: {_DEPTHS}")
    if "ancestor" in config and not (config.teacher.path or roles.ANCESTOR in names):
        lines.append("no ancestor is trained, as no run needs it")
    if config.compare.level == "untuned" and config.compare.seeds > 1:
        lines.append(
            f"compare.seeds={config.compare.seeds} is not used: nothing in an "
            f"expansion is random"
        )
    for group, fields in _DECIDED.items():
        for name, why in fields.items():
            node, _, field = name.rpartition(".")
            changes = config.get(group, {})
            values = changes.get(node, {}) if node else changes
            if field in values:
                lines.append(f"{group}.{name}={values[field]} is not used: {why}")
    return lines


def _average(config, steps: int) -> Iterator[str]:
    """A line on a moving average that still holds much of the first weights."""
    share = config.ema**steps
    if share > _LARGE_SHARE:
        yield (
            f"ema: a moving average of {config.ema:g} over {steps:,} steps still holds "
            f"{share:.2%} of the weights that it started from"
        )


def _rates(config, schedule: Schedule) -> Iterator[str]:
    """Lines on a rate that does not reach its peak, or lies above it."""
    fields, total = config.schedule, schedule.total_steps
    samples = {
        *range(0, total, -(-total // _SAMPLES)),
        min(schedule.warmup_steps, total - 1),
    }
    highest = max(map(schedule, samples))
    if highest < _NEAR_PEAK * schedule.peak:
        yield (
            f"schedule: the rate rises to {highest:.3g} and never to its peak of "
            f"{schedule.peak:.3g}, in {total:,} steps"
        )
    if fields.warmup_epochs and not schedule.warmup_steps:
        yield (
            f"schedule.warmup_epochs={fields.warmup_epochs:g}: less than half a step, "
            f"so that there is no warm-up"
        )
    for name in ("minimum", "warmup_rate"):
        if fields[name] > schedule.peak:
            scaled = f", which is {fields.rate:g} scaled to the batch"
            yield (
                f"schedule.{name} {fields[name]:g} is above the peak of the rate, "
                f"{schedule.peak:.3g}{scaled if fields.rate_batch else ''}"
            )


def _milestones(config) -> Iterator[str]:
    """A line on milestones after the end of the run."""
    last = config.schedule.total_epochs
    late = [f"{e:g}" for e in config.evaluation.milestones if e > last]
    if late:
        yield (
            f"evaluation.milestones {', '.join(late)}: after the end of the run, "
            f"{last:g} epochs, and not scored"
        )


def _without_teacher(config) -> str:
    """Why a run needs no teacher."""
    if base.is_usual(phases.objective(config)):
        return f"loss.kind is {config.loss.kind}"
    return f"phase {config.phase.name} of {config.phase.method} is not distilled"


def _targets(config) -> Iterator[str]:
    """Lines on settings of the loss, the teacher and the labels that do nothing."""
    loss = phases.objective(config)
    # A job sets that of its own runs.
    is_set = config.teacher.path and not config.teacher.path.startswith(RUN)
    if is_set and not loss.needs_teacher:
        yield (
            f"teacher.path={config.teacher.path} is not used: "
            f"{_without_teacher(config)}"
        )
    if config.teacher.dtype != "float32" and not loss.needs_teacher:
        yield f"teacher.dtype={config.teacher.dtype} is not used: there is no teacher"
    if not base.is_usual(loss):
        return
    if loss.needs_teacher and not loss.alpha:
        yield "loss.alpha is 0: the teacher is asked, and its answer weighs nothing"
    # The recipe's own value gives no line: the user has not set it.
    smoothing, usual = (
        config.augment.label_smoothing,
        recipes.run().augment.label_smoothing,
    )
    if loss.needs_teacher and loss.alpha == 1 and smoothing not in (0, usual):
        yield (
            f"augment.label_smoothing={smoothing:g} does nothing: with loss.alpha 1 "
            f"labels weigh nothing"
        )


def _images(config, durations: Durations) -> Iterator[str]:
    """Lines on repeated images, and on a batch that is larger than an epoch."""
    repeats = config.data.repeats
    if repeats > 1:
        yield (
            f"data.repeats={repeats}: an epoch of {durations.images:,} images has "
            f"{durations.images // repeats:,} different ones"
        )
    if config.global_batch_size > durations.images:
        yield (
            f"global_batch_size {config.global_batch_size:,} is more than the "
            f"{durations.images:,} images of an epoch"
        )


def _starts(config) -> Iterator[str]:
    """Lines on fields of `init` that need a file, where none is named."""
    init = config.init
    for name in ("plan", "allotment"):
        if init[name] and not init.learngene:
            yield f"init.{name} is not used: there is no init.learngene"
    if init.head == "keep" and not (init.learngene or init.network):
        yield "init.head=keep: there is no file whose head could be kept"


def _replay(config, steps: int) -> Iterator[str]:
    """A line on an interval of replayed steps that is longer than the run."""
    every = config.replay.every_steps
    if every > steps:
        yield (
            f"replay.every_steps={every} is not used: the run has "
            f"{words.many(steps, 'step')}"
        )
