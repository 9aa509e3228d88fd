"""What a network returns when it is asked for more than logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from sws_jax import arguments, xla_flags
from sws_jax.errors import UserError

xla_flags.warn()

# What can be tapped; see `Outputs`.
TAPS = ("blocks", "attention")
# The check of an argument that is a tuple of such names.
TAP_NAMES = arguments.many(arguments.text(TAPS), "names of taps")


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


def refuse_taps(spec: Any, taps: tuple[str, ...]) -> None:
    """Refuses taps of a network that has no ViT blocks.

    Args:
      spec: of the network.
      taps: names of `TAPS`; nothing is refused where there are none.

    Raises:
      UserError: naming the network and the taps.
    """
    if wanted := TAP_NAMES("taps", taps):
        raise UserError(
            f"{spec.name} has no taps, and is asked for {', '.join(wanted)}: only "
            f"Vision Transformers return more than logits"
        )
