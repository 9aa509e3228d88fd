"""The Aux-Net of SWS: a ViT whose blocks are shared inside each stage.

Parameters are a ViT's, but for the blocks: ``stage_0/...``, ``stage_1/...``, one
block each, without a leading axis (`sws_jax.methods.sws` stacks them).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sws_jax.models import vit
from sws_jax.specs import AuxViTSpec, Compute


class AuxViT(vit.ViT):
    """Stages of one shared block each (SWS, 2404.16897, section 3).

    Called as `sws_jax.models.vit.ViT`. A stage's gradient is the sum over the
    applications of its block: training copies of the block side by side and
    averaging them afterwards would be another network.
    """

    spec: AuxViTSpec  # type: ignore[assignment]
    compute: Compute = Compute()

    @property
    def segments(self) -> int:
        """See `ViT.segments`."""
        return len(self.spec.stages)

    def run_blocks(self, x, drop_path, taps, ranges):
        """See `ViT.run_blocks`: stage by stage."""
        stages, of_stages = self.spec.stages, []
        for s, (length, end) in enumerate(zip(stages, np.cumsum(stages), strict=True)):
            # Drop-path masks belong to the applied block and are not shared.
            masks = None if drop_path is None else drop_path[end - length : end]
            x, values = self.run_segment(
                f"stage_{s}",
                self.net,
                x,
                masks,
                taps,
                ranges[s],
                length=length,
                shared=True,
            )
            of_stages.append(values)
        return x, jax.tree.map(lambda *values: jnp.concatenate(values), *of_stages)
