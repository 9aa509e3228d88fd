"""Where the time of a step goes: the profiler's account, by operation.

How to read it: `share` is of the time that the device's operations take, added up;
operations that run side by side count each. `operation` is the name that the network's
code has for it, where the compiler has kept one, "backward" before those of the
gradient, and the compiler's own name otherwise; equal names are added up.
"""

from __future__ import annotations

import collections
import glob
import os
import re
import tempfile
from collections.abc import Iterator

import jax

from benchmarks import measure, step
from benchmarks.accelerator import steps
from benchmarks.accelerator.asked import Asked, Case
from benchmarks.measure import Row

STEPS, TOP = 3, 16
# Of a compiled program: the first line of a computation, an operation, the name of what
# it was compiled from, the computation that it calls.
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = ")
_NAME = re.compile(r'op_name="([^"]+)"')
_CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
# Of such a name: what the code does not say. They nest: transpose(jvp(blocks)).
_WRAPPED = re.compile(r"\b(?:jit|jvp|transpose|vmap|checkpoint|remat)\(([^()]*)\)")
_PLUMBING = {"", "run", "while", "body", "closed_call", "rematted_computation"}
LAST = 3  # parts of a name


def cases(asked: Asked) -> Iterator[Case]:
    for what in ("S/16", "B/16"):
        training = steps.fitting(asked, steps.recipe_of(asked, what))
        spent = profiled(training)
        del training  # before the next one is made
        total = sum(spent.values())
        for name, nanoseconds in spent.most_common(TOP):
            row: Row = {"operation": name}
            row["ms"] = measure.short(nanoseconds / STEPS / 1e6)
            row["share"] = measure.short(nanoseconds / total)
            yield Case({"what": what}, row.copy)


def profiled(training: step.Training) -> collections.Counter[str]:
    """Nanoseconds of the operations of a few steps, by name."""
    names = origins(training.text)
    spent: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            training(STEPS)
        for operation, nanoseconds in _operations(folder):
            spent[readable(names.get(operation, operation))] += nanoseconds
    return spent


def origins(text: str) -> dict[str, str]:
    """The names that a program's operations had before it was compiled.

    A fusion without one has that of the last operation in it with one.

    Args:
      text: of the compiled program, in which a computation stands before its use.
    """
    names: dict[str, str] = {}
    within: dict[str, str] = {}  # the last name in each computation
    computation = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            computation = match[1]
        elif operation := _OPERATION.match(line):
            name, calls = _NAME.search(line), _CALLS.search(line)
            known = name[1] if name else within.get(calls[1], "") if calls else ""
            if known:
                names[operation[1]] = within[computation] = known
    return names


def _operations(folder: str) -> Iterator[tuple[str, int]]:
    """Names and nanoseconds of what ran on devices, from a profile."""
    pattern = os.path.join(folder, "**", "*.xplane.pb")
    for path in glob.glob(pattern, recursive=True):
        for plane in jax.profiler.ProfileData.from_file(path).planes:
            on_device = plane.name.startswith("/device:")
            for line in plane.lines:
                # Of a GPU, its streams, and of a TPU: other lines are made of those.
                if on_device and not line.name.startswith(("Stream", "XLA Ops")):
                    continue
                for event in line.events:
                    known = dict(event.stats)
                    if "hlo_op" in known or on_device:
                        name = str(known.get("hlo_op", event.name))
                        # A loop, and what it calls, are there beside what is in them.
                        if not re.match(r"(while|call|conditional)\b", name):
                            yield name, round(event.duration_ns)


def readable(name: str) -> str:
    """The end of an operation's name, without what JAX and XLA have added."""
    if "/" not in name:
        return re.sub(r"[.\d]+$", "", name)
    backward = "transpose(" in name
    while (plain := _WRAPPED.sub(r"\1", name)) != name:
        name = plain
    parts = [part for part in name.split("/") if part not in _PLUMBING]
    return "backward " * backward + "/".join(parts[-LAST:])
