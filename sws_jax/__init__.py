"""Initialise Vision Transformers of any depth from one compact, trained core."""

from sws_jax.description import Description
from sws_jax.errors import UserError
from sws_jax.learngenes import (
    Descendant,
    Learngene,
    expand,
    extract,
    load_learngene,
    save_learngene,
)
from sws_jax.networks import Network, load_network, save_network
from sws_jax.specs import AuxViTSpec, Compute, ViTSpec, named
from sws_jax.version import VERSION

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
