"""What a job bought: rows, a table, a picture."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tabulate

from sws_jax import files, metrics
from sws_jax.progress import say

RESULTS = "results.csv"
TABLE = "table.md"
PICTURE = "report.png"

Result = dict[str, Any]

_COLUMNS = (
    "run", "role", "network", "depth", "method", "profile", "dataset", "seed",
    "params", "stored_params", "total_epochs", "epochs", "layer_epochs",
    "test_top1", "test_top5", "test_loss", "test_images", "val_top1",
    "seconds", "hardware", "jax",
)  # fmt: skip

# One colour per stage, early to late; the teacher and scratch nets are neutral.
_STAGE_COLOURS = ("#3b6fb6", "#3fa7a0", "#8fb84e", "#e0a93b", "#d1603d")
_GREY, _INK = "#9aa3ad", "#22303c"


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
                }
            )
    return found


def to_csv(found: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def sentence(result: Result) -> str:
    """A finished run in one line."""
    scores = ", ".join(
        f"{score['top1']:.1%} after {score['epochs']:g} epochs"
        for score in result["test"]
    )
    return f"test top-1 {scores} ({result['seconds']:.0f} s of training)"


def table(results: Sequence[Result], *, markup: str = "simple") -> str:
    """The comparison by depth, and below it what it cost.

    Args:
      results: of `sws_jax.chain.execute`.
      markup: a format of the tabulate package: "simple", "github".
    """
    parts = []
    single = [r for r in results if r["role"] in ("ancestor", "aux", "single")]
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
    depths = by_depth(results)
    if depths:
        parts.append(_tabulate(*_comparison(depths), markup))
        parts.append(_tabulate(*_cost(results, depths), markup))
    return "\n\n".join(parts)


def by_depth(results: Sequence[Result]) -> dict[int, dict[str, Result]]:
    """depth -> role -> result, for descendants and what they are compared with."""
    found: dict[int, dict[str, Result]] = {}
    for result in results:
        if result["role"] in ("untuned", "tune", "scratch_short", "scratch_long"):
            found.setdefault(result["depth"], {})[result["role"]] = result
    return dict(sorted(found.items()))


def series(depths: dict[int, dict[str, Result]]) -> dict[str, dict[int, float]]:
    """Label -> depth -> test top-1, in the order of a table's columns."""
    lines: dict[str, dict[int, float]] = {}
    for depth, roles in depths.items():
        learned = roles.get("tune") or roles.get("untuned")
        for score in learned["test"] if learned else []:
            label = _epochs(score["epochs"])
            lines.setdefault(f"learngene, {label}", {})[depth] = score["top1"]
        for role in ("scratch_short", "scratch_long"):
            if role in roles:
                label = _epochs(roles[role]["epochs"])
                line = lines.setdefault(f"scratch, {label}", {})
                line[depth] = _last(roles[role])
    return lines


