"""What it costs to compute some of the training steps twice, as ``replay.every_steps``.

A descendant of 12 blocks with all that a step does on the device, as in
`benchmarks.step`: on one device, with the moving average, so that a state is four times
the weights.

How to read it: `step_ms` is a step, and `replayed_ms` one that is computed twice: the
copy of the state, the second computation and the sums of both results included.
`first_s` is the first of these, for which the sums are compiled. `ratio_N` is the time
of N steps of which the last is computed twice over that of N steps that are not, timed
in turns: the median of the ratios of neighbours. On a CPU there is no `ratio_100`: 100
steps take minutes, and a hundredth of a step is less than such a machine drifts.
"""

from __future__ import annotations

import functools
import statistics

from benchmarks import measure, step
from benchmarks.measure import Row, Settings
from sws_jax.training import step as steps


def run(settings: Settings) -> list[Row]:
    rows = []
    for size in settings.sizes:
        name = f"vit_{size}_patch16_L12"
        spec = step.network(name, settings, drop_path=step.DROP_PATH)
        recipe = steps.Recipe(spec, step.IMAGENET, augment=step.DEIT, ema=step.EMA)
        about: Row = {"network": spec.name, "batch": settings.batch_size}
        figures = functools.partial(_measure, recipe, settings)
        rows.append(measure.measured("replay", about, figures))
    return rows


def _measure(recipe: steps.Recipe, settings: Settings) -> Row:
    training = step.Training(recipe, settings.batch_size)
    training.start()
    row: Row = {"first_s": measure.short(measure.seconds(training.twice))}
    windows = (1, 10, 100) if settings.accelerator or settings.quick else (1, 10)
    for every in windows:
        times = _times(training, every, settings.repeats if every < 100 else 2)
        if every == 1:
            row["step_ms"] = measure.figure([1e3 * s for s in times["without"]])
            row["replayed_ms"] = measure.figure([1e3 * s for s in times["with"]])
        pairs = zip(times["with"], times["without"], strict=True)
        ratio = statistics.median(new / old for new, old in pairs)
        row[f"ratio_{every}"] = measure.short(ratio)
    return row


def _times(training: step.Training, every: int, repeats: int) -> dict:
    """Seconds of so many steps, without and with a last one that is computed twice."""

    def replayed() -> None:
        if every > 1:
            training(every - 1)
        training.twice()

    calls = {"without": functools.partial(training, every), "with": replayed}
    return measure.in_turns(calls, repeats)
