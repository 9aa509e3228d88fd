"""The check of an accelerator: what it finds, how it ends, and a rehearsal."""

import json
import math
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks.accelerator import attention, curves, one, peers, profile, schedule
from benchmarks.accelerator.__main__ import main
from benchmarks.accelerator.asked import Asked, Case
from benchmarks.accelerator.parts import PARTS, Part
from benchmarks.accelerator.report import Report
from benchmarks.accelerator.targets import TARGETS, Target
from sws_jax.storage import documents

ROOT = pathlib.Path(__file__).parent.parent


def part(name, **fields):
    return Part(name, "some text", "none", **{"least": 0.0, **fields})


def ran(tmp_path, programs, seconds=60.0, **fields):
    """The results of parts whose processes are these programs."""
    parts = [part(name, **fields.get(name, {})) for name in programs]
    report = Report(str(tmp_path), parts, toy=False)

    def command(part, until):
        return [sys.executable, "-c", programs[part.name], str(tmp_path)]

    schedule.run(parts, report, seconds, command, os.environ)
    return report, documents.read_json(str(tmp_path / "results.json"))


ROW = 'print(\'{"what": "first", "ms": 1.5}\', flush=True)\n'


def test_a_part_that_crashes_leaves_its_rows_and_the_other_parts(tmp_path):
    programs = {"crashes": ROW + "import os; os._exit(3)", "works": ROW}
    report, results = ran(tmp_path, programs)
    assert results["ends"] == {"crashes": "failed: exit code 3", "works": "done"}
    row = {"what": "first", "ms": 1.5}
    assert results["rows"] == {"crashes": [row], "works": [row]}
    assert report.wrong == results["wrong"] == ["crashes failed: exit code 3"]
    assert "- WRONG: crashes failed" in (tmp_path / "table.md").read_text()


def test_a_part_that_hangs_is_ended_and_the_next_one_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "GRACE_SECONDS", 0.0)
    programs = {"hangs": ROW + "import time; time.sleep(600)", "works": ROW}
    report, results = ran(tmp_path, programs, hangs={"most": 1.0})
    assert results["ends"] == {"hangs": schedule.LATE, "works": "done"}
    assert results["rows"]["hangs"] and report.wrong


def test_the_end_of_the_time_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "GRACE_SECONDS", 0.0)
    programs = {"long": "import time; time.sleep(600)", "later": ROW}
    report, results = ran(tmp_path, programs, 1.0, later={"least": 5.0})
    assert results["ends"]["long"] == "skipped in a row: the time was up"
    assert results["ends"]["later"] == "skipped: 0 s are left, it needs 5"
    assert report.wrong == [] and results["rows"]["later"] == []
    assert "- later: skipped: 0 s are left" in (tmp_path / "table.md").read_text()


WAITING = (
    ROW
    + """
import json, sys, time
for _ in range(300):
    with open(sys.argv[1] + "/results.json") as file:
        seen = json.load(file)["rows"]["waits"]
    if seen:
        break
    time.sleep(0.1)
print(json.dumps({"what": "second", "seen": len(seen)}), flush=True)
"""
)


def test_a_row_is_on_disk_before_the_next_one_is_there(tmp_path):
    _, results = ran(tmp_path, {"waits": WAITING})
    assert results["rows"]["waits"][1] == {"what": "second", "seen": 1}


def test_flags_are_those_of_one_part_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    show = "import json, os; print(json.dumps({'what': os.environ['XLA_FLAGS']}))"
    programs = {"with": show, "without": show}
    _, results = ran(tmp_path, programs, **{"with": {"flags": "--xla_b=2"}})
    assert results["rows"]["with"] == [{"what": "--xla_a=1 --xla_b=2"}]
    assert results["rows"]["without"] == [{"what": "--xla_a=1"}]


def test_only_parts_that_decide_can_fail_the_check(tmp_path):
    programs = {"decides": "raise SystemExit(1)", "tries": "raise SystemExit(1)"}
    report, _ = ran(tmp_path, programs, tries={"decides": False})
    assert report.wrong == ["decides failed: exit code 1"]


def test_what_is_wrong_is_named(tmp_path):
    parts = [part("curves"), part("steps")]
    report = Report(str(tmp_path), parts, toy=False)
    report.add(parts[0], {"what": "float32", "right": "no"})
    report.add(parts[0], {"what": "bfloat16", "right": "yes"})
    report.add(parts[1], {"what": "S/16", "failed": "a reason"})
    report.add(parts[1], {"what": "B/16", "skipped": "a reason"})
    assert report.wrong == ["curves, float32: not right", "steps, S/16: a reason"]


