"""The Aux-Net of SWS: a ViT whose blocks are shared inside each stage.

Parameters are a ViT's, but for the blocks: ``stage_0/...``, ``stage_1/...``, one
block each, without a leading axis (`sws_jax.methods.sws` stacks them).
"""

from __future__ import annotations

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

    def run_blocks(self, x, drop_path):  # [b, n, d] -> [b, n, d]
        ends = np.cumsum(self.spec.stages)
        for s, (length, end) in enumerate(zip(self.spec.stages, ends, strict=True)):
            # Drop-path masks belong to the applied block and are not shared.
            masks = None if drop_path is None else drop_path[end - length : end]
            stage = vit.scanned(self.compute, length=length, shared=True)
            x, _ = stage(self.net, self.compute, name=f"stage_{s}")(x, masks)
        return x
