"""Files of an older version are opened, resumed, reported and converted.

`support.old_files` made them and describes them. Everything goes through commands and
public names, as a user's would, so that moves within the package do not matter here.
"""

import contextlib
import io
import json
import shutil

import pytest

import sws_jax
from sws_jax import __main__ as commands
from sws_jax import main

from support import old_files
from support.compare import close, equal

EXPECTED = json.loads((old_files.KEPT / "expected.json").read_text())
# For numbers that another processor, or other libraries, round otherwise.
TOLERANCE = 1e-3
# The columns and fields of such numbers.
COMPUTED = (
    "test_top1", "test_top5", "test_loss", "val_top1", "val_top1_ema", "val_loss",
    "loss", "grad_norm",
)  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A copy of the files, without the picture and the table of the finished job."""
    folder = tmp_path_factory.mktemp("old") / "files"
    lost = shutil.ignore_patterns("report.png", "table.md")
    shutil.copytree(old_files.KEPT, folder, ignore=lost)
    return folder


@pytest.fixture(scope="module")
def resumed(kept):
    """The work directory of the stopped job, after the same command again."""
    workdir = kept / "stopped"
    assert main.main([*old_files.STOPPED, f"--workdir={workdir}"]) == 0
    return workdir


def contents(folder):
    return {path: path.read_bytes() for path in old_files.files(folder)}


def exact(records):
    """The records without the numbers that another processor rounds otherwise."""
    return [{k: v for k, v in one.items() if k not in COMPUTED} for one in records]


def shapes(tree):
    return {
        name: list(leaf.shape) for name, leaf in sws_jax.trees.flatten(tree).items()
    }


def test_a_finished_job_is_reported_and_not_trained_again(kept):
    """It fails where a run is repeated, or where a column or a row differs."""
    workdir = kept / "finished"
    before, rows = contents(workdir), old_files.result_rows(workdir)
    assert main.main([*old_files.FINISHED, f"--workdir={workdir}"]) == 0
    after = contents(workdir)
    created = {path.name for path in after.keys() - before.keys()}
    assert created == {"report.png", "table.md"}
    runs = [path for path in before if path.parent != workdir]
    assert len(runs) > 50
    assert [path for path in runs if after[path] != before[path]] == []
    for row, old in zip(old_files.result_rows(workdir), rows, strict=True):
        # A later version may have more columns.
        assert list(row)[: len(old)] == list(old)
        assert {name: row[name] for name in old} == old
        empty = {name for name in row.keys() - old.keys() if not row[name]}
        assert empty == {"version"}


def test_a_stopped_run_goes_on_from_its_checkpoint(resumed):
    """It fails where the run starts over, since the first step of every start is not
    timed, and where it continues with other images, rates or lines of the log."""
    expected, run = EXPECTED["resumed"], resumed / old_files.RUN
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == expected["steps"]
    assert old_files.timed_steps(run, result["steps"]) == expected["timed_steps"]
    assert not (run / "broken_checkpoints").exists()
    assert result["test"][-1]["loss"] == pytest.approx(
        expected["test_loss"], abs=TOLERANCE
    )
    rows = old_files.lasting(old_files.result_rows(resumed))
    for row, old in zip(exact(rows), exact(expected["rows"]), strict=True):
        assert {name: row[name] for name in old} == old
    lines = old_files.lasting(old_files.log_lines(run))
    assert exact(lines) == exact(expected["lines"])
    for one, old in zip(
        rows + lines, expected["rows"] + expected["lines"], strict=True
    ):
        for name in ("loss", "val_loss", "test_loss"):
            assert (name in one) == (name in old)
            if name in old:
                value = float(old[name])
                assert float(one[name]) == pytest.approx(value, abs=TOLERANCE), one


def test_a_resumed_run_ends_as_the_finished_one(kept, resumed):
    """It fails where weights, moments or the moving average are not restored."""
    last = EXPECTED["resumed"]["steps"]
    for item in EXPECTED["checkpoint"]["arrays"]:
        one, other = (
            old_files.restored(job / old_files.RUN / "checkpoints" / str(last) / item)
            for job in (resumed, kept / "finished")
        )
        assert one.keys() == other.keys()
        # Attention does not depend on the biases of its keys, which Adam moves by the
        # rounding errors in their gradients.
        names = [name for name in one if "['qkv']['bias']" not in name]
        assert len(names) > 30
        close({n: other[n] for n in names}, {n: one[n] for n in names}, TOLERANCE)


def test_checkpoints_keep_their_names(resumed):
    """Both the checkpoint that is read and the one that is written today."""
    run, last = resumed / old_files.RUN, EXPECTED["resumed"]["steps"]
    expected = {k: v for k, v in EXPECTED["checkpoint"].items() if k != "test_loss"}
    assert {"params", "opt", "ema"} == expected["arrays"].keys()
    for step in (old_files.STEP, last):
        assert old_files.checkpoint_names(run, step) == expected


def test_a_learngene_expands(kept):
    gene = sws_jax.load_learngene(str(kept / old_files.WEIGHTS["learngene"]))
    assert shapes(gene.params) == EXPECTED["learngene"]
    grown = sws_jax.expand(gene, depth=old_files.DEPTH)
    assert shapes(grown.params) == EXPECTED["descendant"]
    tuned = sws_jax.load_network(str(kept / old_files.WEIGHTS["descendant"]))
    assert (grown.spec, grown.plan) == (tuned.spec, tuned.description.plan)
    assert shapes(tuned.params) == EXPECTED["descendant"]


def test_weights_and_checkpoints_have_their_scores(kept):
    rows = old_files.result_rows(kept / "finished")
    (last,) = [r for r in rows if (r["role"], r["epochs"]) == ("tune", "1.0")]
    losses = [float(last["test_loss"]), EXPECTED["checkpoint"]["test_loss"]]
    weights = [old_files.WEIGHTS["descendant"], old_files.CHECKPOINT]
    scores = old_files.scores(*(kept / path for path in weights))
    assert [float(row["loss"]) for row in scores] == pytest.approx(
        losses, abs=TOLERANCE
    )


def described(path):
    """The values that `describe` prints, by the names of its lines."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert commands.main(["describe", str(path)]) == 0
    lines = printed.getvalue().partition("\n\n")[0].splitlines()
    return {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in lines}


