"""Results by what they are: ways to have networks of every depth, and their cost.

What a run is stands in the fields of its result: the name of a run or of a network is
shown and never read, so that any method's may be called as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sws_jax.reports.rows import Result

# Roles of the runs that are compared by depth; all others are listed one by one.
TUNED, UNTUNED = "tune", "untuned"
SCRATCH = ("scratch_short", "scratch_long")
COMPARED = (TUNED, UNTUNED, *SCRATCH)
# Roles of what comes before a learngene.
BEFORE = ("ancestor", "aux")


class Way(NamedTuple):
    """A way to have a network of any depth.

    Attributes:
      role: of its runs, as in `sws_jax.jobs.chain.Run`.
      epochs: that each of them trains.
    """

    role: str
    epochs: float


class Line(NamedTuple):
    """A column of the table, and a line of the picture.

    Attributes:
      start: what its networks begin from, "learngene" or "scratch".
      epochs: after which they were scored.
      budget: epochs that they trained in all; 0 where they were scored untrained, which
        is the same of all budgets.
    """

    start: str
    epochs: float
    budget: float


Ways = dict[Way, dict[int, list[Result]]]
Series = dict[Line, dict[int, list[float]]]


def ways(results: Iterable[Result]) -> Ways:
    """Way -> depth -> its runs, one for each seed: descendants and what they are
    compared with.

    A work directory may hold more than was asked for last: several budgets of one role,
    depths that only some of the ways have, seeds that only some of the depths have.
    """
    found: Ways = {}
    for result in results:
        if result["role"] in COMPARED:
            depths = found.setdefault(Way(result["role"], result["epochs"]), {})
            runs = depths.setdefault(result["depth"], [])
            if result["seed"] not in [run["seed"] for run in runs]:
                runs.append(result)
    order = sorted(found, key=lambda way: (COMPARED.index(way.role), way.epochs))
    return {way: dict(sorted(found[way].items())) for way in order}


def series(found: Ways) -> Series:
    """Line -> depth -> test top-1 of each seed, in the order of a table's columns."""
    lines: dict[Line, dict[int, dict[int, float]]] = {}
    for way, depths in found.items():
        start = "scratch" if way.role in SCRATCH else "learngene"
        for result in (result for runs in depths.values() for result in runs):
            # From scratch the end alone is compared.
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
    """What the columns are called; the budget is said where it tells two apart."""
    lines = list(lines)
    short = [f"{line.start}, {epochs_text(line.epochs)}" for line in lines]
    return [
        text if short.count(text) == 1 else f"{text} of {line.budget:g}"
        for text, line in zip(short, lines, strict=True)
    ]


def cost(results: Sequence[Result]) -> dict[Way, dict[str, float]]:
    """Layer-epochs and stored parameters of having every depth, by each way.

    Layer-epochs are depth x epochs, summed over runs, one seed of every depth: the
    others are for the spread alone. Through the learngene: ancestor, Aux-Net and the
    tuning of every depth, as far as this job trained them (`_uncounted` says what it
    was given); expansions count as a way of their own only where none was tuned. Stored
    is what must be kept to have every depth without training it long again: the
    learngene, or every network.

    Returns:
      For each way layer-epochs spent ``once``, ``per_depth`` (summed over the depths)
      and in all, parameters ``stored``, and the number of ``depths`` that it has:
      sums over different depths are no comparison.
    """
    # (Here, too, what differs in its seed alone counts once.)
    shared = {
        (r["role"], r["method"], r["depth"], r["epochs"]): r["layer_epochs"]
        for r in results
        if r["role"] in BEFORE
    }
    found = {}
    for way, depths in _counted(ways(results)).items():
        first = [runs[0] for runs in depths.values()]
        once, stored = 0.0, sum(run["params"] for run in first)
        if way.role not in SCRATCH:
            once, stored = sum(shared.values()), max(r["stored_params"] for r in first)
        per_depth = sum(run["layer_epochs"] for run in first)
        found[way] = {
            "once": once,
            "per_depth": per_depth,
            "layer_epochs": once + per_depth,
            "stored": stored,
            "depths": len(depths),
        }
    return found


def _counted(found: Ways) -> Ways:
    """Without the expansions of a job that tunes: they cost nothing more."""
    tuned = any(way.role == TUNED for way in found)
    return {way: d for way, d in found.items() if not (tuned and way.role == UNTUNED)}


def count_depths(results: Sequence[Result]) -> int:
    """That some way of `cost` has."""
    return len({d for depths in _counted(ways(results)).values() for d in depths})


def most_seeds(lines: Series) -> int:
    """Seeds, at the depth and in the column that have most."""
    return max(len(values) for line in lines.values() for values in line.values())


def notes(way: Way, found: dict[Way, dict[str, float]], total: int) -> list[str]:
    """What tells a way from others of its role, and what it lacks.

    Args:
      way: one of `found`.
      found: of `cost`.
      total: depths that any of them has.
    """
    notes = []
    if [other.role for other in found].count(way.role) > 1:
        notes.append(epochs_text(way.epochs))
    if found[way]["depths"] < total:
        notes.append(f"{found[way]['depths']} of {total} depths")
    return notes


def final_top1(result: Result) -> float:
    return result["test"][-1]["top1"]


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def epochs_text(epochs: float) -> str:
    if not epochs:
        return "untuned"
    return "1 epoch" if epochs == 1 else f"{epochs:g} epochs"
