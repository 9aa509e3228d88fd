"""Time and memory of a training step: scan, remat and unrolling compared.

The Aux-Net of stages 3-3-4-3-3 and descendants of 16 and 12 blocks, patch 16, 224 px,
1000 classes, DeiT's recipe with all it does on the device: mixup, cutmix, erasing,
label smoothing, stochastic depth, AdamW, the moving average. One device, one batch
that stays on it: reading images is another program (`benchmarks.inputs`).

How to read it: `step_ms` is the median (least) of the repeats. Rematerialisation trades
time for `temp_mib`, what a step needs beside state and batch; unrolling trades
`compile_s` for time. `program_mib` is everything the compiled step occupies, the state
counted once although it goes in and comes out. `process_peak_mib`, where the device
tells, is the most this process ever held: it is given for a row that raised it.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from benchmarks.measure import MIB, Row, Settings
from sws_jax import sharding, specs, trees
from sws_jax.data.augment import Augment
from sws_jax.models import networks
from sws_jax.models.networks import Predictor
from sws_jax.pixels import IMAGENET_MEAN, IMAGENET_STD, Normalization
from sws_jax.specs import AuxViTSpec, Compute, ViTSpec
from sws_jax.training import replay
from sws_jax.training import step as steps

NETWORKS = (
    "aux_vit_{}_patch16_3-3-4-3-3",
    "vit_{}_patch16_L16",
    "vit_{}_patch16_L12",
)
QUICK = ("aux_vit_{}_patch16_1-2",)
# In the JSON file, and not in the table.
HIDDEN = ("dtype", "lower_s", "argument_mib", "output_mib")
IMAGENET = Normalization(IMAGENET_MEAN, IMAGENET_STD)
# DeiT, 2012.12877, table 9: what of it happens on the device.
DEIT = Augment(erase=0.25, mixup=0.8, cutmix=1.0, label_smoothing=0.1)
DROP_PATH, EMA = 0.1, 0.99996


def run(settings: Settings) -> list[Row]:
    rows = []
    for size in settings.sizes:
        for spec, mode, compute in _runs(size, settings):
            recipe = steps.Recipe(spec, IMAGENET, compute, augment=DEIT, ema=EMA)
            about: Row = {"network": spec.name, "mode": mode}
            about |= {"dtype": compute.dtype, "batch": settings.batch_size}
            figures = functools.partial(_measure, recipe, settings)
            rows.append(measure.measured("step", about, figures))
    return rows


def _runs(
    size: str, settings: Settings
) -> Iterator[tuple[ViTSpec | AuxViTSpec, str, Compute]]:
    """Networks of a size, the ways to run them, and the names of these.

    On a CPU, a minute of compilation for each unrolled network is spent once, on the
    first size and 12 blocks, and later sizes leave 16 blocks out, which cost as much
    as the Aux-Net: ask for them with ``--sizes small``.
    """
    everything = settings.accelerator or settings.quick
    first = size == settings.sizes[0]
    for name in QUICK if settings.quick else NETWORKS:
        spec = network(name.format(size), settings, drop_path=DROP_PATH)
        if not (everything or first) and isinstance(spec, ViTSpec) and spec.depth == 16:
            continue
        for dtype in ("float32", "bfloat16") if settings.accelerator else ("float32",):
            end = "" if dtype == "float32" else ", bf16"
            yield spec, "scan" + end, Compute(dtype)
            yield spec, "scan + remat" + end, Compute(dtype, remat=True)
            if everything or (first and spec.depth == 12):
                yield spec, "unrolled" + end, unrolled(spec, dtype)


def network(name: str, settings: Settings, **fields) -> ViTSpec | AuxViTSpec:
    """ImageNet's, or one as small in `quick`."""
    if settings.quick:
        fields |= dict(image_size=32, num_classes=10)
    return specs.named(name, **fields)


def unrolled(spec: ViTSpec | AuxViTSpec, dtype: str = "float32") -> Compute:
    """No loop is left: every block is compiled on its own."""
    return Compute(dtype, unroll=spec.depth)


