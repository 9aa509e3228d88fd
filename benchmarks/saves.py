"""How long training stands still for a checkpoint.

The state of a ViT of 12 blocks, weights with AdamW's moments and the moving average, on
one device, in training on a small batch. Steps are timed, then a save begins, and steps
go on while its files are written.

How to read it: `pause_s` is how long `Checkpoints.save` keeps the thread that trains:
the checksums and a copy. `written_s` is when the files are complete, counted from
there. `step_s` is a step before a save, `step_writing_s` one while files are written,
and `lost_s` all that a save costs: the pause, and what the steps beside it took more.
A save that begins before the one before is written waits for it: `written_s` is the
least distance of two.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import threading
import time

import jax

import sws_jax
from benchmarks import measure, step
from benchmarks.measure import MIB, Row, Settings
from sws_jax.specs import AuxViTSpec, ViTSpec
from sws_jax.training import checkpoints
from sws_jax.training import step as steps

SIZE, BATCH = "base", 2


def run(settings: Settings) -> list[Row]:
    size = "nano" if settings.quick else SIZE
    spec = step.network(f"vit_{size}_patch16_L12", settings)
    batch_size = settings.batch_size if settings.accelerator else BATCH
    about: Row = {"network": spec.name, "batch": batch_size}
    figures = functools.partial(_measure, spec, batch_size, settings)
    return [measure.measured("saves", about, figures)]


def _measure(spec: ViTSpec | AuxViTSpec, batch_size: int, settings: Settings) -> Row:
    recipe = steps.Recipe(spec, step.IMAGENET, augment=step.DEIT, ema=step.EMA)
    training = step.Training(recipe, batch_size)
    training.start()
    about = sws_jax.Description(
        kind="network", net=spec, stages=(), method="", normalization=step.IMAGENET
    )
    times: dict[str, list[float]] = {name: [] for name in _NAMES}
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoints.Checkpoints(folder, keep_last=1)
        for number in range(2 if settings.quick else 5):
            save = functools.partial(
                kept.save, number, clock={}, description=about, val_top1=-1.0
            )
            for name, seconds in _one(training, save, kept.wait).items():
                times[name].append(seconds)
        kept.close()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(training.saved()))
    row: Row = {"mib": measure.short(size / MIB)}
    return row | {name: measure.figure(values) for name, values in times.items()}


_NAMES = ("step_s", "pause_s", "written_s", "step_writing_s", "lost_s")


def _one(training: step.Training, save, wait) -> dict[str, float]:
    """Seconds of one save, and of the steps before and beside it."""
    before = [measure.seconds(training) for _ in range(3)]
    usual = statistics.median(before)
    pause = measure.seconds(lambda: save(training.saved()))
    began = time.perf_counter()
    ended: list[float] = []

    def watch() -> None:
        wait()
        ended.append(time.perf_counter())

    watcher = threading.Thread(target=watch)
    watcher.start()
    beside = [measure.seconds(training)]
    while not ended:
        beside.append(measure.seconds(training))
    watcher.join()
    more = sum(beside) - usual * len(beside)
    return {
        "step_s": usual,
        "pause_s": pause,
        "written_s": ended[0] - began,
        "step_writing_s": statistics.median(beside),
        "lost_s": pause + more,
    }
