"""What a job bought: rows, a table, a picture.

What a run is stands in the fields of its result: the name of a run or of a network is
shown and never read, so that any method's may be called as it likes.
"""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import tabulate

from sws_jax.errors import UserError
from sws_jax.runtime.progress import say
from sws_jax.storage import files, paths
from sws_jax.training import metrics

RESULTS = "results.csv"
TABLE = "table.md"
PICTURE = "report.png"
WRITTEN = (RESULTS, TABLE, PICTURE)

Result = dict[str, Any]

# Roles of the runs that are compared by depth; all others are listed one by one.
_TUNED, _UNTUNED = "tune", "untuned"
_SCRATCH = ("scratch_short", "scratch_long")
_COMPARED = (_TUNED, _UNTUNED, *_SCRATCH)


class Way(NamedTuple):
    """A way to have a network of any depth.

    Attributes:
      role: of its runs, as in `sws_jax.jobs.rows.Run`.
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

_COLUMNS = (
    "run", "role", "network", "depth", "method", "profile", "dataset", "seed",
    "params", "stored_params", "total_epochs", "epochs", "layer_epochs",
    "test_top1", "test_top5", "test_loss", "test_images", "val_top1",
    "seconds", "hardware", "jax", "dtype", "unreadable", "unreadable_from",
)  # fmt: skip

# One colour per stage, early to late; the teacher and scratch nets are neutral.
_STAGE_COLOURS = ("#3b6fb6", "#3fa7a0", "#8fb84e", "#e0a93b", "#d1603d")
_GREY, _INK = "#9aa3ad", "#22303c"
# Roles of what comes before a learngene: a title, and what is done to get on.
_FLOW = {"ancestor": ("Ans-Net", "distil"), "aux": ("Aux-Net", "extract")}


def write(results: Sequence[Result], workdir: str) -> None:
    """Writes ``results.csv``, ``table.md`` and ``report.png``; prints the table."""
    path = os.path.join(workdir, RESULTS)
    files.write_text(path, to_csv(rows(results)))
    markdown = table(results, markup="github")
    files.write_text(os.path.join(workdir, TABLE), markdown + "\n")
    picture = os.path.join(workdir, PICTURE)
    draw(results, workdir, picture)
    say("\n" + table(results))
    say(f"\n{path}\n{picture}")


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """One row for every scored set of weights of every run."""
    found = []
    for result in results:
        for score in result["test"]:
            found.append(
                {
                    "run": result["name"],
                    "role": result["role"],
                    "network": result["network"],
                    "depth": result["depth"],
                    "method": result["method"] or "-",
                    "profile": result["profile"],
                    "dataset": result["dataset"],
                    "seed": result["seed"],
                    "params": result["params"],
                    "stored_params": result["stored_params"],
                    "total_epochs": result["epochs"],
                    "epochs": score["epochs"],
                    "layer_epochs": result["depth"] * score["epochs"],
                    "test_top1": round(score["top1"], 4),
                    "test_top5": round(score["top5"], 4),
                    "test_loss": round(score["loss"], 4),
                    "test_images": int(score["count"]),
                    "val_top1": round(result["val_top1"], 4),
                    "seconds": result["seconds"],
                    "hardware": result["hardware"],
                    "jax": result["versions"].get("jax", ""),
                    "dtype": _dtypes(result),
                    "unreadable": result.get("unreadable", ""),
                    "unreadable_from": _known(result.get("unreadable_from")),
                }
            )
    return found


def roles(workdir: str) -> dict[str, str]:
    """Run -> role, by the ``results.csv`` of a work directory, if there is one.

    Raises:
      UserError: it is no table of this project, of this or an older version.
    """
    path = os.path.join(workdir, RESULTS)
    if not paths.exists(path):
        return {}
    try:
        with open(paths.here(path), encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            lines, head = list(table), list(table.fieldnames or ())
    except (ValueError, csv.Error, IsADirectoryError):
        lines, head = [], []
    # (Older versions had fewer columns.)
    if head[:2] != list(_COLUMNS[:2]) or not set(head) <= set(_COLUMNS):
        raise UserError(
            f"{path} is no table of this project's, and would be written over: take "
            f"another --workdir, or move it away"
        )
    return {line["run"]: line["role"] or "" for line in lines if line["run"]}


def to_csv(found: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def _dtypes(result: Result) -> str:
    """Every type of numbers of a run: float32, or float32 bfloat16@40 (from step 40).

    Empty for results of older software, which do not say.
    """
    first, *others = result.get("dtypes") or [{"dtype": ""}]
    changed = (f"{one['dtype']}@{one['from_step']}" for one in others)
    return " ".join([first["dtype"], *changed])


def _known(value: Any) -> Any:
    return "" if value is None else value


def sentence(result: Result) -> str:
    """A finished run in one line."""
    scores = ", ".join(
        f"{score['top1']:.1%} "
        + (f"after {_epochs(score['epochs'])}" if score["epochs"] else "untuned")
        for score in result["test"]
    )
    last = result["test"][-1]
    some = ""
    if skipped := int(last.get("skipped", 0)):  # (Older software did not say.)
        total = int(last["count"]) + skipped
        some = (
            f" of {int(last['count']):,} of {total:,} images, as {skipped:,} cannot be "
            f"read"
        )
    return f"test top-1 {scores}{some} ({result['seconds']:.0f} s of training)"


def table(results: Sequence[Result], *, markup: str = "simple") -> str:
    """The comparison by depth, and below it what it cost.

    Args:
      results: of `sws_jax.jobs.execute.execute`.
      markup: a format of the tabulate package: "simple", "github".
    """
    parts = []
    single = [r for r in results if r["role"] not in _COMPARED]
    if single:
        body = [
            [
                r["name"],
                r["network"],
                f"{r['epochs']:g}",
                _percent(_last(r)),
                f"{r['params']:,}",
            ]
            for r in single
        ]
        head = ["run", "network", "epochs", "test top-1", "parameters"]
        parts.append(_tabulate(head, body, markup))
    found = ways(results)
    if found:
        parts.append(_tabulate(*_comparison(found), markup) + _seeds(series(found)))
        parts.append(_tabulate(*_cost(results), markup))
    profiles = sorted({r["profile"] for r in results} - {"consistent"})
    if profiles:
        parts.append(f"Profile: {', '.join(profiles)}.")
    return "\n\n".join(parts)


def ways(results: Iterable[Result]) -> Ways:
    """Way -> depth -> its runs, one for each seed: descendants and what they are
    compared with.

    A work directory may hold more than was asked for last: several budgets of one role,
    depths that only some of the ways have, seeds that only some of the depths have.
    """
    found: Ways = {}
    for result in results:
        if result["role"] in _COMPARED:
            depths = found.setdefault(Way(result["role"], result["epochs"]), {})
            runs = depths.setdefault(result["depth"], [])
            if result["seed"] not in [run["seed"] for run in runs]:
                runs.append(result)
    order = sorted(found, key=lambda way: (_COMPARED.index(way.role), way.epochs))
    return {way: dict(sorted(found[way].items())) for way in order}


def series(found: Ways) -> Series:
    """Line -> depth -> test top-1 of each seed, in the order of a table's columns."""
    lines: dict[Line, dict[int, dict[int, float]]] = {}
    for way, depths in found.items():
        start = "scratch" if way.role in _SCRATCH else "learngene"
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
    short = [f"{line.start}, {_epochs(line.epochs)}" for line in lines]
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
        if r["role"] in _FLOW
    }
    found = {}
    for way, depths in _counted(ways(results)).items():
        first = [runs[0] for runs in depths.values()]
        once, stored = 0.0, sum(run["params"] for run in first)
        if way.role not in _SCRATCH:
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
    tuned = any(way.role == _TUNED for way in found)
    return {way: d for way, d in found.items() if not (tuned and way.role == _UNTUNED)}