class Training:
    """A network in training on one device, stepped at will on one batch.

    The step is compiled ahead of time: no call compiles, the first one included,
    although it gets a state that no step has made.

    Attributes:
      lower_s, compile_s: tracing to XLA's input, and XLA's own work.
      memory: XLA's account of the compiled step, or None.
      numbers: of the last step.
    """

    def __init__(
        self, recipe: steps.Recipe, batch_size: int, teacher: Predictor | None = None
    ):
        self.mesh = sharding.make_mesh(jax.devices()[:1])
        self.recipe, self.batch_size = recipe, batch_size
        self._teacher = self._placed(teacher)
        *arguments, _ = abstract_arguments(recipe, batch_size)
        arguments.append(self._teacher)
        before = time.perf_counter()
        lowered = steps.compiled_step(recipe, self.mesh).lower(*arguments)
        self.lower_s = time.perf_counter() - before
        before = time.perf_counter()
        self._step = lowered.compile()
        self.compile_s = time.perf_counter() - before
        self.memory = self._step.memory_analysis()
        self._state: Any = None
        self.numbers: dict[str, jax.Array] = {}

    @property
    def text(self) -> str:
        """The compiled program, in XLA's language."""
        return self._step.as_text()

    def _placed(self, teacher: Predictor | None) -> Predictor | None:
        """A teacher, whose weights are on the host, on the device."""
        if teacher is None:
            return None
        known = teacher.network
        places = steps.network_shardings(known.spec, self.mesh)
        params = sharding.put(known.params, places)
        network = dataclasses.replace(known, params=params)
        return dataclasses.replace(teacher, network=network)

    @property
    def program_bytes(self) -> int:
        """The bytes that the compiled step occupies while it runs."""
        m = self.memory
        return (
            m.argument_size_in_bytes
            + m.output_size_in_bytes
            + m.temp_size_in_bytes
            - m.alias_size_in_bytes
        )

    def start(self) -> None:
        """Puts state and batch on the device, and takes two steps to warm up.

        Raises:
          MemoryError: the host has less than the step occupies; the system would end
            this process in the middle of it.
        """
        free = measure.available_bytes()
        on_host = jax.devices()[0].platform == "cpu"
        if on_host and self.memory and free and self.program_bytes > free:
            raise MemoryError(
                f"the step needs {self.program_bytes / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} are free"
            )
        random = np.random.default_rng(0)
        shardings = steps.state_shardings(self.recipe, self.mesh)
        params = jax.device_put(weights(self.recipe.spec), shardings.params)
        new = functools.partial(steps.new_state, self.recipe)
        self._state = jax.jit(new, out_shardings=shardings)(params)
        everywhere = sharding.replicated(self.mesh)
        spec = self.recipe.spec
        shape = (self.batch_size, *spec.image_size, spec.channels)
        raw = {
            "image": random.integers(0, 256, shape, np.uint8),
            "label": random.integers(0, spec.num_classes, self.batch_size, np.int32),
        }
        self._rest = (
            jax.device_put(jax.random.key(0), everywhere),
            sharding.to_global(self.mesh, self.batch_size, raw),
            jax.device_put(np.float32(1e-4), everywhere),
            self._teacher,
        )
        self(2)

    def __call__(self, count: int = 1) -> None:
        """Takes so many steps, one after the other, and waits for the last."""
        for _ in range(count):
            self._state, self.numbers = self._step(self._state, *self._rest)
        jax.block_until_ready((self._state, self.numbers))

    def saved(self) -> dict[str, trees.Tree]:
        """What a checkpoint holds of the state."""
        state = self._state
        return {"params": state.params, "opt": state.opt, "ema": state.ema}

    def twice(self) -> None:
        """Takes one step, computes it again, and compares the two."""
        after, place = replay.twice(self._step, self._state, *self._rest)
        assert not place, place
        self._state, numbers = after
        jax.block_until_ready((self._state, numbers))


def abstract_arguments(recipe: steps.Recipe, batch_size: int) -> tuple:
    """Shapes of what a compiled step is called with: enough to compile it."""
    state = jax.eval_shape(
        functools.partial(steps.new_state, recipe),
        networks.abstract_params(recipe.spec),
    )
    spec = recipe.spec
    shape = (batch_size, *spec.image_size, spec.channels)
    raw = {
        "image": jax.ShapeDtypeStruct(shape, np.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), np.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    return state, key, raw, jax.ShapeDtypeStruct((), np.float32), None


def weights(spec: ViTSpec | AuxViTSpec) -> trees.Tree:
    """Numpy parameters of ordinary size: the time of a step asks for no more."""
    random = np.random.default_rng(0)

    def draw(name, leaf):
        values = random.standard_normal(leaf.shape, np.float32) * np.float32(0.02)
        return values + np.float32(name.endswith("scale"))

    return trees.map_with_name(draw, networks.abstract_params(spec))


def _measure(recipe: steps.Recipe, settings: Settings) -> Row:
    training = Training(recipe, settings.batch_size)
    row: Row = {}
    peak_before = _process_peak()
    training.start()
    # A device with its own queue is timed as it is trained on: several steps at once.
    count = 5 if settings.accelerator else 1
    calls = {"step": lambda: training(count)}
    times = measure.in_turns(calls, settings.repeats)["step"]
    row["step_ms"] = measure.figure([1e3 * s / count for s in times])
    row["images_per_second"] = measure.short(
        1e3 * settings.batch_size / row["step_ms"]["median"]
    )
    row["lower_s"] = measure.short(training.lower_s)
    row["compile_s"] = measure.short(training.compile_s)
    if training.memory is not None:
        for name in ("temp", "argument", "output"):
            size = getattr(training.memory, f"{name}_size_in_bytes")
            row[f"{name}_mib"] = measure.short(size / MIB)
        row["program_mib"] = measure.short(training.program_bytes / MIB)
    if _process_peak() > peak_before:
        row["process_peak_mib"] = measure.short(_process_peak() / MIB)
    return row


def _process_peak() -> int:
    """Most bytes on the device so far; it cannot be reset. 0 where nobody tells."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", 0)
