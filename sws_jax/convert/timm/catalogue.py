"""What the names of timm's networks imply."""

from __future__ import annotations

import functools
import json
import os
from typing import Any

# Written by tests/support/timm_names.py.
NAMES = os.path.join(os.path.dirname(__file__), "timm_names.json")


@functools.cache
def _table() -> dict[str, Any]:
    with open(NAMES) as file:
        return json.load(file)


def names() -> dict[str, dict[str, Any]]:
    """What the names of timm's networks imply, by name."""
    return _table()["names"]


def others() -> dict[str, list[str]]:
    """Names of timm's networks of other families, by its module of them."""
    return _table()["others"]


def version() -> str:
    """The version of timm that the names come from."""
    return _table()["timm"]
