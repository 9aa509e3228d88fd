"""``python -m sws_jax COMMAND``: everything that is not a training run."""

from __future__ import annotations

from sws_jax import entry

if __name__ == "__main__":
    entry.begin()

# ruff: noqa: E402  what follows takes its time
import argparse
import contextlib
import sys

from sws_jax import xla_flags
from sws_jax.commands import (
    convert,
    cost,
    describe,
    doctor,
    evaluate,
    predict,
    prepare,
    show_batch,
)
from sws_jax.errors import UserError

COMMANDS = {
    "convert": convert,
    "cost": cost,
    "describe": describe,
    "doctor": doctor,
    "evaluate": evaluate,
    "predict": predict,
    "prepare": prepare,
    "show_batch": show_batch,
}
# Those in which an error of the operating system is a request that cannot be met.
READERS = ("convert", "describe", "evaluate", "predict")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a request that cannot be met, or 1."""
    examples = "\n".join(
        f"  {name:<12}{module.HELP}\n              {module.EXAMPLE}"
        for name, module in COMMANDS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m sws_jax",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Tools beside training, which is python -m sws_jax.main --help.",
        epilog=f"commands, each with an example:\n{examples}",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name,
            description=module.HELP,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    args, flags = parser.parse_known_args(argv)
    if hasattr(args, "flags"):  # a command that takes the flags of a run
        args.flags += flags
    elif flags:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    xla_flags.add()
    from sws_jax import files

    try:
        with files.told() if args.command in READERS else contextlib.nullcontext():
            return args.run(args)
    except UserError as error:
        print(f"sws_jax: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sws_jax: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
