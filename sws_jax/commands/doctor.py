"""``doctor``: whether a job can run here, before it is started."""

from __future__ import annotations

import argparse
import time

HELP = "check devices, data, teacher, disk and memory of a job before it is started"
EXAMPLE = "python -m sws_jax doctor --config=configs/aux_deit.py --workdir=runs/aux"

_ABOUT = """\
All other arguments are those of python -m sws_jax.main, --coordinator and the like
included; processes have 30 seconds to come (--start_timeout, where it is less). Exit
codes: 0 well, or warnings alone; 1 a problem; 2 a request that cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verbose", action="store_true", help="print where unexpected errors come from"
    )
    parser.epilog = f"example: {EXAMPLE}\n\n{_ABOUT}"
    parser.set_defaults(flags=[])


def run(args: argparse.Namespace) -> int:
    from sws_jax.jobs import commandline
    from sws_jax.runtime import rendezvous

    before = time.monotonic()
    start, rest = rendezvous.parse(args.flags)
    config, workdir = commandline.parse(rest)
    # JAX starts with the imports below; a refused request need not wait for it.
    from sws_jax import doctor
    from sws_jax.runtime import processes

    case = doctor.Case(config, workdir, start, tuple(rest))
    lines = doctor.examine(case, doctor.Table(case), verbose=args.verbose)
    if not case.index:
        print(doctor.summary(lines, time.monotonic() - before), flush=True)
    code = int(any(line.finding.state == doctor.PROBLEM for line in lines))
    if code:
        processes.leave(code)
    return code
