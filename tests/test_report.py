"""Tables, costs and pictures of results written by hand."""

import csv
import io
import json
import pathlib

import numpy as np
import pytest
from matplotlib import pyplot

from sws_jax.reports import figures, grouping, rows, tables, write
from sws_jax.reports.grouping import Line, Way
from sws_jax.storage import names

from support.images import png

RESULTS = pathlib.Path(__file__).parent.parent / "results"

# Parameters of the little networks below: a block has 10, all the rest has 7.
BLOCK, REST, GENES = 10, 7, 3


def score(epochs, top1):
    scores = {"top1": top1, "top5": 1.0, "loss": 0.25, "count": 400.0}
    return {"epochs": epochs, "step": int(10 * epochs), **scores}


def result(role, depth, epochs, *top1, name="", plan=(), stored=0, **more):
    """What `sws_jax.jobs.train.train` writes, with the role of its row.

    Scores are of epochs 0, 1, ... with the last one at the run's end.
    """
    params = BLOCK * depth + REST
    at = [*range(len(top1) - 1), epochs]
    return {
        "name": name or role,
        "role": role,
        "network": f"vit_nano_patch4_L{depth}",
        "depth": depth,
        "plan": list(plan),
        "method": "sws" if plan else "",
        "profile": "consistent",
        "dataset": "digits",
        "seed": 3,
        "params": params,
        "stored_params": stored or params,
        "epochs": epochs,
        "steps": int(10 * epochs),
        "layer_epochs": depth * epochs,
        "val_top1": 0.97531,
        "test": [score(e, accuracy) for e, accuracy in zip(at, top1, strict=True)],
        "seconds": 12.5,
        "hardware": "2 CPU cores",
        "versions": {"jax": "0.0.1", "flax": "0.0.2"},
        "stages": [],
        **more,
    }


