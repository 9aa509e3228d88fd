"""The picture of a job: how its networks were made, their accuracies and costs."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from typing import Any

from sws_jax.reports import grouping
from sws_jax.reports.grouping import Ways
from sws_jax.reports.rows import Result
from sws_jax.storage import files
from sws_jax.training import metrics

# One colour per stage, early to late; the teacher and scratch nets are neutral.
_STAGE_COLOURS = ("#3b6fb6", "#3fa7a0", "#8fb84e", "#e0a93b", "#d1603d")
_GREY, _INK = "#9aa3ad", "#22303c"
# Roles of what comes before a learngene: a title, and what is done to get on.
_FLOW = {"ancestor": ("Ans-Net", "distil"), "aux": ("Aux-Net", "extract")}


def draw(results: Sequence[Result], workdir: str, path: str) -> None:
    """The picture of a job: the flow, what it bought, what it cost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = grouping.ways(results)
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


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"


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
    longest = [depths for way, depths in found.items() if way.role == grouping.TUNED][
        -1:
    ]
    untuned = [depths for way, depths in found.items() if way.role == grouping.UNTUNED]
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
        score = grouping.percent(statistics.mean(map(grouping.final_top1, runs)))
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
        label = f"{_blocks(depth)}\n{grouping.percent(ends[0])}"
        if len(runs[0]["test"]) > 1:
            label += f"\n{grouping.percent(ends[-1])}"
        column(x, coloured(runs[0]["plan"], depth), label)
        x += 1.75
    tuned = [
        runs[0]["test"] for runs in grown.values() if runs[0]["role"] == grouping.TUNED
    ]
    if tuned:
        lines = dict.fromkeys(
            grouping.epochs_text(tuned[0][at]["epochs"]) for at in (0, -1)
        )
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
    lines = grouping.series(found)
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
    for (line, values_at), label in zip(
        lines.items(), grouping.labels(lines), strict=True
    ):
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
    note = ", mean and range of the seeds" if grouping.most_seeds(lines) > 1 else ""
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
    found = grouping.cost(results)
    total = grouping.count_depths(results)
    names = {
        grouping.TUNED: "learngene",
        grouping.UNTUNED: "learngene",
        "scratch_short": "scratch,\nsame budget",
        "scratch_long": "scratch,\nlong",
    }
    order = list(reversed(found))
    for level, way in enumerate(order):
        once, rest = found[way]["once"], found[way]["per_depth"]
        colour = _GREY if way.role in grouping.SCRATCH else "#b5482a"
        axes.barh(level, once, color="#e8b48f", height=0.55)
        axes.barh(level, rest, left=once, color=colour, height=0.55)
        stored = f"{found[way]['stored'] / 1e6:.2g} M kept"
        text = f" {found[way]['layer_epochs']:,.0f}\n {stored}"
        axes.text(once + rest, level, text, va="center", fontsize=10)
    marks = [
        "\n".join([names[w.role], *grouping.notes(w, found, total)]) for w in order
    ]
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
    score = f"test top-1 {grouping.percent(grouping.final_top1(result))}"
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
