"""Ratios of sizes, from the sizes that they gave when they were rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

_DIGITS = 6  # of what people write


def common(
    pairs: Iterable[tuple[int, int]],
    cut: Callable[[float], int] = int,
    usual: Sequence[float] = (),
) -> float | None:
    """A ratio r with ``cut(width * r) == hidden`` for each (width, hidden), or None.

    Args:
      pairs: of widths and what they became, all above 0.
      cut: how a product becomes whole: `int` or `round`.
      usual: ratios that are taken before others, if they do.

    >>> common([(208, 480)]), common([(64, 128)]), common([(24, 7), (56, 17)], round)
    (2.31, 2.0, 0.3)
    """
    pairs = sorted(set(pairs))
    if not pairs or any(min(pair) < 1 for pair in pairs):
        return None
    ratios = (*usual, *_candidates(pairs, cut))
    return next((r for r in ratios if all(cut(w * r) == h for w, h in pairs)), None)


def _candidates(
    pairs: Sequence[tuple[int, int]], cut: Callable[[float], int]
) -> Iterator[float]:
    """The plainest first, and in the end the middle of all that do."""
    yield from (hidden / width for width, hidden in pairs)
    below = 0.5 if cut is round else 0.0
    low = max((hidden - below) / width for width, hidden in pairs)
    high = min((hidden + 1 - below) / width for width, hidden in pairs)
    middle = (low + high) / 2
    yield from (round(middle, digits) for digits in range(1, _DIGITS + 1))
    yield from (middle, low, math.nextafter(low, math.inf))