def cost(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Layer-epochs and stored parameters of having every depth, either way.

    Layer-epochs are depth x epochs, summed over runs. Through the learngene:
    ancestor, Aux-Net and the tuning of every depth, as far as this job trained them
    (`_uncounted` says what it was given). Stored is what must be kept to have every
    depth without training it long again: the learngene, or every network.
    """
    depths = by_depth(results)

    def spent(role: str) -> float:
        return sum(r["layer_epochs"] for r in results if r["role"] == role)

    def summed(role: str) -> float:
        return sum(roles[role]["params"] for roles in depths.values() if role in roles)

    found = {}
    tuned = "tune" if any("tune" in roles for roles in depths.values()) else "untuned"
    stored = [r["stored_params"] for r in results if r["role"] == tuned]
    if stored:
        found["learngene"] = {
            "once": spent("ancestor") + spent("aux"),
            "per_depth": spent(tuned),
            "layer_epochs": spent("ancestor") + spent("aux") + spent(tuned),
            "stored": max(stored),
        }
    for role in ("scratch_short", "scratch_long"):
        if spent(role):
            found[role] = {
                "once": 0.0,
                "per_depth": spent(role),
                "layer_epochs": spent(role),
                "stored": summed(role),
            }
    return found


def _comparison(depths) -> tuple[list, list]:
    lines = series(depths)
    head = ["depth", "parameters", *lines]
    body = []
    for depth, roles in depths.items():
        params = next(iter(roles.values()))["params"]
        marks = [_percent(line.get(depth)) for line in lines.values()]
        body.append([depth, f"{params:,}", *marks])
    return head, body


def _cost(results, depths) -> tuple[list, list]:
    names = {
        "learngene": "learngene + tuning" + _uncounted(results),
        "scratch_short": "scratch, same budget",
        "scratch_long": "scratch, long",
    }
    body = [
        [
            names[role],
            f"{found['once']:g}",
            f"{found['per_depth']:g}",
            f"{found['layer_epochs']:g}",
            f"{found['stored']:,}",
        ]
        for role, found in cost(results).items()
    ]
    head = [
        f"all {len(depths)} depths",
        "layer-epochs once",
        "of the depths",
        "together",
        "parameters kept for all depths",
    ]
    return head, body


def _uncounted(results) -> str:
    """What the learngene cost that this job did not train itself."""
    roles = {r["role"] for r in results}
    missing = [name for name in ("ancestor", "aux") if name not in roles]
    names = {"ancestor": "teacher", "aux": "Aux-Net"}
    words = " and ".join(names[name] for name in missing)
    return f" ({words} not counted)" if words else ""


def _tabulate(head, body, markup: str) -> str:
    return tabulate.tabulate(
        body, head, tablefmt=markup, stralign="right", disable_numparse=True
    )


def _last(result: Result) -> float:
    return result["test"][-1]["top1"]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _epochs(epochs: float) -> str:
    if not epochs:
        return "untuned"
    return "1 epoch" if epochs == 1 else f"{epochs:g} epochs"


def draw(results: Sequence[Result], workdir: str, path: str) -> None:
    """The picture of a job: the flow, what it bought, what it cost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    depths = by_depth(results)
    with plt.rc_context(_STYLE):  # type: ignore[arg-type]
        if depths:
            figure = plt.figure(figsize=(13, 8.6), layout="constrained")
            grid = figure.add_gridspec(2, 3, height_ratios=(1.05, 1))
            _draw_flow(figure.add_subplot(grid[0, :]), results, depths)
            _draw_accuracy(figure.add_subplot(grid[1, :2]), depths)
            _draw_cost(figure.add_subplot(grid[1, 2]), results)
        else:
            figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
            _draw_curve(axes, results, workdir)
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
        plt.close(figure)


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


def _draw_flow(axes, results, depths) -> None:
    """Stacks of blocks, input at the bottom, one colour per stage."""
    tallest = max(depths)
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

    roles = {r["role"]: r for r in results}
    tune = next(iter(depths.values()))
    first = tune.get("tune") or tune.get("untuned")
    assert first is not None
    plans = {
        d: (r.get("tune") or r.get("untuned") or {}).get("plan", [])
        for d, r in depths.items()
    }
    genes = max(max(plan) for plan in plans.values() if plan) + 1
    if "ancestor" in roles:
        ancestor = roles["ancestor"]
        label = f"Ans-Net\n{ancestor['depth']} blocks\n{_percent(_last(ancestor))}"
        column(x, [_GREY] * ancestor["depth"], label)
        arrow(x + 1.2, "distil")
        x += 3.7
    if "aux" in roles:
        aux = roles["aux"]
        stages = [int(n) for n in aux["network"].rsplit("_", 1)[-1].split("-")]
        colours = [_colour(s, genes) for s, n in enumerate(stages) for _ in range(n)]
        lengths = "-".join(map(str, stages))
        column(x, colours, f"Aux-Net\n{lengths}\n{_percent(_last(aux))}")
        arrow(x + 1.2, "extract")
        x += 3.7
    column(
        x,
        [_colour(s, genes) for s in range(genes)],
        f"learngene\n{genes} genes\n{first['stored_params'] / 1e6:.2g} M stored",
    )
    arrow(x + 1.2, "expand")
    x += 3.7
    for depth, roles_here in depths.items():
        result = roles_here.get("tune") or roles_here.get("untuned")
        if not result or not result["plan"]:
            continue
        scores = result["test"]
        label = f"{depth} blocks\n{_percent(scores[0]['top1'])}"
        if len(scores) > 1:
            label += f"\n{_percent(scores[-1]['top1'])}"
        column(x, [_colour(s, genes) for s in result["plan"]], label)
        x += 1.75
    tuned = next(iter(depths.values())).get("tune")
    if tuned:
        note = f"Des-Nets:\nuntuned,\n{_epochs(tuned['epochs'])}"
        axes.text(x + 0.1, -0.6, note, va="top", color=_GREY, linespacing=1.35)
    axes.set_xlim(-0.4, x + 2.2)
    axes.set_ylim(-0.26 * tallest, tallest + 0.4)
    axes.axis("off")
    dataset = first["dataset"]
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


def _draw_accuracy(axes, depths) -> None:
    lines = series(depths)
    # Errors on a logarithmic axis, labelled as accuracies: 98 % and 99 % are as far
    # apart as they should be. No error at all is drawn at half an image.
    images = next(iter(next(iter(depths.values())).values()))["test"][0]["count"]
    smallest = 0.5 / images
    learned = [label for label in lines if label.startswith("learngene")]
    shades = ("#e8b48f", "#dd8452", "#b5482a")
    for label, line in lines.items():
        x, y = list(line), [max(1.0 - v, smallest) for v in line.values()]
        if label in learned:
            index = learned.index(label) - len(learned)
            style: dict[str, Any] = dict(
                color=shades[max(index, -len(shades))], lw=2.4, marker="o"
            )
        else:
            long = label == list(lines)[-1]
            style = dict(color=_GREY, lw=1.8, marker="s", ls="-" if long else "--")
        axes.plot(x, y, label=label, markersize=5, **style)
    axes.set_xticks(list(depths))
    axes.set_xlabel("blocks")
    perfect = any(v == 1.0 for line in lines.values() for v in line.values())
    note = " (100 drawn at half an image)" if perfect else ""
    axes.set_ylabel(f"test top-1, %{note}")
    axes.set_yscale("log")
    errors = [max(1.0 - v, smallest) for line in lines.values() for v in line.values()]
    worst, best = max(errors), min(errors)
    known = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
    marks = [m for m in known if best / 1.6 <= 1 - m / 100 <= worst * 1.6]
    axes.set_yticks([1 - m / 100 for m in marks], [f"{m:g}" for m in marks])
    axes.minorticks_off()
    axes.set_ylim(min(worst * 1.5, 1.0), best / 1.5)
    axes.set_title("Accuracy by depth")
    axes.grid(axis="y", color="#e5e8eb")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=2, loc="lower right")


