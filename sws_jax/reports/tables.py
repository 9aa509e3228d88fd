"""The table of a job: its networks by depth, and what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import tabulate

from sws_jax.reports import grouping
from sws_jax.reports.grouping import Series, Way, Ways
from sws_jax.reports.rows import Result
from sws_jax.training import roles


def table(results: Sequence[Result], *, markup: str = "simple") -> str:
    """Runs of no comparison, the comparison by depth, and what that cost.

    Args:
      results: of `sws_jax.jobs.execute.execute`.
      markup: a format of the tabulate package: "simple", "github".
    """
    parts = []
    if single := [r for r in results if r["role"] not in roles.COMPARED]:
        parts.append(_tabulate(*_single(single), markup))
    if ways := grouping.ways(results):
        comparison = _tabulate(*_comparison(ways), markup)
        parts.append(comparison + _seeds(grouping.series(ways)))
        parts.append(_tabulate(*_cost(results), markup))
    profiles = sorted({r["profile"] for r in results} - {"consistent"})
    if profiles:
        parts.append(f"Profile: {', '.join(profiles)}.")
    return "\n\n".join(parts)


def _single(results: Sequence[Result]) -> tuple[list, list]:
    """Head and body of the table with a line for each run."""
    head = ["run", "network", "epochs", "test top-1", "parameters"]
    body = [
        [
            result["name"],
            result["network"],
            f"{result['epochs']:g}",
            grouping.percent(grouping.final_top1(result)),
            f"{result['params']:,}",
        ]
        for result in results
    ]
    return head, body


def _comparison(ways: Ways) -> tuple[list, list]:
    """Head and body of the table with a line for each depth."""
    lines = grouping.series(ways)
    seeds = grouping.most_seeds(lines)
    head = ["depth", "parameters", *grouping.labels(lines)]
    params: dict[int, int] = {}
    for depths in ways.values():
        for depth, runs in depths.items():
            params.setdefault(depth, runs[0]["params"])
    body = [
        [
            depth,
            f"{params[depth]:,}",
            *(_spread(line.get(depth, []), seeds) for line in lines.values()),
        ]
        for depth in sorted(params)
    ]
    return head, body


def _seeds(lines: Series) -> str:
    """The sentence below a table with means over several seeds; else nothing."""
    seeds = grouping.most_seeds(lines)
    if seeds == 1:
        return ""
    text = f"\n\nMean and standard deviation over {seeds} seeds"
    if any(len(values) < seeds for line in lines.values() for values in line.values()):
        text += ", or over as many as stand in brackets"
    return text + "."


def _cost(results: Sequence[Result]) -> tuple[list, list]:
    """Head and body of the table with a line for each way to have every depth."""
    costs = grouping.cost(results)
    total = grouping.count_depths(results)
    learngenes = grouping.learngene_names(costs)
    body = []
    for way, spent in costs.items():
        notes = grouping.notes(way, costs, total)
        name = roles.SCRATCH.get(way.role, "")
        if not name:
            notes = [*_uncounted(results, way), *notes]
            name = learngenes.get(way.method, "learngene")
            name += " + tuning" if way.role == roles.TUNED else ""
        body.append(
            [
                name + (f" ({'; '.join(notes)})" if notes else ""),
                f"{spent['once']:g}",
                f"{spent['per_depth']:g}",
                f"{spent['layer_epochs']:g}",
                f"{spent['stored']:,}",
            ]
        )
    whole = len({d for depths in grouping.ways(results).values() for d in depths})
    depths = f"all {total} depths" if total > 1 else "the depth"
    head = [
        depths if total == whole else f"{total} of the {whole} depths",
        "layer-epochs once",
        "of the depths",
        "together",
        "parameters kept for all depths",
    ]
    return head, body


def _uncounted(results: Sequence[Result], way: Way) -> list[str]:
    """A note on the networks before a learngene that this job did not train."""
    descendants = [r for runs in grouping.ways(results)[way].values() for r in runs]
    # A run knows what it stands on, unless older software did it, or files are part.
    if all(r.get("flops_before") is not None for r in descendants):
        return []
    trained = {runs[0]["role"] for runs in grouping.phases(results, way.method)}
    missing = [b.listed for role, b in roles.BEFORE.items() if role not in trained]
    return [f"{' and '.join(missing)} not counted"] if missing else []


def _tabulate(head, body, markup: str) -> str:
    return tabulate.tabulate(
        body, head, tablefmt=markup, stralign="right", disable_numparse=True
    )


def _spread(values: Sequence[float], seeds: int) -> str:
    """Mean and, where seeds differ, sample standard deviation, in per cent.

    Args:
      values: of each seed.
      seeds: the largest number of any cell; a cell of fewer shows its own.
    """
    if not values:
        return ""
    text = grouping.percent(values[0])
    if len(set(values)) > 1:
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        text = f"{100 * mean:.1f} ± {100 * deviation:.1f}%"
    return text if len(values) == seeds else f"{text} ({len(values)})"
