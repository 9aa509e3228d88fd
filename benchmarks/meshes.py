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
import math
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
    import jax

    from benchmarks import chain
    from sws_jax import sharding

    def trained(job, shape):
        sizes = dict(zip(sharding.AXES, shape, strict=True))
        mesh = sharding.make_mesh(jax.devices()[: math.prod(shape)], sizes)
        return job.trained(mesh, steps)

    for job in chain.jobs("configs/aux_deit.py", "des-L06"):
        expected = trained(job, (1, 1, 1))
        for shape in MESHES:
            deviations = differences(expected, trained(job, shape))
            mesh = " x ".join(map(str, shape))
            shown = (f"{deviation:.0e}" for deviation in deviations)
            yield mesh, job.network.spec.name, *shown


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