def plan(depth):
    return [layer * GENES // depth for layer in range(depth)]


def descendant(depth, epochs, *top1, **more):
    role = "tune" if epochs else "untuned"
    name = f"des-L{depth:02d}" if epochs else f"untuned-L{depth:02d}"
    genes = GENES * BLOCK + REST
    about = {"name": name, "plan": plan(depth), "stored": genes, **more}
    return result(role, depth, epochs, *top1, **about)


def ancestor():
    return result("ancestor", 6, 30.0, 0.985)


def aux(accuracy=0.98, **more):
    about = {"network": "aux_vit_nano_patch4_2-3-2", "stages": [2, 3, 2]}
    about = {**about, "method": "sws", **more}
    return result("aux", 7, 40.0, accuracy, stored=GENES * BLOCK + REST, **about)


def scratch(depth, epochs, top1, **more):
    role = "scratch_long" if epochs > 5 else "scratch_short"
    return result(
        role, depth, epochs, top1, name=f"scratch-L{depth}-{epochs:g}ep", **more
    )


def full():
    """An ancestor, an Aux-Net and two depths with both nets from scratch."""
    results = [ancestor(), aux()]
    for depth, tuned in ((4, (0.5, 0.9, 0.96)), (9, (0.75, 0.95, 0.9875))):
        results += [
            descendant(depth, 5.0, *tuned),
            scratch(depth, 5.0, 0.8),
            scratch(depth, 40.0, 0.97),
        ]
    return results


def of_tleg(result):
    """The same of another method, with some other numbers."""
    scores = [{**score, "top1": score["top1"] - 0.1} for score in result["test"]]
    return {
        **result,
        "method": "tleg",
        "name": f"tleg-{result['name']}",
        "test": scores,
        "stored_params": 27,
    }


def two_methods():
    """As `full`, and an Aux-Net and two depths of another method."""
    shorter = {"epochs": 10.0, "layer_epochs": 70.0, "stages": []}
    of_aux = {**of_tleg(aux()), **shorter}
    tuned = [of_tleg(r) for r in full() if r["role"] == "tune"]
    fresh = [{**r, "plan": []} for r in tuned]  # no block is a copy of a gene
    first, *others = full()
    return [first, of_aux, *others, *fresh]


def untuned():
    return [aux(), descendant(4, 0.0, 0.5), descendant(9, 0.0, 0.75)]


def test_one_row_for_every_scored_set_of_weights():
    known = {
        "flops": 900,
        "flops_before": 700,
        "flops_net": 60,
        "config_hash": "0123456789ab",
        "version": "0.1.0+g0123456789ab",
    }
    table = rows.rows([{**result, **known} for result in full()])
    assert len(table) == 2 + 2 * (3 + 1 + 1)
    tuned = [row for row in table if row["run"] == "des-L09"]
    assert [row["epochs"] for row in tuned] == [0, 1, 5.0]
    assert [row["test_top1"] for row in tuned] == [0.75, 0.95, 0.9875]
    assert [row["layer_epochs"] for row in tuned] == [0, 9, 45]
    assert tuned[-1] == {
        "run": "des-L09",
        "role": "tune",
        "network": "vit_nano_patch4_L9",
        "depth": 9,
        "method": "sws",
        "profile": "consistent",
        "dataset": "digits",
        "seed": 3,
        "params": 97,
        "stored_params": 37,
        "total_epochs": 5.0,
        "epochs": 5.0,
        "layer_epochs": 45.0,
        "test_top1": 0.9875,
        "test_top5": 1.0,
        "test_loss": 0.25,
        "test_images": 400,
        "val_top1": 0.9753,
        "seconds": 12.5,
        "hardware": "2 CPU cores",
        "jax": "0.0.1",
        "dtype": "",
        "unreadable": "",
        "unreadable_from": "",
        "phase": "tune",
        "flops_learn": 700,
        "flops_tune": 900,
        "flops_net": 60,
        "config_hash": "0123456789ab",
        "version": "0.1.0+g0123456789ab",
    }
    assert table[0]["method"] == "-"


def test_flops_of_a_row_are_those_of_its_own_epochs():
    """Of a phase with those before it; of all others beside them, as far as known."""
    more = {"flops": 900, "flops_before": 700, "flops_net": 60}
    older = descendant(4, 5.0, 0.5, 0.96)
    table = rows.rows(
        [
            {**ancestor(), **more, "flops_before": 0},
            aux(**more),
            aux(**{**more, "flops_before": None}),
            descendant(4, 3.0, 0.5, 0.9, 0.95, **more),
            descendant(4, 0.0, 0.5, **{**more, "flops": 0}),
            scratch(4, 5.0, 0.8, **{**more, "flops_before": 0}),
            older,
        ]
    )
    assert [
        (row["phase"], row["flops_learn"], row["flops_tune"], row["flops_net"])
        for row in table
    ] == [
        ("ancestor", 900, 0, 60),
        ("aux", 1600, 0, 60),
        ("aux", "", 0, 60),
        ("tune", 700, 0, 60),
        ("tune", 700, 300, 60),
        ("tune", 700, 900, 60),
        ("untuned", 700, 0, 60),
        ("scratch", 0, 900, 60),
        *[("tune", "", "", "")] * 2,
    ]


def test_csv_gives_the_rows_back():
    table = rows.rows(full())
    text = rows.to_csv(table)
    assert text.endswith("\n") and "\r" not in text
    read = list(csv.DictReader(io.StringIO(text)))
    assert read == [{k: str(v) for k, v in row.items()} for row in table]
    assert rows.to_csv([]).count("\n") == 1


def kept():
    """What is left of a larger comparison, in no particular order: two seeds of which
    one is unfinished, two long budgets, a depth never tuned."""
    return [
        descendant(2, 0.0, 0.4),
        scratch(9, 40.0, 0.97),
        descendant(9, 5.0, 0.75, 0.95, 0.98),
        ancestor(),
        scratch(4, 20.0, 0.9),
        scratch(4, 40.0, 0.95),
        descendant(4, 5.0, 0.5, 0.9, 0.96),
        descendant(4, 0.0, 0.5),
        descendant(4, 5.0, 0.5, 0.8, 0.94, seed=4),
        aux(),
    ]


def test_runs_are_grouped_by_what_they_are():
    ways = grouping.ways(list(reversed(full())))
    assert {way: list(depths) for way, depths in ways.items()} == {
        Way("tune", "sws", 5.0): [4, 9],
        Way("scratch_short", "", 5.0): [4, 9],
        Way("scratch_long", "", 40.0): [4, 9],
    }
    assert grouping.ways([ancestor(), aux()]) == {}
    ways = grouping.ways(kept())
    seeds = {
        way: {depth: [run["seed"] for run in runs] for depth, runs in depths.items()}
        for way, depths in ways.items()
    }
    assert seeds == {
        Way("tune", "sws", 5.0): {4: [3, 4], 9: [3]},
        Way("untuned", "sws", 0.0): {2: [3], 4: [3]},
        Way("scratch_long", "", 20.0): {4: [3]},
        Way("scratch_long", "", 40.0): {4: [3], 9: [3]},
    }
    again = grouping.ways([*kept(), *kept()])  # of one seed, a run counts once
    assert again == ways


def series(results):
    return grouping.series(grouping.ways(results))


def test_series_are_the_columns_of_the_table():
    assert series(full()) == {
        Line("learngene", "sws", 0, 0): {4: [0.5], 9: [0.75]},
        Line("learngene", "sws", 1, 5): {4: [0.9], 9: [0.95]},
        Line("learngene", "sws", 5, 5): {4: [0.96], 9: [0.9875]},
        Line("scratch", "", 5, 5): {4: [0.8], 9: [0.8]},
        Line("scratch", "", 40, 40): {4: [0.97], 9: [0.97]},
    }
    assert series(untuned()) == {Line("learngene", "sws", 0, 0): {4: [0.5], 9: [0.75]}}
    # An expansion is the same, whatever the tuning after it; and one that both roles
    # have scored is one.
    assert series(kept())[Line("learngene", "sws", 0, 0)] == {
        2: [0.4],
        4: [0.5, 0.5],
        9: [0.75],
    }


def test_columns_of_two_budgets_are_told_apart():
    both = [descendant(4, 5.0, 0.5, 0.9, 0.96), descendant(4, 9.0, 0.5, 0.7, 0.99)]
    assert grouping.labels(series([*both, scratch(4, 5.0, 0.8)])) == [
        "learngene, untuned",
        "learngene, 1 epoch of 5",
        "learngene, 1 epoch of 9",
        "learngene, 5 epochs",
        "learngene, 9 epochs",
        "scratch, 5 epochs",
    ]


def test_cost_counts_ancestor_and_aux_net():
    once = 6 * 30 + 7 * 40
    assert grouping.cost(full()) == {
        Way("tune", "sws", 5.0): {
            "once": once,
            "per_depth": (4 + 9) * 5,
            "layer_epochs": once + (4 + 9) * 5,
            "stored": 3 * 10 + 7,
            "depths": 2,
        },
        Way("scratch_short", "", 5.0): {
            "once": 0,
            "per_depth": (4 + 9) * 5,
            "layer_epochs": (4 + 9) * 5,
            "stored": (4 + 9) * 10 + 2 * 7,
            "depths": 2,
        },
        Way("scratch_long", "", 40.0): {
            "once": 0,
            "per_depth": (4 + 9) * 40,
            "layer_epochs": (4 + 9) * 40,
            "stored": (4 + 9) * 10 + 2 * 7,
            "depths": 2,
        },
    }
    seeds = [ancestor(), {**ancestor(), "seed": 4}, *full()[1:]]
    assert grouping.cost(seeds) == grouping.cost(full())


def test_cost_does_not_add_up_what_differs_in_budget():
    costs = grouping.cost(kept())
    assert {way: (c["per_depth"], c["depths"]) for way, c in costs.items()} == {
        Way("tune", "sws", 5.0): ((4 + 9) * 5, 2),
        Way("scratch_long", "", 20.0): (4 * 20, 1),
        Way("scratch_long", "", 40.0): ((4 + 9) * 40, 2),
    }


def test_cost_without_tuning_and_without_an_ancestor():
    costs = grouping.cost(untuned())
    assert list(costs) == [Way("untuned", "sws", 0.0)]
    (spent,) = costs.values()
    assert spent["layer_epochs"] == spent["once"] == 7 * 40
    assert spent["per_depth"] == 0
    assert grouping.cost([ancestor()]) == {}


def cells(text):
    """The body of a Markdown table, header first, without its rule."""
    lines = [line.strip("|").split("|") for line in text.splitlines()]
    return [[cell.strip() for cell in line] for line in (lines[0], *lines[2:])]


def test_table():
    single, depths, cost = tables.table(full(), markup="github").split("\n\n")
    assert cells(single) == [
        ["run", "network", "epochs", "test top-1", "parameters"],
        ["ancestor", "vit_nano_patch4_L6", "30", "98.5%", "67"],
        ["aux", "aux_vit_nano_patch4_2-3-2", "40", "98.0%", "77"],
    ]
    lines = grouping.labels(series(full()))
    assert cells(depths) == [
        ["depth", "parameters", *lines],
        ["4", "47", "50.0%", "90.0%", "96.0%", "80.0%", "97.0%"],
        ["9", "97", "75.0%", "95.0%", "98.8%", "80.0%", "97.0%"],
    ]
    assert [row[1:] for row in cells(cost)[1:]] == [
        ["460", "65", "525", "37"],
        ["0", "65", "65", "144"],
        ["0", "520", "520", "144"],
    ]
    assert cells(cost)[0][0] == "all 2 depths"


def test_table_leaves_open_what_was_not_run():
    some = [r for r in full() if r["name"] != "scratch-L4-40ep"]
    _, depths, _ = tables.table(some, markup="github").split("\n\n")
    assert [row[-1] for row in cells(depths)] == ["scratch, 40 epochs", "", "97.0%"]


def seeds():
    """Two seeds of tuning and scratch; an expansion is the same for both."""
    results = [aux()]
    for seed, tuned, short in ((3, 0.96, 0.8), (4, 0.94, 0.7)):
        results += [
            descendant(4, 5.0, 0.5, 0.9, tuned, seed=seed),
            scratch(4, 5.0, short, seed=seed),
        ]
    return results


def test_table_of_several_seeds():
    """Mean and sample deviation, by hand: (.96 - .94) / sqrt 2 = .0141."""
    _, depths, cost = tables.table(seeds(), markup="github").split("\n\n", 2)
    assert cells(depths)[1][2:] == ["50.0%", "90.0%", "95.0 ± 1.4%", "75.0 ± 7.1%"]
    assert cost.startswith("Mean and standard deviation over 2 seeds.")
    costs = grouping.cost(seeds())  # one of them is what a depth costs
    assert costs[Way("tune", "sws", 5.0)]["per_depth"] == 4 * 5
    assert costs[Way("scratch_short", "", 5.0)]["layer_epochs"] == 4 * 5
    assert costs[Way("scratch_short", "", 5.0)]["stored"] == 47


def test_table_of_what_is_left_of_a_larger_comparison():
    _, depths, seeds, cost = tables.table(kept(), markup="github").split("\n\n")
    heads = ["untuned", "1 epoch", "5 epochs", "20 epochs", "40 epochs"]
    assert [cell.split(", ")[1] for cell in cells(depths)[0][2:]] == heads
    assert [row[:1] + row[2:] for row in cells(depths)[1:]] == [
        ["2", "40.0% (1)", "", "", "", ""],
        ["4", "50.0%", "85.0 ± 7.1%", "95.0 ± 1.4%", "90.0% (1)", "95.0% (1)"],
        ["9", "75.0% (1)", "95.0% (1)", "98.0% (1)", "", "97.0% (1)"],
    ]
    assert seeds.endswith("over 2 seeds, or over as many as stand in brackets.")
    assert [row[0] for row in cells(cost)] == [
        "2 of the 3 depths",  # the expansion of the third cost nothing
        "learngene + tuning",
        "scratch, long (20 epochs; 1 of 2 depths)",
        "scratch, long (40 epochs)",
    ]


def test_two_methods_in_one_table():
    """Each has its columns and its cost, and the ancestor counts for both."""
    results = two_methods()
    single, depths, cost = tables.table(results, markup="github").split("\n\n")
    assert [row[0] for row in cells(single)[1:]] == ["ancestor", "tleg-aux", "aux"]
    ends = ["untuned", "1 epoch", "5 epochs"]
    assert cells(depths)[0][2:] == [
        *(f"sws, {end}" for end in ends),
        *(f"tleg, {end}" for end in ends),
        "scratch, 5 epochs",
        "scratch, 40 epochs",
    ]
    assert cells(depths)[1][2:] == [
        "50.0%", "90.0%", "96.0%", "40.0%", "80.0%", "86.0%", "80.0%", "97.0%"
    ]  # fmt: skip
    assert cells(cost)[1:3] == [
        ["sws + tuning", "460", "65", "525", "37"],
        ["tleg + tuning", "250", "65", "315", "27"],
    ]
    assert [row[0] for row in cells(cost)[3:]] == [
        "scratch, same budget",
        "scratch, long",
    ]


def test_what_a_method_does_not_need_is_not_missed():
    """Its phases are what its descendants stand on, where that is known."""
    without = [r for r in full() if r["role"] != "aux"]
    assert "learngene + tuning (Aux-Net not counted)" in tables.table(without)
    known = [{**r, "flops_before": 700} for r in without]
    assert "not counted" not in tables.table(known)
    kept_untuned = [of_tleg(descendant(4, 0.0, 0.5)), *full()]
    names = [row[0] for row in cells(tables.table(kept_untuned).split("\n\n")[-1])]
    assert any(name.startswith("tleg (Aux-Net") for name in names)


def test_what_is_stored_of_networks_that_come_from_no_learngene():
    """One for each depth; they are of their method like any other."""
    stored = {4: 40, 9: 90}
    own = [
        {**descendant(depth, 5.0, 0.5, stored=size), "plan": [], "method": "pretrained"}
        for depth, size in stored.items()
    ]
    gene = [descendant(depth, 5.0, 0.5, stored=37) for depth in stored]
    costs = grouping.cost([*gene, *own])
    assert {way.method: cost["stored"] for way, cost in costs.items()} == {
        "sws": 37, "pretrained": 130
    }  # fmt: skip


def test_table_lists_runs_of_any_other_role():
    table = tables.table([result("stitching", 6, 30.0, 0.9)], markup="github")
    assert cells(table)[1][0] == "stitching"


@pytest.mark.parametrize("job", ["digits", "natural", "transfer"])
def test_committed_tables_are_those_of_their_rows(job):
    results = {}
    whole = ("depth", "seed", "params", "stored_params")
    with open(RESULTS / job / "results.csv") as file:
        for row in csv.DictReader(file):
            score = {"epochs": float(row["epochs"]), "top1": float(row["test_top1"])}
            about = {**row, **{name: int(row[name]) for name in whole}}
            about["epochs"] = float(row["total_epochs"])
            about["method"] = row["method"].strip("-")
            about |= {"name": row["run"], "test": []}
            about["layer_epochs"] = about["depth"] * about["epochs"]
            results.setdefault(row["run"], about)["test"].append(score)
    table = tables.table(list(results.values()), markup="github")
    assert table + "\n" == (RESULTS / job / "table.md").read_text()


def test_table_of_one_run():
    text = tables.table([result("single", 6, 30.0, 0.9, name="mine")], markup="github")
    assert cells(text)[1:] == [["mine", "vit_nano_patch4_L6", "30", "90.0%", "67"]]


def test_sentence():
    text = write.sentence(descendant(4, 5.0, 0.5, 0.9, 0.96))
    for words in ("50.0%", "90.0%", "96.0%", "5 epochs", "12 s of training"):
        assert words in text


def metrics_of(workdir, name):
    rows = [
        {"step": 10, "loss": 2.0, "rate": 1e-3},
        {"step": 20, "loss": 1.0, "val_top1": 0.5},
        {"step": 30, "loss": 0.5, "val_top1": 0.75},
        {"step": 40, "val_top1": 0.8},
    ]
    directory = workdir / name
    directory.mkdir()
    lines = [json.dumps(row) + "\n" for row in rows]
    (directory / "metrics.jsonl").write_text("".join(lines) + '{"step": 50, "lo')


OLD = {name: value for name, value in aux(1.0).items() if name != "stages"}
JOBS = {
    "full": full(),
    "untuned": [descendant(1, 0.0, 0.0)],  # one depth, no Aux-Net, all wrong
    # Older results of an Aux-Net have no stages.
    "perfect": [OLD, descendant(4, 5.0, 1.0, 1.0), descendant(9, 5.0, 1.0, 1.0)],
    "low": [aux(0.2), descendant(4, 5.0, 0.0, 0.1, 0.2)],  # linear axis
    "single": [result("single", 6, 30.0, 0.9, name="mine")],
    "kept": kept(),
    # Blocks that come from no gene, under names without meaning.
    "fresh": [
        {**ancestor(), "network": "any"},
        aux(network="pooled-net", stages=[], method="pool"),
        descendant(4, 5.0, 0.5, 0.9, 0.96, plan=[], network="x_1-2", method="pool"),
    ],
    "scratch": [scratch(4, 5.0, 0.8)],  # no descendants
    "two methods": two_methods(),
}


@pytest.mark.parametrize("job", list(JOBS))
def test_draw(job, tmp_path):
    metrics_of(tmp_path, "mine")
    path = tmp_path / "report.png"
    figures.draw(JOBS[job], str(tmp_path), str(path))
    drawn = png(path)
    assert min(drawn.shape[:2]) > 400
    assert (drawn != 255).any(axis=-1).mean() > 0.01  # more than white
    first_gene = np.abs(drawn.astype(int) - (0x3B, 0x6F, 0xB6)).max(axis=-1) <= 2
    assert first_gene.any() == any(r["plan"] for r in JOBS[job])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "report.png"]


