"""Parts one after the other, each a process, within a time that is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks.accelerator.parts import Part
from benchmarks.accelerator.report import FAILED, SKIPPED, Report
from sws_jax import xla_flags

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# After a part has been asked to end its row, which it cannot always.
GRACE_SECONDS = 10.0
LATE = f"{FAILED}: it took too long, and was ended in a row"


def run(
    parts: Sequence[Part],
    report: Report,
    seconds: float,
    command: Callable[[Part, float], Sequence[str]],
    environment: Mapping[str, str],
) -> None:
    """Runs what fits, and says of the rest that it did not.

    Args:
      parts: in this order.
      report: gets their rows as they come.
      seconds: for all of them.
      command: of a part that has until then, in seconds since 1970.
      environment: of their processes.
    """
    end = time.time() + seconds - GRACE_SECONDS
    for part in parts:
        left = end - time.time()
        if left < part.least:
            reason = (
                f"{SKIPPED}: {max(left, 0):.0f} s are left, it needs {part.least:g}"
            )
            print(f"{part.name}: {reason}", file=sys.stderr, flush=True)
            report.end(part, reason)
            continue
        given = min(left, part.most)
        before = time.time()
        its = dict(environment)
        if part.flags:
            flags = its.get("XLA_FLAGS", "")
            its["XLA_FLAGS"] = xla_flags.joined(flags, part.flags)
        reason = _process(command(part, before + given), its, given, part, report)
        if reason == LATE and given == left:  # which is no fault of the part
            reason = f"{SKIPPED} in a row: the time was up"
        report.end(part, reason, time.time() - before)


def _process(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    part: Part,
    report: Report,
) -> str:
    """Runs a part, and returns how it ended."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds + GRACE_SECONDS, stop)
    timer.start()
    try:
        for line in process.stdout:
            _take(json.loads(line), part, report)
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    if late.is_set():
        return LATE
    return "done" if code == 0 else f"{FAILED}: exit code {code}"


def _take(said: dict, part: Part, report: Report) -> None:
    """What a part says on a line: its machine, or a row."""
    if "machine" in said:
        report.machine = report.machine or said["machine"]
    else:
        report.add(part, said)
