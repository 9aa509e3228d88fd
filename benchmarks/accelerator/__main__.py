"""Checks and measures an accelerator, within minutes."""

from __future__ import annotations

from sws_jax.runtime import entry

if __name__ == "__main__":
    entry.begin()

# ruff: noqa: E402  what is imported below takes a while
import argparse
import dataclasses
import math
import os
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.accelerator.parts import PARTS, Part

MINUTES = 8.0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where something is wrong, 2 for a bad request."""
    from sws_jax.errors import UserError

    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except UserError as error:
        print(f"accelerator: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parts = "\n".join(f"  {part.name:<16}{part.text}" for part in PARTS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=f"{__doc__}\n\nparts, in this order:\n{parts}",
        epilog="exit codes: 0, 1 where something is wrong or crashed, 2 for a bad "
        "request; a target that is missed changes none of them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", help="folder of results.json and table.md")
    parser.add_argument(
        "--toy", action="store_true", help="the smallest networks: a rehearsal"
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="for all parts; 8 unless given"
    )
    parser.add_argument("--only", help="some of the parts, with commas between")
    return parser


def _run(args: argparse.Namespace) -> int:
    from benchmarks.accelerator import schedule
    from benchmarks.accelerator.report import Report
    from sws_jax.errors import UserError

    parts = _chosen(args.only)
    if args.toy:  # on machines of any speed
        parts = tuple(dataclasses.replace(part, most=math.inf) for part in parts)
    if not 0 < args.minutes < 24 * 60:
        raise UserError(
            f"--minutes is above 0 and less than a day, and is {args.minutes:g}"
        )
    if os.path.exists(args.out) and not os.path.isdir(args.out):
        raise UserError(f"{args.out} is a file: name a folder")
    os.makedirs(args.out, exist_ok=True)
    report = Report(args.out, parts, args.toy)
    size = "toy" if args.toy else "full"

    def command(part: Part, until: float) -> list[str]:
        name = "benchmarks.accelerator.one"
        return [sys.executable, "-m", name, part.name, repr(until), size]

    with tempfile.TemporaryDirectory() as compiled:
        environment = dict(os.environ)
        # Two processes share the device's memory in one part. What one part has
        # compiled, another one need not.
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", compiled)
        platforms = environment.get("JAX_PLATFORMS", "")
        if platforms and "cpu" not in platforms.split(","):  # which one part needs
            environment["JAX_PLATFORMS"] = f"{platforms},cpu"
        schedule.run(parts, report, 60 * args.minutes, command, environment)
    print(report.table())
    return 1 if report.wrong else 0


def _chosen(text: str | None) -> tuple[Part, ...]:
    """The parts with these names, in the order in which they are run."""
    from sws_jax.errors import UserError

    if text is None:
        return PARTS
    names = set(filter(None, text.split(",")))
    known = [part.name for part in PARTS]
    if not names or names - set(known):
        raise UserError(
            f"--only {text!r} is not made of {', '.join(known)}, with commas between"
        )
    return tuple(part for part in PARTS if part.name in names)


if __name__ == "__main__":
    sys.exit(main())
