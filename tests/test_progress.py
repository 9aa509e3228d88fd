"""The speed of a run, and what a person sees of it."""

import re
import sys

import pytest

from sws_jax.runtime import progress
from sws_jax.runtime.progress import Progress
from sws_jax.training import metrics


@pytest.fixture
def at(monkeypatch):
    """The time in seconds, in a list, for a test to set."""
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    return now


def test_speed_is_that_of_the_last_window(at):
    """Neither an earlier start counts, nor an earlier window, nor a pause."""
    clock = metrics.Clock(seconds=1000.0, steps=10)
    assert clock.steps_per_second is None
    clock.start()
    at[0] += 2
    assert clock.steps_per_second is None  # not 0 steps a second
    clock.count(4)
    assert clock.steps_per_second == 2
    clock.pause()
    at[0] += 50  # an evaluation
    assert clock.steps_per_second == 2
    clock.lap()
    assert clock.steps_per_second is None
    clock.start()
    at[0] += 1
    clock.count(8)
    assert clock.steps_per_second == 8
    at[0] += 3
    clock.lap()  # the clock runs on
    at[0] += 1
    clock.count(3)
    assert clock.steps_per_second == 3
    clock.pause()
    assert clock.state() == {"seconds": 1007.0, "steps": 25}


def test_the_wait_for_input_is_a_share_of_the_window(at):
    """Compilation and pauses count in neither."""
    clock = metrics.Clock()
    with clock.waiting():
        at[0] += 9  # for the first batch, before the clock runs
    assert clock.input_wait is None
    clock.start()
    for seconds in (1, 2):
        with clock.waiting():
            at[0] += seconds
        at[0] += 3
        clock.count(1)
    assert clock.input_wait == 3 / 9
    with clock.paused():
        at[0] += 50
    assert clock.input_wait == 3 / 9
    clock.lap()
    assert clock.input_wait is None
    at[0] += 3
    with clock.waiting():
        at[0] += 1
    clock.count(1)
    assert clock.input_wait == 1 / 4


def test_a_run_goes_on_after_the_lines_of_its_step(tmp_path):
    """Those of later steps are written again."""
    writer = metrics.Writer(str(tmp_path))
    for step in (1, 2, 3):
        writer.write(step, {"loss": 0.5})
    writer.close()
    metrics.Writer(str(tmp_path), step=2).close()
    assert [row["step"] for row in metrics.read(str(tmp_path))] == [1, 2]


def test_a_line_has_an_eta_once_a_speed_is_known(capsys):
    steps = Progress("run", total=100)
    steps.log(10, {"loss": 0.5}, None)
    steps.log(20, {"loss": 0.5}, 2.0)
    steps.log(30, {"loss": 0.5}, None)  # the last speed that was known
    assert capsys.readouterr().out.splitlines() == [
        "run  step 10/100 (10%)  loss 0.5",
        "run  step 20/100 (20%)  loss 0.5  ETA 0:00:40",
        "run  step 30/100 (30%)  loss 0.5  ETA 0:00:35",
    ]


def test_a_bar_has_that_eta_too(monkeypatch, capsys):
    """And none of tqdm's, which takes the time between steps for theirs."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    steps = Progress("run", total=100, done=50)
    steps.advance()
    assert "ETA" not in capsys.readouterr().err
    steps.log(51, {"loss": 0.5}, 0.01)
    steps._bar.mininterval = 0  # shows every step
    steps.advance()
    shown = capsys.readouterr().err
    assert "52/100 [00:00, loss=0.5, ETA=1:20:00]" in shown
    assert "step/s" not in shown and "it/s" not in shown
    steps.close()


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with progress.Bar("insects", 4000, "images") as bar:
        bar.advance(1000)
    assert re.fullmatch(
        r"insects: 1,000 of 4,000 images \(25%\), \d+ s left\n", capsys.readouterr().out
    )


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.Bar("insects", 4000, "images") as bar:
        bar.advance(1000)
    out, error = capsys.readouterr()
    assert out == "" and "insects" in error
