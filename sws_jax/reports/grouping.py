"""Results grouped for comparison: ways to have networks of every depth, and their cost.

Groups are formed by the fields of a result. Names of runs and networks are shown and
never parsed, so that a method may choose them freely.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sws_jax.reports.rows import Result
from sws_jax.training import roles
from sws_jax.training.roles import COMPARED, SCRATCH


class Way(NamedTuple):
    """A way to have a network of any depth.

    Attributes:
      role: of its runs, of `sws_jax.training.roles`.
      epochs: of the training of each run.
    """

    role: str
    epochs: float


class Line(NamedTuple):
    """A column of the table, and a line of the picture.

    Attributes:
      start: what its networks begin from, "learngene" or "scratch".
      epochs: after which they were scored.
      budget: all epochs of their training; 0 for scores before training, which are the
        same for all budgets.
    """

    start: str
    epochs: float
    budget: float


Ways = dict[Way, dict[int, list[Result]]]
Series = dict[Line, dict[int, list[float]]]


def ways(results: Iterable[Result]) -> Ways:
    """Way -> depth -> one run for each seed, of descendants and their rivals.

    A work directory may hold the runs of several jobs: several budgets of one role,
    depths that only some of the ways have, seeds that only some of the depths have.
    """
    grouped: Ways = {}
    for result in results:
        if result["role"] in COMPARED:
            depths = grouped.setdefault(Way(result["role"], result["epochs"]), {})
            runs = depths.setdefault(result["depth"], [])
            if result["seed"] not in [run["seed"] for run in runs]:
                runs.append(result)
    order = sorted(grouped, key=lambda way: (COMPARED.index(way.role), way.epochs))
    return {way: dict(sorted(grouped[way].items())) for way in order}


def series(ways: Ways) -> Series:
    """Line -> depth -> test top-1 of each seed, in the order of a table's columns."""
    lines: dict[Line, dict[int, dict[int, float]]] = {}
    for way, depths in ways.items():
        start = "scratch" if way.role in SCRATCH else "learngene"
        for result in (result for runs in depths.values() for result in runs):
            # Of a training from scratch only the final score is compared.
            scores = result["test"] if start == "learngene" else result["test"][-1:]
            for score in scores:
                epochs = score["epochs"]
                line = Line(start, epochs, way.epochs if epochs else 0.0)
                seeds = lines.setdefault(line, {}).setdefault(result["depth"], {})
                seeds.setdefault(result["seed"], score["top1"])
    return {
        line: {
            depth: list(lines[line][depth].values()) for depth in sorted(lines[line])
        }
        for line in sorted(lines)
    }


def labels(lines: Iterable[Line]) -> list[str]:
    """Headings of the columns, with the budget where two would read the same."""
    lines = list(lines)
    short = [f"{line.start}, {epochs_text(line.epochs)}" for line in lines]
    return [
        text if short.count(text) == 1 else f"{text} of {line.budget:g}"
        for text, line in zip(short, lines, strict=True)
    ]


def cost(results: Sequence[Result]) -> dict[Way, dict[str, float]]:
    """Layer-epochs and stored parameters of having every depth, by each way.

    Layer-epochs are depth x epochs, summed over the runs of one seed of every depth;
    further seeds serve the spread alone. The learngene's include the ancestor, the
    Aux-Net and the tuning of every depth, as far as this job trained them; the table
    names what it did not train. Untuned expansions are a way of their own only where
    none was tuned. Stored is what must be kept to have every depth without long
    training: the learngene, or every network.

    Returns:
      For each way layer-epochs spent ``once``, ``per_depth`` (summed over the depths)
      and in all, parameters ``stored``, and the number of its ``depths``: sums over
      different numbers of depths cannot be compared.
    """
    # Here, too, runs that differ in their seed alone count once.
    shared = {
        (r["role"], r["method"], r["depth"], r["epochs"]): r["layer_epochs"]
        for r in results
        if r["role"] in roles.BEFORE
    }
    costs = {}
    for way, depths in _counted(ways(results)).items():
        first = [runs[0] for runs in depths.values()]
        once, stored = 0.0, sum(run["params"] for run in first)
        if way.role not in SCRATCH:
            once, stored = sum(shared.values()), max(r["stored_params"] for r in first)
        per_depth = sum(run["layer_epochs"] for run in first)
        costs[way] = {
            "once": once,
            "per_depth": per_depth,
            "layer_epochs": once + per_depth,
            "stored": stored,
            "depths": len(depths),
        }
    return costs


def _counted(ways: Ways) -> Ways:
    """Without the untuned expansions of a job that tunes, which cost nothing more."""
    if all(way.role != roles.TUNED for way in ways):
        return ways
    return {way: depths for way, depths in ways.items() if way.role != roles.UNTUNED}


def count_depths(results: Sequence[Result]) -> int:
    """How many depths there are, in all ways of `cost` together."""
    return len({d for depths in _counted(ways(results)).values() for d in depths})


def most_seeds(lines: Series) -> int:
    """The largest number of seeds of any depth in any column."""
    return max(len(values) for line in lines.values() for values in line.values())


def notes(way: Way, costs: dict[Way, dict[str, float]], total: int) -> list[str]:
    """The epochs of a way that shares its role, and how many depths it has of all.

    Args:
      way: one of `costs`.
      costs: of `cost`.
      total: `count_depths`.
    """
    remarks = []
    if [other.role for other in costs].count(way.role) > 1:
        remarks.append(epochs_text(way.epochs))
    if costs[way]["depths"] < total:
        remarks.append(f"{costs[way]['depths']} of {total} depths")
    return remarks


def final_top1(result: Result) -> float:
    """Test accuracy at the end of a run."""
    return result["test"][-1]["top1"]


def percent(share: float) -> str:
    """98.5%"""
    return f"{share:.1%}"


def epochs_text(epochs: float) -> str:
    """A training's length: 5 epochs, 1 epoch, or untuned."""
    if not epochs:
        return "untuned"
    return "1 epoch" if epochs == 1 else f"{epochs:g} epochs"
