"""What a job bought: rows, a table, a picture."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import tabulate

from sws_jax import files, metrics, paths
from sws_jax.progress import say

RESULTS = "results.csv"
TABLE = "table.md"
PICTURE = "report.png"

Result = dict[str, Any]
Series = dict[str, dict[int, list[float]]]

_COLUMNS = (
    "run", "role", "network", "depth", "method", "profile", "dataset", "seed",
    "params", "stored_params", "total_epochs", "epochs", "layer_epochs",
    "test_top1", "test_top5", "test_loss", "test_images", "val_top1",
    "seconds", "hardware", "jax", "dtype", "unreadable", "unreadable_from",
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
                    "dtype": _dtypes(result),
                    "unreadable": result.get("unreadable", ""),
                    "unreadable_from": _known(result.get("unreadable_from")),
                }
            )
    return found


def roles(workdir: str) -> dict[str, str]:
    """Run -> role, by the ``results.csv`` of a work directory, if there is one."""
    path = os.path.join(workdir, RESULTS)
    if not paths.exists(path):
        return {}
    with open(paths.here(path), encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return {line["run"]: line["role"] for line in lines if line.get("run")}


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
        seeds = max(len(runs) for roles in depths.values() for runs in roles.values())
        if seeds > 1:
            parts[-1] += f"\n\nMean and standard deviation over {seeds} seeds."
        parts.append(_tabulate(*_cost(results, depths), markup))
    profiles = sorted({r["profile"] for r in results} - {"consistent"})
    if profiles:
        parts.append(f"Profile: {', '.join(profiles)}.")
    return "\n\n".join(parts)


def by_depth(results: Sequence[Result]) -> dict[int, dict[str, list[Result]]]:
    """depth -> role -> its runs, one for each seed: descendants and what they are
    compared with."""
    found: dict[int, dict[str, list[Result]]] = {}
    for result in results:
        if result["role"] in ("untuned", "tune", "scratch_short", "scratch_long"):
            roles = found.setdefault(result["depth"], {})
            roles.setdefault(result["role"], []).append(result)
    return dict(sorted(found.items()))


def series(depths: dict[int, dict[str, list[Result]]]) -> Series:
    """Label -> depth -> test top-1 of each seed, in the order of a table's columns."""
    lines: Series = {}
    for depth, roles in depths.items():
        for result in descendants(roles):
            for score in result["test"]:
                line = lines.setdefault(f"learngene, {_epochs(score['epochs'])}", {})
                line.setdefault(depth, []).append(score["top1"])
        for role in ("scratch_short", "scratch_long"):
            for result in roles.get(role, []):
                line = lines.setdefault(f"scratch, {_epochs(result['epochs'])}", {})
                line.setdefault(depth, []).append(_last(result))
    return lines


def descendants(roles: dict[str, list[Result]]) -> list[Result]:
    """Of one depth: tuned, or else as they were expanded."""
    return roles.get("tune") or roles.get("untuned") or []


def cost(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Layer-epochs and stored parameters of having every depth, either way.

    Layer-epochs are depth x epochs, summed over runs. Through the learngene:
    ancestor, Aux-Net and the tuning of every depth, as far as this job trained them
    (`_uncounted` says what it was given). Stored is what must be kept to have every
    depth without training it long again: the learngene, or every network.
    """
    depths = by_depth(results)

    def spent(role: str) -> float:
        """By one seed of every depth: the others are for the spread alone."""
        if role in ("ancestor", "aux"):
            return sum(r["layer_epochs"] for r in results if r["role"] == role)
        return summed(role, "layer_epochs")

    def summed(role: str, field: str) -> float:
        return sum(roles[role][0][field] for roles in depths.values() if role in roles)

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
                "stored": summed(role, "params"),
            }
    return found


def _comparison(depths) -> tuple[list, list]:
    lines = series(depths)
    head = ["depth", "parameters", *lines]
    body = []
    for depth, roles in depths.items():
        params = next(iter(roles.values()))[0]["params"]
        marks = [_spread(line.get(depth, [])) for line in lines.values()]
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
        f"all {len(depths)} depths" if len(depths) > 1 else "the depth",
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


def _scores(result: Result) -> list[float]:
    return [score["top1"] for score in result["test"]]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _spread(values: Sequence[float]) -> str:
    """Mean and, where seeds differ, sample standard deviation, in per cent."""
    if not values:
        return ""
    if len(set(values)) == 1:
        return _percent(values[0])
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}%"


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
    grown = {d: descendants(roles) for d, roles in depths.items()}
    first = next(runs[0] for runs in grown.values() if runs)
    genes = 1 + max(max(runs[0]["plan"]) for runs in grown.values() if runs)
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
    for depth, runs in grown.items():
        if not runs:
            continue
        scores = [
            statistics.mean(column) for column in zip(*map(_scores, runs), strict=True)
        ]
        label = f"{depth} blocks\n{_percent(scores[0])}"
        if len(scores) > 1:
            label += f"\n{_percent(scores[-1])}"
        column(x, [_colour(s, genes) for s in runs[0]["plan"]], label)
        x += 1.75
    if first["role"] == "tune":
        shown = [score["epochs"] for score in first["test"]]
        lines = dict.fromkeys((_epochs(shown[0]), _epochs(shown[-1])))
        note = "Des-Nets:\n" + ",\n".join(lines)
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
    scored = [v for line in lines.values() for values in line.values() for v in values]
    some = next(runs[0] for runs in next(iter(depths.values())).values())
    # Near 100 % errors are drawn, on a logarithmic axis labelled as accuracies: 98 %
    # and 99 % are as far apart as they should be. No error at all is half an image.
    smallest = 0.5 / some["test"][0]["count"]
    logarithmic = max(scored) > 0.9

    def height(accuracy: float) -> float:
        return max(1.0 - accuracy, smallest) if logarithmic else accuracy

    learned = [label for label in lines if label.startswith("learngene")]
    shades = ("#e8b48f", "#dd8452", "#b5482a")
    for label, line in lines.items():
        means = [statistics.mean(values) for values in line.values()]
        if label in learned:
            index = learned.index(label) - len(learned)
            style: dict[str, Any] = dict(
                color=shades[max(index, -len(shades))], lw=2.4, marker="o"
            )
        else:
            long = label == list(lines)[-1]
            style = dict(color=_GREY, lw=1.8, marker="s", ls="-" if long else "--")
            style["markerfacecolor"] = _GREY if long else "white"
        axes.plot(
            list(line), list(map(height, means)), label=label, markersize=5, **style
        )
        for depth, values in line.items():
            ends = [height(min(values)), height(max(values))]
            axes.plot([depth, depth], ends, color=style["color"], lw=1.2)
    axes.set_xticks(list(depths))
    axes.set_xlabel("blocks")
    seeds = max(len(values) for line in lines.values() for values in line.values())
    note = ", mean and range of the seeds" if seeds > 1 else ""
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
