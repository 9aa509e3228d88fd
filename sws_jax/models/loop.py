"""The same networks as a plain Python loop: for looking at arrays, not for speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from sws_jax import trees
from sws_jax.errors import UserError
from sws_jax.models import vit
from sws_jax.specs import AuxViTSpec, ViTSpec


class LoopViT(vit.ViT):
    """A `ViT` or `AuxViT` without scan, on the same parameters.

    Outside of `jax.jit` every array is concrete, so that it can be printed or
    stopped at. It applies parameters that exist and does not create any::

        def show(name, x):
            print(name, x.shape, x.std())

        LoopViT(spec, watch=show).apply({"params": params}, images)

    Attributes:
      watch: called after each block with its name and its output [b, n, d].
    """

    watch: Callable[[str, jax.Array], Any] = lambda name, x: None

    def checked_ranges(self, ranges) -> tuple:
        if ranges is not None:
            raise UserError(
                f"LoopViT runs every block of {self.spec.name}: to leave some out, "
                f"give it a spec that has fewer, instead of ranges"
            )
        return ()

    def run_blocks(self, x, drop_path, taps, ranges):
        if not isinstance(self.spec, ViTSpec | AuxViTSpec):
            raise UserError(
                f"LoopViT shows plain ViTs and Aux-Nets, and {self.spec.name} is of "
                f"another family"
            )
        params, of_layers = self.variables["params"], []
        block = vit.Block(self.net, self.compute, taps, parent=None)
        for layer in range(self.net.depth):
            if isinstance(self.spec, AuxViTSpec):
                own = params[f"stage_{self.spec.plan[layer]}"]
            else:
                own = jax.tree.map(lambda leaf, i=layer: leaf[i], params["blocks"])
            keep = None if drop_path is None else drop_path[layer]
            x, values = block.apply({"params": own}, x, keep)
            self.watch(f"block_{layer}", x)
            of_layers.append(values)
        return x, trees.stack(of_layers)