def _draw_cost(axes, results) -> None:
    found = cost(results)
    names = {
        "learngene": "learngene",
        "scratch_short": "scratch,\nsame budget",
        "scratch_long": "scratch,\nlong",
    }
    order = list(reversed(found))
    for level, role in enumerate(order):
        once, rest = found[role]["once"], found[role]["per_depth"]
        colour = "#b5482a" if role == "learngene" else _GREY
        axes.barh(level, once, color="#e8b48f", height=0.55)
        axes.barh(level, rest, left=once, color=colour, height=0.55)
        stored = f"{found[role]['stored'] / 1e6:.2g} M kept"
        text = f" {found[role]['layer_epochs']:,.0f}\n {stored}"
        axes.text(once + rest, level, text, va="center", fontsize=10)
    axes.set_yticks(range(len(order)), [names[role] for role in order])
    axes.margins(x=0.35)
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
    axes.set_title(f"{result['network']} on {result['dataset']}: {score}")
    axes.set_xlabel("step")
    if val:
        axes.plot(*zip(*val, strict=True), color="#b5482a", lw=2.2, marker="o", ms=4)
        axes.set_ylabel("validation top-1, %", color="#b5482a")
    if loss:
        twin = axes.twinx()
        twin.plot(*zip(*loss, strict=True), color=_GREY, lw=1.6)
        twin.set_ylabel("training loss", color=_GREY)
        twin.spines["right"].set_visible(True)
