"""Training on every mesh of eight devices beside training on one.

    python -m benchmarks.meshes [--steps 5] [--out table.md]

Eight devices made of one CPU. The networks are those of ``configs/aux_deit.py`` on
digits (an Aux-Net 3-3-4-3-3 of four heads distilled from a teacher of six blocks, and
a descendant of six blocks without), from their seeds, with stochastic depth, mixup and
cutmix on. Each row is the difference from one device after so many updates: the
largest of a loss, relative to it; of the weights of every array, relative to the
largest in it, the one that 99 % of them stay below and the largest, each of the worst
array. Keys' biases stand apart: softmax does not see them, and Adam steps along the
noise of their gradient.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys

DEVICES = 8
MESHES = (
    (8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 1, 4), (1, 1, 8),
    (2, 2, 2), (1, 4, 2), (1, 2, 4),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.meshes",
        description="Differences between training on many devices and on one.",
    )
    parser.add_argument("--steps", type=int, default=5, help="updates of each run")
    parser.add_argument("--out", help="write the table here, as Markdown")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    flag = f"--xla_force_host_platform_device_count={DEVICES}"
    from tabulate import tabulate

    from sws_jax import xla_flags
    from sws_jax.storage import files

    os.environ["XLA_FLAGS"] = xla_flags.joined(os.environ.get("XLA_FLAGS", ""), flag)

    head = (
        "data x fsdp x tensor",
        "network",
        "loss",
        "weights, 99 %",
        "weights, largest",
        "keys' biases",
    )
    rows = list(_rows(args.steps))
    markdown = tabulate(rows, head, tablefmt="github", stralign="right")
    print(markdown)
    if args.out:
        files.write_text(args.out, markdown + "\n")
    return 0


def _rows(steps: int):
    for name, job in _jobs():
        expected = _run(*job, (1, 1, 1), steps)
        for shape in MESHES:
            deviations = differences(expected, _run(*job, shape, steps))
            mesh = " x ".join(map(str, shape))
            yield mesh, name, *(f"{deviation:.0e}" for deviation in deviations)


def _jobs():
    """(name, (recipe, network, teacher or None, batches)) of each row."""
    from sws_jax.data import pipeline
    from sws_jax.jobs import build, commandline, initial
    from sws_jax.jobs.rows import runs
    from sws_jax.models import vit
    from sws_jax.models.networks import Network, Predictor
    from sws_jax.training.roles import ANCESTOR, AUX

    rows = {r.name: r for r in runs(commandline.load("configs/aux_deit.py"))}
    data = build.dataset(rows[ANCESTOR].config)
    for name in (AUX, "des-L06"):
        config = rows[name].config.copy_and_resolve_references()
        config.init.learngene = ""
        config.model.drop_path = 0.1
        config.augment.update(mixup=0.8, cutmix=1.0, mix_group=0)
        network = initial.initial_network(config, data, "")
        recipe = build.recipe(config, network.spec, data.normalization)
        teacher = None
        if recipe.loss.needs_teacher:
            spec = initial.initial_network(rows[ANCESTOR].config, data, "").spec
            import jax

            params = vit.init_params(spec.build(), jax.random.key(1))
            teacher = Predictor(Network(spec, params), data.normalization)
        batches = pipeline.train_batches(
            data.train,
            build.transform(config),
            seed=config.seed,
            global_batch_size=config.global_batch_size,
            size=data.image_shape[:2],
        )
        yield network.spec.name, (recipe, network, teacher, _Kept(batches))


class _Kept:
    """The first batches of an endless stream, as often as they are asked for."""

    def __init__(self, stream):
        self._stream, self._seen = stream, []

    def first(self, count: int):
        while len(self._seen) < count:
            rows = next(self._stream)
            rows.pop("skipped")
            self._seen.append(rows)
        return self._seen[:count]


def _run(recipe, network, teacher, batches, shape, steps):
    """Losses and final params on a mesh of that shape."""
    import math

    import jax
    import numpy as np

    from sws_jax import sharding, trees
    from sws_jax.training import step

    sizes = dict(zip(sharding.AXES, shape, strict=True))
    mesh = sharding.make_mesh(jax.devices()[: math.prod(shape)], sizes)
    if teacher is not None:
        known = teacher.network
        its = step.network_shardings(known.spec, mesh)
        placed = dataclasses.replace(known, params=sharding.put(known.params, its))
        teacher = dataclasses.replace(teacher, network=placed)
    shardings = step.state_shardings(recipe, mesh)
    new = jax.jit(
        lambda params: step.new_state(recipe, params), out_shardings=shardings
    )
    state = new(sharding.put(network.params, shardings.params))
    run_step = step.compiled_step(recipe, mesh)
    losses = []
    for rows in batches.first(steps):
        raw = sharding.to_global(mesh, len(rows["label"]), rows)
        key = jax.random.key(0)
        state, numbers = run_step(state, key, raw, np.float32(1e-3), teacher)
        losses.append(float(numbers["loss"]))
    return losses, trees.flatten(trees.to_host(state.params))


def differences(expected, actual) -> tuple[float, float, float, float]:
    """The differences of losses, of most weights, of all, and of the keys' biases."""
    import numpy as np

    losses = max(
        abs(b - a) / abs(a) for a, b in zip(expected[0], actual[0], strict=True)
    )
    most, weights, keys = [0.0], [0.0], [0.0]
    for name, old in expected[1].items():
        difference = np.abs(actual[1][name] - old) / np.abs(old).max()
        if name.endswith("qkv/bias"):  # [..., 3, heads, head size]
            keys.append(float(difference[..., 1, :, :].max()))
            difference = difference[..., [0, 2], :, :]
        most.append(float(np.quantile(difference, 0.99)))
        weights.append(float(difference.max()))
    return losses, max(most), max(weights), max(keys)


if __name__ == "__main__":
    sys.exit(main())