def _depths(results: Sequence[Result]) -> int:
    """That some way of `cost` has."""
    return len({d for depths in _counted(ways(results)).values() for d in depths})


def _comparison(found: Ways) -> tuple[list, list]:
    lines = series(found)
    seeds = _most(lines)
    head = ["depth", "parameters", *labels(lines)]
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


def _most(lines: Series) -> int:
    """Seeds, at the depth and in the column that have most."""
    return max(len(values) for line in lines.values() for values in line.values())


def _seeds(lines: Series) -> str:
    """What the numbers of several seeds are, below the table."""
    seeds = _most(lines)
    if seeds == 1:
        return ""
    text = f"\n\nMean and standard deviation over {seeds} seeds"
    if any(len(values) < seeds for line in lines.values() for values in line.values()):
        text += ", or over as many as stand in brackets"
    return text + "."


def _cost(results) -> tuple[list, list]:
    found = cost(results)
    total = _depths(results)
    names = {
        _TUNED: "learngene + tuning",
        _UNTUNED: "learngene",
        "scratch_short": "scratch, same budget",
        "scratch_long": "scratch, long",
    }
    body = []
    for way, spent in found.items():
        notes = _notes(way, found, total)
        if way.role not in _SCRATCH:
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
    whole = len({d for depths in ways(results).values() for d in depths})
    depths = f"all {total} depths" if total > 1 else "the depth"
    head = [
        depths if total == whole else f"{total} of the {whole} depths",
        "layer-epochs once",
        "of the depths",
        "together",
        "parameters kept for all depths",
    ]
    return head, body


