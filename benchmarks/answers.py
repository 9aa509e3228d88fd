"""How long a user waits for an answer that needs no network: help, mistakes, imports.

Each is a process of its own, as a shell starts it, and they take turns: a machine that
is busy slows all of them. How to read it: "ratio" is the time of a process over that of
`python -c pass` in the same turn, which is what Python itself takes. The last two rows
load JAX, and show by how much they may be shorter that do not.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from benchmarks import measure
from benchmarks.measure import Row, Settings
from sws_jax.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EMPTY = "python -c pass"
_MAIN = "python -m sws_jax.main"
_CONFIG = "--config=configs/scratch_deit.py"
# Commands, as they are typed, and their exit codes.
ANSWERS = {
    EMPTY: 0,
    f"{_MAIN} --help": 0,
    "python -m sws_jax --help": 0,
    "python -m sws_jax evaluate --help": 0,
    f"{_MAIN} --config=configs/nothing.py": 2,
    f"{_MAIN} {_CONFIG} --nothing=1": 2,
    f"{_MAIN} {_CONFIG} --config.nothing=1": 2,
    "python -c 'import sws_jax.errors'": 0,
    "python -c 'import sws_jax'": 0,
    "python -c 'import jax'": 0,
    "python -c 'from sws_jax import expand'": 0,
}


def run(settings: Settings) -> list[Row]:
    repeats = 1 if settings.quick else 7
    calls = {line: _caller(line, code) for line, code in ANSWERS.items()}
    if not settings.quick:
        measure.in_turns(calls, 1)  # what Python compiles and a disk reads once
    seconds = measure.in_turns(calls, repeats)
    rows: list[Row] = []
    for line, times in seconds.items():
        ratios = [
            time / empty for time, empty in zip(times, seconds[EMPTY], strict=True)
        ]
        row: Row = {"what": line.replace("'", "")}
        row |= {"seconds": measure.figure(times), "ratio": measure.figure(ratios)}
        measure.say("answers", row)
        rows.append(row)
    return rows


def _caller(line: str, code: int):
    """A function that runs a command, and looks at nothing but its exit code."""
    _, *arguments = shlex.split(line)

    def call() -> None:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode != code:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{line} ended with {done.returncode}: {last}")

    return call
