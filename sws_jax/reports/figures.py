"""The picture of a job: how its networks were made, their accuracies and costs."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from typing import Any

from sws_jax.reports import grouping
from sws_jax.reports.grouping import Line, Ways
from sws_jax.reports.rows import Result
from sws_jax.storage import files
from sws_jax.training import metrics, roles

# One colour per stage, early to late; the teacher and scratch nets are neutral.
_STAGE_COLOURS = ("#3b6fb6", "#3fa7a0", "#8fb84e", "#e0a93b", "#d1603d")
_GREY, _INK = "#9aa3ad", "#22303c"
_RED, _LIGHT_RED = "#b5482a", "#e8b48f"
# Of each method, after a short, a middling and a long training.
_SHADES = (
    (_LIGHT_RED, "#dd8452", _RED),
    ("#a9c4e6", "#5f92cf", "#1f4e8c"),
    ("#b5d6a5", "#6fae5c", "#2f6d32"),
    ("#d3bfe6", "#9a6fc0", "#5b3286"),
    ("#e6cf8f", "#c9a227", "#85690f"),
    ("#f0b9d2", "#d4679c", "#97265f"),
)
# Their number and that of the shades have no common divisor: 30 methods look different.
_MARKERS = "o^Dvp"


def draw(results: Sequence[Result], workdir: str, path: str) -> None:
    """Writes the picture of a job.

    With networks of several depths: how they were made, their accuracies, and what they
    cost. Otherwise the training curve of the last run.

    Args:
      results: of `sws_jax.jobs.execute.execute`.
      workdir: where the metrics of the runs are.
      path: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    ways = grouping.ways(results)
    chains = _chains(ways)
    with plt.rc_context(_STYLE):  # type: ignore[arg-type]
        if ways:
            count = max(len(chains), 1)
            figure = plt.figure(figsize=(13, 4.2 + 4.4 * count), layout="constrained")
            ratios = (*[1.05] * count, 1)
            grid = figure.add_gridspec(count + 1, 3, height_ratios=ratios)
            if chains:
                places = [figure.add_subplot(grid[n, :]) for n in range(count)]
                _draw_flows(places, results, chains)
                left, right = grid[-1, :2], grid[-1, 2]
            else:
                left, right = grid[:, :2], grid[:, 2]
            _draw_accuracy(figure.add_subplot(left), ways)
            _draw_cost(figure.add_subplot(right), results)
        else:
            figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
            _draw_curve(axes, results, workdir)
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
        plt.close(figure)


def drawable(name: str) -> str:
    """A name as a picture can show it.

    Characters that the font lacks are escaped, and so is ``$``, which would begin a
    formula.
    """
    from matplotlib import font_manager, ft2font

    font = ft2font.FT2Font(font_manager.findfont(font_manager.FontProperties()))
    glyphs = font.get_charmap()
    escaped = "".join(c if ord(c) in glyphs else ascii(c)[1:-1] for c in name)
    return escaped.replace("$", r"\$")


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


# Depth -> descendants.
_Chain = dict[int, list[Result]]


def _chains(ways: Ways) -> dict[str, _Chain]:
    """Method -> descendants to draw: of the longest tuning, or else untuned."""
    chains: dict[str, _Chain] = {}
    # Of one depth the last way is drawn: the ways of a role rise with their epochs.
    for role in (roles.UNTUNED, roles.TUNED):
        longest = {way.method: depths for way, depths in ways.items() if way[0] == role}
        for method, depths in longest.items():
            chains.setdefault(method, {}).update(depths)
    return {m: dict(sorted(chain.items())) for m, chain in sorted(chains.items())}