def axes_of(results, tmp_path, monkeypatch):
    """The panels of a job's picture."""
    closed = []
    monkeypatch.setattr("matplotlib.pyplot.close", closed.append)
    figures.draw(results, str(tmp_path), str(tmp_path / "report.png"))
    monkeypatch.undo()
    (figure,) = closed
    pyplot.close(figure)
    return figure.axes


def test_the_picture_tells_methods_apart(tmp_path, monkeypatch):
    """A row, and a colour of lines and of bars, for each; the ancestor is in both."""
    *flows, accuracy, cost = axes_of(two_methods(), tmp_path, monkeypatch)
    titles = [flow.get_title(loc="left").partition(":")[0] for flow in flows]
    assert titles == ["sws", "tleg"]
    for flow, scores in zip(flows, ("98.0%", "88.0%"), strict=True):
        (aux_net,) = [t.get_text() for t in flow.texts if "Aux-Net" in t.get_text()]
        assert aux_net.endswith(scores)
        assert sum("Ans-Net" in text.get_text() for text in flow.texts) == 1
    assert flows[0].get_xlim() == flows[1].get_xlim()
    colours = {
        (line.get_label().partition(",")[0], line.get_color())
        for line in accuracy.lines
        if "," in line.get_label()
    }
    assert len(colours) == len({colour for _, colour in colours}) == 3 + 3 + 1
    names = [mark.get_text() for mark in cost.get_yticklabels()]
    assert names[-2:] == ["tleg", "sws"]
    assert len({bar.get_facecolor() for bar in cost.patches[-4:]}) == 4


