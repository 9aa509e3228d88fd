"""The steps of S/16 and B/16 with flags of XLA that this process was started with.

Compare with `benchmarks.accelerator.steps`, of the same run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from benchmarks.accelerator import rates, steps
from benchmarks.accelerator.asked import Asked, Case


def cases(asked: Asked) -> Iterator[Case]:
    rate = functools.cache(functools.partial(rates.matmul, asked))
    for what in ("S/16", "B/16"):
        yield steps.case(asked, what, steps.BF16, rate)
