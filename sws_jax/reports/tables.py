"""The table of a job: its networks by depth, and what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import tabulate

from sws_jax.reports import grouping
from sws_jax.reports.grouping import Series, Ways
from sws_jax.reports.rows import Result


def table(results: Sequence[Result], *, markup: str = "simple") -> str:
    """The comparison by depth, and below it what it cost.

    Args:
      results: of `sws_jax.jobs.chain.execute`.
      markup: a format of the tabulate package: "simple", "github".
    """
    parts = []
    single = [r for r in results if r["role"] not in grouping.COMPARED]
    if single:
        body = [
            [
                r["name"],
                r["network"],
                f"{r['epochs']:g}",
                grouping.percent(grouping.final_top1(r)),
                f"{r['params']:,}",
            ]
            for r in single
        ]
        head = ["run", "network", "epochs", "test top-1", "parameters"]
        parts.append(_tabulate(head, body, markup))
    found = grouping.ways(results)
    if found:
        parts.append(
            _tabulate(*_comparison(found), markup) + _seeds(grouping.series(found))
        )
        parts.append(_tabulate(*_cost(results), markup))
    profiles = sorted({r["profile"] for r in results} - {"consistent"})
    if profiles:
        parts.append(f"Profile: {', '.join(profiles)}.")
    return "\n\n".join(parts)


def _comparison(found: Ways) -> tuple[list, list]:
    lines = grouping.series(found)
    seeds = grouping.most_seeds(lines)
    head = ["depth", "parameters", *grouping.labels(lines)]
    params: dict[int, int] = {}
    for depths in found.values():
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
    """What the numbers of several seeds are, below the table."""
    seeds = grouping.most_seeds(lines)
    if seeds == 1:
        return ""
    text = f"\n\nMean and standard deviation over {seeds} seeds"
    if any(len(values) < seeds for line in lines.values() for values in line.values()):
        text += ", or over as many as stand in brackets"
    return text + "."


def _cost(results) -> tuple[list, list]:
    found = grouping.cost(results)
    total = grouping.count_depths(results)
    names = {
        grouping.TUNED: "learngene + tuning",
        grouping.UNTUNED: "learngene",
        "scratch_short": "scratch, same budget",
        "scratch_long": "scratch, long",
    }
    body = []
    for way, spent in found.items():
        notes = grouping.notes(way, found, total)
        if way.role not in grouping.SCRATCH:
            notes = [*_uncounted(results), *notes]
        body.append(
            [
                names[way.role] + (f" ({'; '.join(notes)})" if notes else ""),
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


def _uncounted(results) -> list[str]:
    """What the learngene cost that this job did not train itself."""
    roles = {r["role"] for r in results}
    names = {"ancestor": "teacher", "aux": "Aux-Net"}
    missing = [name for role, name in names.items() if role not in roles]
    return [f"{' and '.join(missing)} not counted"] if missing else []


def _tabulate(head, body, markup: str) -> str:
    return tabulate.tabulate(
        body, head, tablefmt=markup, stralign="right", disable_numparse=True
    )


def _spread(values: Sequence[float], seeds: int) -> str:
    """Mean and, where seeds differ, sample standard deviation, in per cent.

    Args:
      values: of each seed there is.
      seeds: that other cells have; fewer are said.
    """
    if not values:
        return ""
    text = grouping.percent(values[0])
    if len(set(values)) > 1:
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        text = f"{100 * mean:.1f} ± {100 * deviation:.1f}%"
    return text if len(values) == seeds else f"{text} ({len(values)})"
