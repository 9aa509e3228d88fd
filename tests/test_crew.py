"""Processes that help one command: their lines, signals and ends."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sws_jax.runtime import crew, signals

ROOT = pathlib.Path(__file__).parent.parent
# What a helper does; END is a line of each test.
HELPER = """
import os, pathlib, sys, time
from sws_jax.runtime import crew, signals

folder = pathlib.Path(sys.argv[1])

def fail():
    print("a warning", file=sys.stderr)
    print("sws_jax: the loss is nan", file=sys.stderr)
    sys.exit(1)

assert crew.is_helper()
with signals.Asked() as asked:
    crew.serve(asked)
    asked.note()
    print("before any run")
    print("[2/3] aux")
    print("aux: a teacher")
    print("a line of nobody")
    (folder / f"begun-{os.getpid()}").touch()
    END
    while not asked:
        time.sleep(0.01)
    (folder / f"saved-{asked.first}").touch()
    print("sws_jax: aux: stopped and saved", file=sys.stderr)
    sys.exit(asked.exit_code)
"""


def command(folder, end=""):
    return [sys.executable, "-c", HELPER.replace("END", end), str(folder)]


def until(condition, seconds=30):
    before = time.monotonic()
    while not condition():
        assert time.monotonic() < before + seconds
        time.sleep(0.01)


def names(folder, start):
    return [path.name for path in folder.glob(f"{start}*")]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert not crew.is_helper()


def test_lines_carry_the_name_of_the_run_and_the_end_is_silent(tmp_path, capsys):
    with signals.Asked() as asked, crew.Crew(command(tmp_path), 2, asked) as helpers:
        assert not helpers.at_work
        helpers.call(1)  # which is for this process
        assert not helpers.at_work
        helpers.call(9)  # and one is all that there may be
        helpers.call(9)
        until(lambda: names(tmp_path, "begun"))
        assert helpers.at_work
    assert not helpers.at_work and helpers.failure is None
    assert len(names(tmp_path, "begun")) == 1
    assert names(tmp_path, "saved") == [f"saved-{signal.SIGTERM}"]
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "helper: before any run",
        "[2/3] aux",
        "aux: a teacher",
        "aux: a line of nobody",
    ]
    assert err == ""


def test_the_first_failure_is_the_sentence_and_stops_the_others(tmp_path, capsys):
    first = 'len(list(folder.glob("begun-*"))) == 1 and fail()'
    with signals.Asked() as asked:
        with crew.Crew(command(tmp_path, first), 3, asked) as helpers:
            helpers.call(2)
            until(lambda: helpers.failure)
            helpers.call(3)  # too late
            assert not helpers.at_work
    assert helpers.failure == (1, "the loss is nan")
    assert capsys.readouterr().err == "a warning\n"
    assert len(names(tmp_path, "begun")) == 1

    last = first.replace("== 1", "== 3")
    with signals.Asked() as asked:
        with crew.Crew(command(tmp_path, last), 3, asked) as helpers:
            helpers.call(2)
            until(lambda: len(names(tmp_path, "begun")) == 2)
            helpers.call(3)
            until(lambda: helpers.failure and not helpers.at_work)
    assert names(tmp_path, "saved") == [f"saved-{signal.SIGTERM}"]
    assert capsys.readouterr().err == "a warning\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_helper_that_is_ended_is_no_failure_and_not_replaced(
    number, tmp_path, capsys
):
    with signals.Asked() as asked, crew.Crew(command(tmp_path), 2, asked) as helpers:
        helpers.call(2)
        until(lambda: names(tmp_path, "begun"))
        (name,) = names(tmp_path, "begun")
        os.kill(int(name.partition("-")[2]), number)
        until(lambda: not helpers.at_work)
        helpers.call(2)
        assert not helpers.at_work
        time.sleep(0.3)  # in which the watcher looks
    assert helpers.failure is None
    out, err = capsys.readouterr()
    how = "signal 9" if number == signal.SIGKILL else "exit code 75"
    assert out.count(f"aux: its process was ended ({how}); the others go on") == 1
    assert err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(number, tmp_path):
    with signals.Asked() as asked:
        asked.note()
        with crew.Crew(command(tmp_path), 2, asked) as helpers:
            helpers.call(2)
            until(lambda: names(tmp_path, "begun"))
            os.kill(os.getpid(), number)
            until(lambda: not helpers.at_work)
    assert helpers.failure is None
    assert names(tmp_path, "saved") == [f"saved-{number}"]


PARENT = """
import sys, time
from sws_jax.runtime import crew, signals
with signals.Asked() as asked:
    asked.note()
    with crew.Crew(sys.argv[1:], 2, asked) as helpers:
        helpers.call(2)
        time.sleep(60)
"""


def test_a_helper_saves_and_ends_with_what_it_helps(tmp_path):
    lines = 'print("x" * 10000)'  # of which the last are read by nobody
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *command(tmp_path, lines)],
        stdout=subprocess.DEVNULL,
    )
    until(lambda: names(tmp_path, "begun"))
    (name,) = names(tmp_path, "begun")
    parent.kill()
    parent.wait()
    until(lambda: names(tmp_path, "saved"))

    def has_ended():
        status = pathlib.Path("/proc", name.partition("-")[2], "stat")
        return not status.exists() or status.read_text().split()[2] == "Z"

    until(has_ended)
    assert names(tmp_path, "saved") == [f"saved-{signal.SIGTERM}"]
