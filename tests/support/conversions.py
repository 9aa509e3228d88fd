"""What the tests of several layouts share."""

import re

from sws_jax.convert import base
from sws_jax.models import networks


def shapes_of(layout, spec):
    return base.shapes(layout.entries(spec), networks.abstract_params(spec))


def kept(layout, shapes):
    """Without what is ignored."""
    return {
        k: tuple(v) for k, v in shapes.items() if not re.fullmatch(layout.ignored, k)
    }


def weights_of(golden):
    """The tensors of the network in a golden file."""
    prefix = "weights/"
    return {k[len(prefix) :]: v for k, v in golden.items() if k.startswith(prefix)}