def _draw_flows(places: Sequence[Any], results, chains: dict[str, _Chain]) -> None:
    """How the networks were made, a row for each method, with blocks of one size."""
    flows = []
    for axes, (method, chain) in zip(places, chains.items(), strict=True):
        phases = grouping.phases(results, method)
        flows.append(_draw_flow(axes, phases, chain))
        example = next(iter(chain.values()))[0]
        title = "One learngene, networks of any depth"
        title = title if len(chains) == 1 else f"{method}: {title.lower()}"
        axes.set_title(f"{title} ({drawable(example['dataset'])}, test top-1)")
    width, tallest = (max(getattr(f, name) for f in flows) for name in ("x", "tallest"))
    for axes in places:
        axes.set_xlim(-0.4, width + 2.2)
        axes.set_ylim(-0.26 * tallest, tallest + 0.4)
        axes.axis("off")


def _draw_flow(axes, phases: Sequence[list[Result]], chain: _Chain) -> _Flow:
    """Stacks of blocks, input at the bottom, one colour per gene.

    Blocks that no result traces to a gene are grey.
    """
    sources = [runs for runs in phases if runs[0]["role"] == roles.SOURCE]
    flow = _Flow(axes, [*phases, *chain.values()], sources[-1] if sources else [])
    for runs in phases:
        before = roles.BEFORE[runs[0]["role"]]
        if runs in sources[:-1]:  # Only the last one leads to the learngene.
            before = before._replace(arrow="")
        if runs in sources and len(sources) > 1:
            before = before._replace(title=drawable(runs[0]["name"]))
        flow.add_earlier(before, runs)
    flow.add_learngene(next(iter(chain.values()))[0]["stored_params"])
    for depth, runs in chain.items():
        flow.add_descendant(depth, runs)
    tuned = [r[0]["test"] for r in chain.values() if r[0]["role"] == roles.TUNED]
    if tuned:
        flow.add_note(tuned[0])
    return flow


def _genes(result: Result) -> list[int]:
    """The gene of each block; empty for blocks of segments, or of no gene."""
    return [gene for gene in result["plan"] if isinstance(gene, int)]


class _Flow:
    """Columns of blocks, drawn from left to right.

    Args:
      axes: to draw on.
      groups: all runs that are drawn, those of one column together.
      sources: runs of the network that the learngene is taken from.

    Attributes:
      x: where the next column begins.
      tallest: blocks of the tallest column.
    """

    def __init__(self, axes, groups: Sequence[list[Result]], sources: list[Result]):
        self.axes, self.x = axes, 0.0
        self._sources = sources
        drawn = [runs[0] for runs in groups]
        self.tallest = max(result["depth"] for result in drawn)
        self._stages = next((list(r.get("stages") or ()) for r in sources), [])
        plans = [plan for result in drawn if (plan := _genes(result))]
        self._genes = max([len(self._stages), *(1 + max(plan) for plan in plans)])

    def add_earlier(self, before: roles.Before, runs: list[Result]) -> None:
        """A network before the learngene, and the arrow to what follows."""
        depth, plan = runs[0]["depth"], []
        size = _blocks(depth)
        if runs is self._sources and self._stages:
            plan = [s for s, length in enumerate(self._stages) for _ in range(length)]
            size = "-".join(map(str, self._stages))
        score = grouping.percent(statistics.mean(map(grouping.final_top1, runs)))
        self._column(self._colours(plan, depth), f"{before.title}\n{size}\n{score}")
        self._arrow(before.arrow)

    def add_learngene(self, stored_params: int) -> None:
        """The genes, and the arrow to the descendants."""
        words = ["learngene"]
        if self._genes:
            words.append(f"{self._genes} gene{'s' * (self._genes > 1)}")
        words.append(f"{stored_params / 1e6:.2g} M stored")
        genes = range(self._genes)
        self._column(self._colours(genes, max(self._genes, 1)), "\n".join(words))
        self._arrow("expand")

    def add_descendant(self, depth: int, runs: list[Result]) -> None:
        """The descendant of a depth; its scores are means over the seeds."""
        first, last = (
            statistics.mean(run["test"][at]["top1"] for run in runs) for at in (0, -1)
        )
        label = f"{_blocks(depth)}\n{grouping.percent(first)}"
        if len(runs[0]["test"]) > 1:
            label += f"\n{grouping.percent(last)}"
        self._column(self._colours(_genes(runs[0]), depth), label)
        self.x += 1.75

    def add_note(self, scores: list[dict[str, Any]]) -> None:
        """What the two scores below a descendant are of."""
        lines = dict.fromkeys(
            grouping.epochs_text(scores[at]["epochs"]) for at in (0, -1)
        )
        text = "Des-Nets:\n" + ",\n".join(lines)
        style = dict(va="top", color=_GREY, linespacing=1.35)
        self.axes.text(self.x + 0.1, -0.6, text, **style)

    def _colours(self, plan: Sequence[int], depth: int) -> list[str]:
        if len(plan) != depth:
            return [_GREY] * depth
        return [_colour(gene, self._genes) for gene in plan]

    def _column(self, colours: Sequence[str], label: str) -> None:
        for level, colour in enumerate(colours):
            self.axes.add_patch(_rounded((self.x, level), 1.0, 0.86, colour))
        style = dict(ha="center", va="top", linespacing=1.35)
        self.axes.text(self.x + 0.5, -0.6, label, **style)

    def _arrow(self, text: str) -> None:
        """From the column that was drawn last to the next one."""
        start, middle = self.x + 1.2, self.tallest * 0.42
        self.axes.annotate(
            "",
            (start + 2.1, middle),
            (start + 0.1, middle),
            arrowprops=dict(arrowstyle="-|>", color=_INK, lw=1.6),
        )
        self.axes.text(start + 1.1, middle + 0.5, text, ha="center", va="bottom")
        self.x += 3.7


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


