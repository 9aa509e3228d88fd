"""timm's ``config.json``: what it says of weights, and what timm needs for ours."""

from sws_jax.convert.timm.catalogue import NAMES, names, others, version
from sws_jax.convert.timm.reading import read
from sws_jax.convert.timm.sizes import unusual
from sws_jax.convert.timm.tables import AFTER, ARGUMENTS, PRETRAINED, TOP, USUAL
from sws_jax.convert.timm.writing import config_of

__all__ = [
    "AFTER",
    "ARGUMENTS",
    "NAMES",
    "PRETRAINED",
    "TOP",
    "USUAL",
    "config_of",
    "names",
    "others",
    "read",
    "unusual",
    "version",
]
