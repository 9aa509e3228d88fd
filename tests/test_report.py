"""Tables, costs and pictures of results written by hand."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from sws_jax import report

# Parameters of the little networks below: a block has 10, all the rest has 7.
BLOCK, REST, GENES = 10, 7, 3


def score(epochs, top1):
    scores = {"top1": top1, "top5": 1.0, "loss": 0.25, "count": 400.0}
    return {"epochs": epochs, "step": int(10 * epochs), **scores}


def result(role, depth, epochs, *top1, name="", plan=(), stored=0, network=""):
    """What `sws_jax.train.train` writes, with `sws_jax.chain.execute`'s role.

    Scores are of epochs 0, 1, ... with the last one at the run's end.
    """
    params = BLOCK * depth + REST
    at = [*range(len(top1) - 1), epochs]
    return {
        "name": name or role,
        "role": role,
        "network": network or f"vit_nano_patch4_L{depth}",
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
    }


def plan(depth):
    return [layer * GENES // depth for layer in range(depth)]


def descendant(depth, epochs, *top1):
    role = "tune" if epochs else "untuned"
    name = f"des-L{depth:02d}" if epochs else f"untuned-L{depth:02d}"
    genes = GENES * BLOCK + REST
    return result(role, depth, epochs, *top1, name=name, plan=plan(depth), stored=genes)


def ancestor():
    return result("ancestor", 6, 30.0, 0.985)


def aux(accuracy=0.98):
    network = "aux_vit_nano_patch4_2-3-2"
    stored = GENES * BLOCK + REST
    return result("aux", 7, 40.0, accuracy, network=network, stored=stored)


def full():
    """An ancestor, an Aux-Net and two depths with both nets from scratch."""
    found = [ancestor(), aux()]
    for depth, tuned in ((4, (0.5, 0.9, 0.96)), (9, (0.75, 0.95, 0.9875))):
        found += [
            descendant(depth, 5.0, *tuned),
            result("scratch_short", depth, 5.0, 0.8, name=f"scratch-L{depth}-5ep"),
            result("scratch_long", depth, 40.0, 0.97, name=f"scratch-L{depth}-40ep"),
        ]
    return found


def untuned():
    return [aux(), descendant(4, 0.0, 0.5), descendant(9, 0.0, 0.75)]


def test_one_row_for_every_scored_set_of_weights():
    found = report.rows(full())
    assert len(found) == 2 + 2 * (3 + 1 + 1)
    tuned = [row for row in found if row["run"] == "des-L09"]
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
    }
    assert found[0]["method"] == "-"


def test_csv_gives_the_rows_back():
    found = report.rows(full())
    text = report.to_csv(found)
    assert text.endswith("\n") and "\r" not in text
    read = list(csv.DictReader(io.StringIO(text)))
    assert read == [{k: str(v) for k, v in row.items()} for row in found]
    assert report.to_csv([]).count("\n") == 1


def test_by_depth_sorts_and_leaves_the_others_out():
    found = report.by_depth(list(reversed(full())))
    assert list(found) == [4, 9]
    for depth, roles in found.items():
        assert set(roles) == {"tune", "scratch_short", "scratch_long"}
        assert [r["depth"] for runs in roles.values() for r in runs] == [depth] * 3
    assert report.by_depth([ancestor(), aux()]) == {}


def test_series_are_the_columns_of_the_table():
    assert report.series(report.by_depth(full())) == {
        "learngene, untuned": {4: [0.5], 9: [0.75]},
        "learngene, 1 epoch": {4: [0.9], 9: [0.95]},
        "learngene, 5 epochs": {4: [0.96], 9: [0.9875]},
        "scratch, 5 epochs": {4: [0.8], 9: [0.8]},
        "scratch, 40 epochs": {4: [0.97], 9: [0.97]},
    }
    assert report.series(report.by_depth(untuned())) == {
        "learngene, untuned": {4: [0.5], 9: [0.75]}
    }


def test_cost_counts_ancestor_and_aux_net():
    once = 6 * 30 + 7 * 40
    assert report.cost(full()) == {
        "learngene": {
            "once": once,
            "per_depth": (4 + 9) * 5,
            "layer_epochs": once + (4 + 9) * 5,
            "stored": 3 * 10 + 7,
        },
        "scratch_short": {
            "once": 0,
            "per_depth": (4 + 9) * 5,
            "layer_epochs": (4 + 9) * 5,
            "stored": (4 + 9) * 10 + 2 * 7,
        },
        "scratch_long": {
            "once": 0,
            "per_depth": (4 + 9) * 40,
            "layer_epochs": (4 + 9) * 40,
            "stored": (4 + 9) * 10 + 2 * 7,
        },
    }


def test_cost_without_tuning_and_without_an_ancestor():
    found = report.cost(untuned())
    assert list(found) == ["learngene"]
    assert found["learngene"]["layer_epochs"] == found["learngene"]["once"] == 7 * 40
    assert found["learngene"]["per_depth"] == 0
    assert report.cost([ancestor()]) == {}


def cells(text):
    """The body of a Markdown table, header first, without its rule."""
    lines = [line.strip("|").split("|") for line in text.splitlines()]
    return [[cell.strip() for cell in line] for line in (lines[0], *lines[2:])]


def test_table():
    single, depths, cost = report.table(full(), markup="github").split("\n\n")
    assert cells(single) == [
        ["run", "network", "epochs", "test top-1", "parameters"],
        ["ancestor", "vit_nano_patch4_L6", "30", "98.5%", "67"],
        ["aux", "aux_vit_nano_patch4_2-3-2", "40", "98.0%", "77"],
    ]
    lines = list(report.series(report.by_depth(full())))
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
    _, depths, _ = report.table(some, markup="github").split("\n\n")
    assert [row[-1] for row in cells(depths)] == ["scratch, 40 epochs", "", "97.0%"]


def seeds():
    """Two seeds of tuning and scratch; an expansion is the same for both."""
    found = [aux()]
    for tuned, short in ((0.96, 0.8), (0.94, 0.7)):
        found += [
            descendant(4, 5.0, 0.5, 0.9, tuned),
            result("scratch_short", 4, 5.0, short, name="scratch"),
        ]
    return found


def test_table_of_several_seeds():
    """Mean and sample deviation, by hand: (.96 - .94) / sqrt 2 = .0141."""
    _, depths, cost = report.table(seeds(), markup="github").split("\n\n", 2)
    assert cells(depths)[1][2:] == ["50.0%", "90.0%", "95.0 ± 1.4%", "75.0 ± 7.1%"]
    assert cost.startswith("Mean and standard deviation over 2 seeds.")
    found = report.cost(seeds())  # one of them is what a depth costs
    assert found["learngene"]["per_depth"] == 4 * 5
    assert found["scratch_short"]["layer_epochs"] == 4 * 5
    assert found["scratch_short"]["stored"] == 47


def test_table_of_one_run():
    text = report.table([result("single", 6, 30.0, 0.9, name="mine")], markup="github")
    assert cells(text)[1:] == [["mine", "vit_nano_patch4_L6", "30", "90.0%", "67"]]


def test_sentence():
    text = report.sentence(descendant(4, 5.0, 0.5, 0.9, 0.96))
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


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return np.asarray(image.convert("RGB"))


JOBS = {
    "full": full(),
    "untuned": [descendant(1, 0.0, 0.0)],  # one depth, no Aux-Net, all wrong
    "perfect": [aux(1.0), descendant(4, 5.0, 1.0, 1.0), descendant(9, 5.0, 1.0, 1.0)],
    "seeds": seeds(),
    "low": [aux(0.2), descendant(4, 5.0, 0.0, 0.1, 0.2)],  # linear axis
    "single": [result("single", 6, 30.0, 0.9, name="mine")],
}


@pytest.mark.parametrize("job", list(JOBS))
def test_draw(job, tmp_path):
    metrics_of(tmp_path, "mine")
    path = tmp_path / "report.png"
    report.draw(JOBS[job], str(tmp_path), str(path))
    drawn = pixels(path)
    assert min(drawn.shape[:2]) > 400
    assert (drawn != 255).any(axis=-1).mean() > 0.01  # more than white
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "report.png"]


def test_the_picture_shows_the_runs_own_curve(tmp_path):
    """Validation accuracy in red and loss in grey, where there are any."""

    def drawn(colour):
        report.draw(JOBS["single"], str(tmp_path), str(tmp_path / "report.png"))
        near = np.abs(pixels(tmp_path / "report.png").astype(int) - colour).max(axis=-1)
        return (near <= 2).sum()

    red, grey = (0xB5, 0x48, 0x2A), (0x9A, 0xA3, 0xAD)
    assert (drawn(red), drawn(grey)) == (0, 0)
    metrics_of(tmp_path, "mine")
    assert drawn(red) > 500 and drawn(grey) > 200


def test_write_leaves_rows_table_and_picture(tmp_path, capsys):
    results = JOBS["single"]
    report.write(results, str(tmp_path))
    assert (tmp_path / report.RESULTS).read_text() == report.to_csv(
        report.rows(results)
    )
    markdown = (tmp_path / report.TABLE).read_text()
    assert markdown == report.table(results, markup="github") + "\n"
    pixels(tmp_path / report.PICTURE)
    out = capsys.readouterr().out
    assert report.table(results) in out
    assert str(tmp_path / report.RESULTS) in out
