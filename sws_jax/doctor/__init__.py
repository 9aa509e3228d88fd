"""Checks of everything that a job needs, before it is started.

Checks are independent: one that fails, even by an error of its own, hides no other.
With several processes all make every check, and process 0 prints the findings of all,
each once. Nothing is trained, and nothing stays behind.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Iterable, Sequence

from sws_jax.doctor import compiler, devices, inputs, software, storage, together
from sws_jax.doctor.base import (
    LEFT_OUT,
    OK,
    PROBLEM,
    STATES,
    WARNING,
    Case,
    Check,
    Finding,
    Unknown,
    worst,
)
from sws_jax.errors import UserError
from sws_jax.runtime import processes, words
from sws_jax.runtime.rendezvous import numbers

__all__ = [
    "CHECKS",
    "Case",
    "Finding",
    "LEFT_OUT",
    "OK",
    "PROBLEM",
    "WARNING",
    "examine",
    "summary",
]

CHECKS = (
    Check("config", software.config),
    Check("versions", software.versions),
    Check("processes", together.meet, needs_processes=True),
    Check("devices", devices.devices),
    Check("compiler", compiler.compiler, ("devices",)),
    Check("mesh", devices.mesh, ("config", "devices")),
    Check("directory", storage.work_directory),
    Check(
        "directory of all",
        together.same_directory,
        ("processes", "directory"),
        needs_processes=True,
    ),
    Check("runs", storage.runs, ("config",), unless=("directory",)),
    Check("data", inputs.data),
    Check(
        "data of all", together.same_data, ("processes", "data"), needs_processes=True
    ),
    Check("reading", inputs.reading, ("config", "mesh", "data")),
    Check("teacher", inputs.ans_net, ("config",)),
    Check("weights", inputs.weights, ("config",)),
    Check("disk", storage.disk, ("config",), unless=("directory", "weights")),
    Check("memory", devices.sheet, ("config", "mesh"), unless=("weights",)),
)


@dataclasses.dataclass(frozen=True)
class Line:
    """A finding, and the processes that it is about.

    Attributes:
      check: name of the check.
      finding: of the check.
      who: numbers of the processes; empty for all of them.
      seconds: duration of the check in process 0.
    """

    check: str
    finding: Finding
    who: tuple[int, ...] = ()
    seconds: float = 0.0


def examine(
    case: Case,
    tell: Callable[[Line], None],
    *,
    verbose: bool = False,
    checks: Sequence[Check] = CHECKS,
) -> list[Line]:
    """Makes all checks, one after the other.

    Args:
      case: what is examined.
      tell: is called with every line as soon as it is known.
      verbose: prints the traceback of an unexpected error.
      checks: in an order in which each follows what it needs.

    Returns:
      All lines.
    """
    reported: list[Line] = []
    states = case.states
    # Findings of this process alone, from before the processes have met.
    alone: dict[str, list[Finding]] = {}

    def report(lines: Iterable[Line]) -> None:
        for line in lines:
            reported.append(line)
            tell(line)

    case.find_place()
    try:
        for check in checks:
            if check.needs_processes and case.place is None and not case.unplaced:
                continue
            if broken := check.hindered(states):
                missing = f"needs {' and '.join(broken)} to be well"
                report([Line(check.name, Finding(LEFT_OUT, missing))])
                states[check.name] = LEFT_OUT
                continue
            before = time.monotonic()
            own = _findings(check, case, verbose)
            seconds = time.monotonic() - before
            if not case.together:
                alone[check.name] = own
                everyones = [own]
            else:
                for name in list(alone):
                    earlier = _shared(alone.pop(name))
                    lines = _merged(name, earlier, 0.0)
                    report(line for line in lines if line.who and 0 not in line.who)
                    states[name] = _state(earlier)
                everyones = _shared(own)
            report(_merged(check.name, everyones, seconds))
            states[check.name] = _state(everyones)
    except Exception as error:
        if not processes.is_loss(error):
            raise
        lost = f"another process is lost ({words.brief(error, 120)})"
        report([Line(check.name, Finding(PROBLEM, lost, "see what it says itself"))])
    finally:
        case.cleanup.close()
    return reported


def _shared(own: Sequence[Finding]) -> list[list[Finding]]:
    """The findings of each process."""
    collected = processes.collected([dataclasses.astuple(finding) for finding in own])
    return [[Finding(*fields) for fields in theirs] for theirs in collected]


def _state(everyones: Sequence[Sequence[Finding]]) -> str:
    return worst(finding.state for theirs in everyones for finding in theirs)


def _findings(check: Check, case: Case, verbose: bool) -> list[Finding]:
    """The findings of a check, an error that ended it included."""
    findings: list[Finding] = []
    try:
        for finding in check.function(case):
            findings.append(finding)
    except Unknown as reason:
        findings.append(Finding(LEFT_OUT, str(reason)))
    except (UserError, OSError) as error:
        findings.append(Finding(PROBLEM, str(error)))
    except Exception as error:
        if case.together and processes.is_loss(error):
            raise
        if verbose:
            traceback.print_exception(error)
        text = words.brief(error)
        findings.append(
            Finding(
                PROBLEM,
                f"this check failed itself, which was not expected: "
                f"{type(error).__name__}: {text}",
                "" if verbose else "--verbose shows where",
            )
        )
    return findings


def _merged(
    check: str, everyones: Sequence[Sequence[Finding]], seconds: float
) -> list[Line]:
    """The findings of process 0, then those that only others have.

    Args:
      check: its name.
      everyones: findings of each process.
      seconds: duration of the check, shown with its first line.
    """
    lines: list[Line] = []
    count = len(everyones)
    first = everyones[0]
    distinct = list(dict.fromkeys(f for theirs in everyones for f in theirs))
    for finding in distinct:
        who = tuple(i for i, theirs in enumerate(everyones) if finding in theirs)
        if finding.state == OK and finding not in first:
            # Process 0 has it too, in other words: with other durations, for example.
            continue
        # Processes are named for what is wrong alone.
        everywhere = finding.state == OK or len(who) == count
        lines.append(Line(check, finding, () if everywhere else who, seconds))
        seconds = 0.0
    return lines


class Table:
    """Prints lines as they come.

    Process 0 prints for all processes that have met. Where they could not meet, each
    other one prints its own problems.

    Args:
      case: what is examined.
    """

    def __init__(self, case: Case):
        self._case = case
        self._width = max(len(check.name) for check in CHECKS)
        self._waiting: list[Line] = []  # Process 0 prints them, if the processes meet.

    def __call__(self, line: Line) -> None:
        if not self._case.index:
            self._print(line)
        elif line.finding.state == PROBLEM and not self._case.together:
            self._waiting.append(line)
        if self._case.apart:
            for waiting in self._waiting:
                self._print(waiting)
            self._waiting.clear()

    def _print(self, line: Line) -> None:
        who = f"{numbers(line.who)}: " if line.who else ""
        if self._case.index:
            who = f"process {self._case.index}: "
        duration = f" ({line.seconds:.1f} s)" if line.seconds >= 1 else ""
        finding = line.finding
        head = f"{finding.state:<9} {line.check:<{self._width}}  "
        print(f"{head}{who}{finding.text}{duration}", flush=True)
        if finding.advice:
            print(" " * len(head) + f"do: {finding.advice}", flush=True)


def summary(lines: Sequence[Line], seconds: float) -> str:
    """How many problems and warnings there are, and how long it took."""
    counts = {s: sum(line.finding.state == s for line in lines) for s in STATES}
    parts = [
        f"{counts[state]} {state}{'s' if plural and counts[state] > 1 else ''}"
        for state, plural in ((PROBLEM, True), (WARNING, True), (LEFT_OUT, False))
        if counts[state]
    ]
    return f"{', '.join(parts) or 'all is well'}; {seconds:.0f} s"
