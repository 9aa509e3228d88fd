"""How a training step grows with depth and with the batch: time and memory.

A ViT and an Aux-Net of three equal stages, of the first of the sizes, patch 16, 224 px,
1000 classes, with DeiT's augmentation, AdamW and the moving average, scanned, on one
device: 3 to 24 blocks at one batch, and 12 blocks at an eighth to twice that batch.
Each series is fitted by a line, a fixed part and one for each block or image, by least
squares of the relative deviations.

How to read it: `step_ms` is measured, `step_fit_ms` what the line says there; likewise
`temp_mib`, what the compiled step needs beside state and batch, by XLA's account.
`state_mib`, weights, moments and average, depends on the network alone. Two pictures
beside the JSON file show points and lines.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import measure, step
from benchmarks.measure import MIB, Row, Settings
from sws_jax.specs import AuxViTSpec, ViTSpec
from sws_jax.storage import files
from sws_jax.training import step as steps

DEPTHS, SHARES = (3, 6, 12, 18, 24), (1 / 8, 1 / 4, 1 / 2, 1, 2)
DEPTH = 12  # at which the batch grows
STAGES = 3
# In the JSON file, and not in the table.
HIDDEN = (
    "step_fixed_ms", "step_each_ms", "temp_fixed_mib", "temp_each_mib",
)  # fmt: skip
# What grows, and with what: column of the table, and words of the picture.
AXES = {"depth": "blocks", "batch": "batch"}
SERIES = {"step_{}ms": "ms a step", "temp_{}mib": "temporary memory, MiB"}


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    measured: dict[tuple[Any, int], Row] = {}
    for along, name, spec, batch in _points(settings):
        about: Row = {"along": along, "network": name}
        about |= {"blocks": spec.depth, "batch": batch}
        if (spec, batch) not in measured:  # the two series share a point
            figures = functools.partial(_measure, spec, batch, settings)
            measured[spec, batch] = measure.measured("growth", about, figures)
        rows.append(measured[spec, batch] | about)
    return fitted(rows)


def fitted(rows: Sequence[Row]) -> list[Row]:
    """Rows with what the lines of their series say there."""
    return [_fitted(row, rows) for row in rows]


def _points(settings: Settings) -> Iterator[tuple[str, str, Any, int]]:
    """What grows, in which network, and the point: network and batch."""
    size, batch = settings.sizes[0], settings.batch_size
    depths = (3, 6) if settings.quick else DEPTHS
    depth = depths[0] if settings.quick else DEPTH
    batches = [max(round(share * batch), 1) for share in SHARES]
    for name in ("ViT", "Aux-Net"):
        for blocks in depths:
            yield "depth", name, _network(name, size, blocks, settings), batch
        for count in batches[-2:] if settings.quick else dict.fromkeys(batches):
            yield "batch", name, _network(name, size, depth, settings), count


def _network(
    name: str, size: str, blocks: int, settings: Settings
) -> ViTSpec | AuxViTSpec:
    stages = "-".join([str(blocks // STAGES)] * STAGES)
    text = f"vit_{size}_patch16_L{blocks}"
    if name != "ViT":
        text = f"aux_vit_{size}_patch16_{stages}"
    return step.network(text, settings, drop_path=step.DROP_PATH)


def _measure(spec: ViTSpec | AuxViTSpec, batch_size: int, settings: Settings) -> Row:
    recipe = steps.Recipe(spec, step.IMAGENET, augment=step.DEIT, ema=step.EMA)
    training = step.Training(recipe, batch_size)
    training.start()
    count = 5 if settings.accelerator else 1
    calls = {"step": lambda: training(count)}
    times = measure.in_turns(calls, settings.repeats + 2)["step"]
    row: Row = {"step_ms": measure.figure([1e3 * s / count for s in times])}
    if training.memory is not None:
        row["temp_mib"] = measure.short(training.memory.temp_size_in_bytes / MIB)
        kept = training.memory.alias_size_in_bytes  # the state, which stays in place
        row["state_mib"] = measure.short(kept / MIB)
    return row


def _fitted(row: Row, rows: Sequence[Row]) -> Row:
    """A row of those."""
    key = AXES[row["along"]]
    series = [
        r for r in rows if (r["along"], r["network"]) == (row["along"], row["network"])
    ]
    for quantity in SERIES:
        name = quantity.format("")
        points = [(r[key], _middle(r[name])) for r in series if name in r]
        if len(points) < 2 or name not in row:
            continue
        fixed, each = line(points)
        row = row | {
            quantity.format("fit_"): measure.short(fixed + each * row[key]),
            quantity.format("fixed_"): measure.short(fixed),
            quantity.format("each_"): measure.short(each),
        }
    return row


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The fixed part and the slope that deviate least, relative to each value.

    Args:
      points: (count, value above 0); at least two counts.
    """
    counts, values = np.asarray(points, np.float64).T
    columns = np.stack([1 / values, counts / values], axis=1)
    (fixed, each), *_ = np.linalg.lstsq(columns, np.ones(len(values)))
    return float(fixed), float(each)


def draw(rows: Sequence[Row], stem: str) -> None:
    """Writes a picture for each of `AXES`, ``STEM-depth.png`` and ``STEM-batch.png``.

    Args:
      rows: as `run` returns them.
      stem: of the paths.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    for along, key in AXES.items():
        figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for panel, (quantity, label) in zip(panels, SERIES.items(), strict=True):
            shown = [
                r for r in rows if r["along"] == along and quantity.format("fit_") in r
            ]
            for name, colour in (("ViT", "#3b6fb6"), ("Aux-Net", "#d1603d")):
                series = [r for r in shown if r["network"] == name]
                _draw_series(panel, series, key, quantity, name, colour)
            panel.set(xlabel=key, ylabel=label, xlim=(0, None), ylim=(0, None))
            panel.spines[["top", "right"]].set_visible(False)
            if shown:
                panel.legend(frameon=False)
        with files.replacing(f"{stem}-{along}.png") as temporary:
            figure.savefig(temporary, dpi=110)
        plt.close(figure)


def _draw_series(
    panel: Any, rows: Sequence[Row], key: str, quantity: str, name: str, colour: str
) -> None:
    """The points of a network and its line."""
    if not rows:
        return
    fixed, each = (rows[0][quantity.format(f"{part}_")] for part in ("fixed", "each"))
    counts = [row[key] for row in rows]
    values = [_middle(row[quantity.format("")]) for row in rows]
    label = f"{name}: {fixed:.3g} + {each:.3g} n"
    panel.plot(counts, values, "o", color=colour)
    ends = np.array([0, max(counts)])
    panel.plot(ends, fixed + each * ends, "-", color=colour, label=label)


def _middle(value: Any) -> float:
    return value["median"] if isinstance(value, dict) else value