def _draw_accuracy(axes, ways: Ways) -> None:
    """Test accuracy by depth, a line for each column of the table."""
    lines = grouping.series(ways)
    scores = [v for line in lines.values() for values in line.values() for v in values]
    example = next(runs[0] for depths in ways.values() for runs in depths.values())
    # Near 100 % errors are drawn, on a logarithmic axis labelled as accuracies: 98 %
    # and 99 % are as far apart as they should be. No error at all is half an image.
    smallest = 0.5 / example["test"][0]["count"]
    logarithmic = max(scores) > 0.9

    def height(accuracy: float) -> float:
        return max(1.0 - accuracy, smallest) if logarithmic else accuracy

    labels = grouping.labels(lines)
    for (line, by_depth), label in zip(lines.items(), labels, strict=True):
        style = _line_style(line, list(lines))
        means = [height(statistics.mean(values)) for values in by_depth.values()]
        axes.plot(list(by_depth), means, label=label, markersize=5, **style)
        for depth, values in by_depth.items():
            ends = [height(min(values)), height(max(values))]
            axes.plot([depth, depth], ends, color=style["color"], lw=1.2)
    axes.set_xticks(sorted({depth for line in lines.values() for depth in line}))
    axes.set_xlabel("blocks")
    note = ", mean and range of the seeds" if grouping.most_seeds(lines) > 1 else ""
    if logarithmic and max(scores) == 1.0:
        note += " (100 drawn at half an image)"
    axes.set_ylabel(f"test top-1, %{note}")
    if logarithmic:
        _accuracy_marks(axes, worst=height(min(scores)), best=height(max(scores)))
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        top = max(scores) or 1.0
        axes.set_ylim(max(min(scores) - 0.15 * top, 0.0), 1.05 * top)
    axes.set_title("Accuracy by depth")
    axes.grid(axis="y", color="#e5e8eb")
    axes.set_axisbelow(True)
    if len(grouping.learngene_names(lines)) > 1:  # too many labels to lie on lines
        style = dict(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    else:
        style = dict(ncols=2, loc="lower right")
    axes.legend(frameon=False, **style)


def _line_style(line: Line, lines: Sequence[Line]) -> dict[str, Any]:
    """A colour for each method, grey for scratch; stronger, the longer the training."""
    alike = [other for other in lines if other[:2] == line[:2]]
    rank = alike.index(line) - len(alike)  # -1 is the longest
    if line.start == "learngene":
        methods = list(grouping.learngene_names(lines))
        shades = _shades(line.method, methods)
        place = methods.index(line.method) if line.method else 0
        marker = _MARKERS[place % len(_MARKERS)]
        return dict(color=shades[max(rank, -len(shades))], lw=2.4, marker=marker)
    dashes = (":", "--", "-")
    rank = max(rank, -len(dashes))
    face = _GREY if rank == -1 else "white"
    return dict(color=_GREY, lw=1.8, marker="s", ls=dashes[rank], markerfacecolor=face)


def _shades(method: str, methods: Sequence[str]) -> tuple[str, ...]:
    """The colours of a method among others: from a short to a long training."""
    place = methods.index(method) if method else 0
    return _SHADES[place % len(_SHADES)]


def _accuracy_marks(axes, *, worst: float, best: float) -> None:
    """A logarithmic axis of errors, labelled as accuracies."""
    axes.set_yscale("log")
    candidates = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
    marks = [m for m in candidates if best / 1.6 <= 1 - m / 100 <= worst * 1.6]
    axes.set_yticks([1 - m / 100 for m in marks], [f"{m:g}" for m in marks])
    axes.minorticks_off()
    axes.set_ylim(min(worst * 1.5, 1.0), best / 1.5)


def _draw_cost(axes, results) -> None:
    """Layer-epochs of all depths, a bar for each way to have them."""
    costs = grouping.cost(results)
    total = grouping.count_depths(results)
    names = grouping.learngene_names(costs)
    order = list(reversed(costs))
    for level, way in enumerate(order):
        once, rest = costs[way]["once"], costs[way]["per_depth"]
        light, _, colour = _shades(way.method, list(names))
        if way.role in roles.SCRATCH:
            colour = _GREY
        axes.barh(level, once, color=light, height=0.55)
        axes.barh(level, rest, left=once, color=colour, height=0.55)
        stored = f"{costs[way]['stored'] / 1e6:.2g} M kept"
        text = f" {costs[way]['layer_epochs']:,.0f}\n {stored}"
        axes.text(once + rest, level, text, va="center", fontsize=10)
    marks = []
    for way in order:
        scratch = roles.SCRATCH.get(way.role, "").replace(", ", ",\n")
        name = scratch or names.get(way.method, "learngene")
        marks.append("\n".join([name, *grouping.notes(way, costs, total)]))
    axes.set_yticks(range(len(order)), marks)
    axes.margins(x=0.35)
    axes.set_xlim(left=0)
    axes.set_xlabel("layer-epochs (light: ancestor and Aux-Net)")
    axes.set_title("Cost of all depths")
    axes.tick_params(axis="y", length=0)


def _draw_curve(axes, results, workdir: str) -> None:
    """Training loss and validation accuracy of the last run."""
    result = results[-1]
    rows = metrics.read(os.path.join(workdir, result["name"]))
    loss = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    val = [(row["step"], 100 * row["val_top1"]) for row in rows if "val_top1" in row]
    score = f"test top-1 {grouping.percent(grouping.final_top1(result))}"
    dataset = drawable(result["dataset"])
    axes.set_title(f"{result['network']} on {dataset}: {score}")
    axes.set_xlabel("step")
    if val:
        axes.plot(*zip(*val, strict=True), color=_RED, lw=2.2, marker="o", ms=4)
        axes.set_ylabel("validation top-1, %", color=_RED)
    if loss:
        twin = axes.twinx()
        twin.plot(*zip(*loss, strict=True), color=_GREY, lw=1.6)
        twin.set_ylabel("training loss", color=_GREY)
        twin.spines["right"].set_visible(True)
