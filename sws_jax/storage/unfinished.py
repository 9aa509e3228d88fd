"""Temporary files that are being written: an interrupted program removes them.

The module imports next to nothing, so that a program can load it first of all.
"""

from __future__ import annotations

import contextlib
import os

paths: set[str] = set()


def remove() -> None:
    """Removes those that the system lets it remove."""
    for path in list(paths):
        with contextlib.suppress(OSError):
            os.remove(path)
