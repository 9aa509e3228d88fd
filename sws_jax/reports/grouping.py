"""Results grouped for comparison: ways to have networks of every depth, and their cost.

Groups are formed by the fields of a result. Methods are named where there are several.
Names of runs and networks are shown and never parsed, so that a method may choose them
freely.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sws_jax.reports.rows import Result, phase
from sws_jax.training import roles
from sws_jax.training.roles import COMPARED, SCRATCH


class Way(NamedTuple):
    """A way to have a network of any depth.

    Attributes:
      role: of its runs, of `sws_jax.training.roles`.
      method: of the learngene; empty from scratch.
      epochs: of the training of each run.
    """

    role: str
    method: str
    epochs: float


class Line(NamedTuple):
    """A column of the table, and a line of the picture.

    Attributes:
      start: what its networks begin from, "learngene" or "scratch".
      method: of the learngene; empty from scratch.
      epochs: after which they were scored.
      budget: all epochs of their training; 0 for scores before training, which are the
        same for all budgets.
    """

    start: str
    method: str
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
            method = "" if result["role"] in SCRATCH else result["method"]
            way = Way(result["role"], method, result["epochs"])
            depths = grouped.setdefault(way, {})
            runs = depths.setdefault(result["depth"], [])
            if result["seed"] not in [run["seed"] for run in runs]:
                runs.append(result)
    order = sorted(grouped, key=lambda way: (COMPARED.index(way.role), *way[1:]))
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
                line = Line(start, way.method, epochs, way.epochs if epochs else 0.0)
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
    names = learngene_names(lines)
    short = [
        f"{names.get(line.method, line.start)}, {epochs_text(line.epochs)}"
        for line in lines
    ]
    return [
        text if short.count(text) == 1 else f"{text} of {line.budget:g}"
        for text, line in zip(short, lines, strict=True)
    ]


def learngene_names(groups: Iterable[Way | Line]) -> dict[str, str]:
    """What the learngene of each method is called: "learngene" where there is one.

    Args:
      groups: ways or lines; those from scratch have no method.
    """
    methods = sorted({group.method for group in groups if group.method})
    return {m: "learngene" if len(methods) == 1 else m for m in methods}


def cost(results: Sequence[Result]) -> dict[Way, dict[str, float]]:
    """Layer-epochs and stored parameters of having every depth, by each way.

    Layer-epochs are depth x epochs, summed over the runs of one seed of every depth;
    further seeds serve the spread alone. A learngene's include the ancestor, the phases
    of its method (the Aux-Net) and the tuning of every depth, as far as this job
    trained them; the table names what it did not train. Untuned expansions are a way of
    their own only where none of their method was tuned. Stored is what must be kept to
    have every depth without long training: the learngene, or every network.

    Returns:
      For each way layer-epochs spent ``once``, ``per_depth`` (summed over the depths)
      and in all, parameters ``stored``, and the number of its ``depths``: sums over
      different numbers of depths cannot be compared.
    """
    costs = {}
    for way, depths in _counted(ways(results)).items():
        first = [runs[0] for runs in depths.values()]
        once, stored = 0.0, sum(run["params"] for run in first)
        if way.role not in SCRATCH:
            once = sum(p[0]["layer_epochs"] for p in phases(results, way.method))
            # A learngene serves all depths; a network that was trained for one depth is
            # as large as no other.
            stored = sum({run["stored_params"] for run in first})
        per_depth = sum(run["layer_epochs"] for run in first)
        costs[way] = {
            "once": once,
            "per_depth": per_depth,
            "layer_epochs": once + per_depth,
            "stored": stored,
            "depths": len(depths),
        }
    return costs


def phases(results: Sequence[Result], method: str) -> list[list[Result]]:
    """What was trained before the learngene of a method: the ancestor, then the others.

    Args:
      results: of all runs.
      method: name of the method.

    Returns:
      The runs of each phase: those that differ in their seed alone.
    """
    needed = _needed(results, method)
    grouped: dict[tuple, list[Result]] = {}
    for role in roles.BEFORE:
        for run in results:
            if run["role"] == role and run["name"] in needed:
                key = (phase(run), run["method"], run["depth"], run["epochs"])
                grouped.setdefault(key, []).append(run)
    return list(grouped.values())


def _needed(results: Sequence[Result], method: str) -> set[str]:
    """Names of the runs that the descendants of a method stand on.

    Results of older reports do not say it: for them these are the runs of the method,
    and of no method.
    """
    descendants = [
        r for r in results if r["role"] in roles.DESCENDANTS and r["method"] == method
    ]
    if all("before" in run for run in descendants):
        return {name for run in descendants for name in run["before"]}
    return {run["name"] for run in results if run["method"] in ("", method)}


def _counted(ways: Ways) -> Ways:
    """The ways without untuned expansions of methods that were tuned, too.

    They cost no more than the learngene, which the tuned ones count.
    """
    tuned = {way.method for way in ways if way.role == roles.TUNED}
    return {
        way: depths
        for way, depths in ways.items()
        if way.role != roles.UNTUNED or way.method not in tuned
    }


def count_depths(results: Sequence[Result]) -> int:
    """How many depths there are, in all ways of `cost` together."""
    return len({d for depths in _counted(ways(results)).values() for d in depths})


def most_seeds(lines: Series) -> int:
    """The largest number of seeds of any depth in any column."""
    return max(len(values) for line in lines.values() for values in line.values())


def notes(way: Way, costs: dict[Way, dict[str, float]], total: int) -> list[str]:
    """The epochs of a way that shares role and method, and how many depths it has.

    Args:
      way: one of `costs`.
      costs: of `cost`.
      total: `count_depths`.
    """
    remarks = []
    if [other[:2] for other in costs].count(way[:2]) > 1:
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
