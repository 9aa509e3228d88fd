"""Networks of several widths: ViT blocks in segments, with linear maps between.

Parameters, for segments of widths D0, D1, ..., which have L0, L1, ... blocks::

    patch_embed, cls_token, dist_token, pos_embed   a ViT's, of width D0
    segment_0/...                                   a ViT's ``blocks``, [L0, ...]
    stitch_0/kernel [D0, D1]                        bias [D1]
    segment_1/...                                   [L1, ...]
    stitch_1/...
    norm, head, head_dist                           a ViT's, of the last width
"""

from __future__ import annotations

from flax import linen as nn

from sws_jax import sharding
from sws_jax.models import vit
from sws_jax.specs import Compute, StitchedSpec


class StitchedViT(vit.ViT):
    """Segments of blocks of one width each (SN-Net, 2302.06586, section 3).

    Called as `sws_jax.models.vit.ViT`, with the masks of all blocks in order.
    """

    spec: StitchedSpec  # type: ignore[assignment]
    compute: Compute = Compute()

    @property
    def segments(self) -> int:
        """See `ViT.segments`."""
        return len(self.spec.segments)

    def run_blocks(self, x, drop_path, taps, ranges):
        """See `ViT.run_blocks`: segment by segment, with maps between."""
        first, of_segments = 0, []
        for s, segment in enumerate(self.spec.segments):
            if s:
                x = self.stitch(x, s - 1)
            end = first + segment.depth
            masks = None if drop_path is None else drop_path[first:end]
            x, values = self.run_segment(
                f"segment_{s}",
                segment,
                x,
                masks,
                taps,
                ranges[s],
                length=segment.depth,
            )
            of_segments.append(values)
            first = end
        return x, {name: tuple(v[name] for v in of_segments) for name in taps}

    def stitch(self, x, s: int):  # [b, n, d] -> [b, n, d of segment s + 1]
        """The tokens of segment `s` in the width of the next."""
        width = self.spec.segments[s + 1].width
        init = nn.with_logical_partitioning
        x = nn.Dense(
            width,
            dtype=self.compute.dtype,
            kernel_init=init(vit.weight_init(self.spec.stem), ("embed", None)),
            bias_init=init(nn.initializers.zeros, ("embed",)),
            dot_general=sharding.matmul("embed", None),
            name=f"stitch_{s}",
        )(x)
        return sharding.constrain(x, "batch", "tokens", "features")