@pytest.mark.parametrize(
    "path, facts",
    [
        (
            "finished",
            {
                "network": "aux_vit_w16h4_patch4_1-2-1",
                "stages": "1-2-1",
                "tensors": "19, 10,378 numbers",
            },
        ),
        (
            f"finished/des-L{old_files.DEPTH:02d}",
            {
                "network": "vit_w16h4_patch4_L5",
                "plan": "0 0 1 1 2",
                "tensors": "19, 16,938 numbers",
            },
        ),
        (
            "converted/network.safetensors",
            {"network": "vit_w16h2_patch4_L2", "tensors": "20, 7,574 numbers"},
        ),
        (
            "converted/timm",
            {"network": "vit_w16h2_patch4_L2", "tensors": "32, 7,574 numbers"},
        ),
    ],
)
def test_what_is_described(path, facts, kept):
    lines = described(kept / path)
    assert {name: lines[name] for name in facts} == facts


def test_a_converted_network_is_the_same_in_both_directions(kept, tmp_path):
    """Equal bits, to today's format and from it, with equal files beside them."""
    folder = kept / "converted"
    ours, theirs = tmp_path / "network.safetensors", tmp_path / "timm"
    source = str(folder / "timm.safetensors")
    assert commands.main(["convert", source, str(ours), *old_files.TO_OURS]) == 0
    old = sws_jax.load_network(str(folder / "network.safetensors"))
    new = sws_jax.load_network(str(ours))
    assert shapes(old.params) == EXPECTED["network"]
    assert new.description.replace(versions=()) == old.description.replace(versions=())
    equal(old.params, new.params)
    source = str(folder / "network.safetensors")
    assert commands.main(["convert", source, str(theirs), *old_files.TO_TIMM]) == 0
    assert {p.name: p.read_bytes() for p in theirs.iterdir()} == {
        p.name: p.read_bytes() for p in (folder / "timm").iterdir()
    }
    back = old_files.tensors(theirs / "model.safetensors")
    equal(back, old_files.tensors(folder / "timm.safetensors"))


def test_the_comparison_of_two_versions_sees_a_bit(tmp_path):
    """It also sees a number and a name, and nothing in files that were not touched."""
    before, after = old_files.KEPT / "finished" / "aux", tmp_path / "aux"
    shutil.copytree(before, after)
    assert old_files.compare(before, after) == []
    log = after / "metrics.jsonl"
    log.write_text(log.read_text().replace('"step": 5,', '"step": 6,'))
    gene = after / "learngene.safetensors"
    data = gene.read_bytes()
    gene.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    checkpoint = after / "checkpoints" / "39"
    shutil.rmtree(checkpoint / "ema")
    shutil.copytree(checkpoint / "params", checkpoint / "ema")
    (checkpoint / "opt").rename(checkpoint / "optimizer")
    lines = old_files.compare(before, after)
    assert "metrics.jsonl: 0.step was 5, and is 6" in lines
    assert any("differs in 1 of" in s for s in lines if s.startswith(gene.name))
    items = ("ema", "opt", "optimizer")
    assert {line.partition(": ")[0] for line in lines} == {
        log.name, gene.name, *(f"checkpoints/39/{item}" for item in items)
    }  # fmt: skip
