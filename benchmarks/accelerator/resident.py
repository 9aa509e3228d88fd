"""A 32 px net that trains from the device's own memory.

50,000 images of 32 px are 146 MiB as uint8: they are put on the device once, and a step
gathers its batch by index. Beside it the same step fed by the host, and on one batch
that stays on the device.

How to read it: `over_one_batch` is the median of the ratios to the one that stays, in
turns: what bringing the images costs.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import measure, step
from benchmarks.accelerator import steps
from benchmarks.accelerator.asked import Asked, Case
from benchmarks.measure import Row
from sws_jax import sharding, specs
from sws_jax.specs import ViTSpec
from sws_jax.training import step as training_step

WAYS = ("one batch that stays", "device memory", "the host's memory")


def cases(asked: Asked) -> Iterator[Case]:
    times = functools.cache(functools.partial(_times, asked))
    for way in WAYS:
        yield Case({"what": way}, functools.partial(_row, asked, times, way))


def _row(asked: Asked, times, way: str) -> Row:
    seconds: dict[str, list[float]] = times()
    own, plain = seconds[way], seconds[WAYS[0]]
    milliseconds = [1e3 * s / _count(asked) for s in own]
    size = _batch_size(asked)
    ratios = [a / b for a, b in zip(own, plain, strict=True)]
    return {
        "network": network(asked).name,
        "batch": size,
        "step_ms": measure.figure(milliseconds),
        "images_per_second": measure.short(
            1e3 * size / statistics.median(milliseconds)
        ),
        "over_one_batch": measure.short(statistics.median(ratios)),
    }


def network(asked: Asked) -> ViTSpec:
    """Twelve blocks over 64 patches; what the project trains at 32 px is narrower."""
    name = "vit_nano_patch8_L2" if asked.toy else "vit_tiny_patch4_L12"
    spec = specs.named(name, image_size=32, num_classes=10)
    assert isinstance(spec, ViTSpec)
    return spec


def _batch_size(asked: Asked) -> int:
    return 8 if asked.toy else 512 if asked.accelerator else 64


def _count(asked: Asked) -> int:
    return 5 * asked.steps


def _times(asked: Asked) -> dict[str, list[float]]:
    """Seconds of calls of so many steps, by way, taken in turns."""
    size, count = _batch_size(asked), _count(asked)
    recipe = training_step.Recipe(
        network(asked), step.IMAGENET, steps.BF16, ema=steps.EMA
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    everywhere = sharding.replicated(mesh)
    random = np.random.default_rng(0)
    total = 512 if asked.toy else 50_000
    images = random.integers(0, 256, (total, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, total, np.int32)
    kept = jax.device_put((images, labels), everywhere)
    indices = [random.choice(total, size, replace=False) for _ in range(count)]
    run_step = training_step.compiled_step(recipe, mesh)
    shardings = training_step.state_shardings(recipe, mesh)
    rate, key = jax.device_put((np.float32(1e-4), jax.random.key(0)), everywhere)

    def gathered(state, key, kept, index, rate):
        raw = {"image": kept[0][index], "label": kept[1][index]}
        return run_step(state, key, raw, rate, None)

    run_gathered = jax.jit(gathered, donate_argnums=0)

    def host(index: np.ndarray) -> Any:
        raw = {"image": images[index], "label": labels[index]}
        return sharding.to_global(mesh, size, raw)

    stays = host(indices[0])
    take = {
        WAYS[0]: lambda state, _: run_step(state, key, stays, rate, None),
        WAYS[1]: lambda state, index: run_gathered(
            state, key, kept, index.astype(np.int32), rate
        ),
        WAYS[2]: lambda state, index: run_step(state, key, host(index), rate, None),
    }
    new = functools.partial(training_step.new_state, recipe)
    start = jax.jit(new, out_shardings=shardings)
    states = {way: start(step.weights(recipe.spec)) for way in WAYS}

    def several(way: str) -> None:
        state = states[way]
        for index in indices:
            state, _ = take[way](state, index)
        states[way] = jax.block_until_ready(state)

    for way in WAYS:
        several(way)
    calls = {way: functools.partial(several, way) for way in WAYS}
    return measure.in_turns(calls, asked.repeats)
