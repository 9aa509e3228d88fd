"""The benchmark programs run; what they measure is not tested."""

import pathlib
import subprocess
import sys

import pytest

from benchmarks import growth, measure
from benchmarks.__main__ import KINDS, main
from sws_jax.storage import documents

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
def test_everything_runs(tmp_path):
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = documents.read_json(out)
    assert report["machine"]["versions"]["jax"]
    for kind in KINDS:
        assert f"\n{kind}: " in done.stdout
        assert report[kind]
        for row in report[kind]:
            assert positive(row) or row["note"].startswith("skipped: "), row
        # PyTorch may be missing; nothing else may.
        if kind != "peers":
            assert any(positive(row) for row in report[kind])
    if not any(positive(row) for row in report["peers"]):
        pytest.skip(f"no peer: {report['peers'][0]['note']}")


def positive(row):
    """Whether a row has figures, all of them above 0."""
    figures = [value for value in row.values() if isinstance(value, dict)]
    return bool(figures) and all(value["min"] > 0 for value in figures)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--only=step,speed"], "step, peers, growth, estimates, replay, expansion"),
        (["--only="], "--only ''"),
        (["--sizes=huge"], "nano, tiny, small, base"),
        (["--batch-size=0"], "--batch-size must be at least 1, and is 0"),
        (["--out=."], "--out . is a folder"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks: ") and error.count("\n") == 1
    assert words in error


def test_a_line_deviates_least_relative_to_each_value():
    """Through 1, 10 and 1: 2.1 / 2.01, where squares of plain differences say 4."""
    assert growth.line([(n, 3 + 0.5 * n) for n in (1, 2, 8)]) == pytest.approx((3, 0.5))
    fixed, each = growth.line([(1, 1.0), (2, 10.0), (3, 1.0)])
    assert fixed + 2 * each == pytest.approx(2.1 / 2.01)


def test_pictures_show_every_series(tmp_path):
    rows = [
        {"along": along, "network": name, "blocks": 12, "batch": 8, key: count}
        | {"step_ms": measure.figure([2.0 + count]), "temp_mib": 3.0 * count}
        for along, key in growth.AXES.items()
        for name in ("ViT", "Aux-Net")
        for count in (3, 6)
    ]
    rows = growth.fitted(rows)
    assert rows[0]["step_fit_ms"] == 5 and rows[0]["step_each_ms"] == 1
    growth.draw(rows, str(tmp_path / "cpu"))
    assert {path.name for path in tmp_path.iterdir()} == {
        "cpu-depth.png",
        "cpu-batch.png",
    }


def test_an_unknown_kind_ends_the_command_with_2():
    command = [sys.executable, "-m", "benchmarks", "--only=speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_calls_take_turns():
    seen = []
    calls = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}
    seconds = measure.in_turns(calls, 2)
    assert seen == ["a", "b", "a", "b"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_only_a_lack_of_memory_is_a_row_without_figures():
    full = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")
    assert measure.out_of_memory(full).endswith("allocating 9 bytes.")
    assert measure.out_of_memory(MemoryError())
    assert not measure.out_of_memory(RuntimeError("shapes differ"))


def test_a_table_shows_medians_and_reasons():
    rows = [
        {"network": "a", "note": "skipped: why"},
        {"network": "b", "step_ms": measure.figure([3.0, 1.0, 2.0]), "plan": 1},
    ]
    lines = measure.table(rows, hidden=("plan",)).splitlines()
    assert lines[0].split() == ["network", "step", "ms", "note"]
    assert lines[2].endswith("skipped: why")
    assert lines[3].split() == ["b", "2", "(1)"]