def test_the_picture_holds_the_numbers_of_the_table(tmp_path, monkeypatch):
    """Networks, accuracies and costs, each where it belongs.

    It fails where a panel is left out, where a line has another's numbers, and where
    bars are not the layer-epochs.
    """
    flow, accuracy, cost = axes_of(full(), tmp_path, monkeypatch)
    words = [text.get_text() for text in flow.texts]
    for label in (
        "Ans-Net\n6 blocks\n98.5%",
        "Aux-Net\n2-3-2\n98.0%",
        f"learngene\n3 genes\n{37 / 1e6:.2g} M stored",
        "4 blocks\n50.0%\n96.0%",
        "9 blocks\n75.0%\n98.8%",
    ):
        assert label in words
    assert len(flow.patches) == 6 + 7 + GENES + 4 + 9
    lines = {line.get_label(): line for line in accuracy.lines}
    expected = grouping.series(grouping.ways(full()))
    assert len(expected) == 5
    for label, scores in zip(grouping.labels(expected), expected.values(), strict=True):
        x, y = lines[label].get_data()
        assert list(x) == [4, 9]
        np.testing.assert_allclose(y, [1 - np.mean(scores[d]) for d in (4, 9)])
    widths = [bar.get_width() for bar in cost.patches]
    spent = [(c["once"], c["per_depth"]) for c in grouping.cost(full()).values()]
    assert widths == [width for both in reversed(spent) for width in both]
    names = [mark.get_text() for mark in cost.get_yticklabels()]
    assert names == ["scratch,\nlong", "scratch,\nsame budget", "learngene"]


def test_the_picture_shows_the_runs_own_curve(tmp_path):
    """Validation accuracy in red and loss in grey, where there are any."""

    def drawn(colour):
        figures.draw(JOBS["single"], str(tmp_path), str(tmp_path / "report.png"))
        near = np.abs(png(tmp_path / "report.png").astype(int) - colour).max(axis=-1)
        return (near <= 2).sum()

    red, grey = (0xB5, 0x48, 0x2A), (0x9A, 0xA3, 0xAD)
    assert (drawn(red), drawn(grey)) == (0, 0)
    metrics_of(tmp_path, "mine")
    assert drawn(red) > 500 and drawn(grey) > 200


def test_write_leaves_rows_table_and_picture(tmp_path, capsys):
    results = JOBS["single"]
    write.write(results, str(tmp_path))
    assert (tmp_path / names.RESULTS).read_text() == rows.to_csv(rows.rows(results))
    markdown = (tmp_path / names.TABLE).read_text()
    assert markdown == tables.table(results, markup="github") + "\n"
    png(tmp_path / names.PICTURE)
    out = capsys.readouterr().out
    assert tables.table(results) in out
    assert str(tmp_path / names.RESULTS) in out
