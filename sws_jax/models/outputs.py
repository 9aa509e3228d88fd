"""What a network returns when it is asked for more than logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax

# What can be tapped; see `Outputs`.
TAPS = ("blocks", "attention")


class Outputs(NamedTuple):
    """Logits, and what was tapped on the way to them.

    Attributes:
      logits: [batch, classes].
      taps: by name of `TAPS`, stacked over all applied blocks in order: ``blocks``
        [layers, batch, tokens, width], what each block returns; ``attention``
        [layers, batch, tokens, width], what its attention adds, after ``proj`` and
        before stochastic depth. A block that a variant leaves out returns what it was
        given, and adds 0. Networks of several widths have a tuple of such arrays, one
        for each segment.
    """

    logits: jax.Array
    taps: Mapping[str, jax.Array | tuple[jax.Array, ...]] = {}
