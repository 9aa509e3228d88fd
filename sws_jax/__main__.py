"""``python -m sws_jax COMMAND``: everything that is not a training run."""

from __future__ import annotations

from sws_jax.runtime import entry

if __name__ == "__main__":
    entry.begin()

# ruff: noqa: E402  what is imported below takes a while
import argparse
import contextlib
import re
import sys
from typing import NoReturn

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
# Commands in which an error of the operating system is a request that cannot be met.
READERS = ("convert", "describe", "evaluate", "predict")
# Commands that compile what another start compiles again.
COMPILERS = ("doctor", "evaluate", "predict")


class _Parser(argparse.ArgumentParser):
    """The parser of a command: a wrong value of a flag is refused in a sentence."""

    def error(self, message: str) -> NoReturn:
        match = re.fullmatch("argument (--[^ :]+): (.*)", message, re.DOTALL)
        if match is None:
            super().error(message)
        flag, what = match.groups()
        raise UserError(f"{flag} {what}" if what.startswith("must") else message)

    def check_texts(self, args: argparse.Namespace) -> None:
        """Refuses empty arguments, which a script passes whose variables are not set.

        Of an option whose default is empty, an empty text is that default.
        """
        for action in self._actions:
            value = getattr(args, action.dest, action.default)
            if value != action.default:
                if "" in (value if isinstance(value, list) else [value]):
                    flag = (*action.option_strings, action.metavar)[0]
                    raise UserError(f"{flag} is empty")

    def flagged(self, message: str, args: argparse.Namespace) -> str:
        """A message that begins with an argument's name, with the flag in its place."""
        for action in self._actions:
            is_set = getattr(args, action.dest, None) not in (None, action.default)
            if is_set and re.match(rf"{action.dest}[ \[]", message):  # or of its items
                typed = (*action.option_strings[-1:], action.metavar)[0]
                return f"{typed}{message[len(action.dest) :]}"
        return message


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
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    parsers = {}
    for name, module in COMMANDS.items():
        parsers[name] = sub = commands.add_parser(
            name,
            description=module.HELP,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    try:
        args, flags = parser.parse_known_args(argv)
        parsers[args.command].check_texts(args)
    except UserError as error:
        return _refused(error)
    if hasattr(args, "flags"):  # a command that takes the flags of a run
        args.flags += flags
    elif flags:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    xla_flags.add()
    from sws_jax.runtime import compiled
    from sws_jax.storage import files

    if args.command in COMPILERS and (kept := compiled.keep()):
        print(f"sws_jax: {kept}", file=sys.stderr)

    try:
        with (
            files.errors_as_refusals()
            if args.command in READERS
            else contextlib.nullcontext()
        ):
            return args.run(args)
    except UserError as error:
        return _refused(parsers[args.command].flagged(str(error), args))
    except OSError as error:
        print(f"sws_jax: {error}", file=sys.stderr)
        return 1


def _refused(why: object) -> int:
    print(f"sws_jax: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
