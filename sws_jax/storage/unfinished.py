"""Temporary files that are being written, and go with a program that is broken off.

It imports next to nothing, so that the first of a program can name it.
"""

from __future__ import annotations

import contextlib
import os

paths: set[str] = set()


def remove() -> None:
    """Removes them, as far as the system lets it."""
    for path in list(paths):
        with contextlib.suppress(OSError):
            os.remove(path)
