"""How long a checkpoint holds up training: its checksums, and all of a save.

The state of a training step, weights with AdamW's moments and the moving average, on
one device. A save's checksums are made by the device, and for comparison by numpy, as
they were before: one array after another on the thread that trains.

How to read it: `devices_s` and `numpy_s` are the checksums of all arrays, timed in
turns, and `ratio` is the median of the ratios of neighbours; `first_s` is the first
call, which compiles. `save_s` is how long `Checkpoints.save` keeps the thread that
trains, after which files are written beside the next steps; `save_numpy_s` is the same
with numpy's checksums, and `save_ratio` again that of neighbours.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Callable
from unittest import mock

import jax
import numpy as np

import sws_jax
from benchmarks import measure, step
from benchmarks.measure import MIB, Row, Settings
from sws_jax import trees
from sws_jax.specs import ViTSpec
from sws_jax.training import checkpoints, checksums
from sws_jax.training import step as steps
from sws_jax.training.optim import Optimizer

_by_devices = checksums.of  # which is replaced while saves are timed


def run(settings: Settings) -> list[Row]:
    rows = []
    repeats = 2 if settings.quick else 5
    for size in settings.sizes:
        spec = step.network(f"vit_{size}_patch16_L12", settings)
        about: Row = {"network": spec.name}
        figures = functools.partial(_measure, spec, repeats)
        rows.append(measure.measured("checksums", about, figures))
    return rows


def _measure(spec: ViTSpec, repeats: int) -> Row:
    items = _items(spec)
    arrays = jax.tree.leaves(items)
    ways = {"devices": _by_devices, "numpy": _by_numpy}
    first = measure.seconds(lambda: _by_devices(items))
    assert _by_devices(items) == _by_numpy(items)
    calls: dict[str, Callable] = {
        name: functools.partial(of, items) for name, of in ways.items()
    }
    times = measure.in_turns(calls, repeats)
    saves = _saves(spec, items, ways, repeats)
    return {
        "mib": measure.short(sum(array.nbytes for array in arrays) / MIB),
        "arrays": len(arrays),
        "first_s": measure.short(first),
        "devices_s": measure.figure(times["devices"]),
        "numpy_s": measure.figure(times["numpy"]),
        "ratio": _ratio(times),
        "save_s": measure.figure(saves["devices"]),
        "save_numpy_s": measure.figure(saves["numpy"]),
        "save_ratio": _ratio(saves),
    }


def _items(spec: ViTSpec) -> dict[str, trees.Tree]:
    """What a checkpoint holds of a training step's state, on one device."""
    recipe = steps.Recipe(spec, step.IMAGENET, optimizer=Optimizer(), ema=step.EMA)
    params = jax.device_put(step.weights(spec), jax.devices()[0])
    state = jax.jit(functools.partial(steps.new_state, recipe))(params)
    return {"params": state.params, "opt": state.opt, "ema": state.ema}


def _by_numpy(tree: trees.Tree) -> dict[str, str]:
    return _by_devices(jax.tree.map(np.asarray, tree))


def _saves(spec: ViTSpec, items, ways, repeats: int) -> dict[str, list[float]]:
    """Seconds of `Checkpoints.save` with each way to make checksums, in turns."""
    about = sws_jax.Description(
        kind="network", net=spec, stages=(), method="", normalization=step.IMAGENET
    )
    times: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoints.Checkpoints(folder, keep_last=1)
        for number in range(repeats):
            for turn, (name, of) in enumerate(ways.items()):
                save = functools.partial(
                    kept.save,
                    number * len(ways) + turn,
                    items,
                    clock={},
                    description=about,
                    val_top1=-1.0,
                )
                with mock.patch.object(checksums, "of", of):
                    times[name].append(measure.seconds(save))
                kept.wait()
        kept.close()
    return times


def _ratio(times: dict[str, list[float]]) -> float:
    pairs = zip(times["devices"], times["numpy"], strict=True)
    return measure.short(statistics.median(new / old for new, old in pairs))