def _notes(way: Way, found: dict[Way, dict[str, float]], total: int) -> list[str]:
    """What tells a way from others of its role, and what it lacks.

    Args:
      way: one of `found`.
      found: of `cost`.
      total: depths that any of them has.
    """
    notes = []
    if [other.role for other in found].count(way.role) > 1:
        notes.append(_epochs(way.epochs))
    if found[way]["depths"] < total:
        notes.append(f"{found[way]['depths']} of {total} depths")
    return notes


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


def _last(result: Result) -> float:
    return result["test"][-1]["top1"]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _spread(values: Sequence[float], seeds: int) -> str:
    """Mean and, where seeds differ, sample standard deviation, in per cent.

    Args:
      values: of each seed there is.
      seeds: that other cells have; fewer are said.
    """
    if not values:
        return ""
    text = _percent(values[0])
    if len(set(values)) > 1:
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        text = f"{100 * mean:.1f} ± {100 * deviation:.1f}%"
    return text if len(values) == seeds else f"{text} ({len(values)})"


def _epochs(epochs: float) -> str:
    if not epochs:
        return "untuned"
    return "1 epoch" if epochs == 1 else f"{epochs:g} epochs"


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"


def draw(results: Sequence[Result], workdir: str, path: str) -> None:
    """The picture of a job: the flow, what it bought, what it cost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = ways(results)
    grown = _grown(found)
    with plt.rc_context(_STYLE):  # type: ignore[arg-type]
        if found:
            figure = plt.figure(figsize=(13, 8.6), layout="constrained")
            grid = figure.add_gridspec(2, 3, height_ratios=(1.05, 1))
            below = grid[1, :2], grid[1, 2]
            if grown:
                _draw_flow(figure.add_subplot(grid[0, :]), results, grown)
            else:  # no descendants
                below = grid[:, :2], grid[:, 2]
            _draw_accuracy(figure.add_subplot(below[0]), found)
            _draw_cost(figure.add_subplot(below[1]), results)
        else:
            figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
            _draw_curve(axes, results, workdir)
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
        plt.close(figure)


def drawable(name: str) -> str:
    """A name as a picture can show it: what its font lacks is escaped, and ``$`` is no
    formula."""
    from matplotlib import font_manager, ft2font

    known = ft2font.FT2Font(
        font_manager.findfont(font_manager.FontProperties())
    ).get_charmap()
    shown = "".join(c if ord(c) in known else ascii(c)[1:-1] for c in name)
    return shown.replace("$", r"\$")


_STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "white",
}


def _colour(stage: int, stages: int) -> str:
    if stages <= len(_STAGE_COLOURS):
        return _STAGE_COLOURS[stage]
    from matplotlib import colormaps, colors

    return colors.to_hex(colormaps["turbo"]((stage + 0.5) / stages))


def _grown(found: Ways) -> dict[int, list[Result]]:
    """Depth -> descendants to draw: of the longest tuning, or else untuned."""
    longest = [depths for way, depths in found.items() if way.role == _TUNED][-1:]
    untuned = [depths for way, depths in found.items() if way.role == _UNTUNED]
    grown: dict[int, list[Result]] = {}
    for depths in untuned + longest:
        grown.update(depths)
    return dict(sorted(grown.items()))


def _draw_flow(axes, results, grown: dict[int, list[Result]]) -> None:
    """Stacks of blocks, input at the bottom, one colour per gene.

    Blocks of which no result says that they came from a gene are grey.
    """
    alone = {role: [r for r in results if r["role"] == role] for role in _FLOW}
    shown = [runs[0] for runs in (*alone.values(), *grown.values()) if runs]
    tallest = max(result["depth"] for result in shown)
    plans = [r["plan"] for r in shown]
    stages = next((list(r.get("stages") or ()) for r in alone["aux"]), [])
    genes = max([len(stages), *(1 + max(plan) for plan in plans if plan)])
    x = 0.0

    def column(at: float, colours: Sequence[str], label: str, scale: float = 1.0):
        for level, colour in enumerate(colours):
            axes.add_patch(_rounded((at, level * scale), 1.0, 0.86 * scale, colour))
        axes.text(at + 0.5, -0.6, label, ha="center", va="top", linespacing=1.35)

    def arrow(start: float, text: str):
        middle = tallest * 0.42
        axes.annotate(
            "",
            (start + 2.1, middle),
            (start + 0.1, middle),
            arrowprops=dict(arrowstyle="-|>", color=_INK, lw=1.6),
        )
        axes.text(start + 1.1, middle + 0.5, text, ha="center", va="bottom")

    def coloured(plan: Sequence[int], depth: int) -> list[str]:
        if len(plan) != depth:
            return [_GREY] * depth
        return [_colour(gene, genes) for gene in plan]

    for role, (title, verb) in _FLOW.items():
        if not alone[role]:
            continue
        same = ("method", "depth", "epochs")  # all but the seed
        runs = [r for r in alone[role] if all(r[n] == alone[role][0][n] for n in same)]
        depth, plan = runs[0]["depth"], []
        size = _blocks(depth)
        if role == "aux" and stages:
            plan = [s for s, n in enumerate(stages) for _ in range(n)]
            size = "-".join(map(str, stages))
        score = _percent(statistics.mean(map(_last, runs)))
        column(x, coloured(plan, depth), f"{title}\n{size}\n{score}")
        arrow(x + 1.2, verb)
        x += 3.7
    some = next(iter(grown.values()))[0]
    said = [f"{genes} gene{'s' * (genes > 1)}"] if genes else []
    said.append(f"{some['stored_params'] / 1e6:.2g} M stored")
    column(x, coloured(range(genes), max(genes, 1)), "\n".join(["learngene", *said]))
    arrow(x + 1.2, "expand")
    x += 3.7
    for depth, runs in grown.items():
        ends = [
            statistics.mean(run["test"][at]["top1"] for run in runs) for at in (0, -1)
        ]
        label = f"{_blocks(depth)}\n{_percent(ends[0])}"
        if len(runs[0]["test"]) > 1:
            label += f"\n{_percent(ends[-1])}"
        column(x, coloured(runs[0]["plan"], depth), label)
        x += 1.75
    tuned = [runs[0]["test"] for runs in grown.values() if runs[0]["role"] == _TUNED]
    if tuned:
        lines = dict.fromkeys(_epochs(tuned[0][at]["epochs"]) for at in (0, -1))
        note = "Des-Nets:\n" + ",\n".join(lines)
        axes.text(x + 0.1, -0.6, note, va="top", color=_GREY, linespacing=1.35)
    axes.set_xlim(-0.4, x + 2.2)
    axes.set_ylim(-0.26 * tallest, tallest + 0.4)
    axes.axis("off")
    dataset = drawable(some["dataset"])
    axes.set_title(f"One learngene, networks of any depth ({dataset}, test top-1)")


def _rounded(corner, width: float, height: float, colour: str):
    from matplotlib.patches import FancyBboxPatch

    pad = 0.12
    return FancyBboxPatch(
        (corner[0] + pad, corner[1] + pad / 2),
        width - 2 * pad,
        height - pad,
        boxstyle=f"round,pad={pad / 2},rounding_size=0.12",
        facecolor=colour,
        edgecolor="white",
        linewidth=0.6,
    )


def _draw_accuracy(axes, found: Ways) -> None:
    lines = series(found)
    scored = [v for line in lines.values() for values in line.values() for v in values]
    some = next(runs[0] for depths in found.values() for runs in depths.values())
    # Near 100 % errors are drawn, on a logarithmic axis labelled as accuracies: 98 %
    # and 99 % are as far apart as they should be. No error at all is half an image.
    smallest = 0.5 / some["test"][0]["count"]
    logarithmic = max(scored) > 0.9

    def height(accuracy: float) -> float:
        return max(1.0 - accuracy, smallest) if logarithmic else accuracy

    learned = [line for line in lines if line.start == "learngene"]
    fresh = [line for line in lines if line.start == "scratch"]
    shades, dashes = ("#e8b48f", "#dd8452", "#b5482a"), (":", "--", "-")
    for (line, values_at), label in zip(lines.items(), labels(lines), strict=True):
        means = [statistics.mean(values) for values in values_at.values()]
        if line in learned:
            index = learned.index(line) - len(learned)
            style: dict[str, Any] = dict(
                color=shades[max(index, -len(shades))], lw=2.4, marker="o"
            )
        else:  # the longest with a whole line and full marks
            index = max(fresh.index(line) - len(fresh), -len(dashes))
            style = dict(color=_GREY, lw=1.8, marker="s", ls=dashes[index])
            style["markerfacecolor"] = _GREY if index == -1 else "white"
        axes.plot(
            list(values_at),
            list(map(height, means)),
            label=label,
            markersize=5,
            **style,
        )
        for depth, values in values_at.items():
            ends = [height(min(values)), height(max(values))]
            axes.plot([depth, depth], ends, color=style["color"], lw=1.2)
    axes.set_xticks(sorted({depth for line in lines.values() for depth in line}))
    axes.set_xlabel("blocks")
    note = ", mean and range of the seeds" if _most(lines) > 1 else ""
    if logarithmic and max(scored) == 1.0:
        note += " (100 drawn at half an image)"
    axes.set_ylabel(f"test top-1, %{note}")
    if logarithmic:
        _accuracy_marks(axes, worst=height(min(scored)), best=height(max(scored)))
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        top = max(scored) or 1.0
        axes.set_ylim(max(min(scored) - 0.15 * top, 0.0), 1.05 * top)
    axes.set_title("Accuracy by depth")
    axes.grid(axis="y", color="#e5e8eb")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=2, loc="lower right")


def _accuracy_marks(axes, *, worst: float, best: float) -> None:
    """A logarithmic axis of errors, labelled as accuracies."""
    axes.set_yscale("log")
    known = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
    marks = [m for m in known if best / 1.6 <= 1 - m / 100 <= worst * 1.6]
    axes.set_yticks([1 - m / 100 for m in marks], [f"{m:g}" for m in marks])
    axes.minorticks_off()
    axes.set_ylim(min(worst * 1.5, 1.0), best / 1.5)


def _draw_cost(axes, results) -> None:
    found = cost(results)
    total = _depths(results)
    names = {
        _TUNED: "learngene",
        _UNTUNED: "learngene",
        "scratch_short": "scratch,\nsame budget",
        "scratch_long": "scratch,\nlong",
    }
    order = list(reversed(found))
    for level, way in enumerate(order):
        once, rest = found[way]["once"], found[way]["per_depth"]
        colour = _GREY if way.role in _SCRATCH else "#b5482a"
        axes.barh(level, once, color="#e8b48f", height=0.55)
        axes.barh(level, rest, left=once, color=colour, height=0.55)
        stored = f"{found[way]['stored'] / 1e6:.2g} M kept"
        text = f" {found[way]['layer_epochs']:,.0f}\n {stored}"
        axes.text(once + rest, level, text, va="center", fontsize=10)
    marks = ["\n".join([names[w.role], *_notes(w, found, total)]) for w in order]
    axes.set_yticks(range(len(order)), marks)
    axes.margins(x=0.35)
    axes.set_xlim(left=0)
    axes.set_xlabel("layer-epochs (light: ancestor and Aux-Net)")
    axes.set_title("Cost of all depths")
    axes.tick_params(axis="y", length=0)


def _draw_curve(axes, results, workdir: str) -> None:
    """Loss and validation accuracy of the one run."""
    result = results[-1]
    found = metrics.read(os.path.join(workdir, result["name"]))
    loss = [(r["step"], r["loss"]) for r in found if "loss" in r]
    val = [(r["step"], 100 * r["val_top1"]) for r in found if "val_top1" in r]
    score = f"test top-1 {_percent(_last(result))}"
    dataset = drawable(result["dataset"])
    axes.set_title(f"{result['network']} on {dataset}: {score}")
    axes.set_xlabel("step")
    if val:
        axes.plot(*zip(*val, strict=True), color="#b5482a", lw=2.2, marker="o", ms=4)
        axes.set_ylabel("validation top-1, %", color="#b5482a")
    if loss:
        twin = axes.twinx()
        twin.plot(*zip(*loss, strict=True), color=_GREY, lw=1.6)
        twin.set_ylabel("training loss", color=_GREY)
        twin.spines["right"].set_visible(True)
