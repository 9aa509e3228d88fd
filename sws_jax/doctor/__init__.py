"""Everything that a job needs, looked at before it is started.

Each check stands for itself: one that fails, even by a fault of its own, hides no
other. With several processes all make every check, and the first one prints what all
have found, once. Nothing is trained, and nothing stays behind.
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
from sws_jax.runtime import processes
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
    Check("processes", together.meet, several=True),
    Check("devices", devices.devices),
    Check("compiler", compiler.compiler, ("devices",)),
    Check("mesh", devices.mesh, ("config", "devices")),
    Check("directory", storage.work_directory),
    Check(
        "directory of all",
        together.same_directory,
        ("processes", "directory"),
        several=True,
    ),
    Check("runs", storage.runs, ("config",), unless=("directory",)),
    Check("data", inputs.data),
    Check("data of all", together.same_data, ("processes", "data"), several=True),
    Check("reading", inputs.reading, ("config", "mesh", "data")),
    Check("teacher", inputs.ans_net, ("config",)),
    Check("weights", inputs.weights, ("config",)),
    Check("disk", storage.disk, ("config",), unless=("directory", "weights")),
    Check("memory", devices.sheet, ("config", "mesh"), unless=("teacher", "weights")),
)


@dataclasses.dataclass(frozen=True)
class Line:
    """A finding, and who has it.

    Attributes:
      check: its name.
      finding: what was found.
      who: numbers of the processes; empty for all of them.
      seconds: that the check took in process 0.
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
      tell: is given every line as soon as it is known.
      verbose: prints where an unexpected error came from.
      checks: in an order in which each follows what it needs.

    Returns:
      All lines.
    """
    found: list[Line] = []
    states = case.states
    alone: dict[str, list[Finding]] = {}  # found before the processes have met

    def report(lines: Iterable[Line]) -> None:
        for line in lines:
            found.append(line)
            tell(line)

    case.find_place()
    try:
        for check in checks:
            if check.several and case.place is None and not case.unplaced:
                continue
            if broken := check.hindered(states):
                missing = f"needs {' and '.join(broken)} to be well"
                report([Line(check.name, Finding(LEFT_OUT, missing))])
                states[check.name] = LEFT_OUT
                continue
            before = time.monotonic()
            mine = _made(check, case, verbose)
            seconds = time.monotonic() - before
            if not case.together:
                alone[check.name] = mine
                everyones = [mine]
            else:
                for name in list(alone):
                    earlier = _shared(alone.pop(name))
                    lines = _merged(name, earlier, 0.0)
                    report(line for line in lines if line.who and 0 not in line.who)
                    states[name] = _state(earlier)
                everyones = _shared(mine)
            report(_merged(check.name, everyones, seconds))
            states[check.name] = _state(everyones)
    except Exception as error:
        if not processes.is_loss(error):
            raise
        lost = f"another process is lost ({' '.join(str(error).split())[:120]})"
        report([Line(check.name, Finding(PROBLEM, lost, "see what it says itself"))])
    finally:
        case.held.close()
    return found


def _shared(mine: Sequence[Finding]) -> list[list[Finding]]:
    """What each of the processes has found."""
    said = processes.collected([dataclasses.astuple(finding) for finding in mine])
    return [[Finding(*one) for one in theirs] for theirs in said]


def _state(everyones: Sequence[Sequence[Finding]]) -> str:
    return worst(finding.state for theirs in everyones for finding in theirs)


def _made(check: Check, case: Case, verbose: bool) -> list[Finding]:
    """What a check finds, and what ends it."""
    found: list[Finding] = []
    try:
        for finding in check.function(case):
            found.append(finding)
    except Unknown as reason:
        found.append(Finding(LEFT_OUT, str(reason)))
    except (UserError, OSError) as error:
        found.append(Finding(PROBLEM, str(error)))
    except Exception as error:
        if case.together and processes.is_loss(error):
            raise
        if verbose:
            traceback.print_exception(error)
        text = " ".join(str(error).split())[:160]
        found.append(
            Finding(
                PROBLEM,
                f"this check failed itself, which was not expected: "
                f"{type(error).__name__}: {text}",
                "" if verbose else "--verbose shows where",
            )
        )
    return found


def _merged(
    check: str, everyones: Sequence[Sequence[Finding]], seconds: float
) -> list[Line]:
    """What the first process has found, and what others have found besides."""
    lines: list[Line] = []
    count = len(everyones)
    first = list(dict.fromkeys(everyones[0]))
    seen = list(dict.fromkeys(f for theirs in everyones for f in theirs))
    for finding in seen:
        who = tuple(i for i, theirs in enumerate(everyones) if finding in theirs)
        if finding.state == OK and finding not in first:
            continue  # in other words (seconds, say) what the first has found
        # What is well is said of the first alone; what is not, of those that it is of.
        everywhere = finding.state == OK or len(who) == count
        lines.append(Line(check, finding, () if everywhere else who, seconds))
        seconds = 0.0
    return lines


class Table:
    """Prints lines as they come.

    The first process speaks for all that have met. Where they have not, each other one
    says what is wrong with it.

    Args:
      case: what is examined.
    """

    def __init__(self, case: Case):
        self._case = case
        self._width = max(len(check.name) for check in CHECKS)
        self._waiting: list[Line] = []  # to be said by the first process, if it comes

    def __call__(self, line: Line) -> None:
        if not self._case.index:
            self._print(line)
        elif line.finding.state == PROBLEM and not self._case.together:
            self._waiting.append(line)
        if self._case.apart:
            for one in self._waiting:
                self._print(one)
            self._waiting.clear()

    def _print(self, line: Line) -> None:
        who = f"{numbers(line.who)}: " if line.who else ""
        if self._case.index:
            who = f"process {self._case.index}: "
        took = f" ({line.seconds:.1f} s)" if line.seconds >= 1 else ""
        finding = line.finding
        head = f"{finding.state:<9} {line.check:<{self._width}}  "
        print(f"{head}{who}{finding.text}{took}", flush=True)
        if finding.advice:
            print(" " * len(head) + f"do: {finding.advice}", flush=True)


def summary(found: Sequence[Line], seconds: float) -> str:
    """All lines in one."""
    counts = {s: sum(line.finding.state == s for line in found) for s in STATES}
    bad, left, warned = counts[PROBLEM], counts[LEFT_OUT], counts[WARNING]
    parts = [
        f"{n} {word}{'s' if n > 1 and word != LEFT_OUT else ''}"
        for n, word in ((bad, PROBLEM), (warned, WARNING), (left, LEFT_OUT))
        if n
    ]
    return f"{', '.join(parts) or 'all is well'}; {seconds:.0f} s"
