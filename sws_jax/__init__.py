"""Initialise Vision Transformers of any depth from one compact, trained core.

Names are loaded when they are first used: ``sws_jax.xla_flags.add()`` comes before JAX.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from sws_jax.version import VERSION

if TYPE_CHECKING:
    from sws_jax import xla_flags as xla_flags
    from sws_jax.errors import UserError
    from sws_jax.learngenes import (
        Descendant,
        Learngene,
        expand,
        extract,
        load_learngene,
        save_learngene,
    )
    from sws_jax.models.description import Description
    from sws_jax.models.networks import Network, load_network, save_network
    from sws_jax.specs import AuxViTSpec, Compute, ViTSpec, named

__version__ = VERSION

__all__ = [
    "AuxViTSpec",
    "Compute",
    "Descendant",
    "Description",
    "Learngene",
    "Network",
    "UserError",
    "ViTSpec",
    "expand",
    "extract",
    "load_learngene",
    "load_network",
    "named",
    "save_learngene",
    "save_network",
]

_NAMES = {
    "description": ("Description",),
    "errors": ("UserError",),
    "learngenes": (
        "Descendant",
        "Learngene",
        "expand",
        "extract",
        "load_learngene",
        "save_learngene",
    ),
    "networks": ("Network", "load_network", "save_network"),
    "specs": ("AuxViTSpec", "Compute", "ViTSpec", "named"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, or a module of the package."""
    if name in _HOMES:
        found = getattr(importlib.import_module(f"sws_jax.{_HOMES[name]}"), name)
        globals()[name] = found  # asked for once
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"sws_jax.{name}"):
        return importlib.import_module(f"sws_jax.{name}")
    raise AttributeError(f"module 'sws_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
