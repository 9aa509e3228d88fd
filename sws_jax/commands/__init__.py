"""The commands of ``python -m sws_jax``: one file each.

A command module has `HELP` (one line), `EXAMPLE`, `add_arguments(parser)` and
`run(args)`, which returns an exit code. Modules import what is slow inside `run`. One
that takes a config sets the default ``flags=[]``, and finds there the flags of
``python -m sws_jax.main``.
"""

from __future__ import annotations

import argparse

from sws_jax import arguments


def whole(text: str) -> int:
    """The type of a flag that takes a whole number."""
    try:
        return int(text)
    except ValueError:
        raise _wrong("a whole number", text) from None


def number(text: str) -> float:
    """The type of a flag that takes a number."""
    try:
        return float(text)
    except ValueError:
        raise _wrong("a number", text) from None


def _wrong(what: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(
        f"must be {what}, and is {arguments.quoted(text)}"
    )
