"""The device's own rates: what a share is a share of.

How to read it: `tflops` is 10^12 operations a second, 2 for a multiply-add; float32
products may round their factors (TF32), as JAX does unless told otherwise. Each part
with shares measures the rate of bfloat16 again, since a device warms up and slows down.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import measure
from benchmarks.accelerator import rates
from benchmarks.accelerator.asked import Asked, Case
from benchmarks.measure import Row


def cases(asked: Asked) -> Iterator[Case]:
    for dtype in ("bfloat16", "float32"):
        for size in (rates.largest(asked), rates.largest(asked) // 2):

            def figures(dtype=dtype, size=size) -> Row:
                rate = rates.matmul(asked, dtype, size)
                return {"tflops": measure.short(rate / 1e12)}

            yield Case(
                {"what": "product of matrices", "dtype": dtype, "side": size}, figures
            )

    def copied() -> Row:
        return {"gb_per_second": measure.short(rates.copy(asked) / 1e9)}

    yield Case({"what": "read and write", "dtype": "float32"}, copied)
