"""How a command begins and ends: Ctrl-C, and what its terminal can show.

The module imports next to nothing, so that it is there before what takes long to load.
"""

from __future__ import annotations

import os
import signal
import sys

from sws_jax.storage import unfinished

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


def _end(number: int, frame: object) -> None:
    # An exception raised here could be lost: JAX has callbacks that are called
    # anywhere, and libraries that are being loaded turn it into another one.
    os.write(2, b"sws_jax: stopped by Ctrl-C\n")
    unfinished.remove()
    os._exit(EXIT_INTERRUPTED)
