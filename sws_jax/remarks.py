"""Settings that do something else than a user may think, each in one line.

None of them is wrong. Each line has the number that shows it.
"""

from __future__ import annotations

import ml_collections

from sws_jax import presets, setup
from sws_jax.losses import Loss
from sws_jax.optim import Schedule

# A share of the first weights that is still in a moving average at the end, from which
# on it is more the start than the training.
_HELD = 0.01
# Of the peak of the rate: a warm-up of a fifth of the run ends at 0.9.
_REACHED = 0.8
_LOOKS = 1000  # at the rate of a run
_DEPTHS = "the depths are those of compare.depths"
_SEEDS = "runs have the job's seed, and compare.seeds after it"
# Fields of a job's groups that its rows decide.
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


def of(
    config: ml_collections.ConfigDict, durations: setup.Durations, schedule: Schedule
) -> list[str]:
    """Lines on the settings of a run.

    Args:
      config: of the run.
      durations: that turn its epochs into steps.
      schedule: of its learning rate.
    """
    if not schedule.total_steps:
        return []
    found = [
        *_average(config, schedule.total_steps),
        *_rates(config, schedule),
        *_milestones(config),
        *_targets(config),
        *_images(config, durations),
        *_starts(config),
    ]
    return [f"{config.name}: {line}" for line in found]


def of_job(config: ml_collections.ConfigDict) -> list[str]:
    """Lines on fields of a job's groups that its rows decide otherwise."""
    if "compare" not in config:
        return []
    found, model = [], config.model
    if config.job == "descendants" and "depth" in presets.insisted(config):
        found.append(f"model.depth={model.depth} is not used: {_DEPTHS}")
    if config.compare.level == "untuned" and config.compare.seeds > 1:
        found.append(
            f"compare.seeds={config.compare.seeds} is not used: nothing in an "
            f"expansion is random"
        )
    for group, fields in _DECIDED.items():
        for name, by in fields.items():
            node, _, field = name.rpartition(".")
            changes = config.get(group, {})
            inside = changes.get(node, {}) if node else changes
            if field in inside:
                found.append(f"{group}.{name}={inside[field]} is not used: {by}")
    return found


def _average(config, steps: int):
    held = config.ema**steps
    if held > _HELD:
        yield (
            f"ema: a moving average of {config.ema:g} over {steps:,} steps still holds "
            f"{held:.2%} of the weights that it started from"
        )


def _rates(config, schedule: Schedule):
    fields, total = config.schedule, schedule.total_steps
    some = {
        *range(0, total, -(-total // _LOOKS)),
        min(schedule.warmup_steps, total - 1),
    }
    highest = max(map(schedule, some))
    if highest < _REACHED * schedule.peak:
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


def _milestones(config):
    last = config.schedule.total_epochs
    late = [f"{e:g}" for e in config.evaluation.milestones if e > last]
    if late:
        yield (
            f"evaluation.milestones {', '.join(late)}: after the end of the run, "
            f"{last:g} epochs, and not scored"
        )


def _targets(config):
    loss = Loss(**config.loss)
    if config.teacher.path and not loss.needs_teacher:
        yield (
            f"teacher.path={config.teacher.path} is not used: loss.kind is {loss.kind}"
        )
    if config.teacher.dtype != "float32" and not loss.needs_teacher:
        yield f"teacher.dtype={config.teacher.dtype} is not used: there is no teacher"
    if loss.needs_teacher and not loss.alpha:
        yield "loss.alpha is 0: the teacher is asked, and its answer weighs nothing"
    # (The recipe's own is left alone: who has not set it does not count on it.)
    smoothing, usual = (
        config.augment.label_smoothing,
        presets.run().augment.label_smoothing,
    )
    if loss.needs_teacher and loss.alpha == 1 and smoothing not in (0, usual):
        yield (
            f"augment.label_smoothing={smoothing:g} does nothing: with loss.alpha 1 "
            f"labels weigh nothing"
        )


def _images(config, durations: setup.Durations):
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


def _starts(config):
    init = config.init
    for name in ("plan", "allotment"):
        if init[name] and not init.learngene:
            yield f"init.{name} is not used: there is no init.learngene"
    if init.head == "keep" and not (init.learngene or init.network):
        yield "init.head=keep: there is no file whose head could be kept"
