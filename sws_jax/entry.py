"""The first and the last of a command: Ctrl-C, and what its terminal can show.

It imports next to nothing, so that it is there before whatever takes long to import.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

EXIT_INTERRUPTED = 130


def begin() -> None:
    """Called before all other imports of a program that is run by its name.

    From here on Ctrl-C ends it in one line, and a name that a stream has no characters
    for (an ASCII terminal, a path that is not UTF-8) is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, _end)


def command(main: Callable[[], int], name: str = "sws_jax") -> int:
    """Runs a program that Ctrl-C may break off anywhere; call `begin` before.

    Args:
      main: gives its exit code; files that it is writing are left as they were.
      name: for the line.

    Returns:
      The exit code, 130 after Ctrl-C.
    """
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, _break_off)
    try:
        code = main()
    except BaseException as error:
        # (A library that is broken off while it loads may raise something else.)
        if not (_asked or isinstance(error, KeyboardInterrupt)):
            raise
        code = EXIT_INTERRUPTED
    finally:
        if signal.getsignal(signal.SIGINT) is _break_off:
            signal.signal(signal.SIGINT, _end)  # there is nothing left to do
    if code == EXIT_INTERRUPTED:
        print(f"{name}: stopped by Ctrl-C", file=sys.stderr, flush=True)
    return code


_asked: list[int] = []  # the signals that have broken a program off


class _CtrlC(KeyboardInterrupt):
    """Python itself ends by the signal, whatever the exit code, once its own
    `KeyboardInterrupt` was raised in some kinds of code."""


def _break_off(number: int, frame: object) -> None:
    _asked.append(number)
    signal.signal(signal.SIGINT, _end)  # a second one waits for nothing
    raise _CtrlC


def _end(number: int, frame: object) -> None:
    os.write(2, b"sws_jax: stopped by Ctrl-C\n")
    os._exit(EXIT_INTERRUPTED)