def through(cases, seconds=60.0):
    rows = []
    one.through(Asked(True, time.time() + seconds), cases, rows.append)
    return rows


def raising(error):
    def figures():
        raise error

    return figures


def test_a_row_that_fails_takes_no_other_with_it(capsys):
    cases = [
        Case({"what": "a"}, raising(ValueError("two\nlines"))),
        Case({"what": "b"}, raising(RuntimeError("RESOURCE_EXHAUSTED: 9 bytes"))),
        Case({"what": "c"}, lambda: {"ms": 1.0}),
    ]
    assert through(cases) == [
        {"what": "a", "failed": "two lines"},
        {"what": "b", "skipped": "out of memory: RESOURCE_EXHAUSTED: 9 bytes"},
        {"what": "c", "ms": 1.0},
    ]
    assert "ValueError" in capsys.readouterr().err


def test_a_row_for_which_no_time_is_left_says_so(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def taking(seconds):
        def figures():
            now[0] += seconds
            return {}

        return figures

    lengths = {"a": 10.0, "b": 30.0, "c": 25.0, "d": 1.0}
    cases = [Case({"what": what}, taking(s)) for what, s in lengths.items()]
    assert through(cases, seconds=50.0) == [
        {"what": "a"},
        {"what": "b"},
        {"what": "c", "skipped": "10 s are left"},
        {"what": "d", "skipped": "10 s are left"},
    ]
    assert through(cases[3:], seconds=-1.0) == [
        {"what": "d", "skipped": "0 s are left"}
    ]


@pytest.mark.parametrize(
    "at_least, figures, judged, measured, met",
    [
        (True, (0.4, 0.6), True, 0.6, "yes"),
        (True, (0.4,), True, 0.4, "no"),
        (False, (0.4, 0.6), True, 0.4, "yes"),
        (False, (0.6,), True, 0.6, "no"),
        (True, (0.6,), False, 0.6, "not judged"),
        (True, (), True, "-", "not measured"),
    ],
)
def test_a_target_stands_beside_the_best_figure(
    at_least, figures, judged, measured, met
):
    target = Target("text", "steps", {"what": "B/16"}, "share", 0.5, at_least)
    rows = [{"what": "B/16", "share": figure} for figure in figures]
    others = [{"what": "S/16", "share": 0.5}, {"what": "B/16", "skipped": "why"}]
    row = target.row({"steps": rows + others}, judged)
    assert (row["measured"], row["met"]) == (measured, met)


def test_targets_are_of_rows_that_parts_have():
    """A part's columns are seen in the rehearsal."""
    names = {part.name for part in PARTS}
    assert len(names) == len(PARTS)
    assert {target.part for target in TARGETS} <= names


@pytest.mark.parametrize(
    "losses, right",
    [
        ((1.0, 2.0), "yes"),
        ((1.0, 2.0019), "yes"),
        ((1.0, 1.99), "no"),
        ((math.nan, 2.0), "no"),
        ((1.0, math.nan), "no"),
        ((1.0, math.inf), "no"),
    ],
)
def test_a_curve_is_right_within_its_tolerance(losses, right):
    row = curves.compared((1.0, 2.0), losses, 1e-3)
    assert row["right"] == right
    json.loads(json.dumps(row), parse_constant=pytest.fail)


def test_an_error_hides_no_nan():
    good, bad = np.ones(3), np.array([1.0, np.nan, 1.0])
    assert attention.errors((good, good, good), (good, good, good)) == (0, 0)
    for result in ((bad, good, good), (good, bad, good), (good, good, bad)):
        assert any(map(math.isnan, attention.errors(result, (good, good, good))))


ATTENTION = jax.nn.dot_product_attention


def with_nan(q, k, v, implementation):
    """A kernel whose gradient alone is wrong."""

    @jax.custom_vjp
    def run(q, k, v):
        return ATTENTION(q, k, v, implementation="xla")

    def back(saved, gradient):
        pull = jax.vjp(lambda *x: ATTENTION(*x, implementation="xla"), *saved)[1]
        q, k, v = pull(gradient)
        return q, k.at[0, -1, 0, 0].set(np.nan), v

    run.defvjp(lambda *x: (run(*x), x), back)
    return run(q, k, v)


def scaled(q, k, v, implementation):
    return 1.1 * ATTENTION(q, k, v, implementation="xla")


def absent(q, k, v, implementation):
    raise RuntimeError("cuDNN is\nnot there.")


@pytest.mark.parametrize(
    "kernel, wanted",
    [
        (with_nan, {"usable": "no", "not_finite": 3, "gradient_error": "nan"}),
        (scaled, {"usable": "no", "not_finite": 0}),
        (absent, {"note": "not available: cuDNN is not there."}),
    ],
    ids=["nan", "scaled", "absent"],
)
def test_a_backend_that_is_wrong_is_not_usable(kernel, wanted, monkeypatch):
    def attend(*args, implementation):
        chosen = kernel if implementation == "cudnn" else ATTENTION
        return chosen(*args, implementation=implementation)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    monkeypatch.setattr(attention, "TOKENS", (64,))
    attention.program.cache_clear()
    asked = Asked(True, time.time() + 60)
    xla, cudnn = [case.figures() for case in list(attention.cases(asked))[:2]]
    attention.program.cache_clear()
    assert xla["usable"] == "yes" and xla["not_finite"] == 0
    assert {name: cudnn.get(name) for name in wanted} == wanted


ANSWERS = """
import json
print(json.dumps({"params": 3}), flush=True)
while True:
    count = int(input())
    if count == 13:
        raise SystemExit(4)
    print(json.dumps({"seconds": 0.5 * count}), flush=True)
"""


def test_a_peer_is_asked_in_turns_and_its_end_is_noticed():
    peer = peers.Peer([sys.executable, "-c", ANSWERS])
    try:
        assert peer.answer(60.0) == {"params": 3}
        assert [peer.seconds(count) for count in (2, 4)] == [1.0, 2.0]
        with pytest.raises(peers.Silent, match="no answer within 0 s"):
            peer.answer(-1.0)
        for _ in range(2):  # also where it is gone before it is asked
            with pytest.raises(peers.Silent, match="it ended with exit code 4"):
                peer.seconds(13)
    finally:
        peer.stop()


PROGRAM = """
HloModule jit_run

%fused.1 (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %dot.1 = f32[2]{0} dot(%p, %p), metadata={op_name="jit(run)/jvp(ViT)/a/mlp/fc1/dot_general" id=1}
}

ENTRY %main.9 (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %fusion.2 = f32[2]{0} fusion(%x), kind=kLoop, calls=%fused.1
  %copy.3 = f32[2]{0} copy(%fusion.2)
  ROOT %add.4 = f32[2]{0} add(%copy.3, %x), metadata={op_name="jit(run)/add"}
}
"""  # noqa: E501


def test_operations_have_the_names_of_the_code():
    origin = "jit(run)/jvp(ViT)/a/mlp/fc1/dot_general"
    assert profile.origins(PROGRAM) == {
        "dot.1": origin,
        "fusion.2": origin,
        "add.4": "jit(run)/add",
    }


@pytest.mark.parametrize(
    "name, shown",
    [
        ("jit(run)/jvp(ViT)/a/mlp/fc1/dot_general", "mlp/fc1/dot_general"),
        (
            "jit(run)/transpose(jvp(ViT))/while/body/closed_call/b/attn/qkv/dot",
            "backward attn/qkv/dot",
        ),
        ("jit(run)/add", "add"),
        ("loop_add_fusion.12", "loop_add_fusion"),
    ],
)
def test_names_are_cut_to_what_a_reader_knows(name, shown):
    assert profile.readable(name) == shown


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--only=steps,speed"], "--only 'steps,speed' is not made of device, curves"),
        (["--only="], "--only ''"),
        (["--minutes=0"], "--minutes is above 0 and less than a day, and is 0"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, words, capsys, tmp_path):
    assert main([str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("accelerator: ") and error.count("\n") == 1
    assert words in error
    assert not (tmp_path / "out").exists()


def test_results_are_a_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 2
    assert "is a file: name a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_check_is_rehearsed_at_toy_size(tmp_path):
    done = subprocess.run(
        ["launch/check_accelerator.sh", tmp_path, "--toy", "--minutes=60"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = documents.read_json(str(tmp_path / "results.json"))
    assert results["ends"] == {part.name: "done" for part in PARTS}
    assert done.stdout == (tmp_path / "table.md").read_text() + "\n"
    for name, rows in results["rows"].items():
        assert rows and not any("failed" in row for row in rows), name
    met = {row["target"]: row["met"] for row in results["targets"]}
    absent = {row.get("skipped") for row in results["rows"]["peers"]} - {None}
    for target in TARGETS:
        missing = target.part == "peers" and absent
        assert met[target.text] == ("not measured" if missing else "not judged")
    if absent:
        pytest.skip(f"no peer: {absent}")
