"""One part, in the process that is its own: a line of JSON for each row.

    python -m benchmarks.accelerator.one NAME UNTIL toy|full

`benchmarks.accelerator` starts it. UNTIL is in seconds since 1970.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable

from benchmarks import measure
from benchmarks.accelerator.asked import Asked, Case
from benchmarks.accelerator.parts import PARTS
from benchmarks.accelerator.report import FAILED, SKIPPED
from benchmarks.measure import Row
from sws_jax.runtime import words


def main(name: str, until: str, size: str) -> None:
    # What libraries print must not end up between the rows.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line: dict) -> None:
        print(json.dumps(line), file=out, flush=True)

    import jax

    part = next(part for part in PARTS if part.name == name)
    module = importlib.import_module(f"benchmarks.accelerator.{part.module}")
    say({"machine": measure.machine()})
    accelerator = jax.devices()[0].platform != "cpu"
    asked = Asked(size == "toy", float(until), accelerator)
    through(asked, module.cases(asked), say)


def through(asked: Asked, cases, say: Callable[[Row], None]) -> None:
    """Says the row of each case that there is time for."""
    longest = 0.0
    for case in cases:
        if asked.seconds_left < longest:  # most take as long as the others
            say(case.about | {SKIPPED: f"{max(asked.seconds_left, 0):.0f} s are left"})
            continue
        before = time.time()
        say(_row(case))
        longest = max(longest, time.time() - before)


def _row(case: Case) -> Row:
    try:
        return case.about | case.figures()
    except Exception as error:
        # The others may do: a crash of one row must not cost a rented device's time.
        if reason := measure.out_of_memory(error):
            return case.about | {SKIPPED: reason}
        traceback.print_exc()
        return case.about | {FAILED: words.brief(error)}


if __name__ == "__main__":
    main(*sys.argv[1:])
