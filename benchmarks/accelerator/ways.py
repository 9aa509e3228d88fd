"""The same steps, run in other ways: which one a network of this device should take.

Unrolled, no loop is left and XLA sees every block; rematerialised, a block is computed
again in the backward pass instead of kept, and that arithmetic is not in the share.
Compare with `benchmarks.accelerator.steps`, of the same run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from benchmarks.accelerator import rates, steps
from benchmarks.accelerator.asked import Asked, Case
from sws_jax.specs import Compute


def cases(asked: Asked) -> Iterator[Case]:
    rate = functools.cache(functools.partial(rates.matmul, asked))
    for what in ("S/16", "B/16"):
        depth = steps.network(asked, what).depth
        yield steps.case(
            asked, what, Compute("bfloat16", unroll=depth), rate, mode="unrolled"
        )
        yield steps.case(
            asked, what, Compute("bfloat16", remat=True), rate, mode="remat"
        )
