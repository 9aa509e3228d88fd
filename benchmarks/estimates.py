"""The dry run's time of a step beside the step itself.

Four networks as their configs train them, with all that a step does on the device, on
one device: 12 blocks of S and an Aux-S at 224 px, six blocks of the 32 px variant, 12
of digits. `--batch-size` is that of the first two. ``--config.mesh.dry_run=here``
prints the same estimate, from the rates of the same machine.

How to read it: `estimate_ms` is what the dry run would say, whose rates are measured in
turns with steps, and `estimate_over_step` the median of its ratios to them. It is the
sum of products (`gflop` at `gflop_per_second`), of what is moved (`moved_mib` at
`gb_per_second`), and of `fresh_ms`, until temporary memory is there.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Iterable
from typing import NamedTuple

import jax

from benchmarks import measure, step
from benchmarks.measure import MIB, Row, Settings
from sws_jax import sharding
from sws_jax.data import resident
from sws_jax.estimate import rates, times
from sws_jax.jobs import commandline
from sws_jax.jobs.rows import runs
from sws_jax.preview.survey import Survey, largest_step
from sws_jax.training import step as steps

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "scratch_deit.py"


class Network(NamedTuple):
    """What is trained: arguments of the config, fields, and images that are not read.

    Attributes:
      arguments: of the config.
      fields: set besides.
      image_size, classes: of its images; None takes those of the data.
    """

    arguments: str
    fields: tuple[str, ...] = ()
    image_size: int | None = None
    classes: int | None = None


LARGE = "variant=S/16,dataset=tfds:none"
STAGES = ("--config.model.stages=(3,3,4,3,3)",)
NETWORKS = {
    "S/16": Network(f"{LARGE},depth=12", (), 224, 1000),
    "Aux-S/16": Network(LARGE, STAGES, 224, 1000),
    "32 px": Network("variant=32px,dataset=tfds:none,depth=6", (), 32, 45),
    "digits": Network("variant=digits,depth=12"),
}
QUICK = {"digits": Network("variant=digits,depth=2")}


def run(settings: Settings) -> list[Row]:
    rows = []
    for name, network in (QUICK if settings.quick else NETWORKS).items():
        recipe, size = _step_of(network, settings)
        about: Row = {"network": name, "blocks": recipe.spec.depth, "batch": size}
        figures = functools.partial(_measure, recipe, size, settings)
        rows.append(measure.measured("estimates", about, figures))
    return rows


def _step_of(network: Network, settings: Settings) -> tuple[steps.Recipe, int]:
    """The step of a config's run, as the dry run finds it, and its batch."""
    fields = network.fields
    if network.image_size == 224:
        # A small batch is mixed in one group.
        fields += (f"--config.global_batch_size={settings.batch_size}",)
        fields += ("--config.augment.mix_group=0",)
    config, _ = commandline.parse([f"--config={CONFIG}:{network.arguments}", *fields])
    survey = Survey(config, "", image_size=network.image_size, classes=network.classes)
    (row,) = runs(config)
    survey.spec(row)
    mesh = sharding.make_mesh(jax.devices()[:1])
    largest = largest_step(survey, row, mesh, resident.Device("", None))
    return largest.recipe, largest.size


def _measure(recipe: steps.Recipe, size: int, settings: Settings) -> Row:
    training = step.Training(recipe, size)
    training.start()
    # Short steps, and those of a device with its own queue, are timed together.
    count = 5 if settings.accelerator or measure.seconds(training) < 0.2 else 1
    temporary = training.memory.temp_size_in_bytes if training.memory else 0
    estimate = times.of_step(recipe, training.mesh, size, temporary=temporary)
    seconds, estimates = [], []
    for _ in range(settings.repeats + 2):  # in turns: a machine drifts
        seconds.append(measure.seconds(lambda: training(count)) / count)
        rates.measured.cache_clear()
        now = rates.measured(recipe.compute.dtype)
        fresh = rates.fresh_seconds(temporary)
        estimates.append(dataclasses.replace(estimate, rates=now, fresh=fresh))
    ratios = [e.seconds / s for e, s in zip(estimates, seconds, strict=True)]

    def middle(values: Iterable[float], scale: float) -> float:
        return measure.short(statistics.median(values) * scale)

    return {
        "step_ms": measure.figure([1e3 * s for s in seconds]),
        "estimate_ms": measure.figure([1e3 * e.seconds for e in estimates]),
        "estimate_over_step": middle(ratios, 1),
        "gflop": measure.short(estimate.flops / 1e9),
        "gflop_per_second": middle((e.rates.products for e in estimates), 1e-9),
        "moved_mib": measure.short(estimate.moved / MIB),
        "gb_per_second": middle((e.rates.memory for e in estimates), 1e-9),
        "fresh_ms": middle((e.fresh for e in estimates), 1e3),
    }
