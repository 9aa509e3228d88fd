"""Sizes, durations and lists of names, in the words that a person reads."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

_UNITS = ("KiB", "MiB", "GiB")


def size(count: float) -> str:
    """Bytes to three digits: "512 B", "12.3 MiB"."""
    scaled, unit = _scaled(count, "B")
    whole = unit == "B" or scaled >= 1000
    return f"{scaled:.0f} {unit}" if whole else f"{scaled:.3g} {unit}"


def rounded(count: float) -> str:
    """Bytes, rounded to one decimal place: "512 bytes", "1012.3 MiB"."""
    scaled, unit = _scaled(count, "bytes")
    return f"{scaled:.{0 if unit == 'bytes' else 1}f} {unit}"


def _scaled(count: float, unit: str) -> tuple[float, str]:
    for larger in _UNITS:
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return count, unit


def gib(count: float, digits: int = 2) -> str:
    """Bytes in one unit whatever their number: "1,234.50 GiB"."""
    return f"{count / 2**30:,.{digits}f} GiB"


def duration(seconds: float) -> str:
    """About how long: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short(seconds: float) -> str:
    """How long, to three digits: "12.3 ms", "1.17 s"; longer ones as `duration`."""
    if seconds >= 60:
        return duration(seconds)
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: "1:20:00"."""
    return str(datetime.timedelta(seconds=round(seconds)))


def many(count: int, thing: str) -> str:
    """A number of things: "1 image", "1,000 images"."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def few(names: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first names of a list, and how many there are besides: "a, b and 2 more"."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + rest


def brief(error: object, most: int = 160) -> str:
    """What an error says: one line, cut after so many characters."""
    return " ".join(str(error).split())[:most]


def joined(names: Sequence[str]) -> str:
    """All names of a list: "a", "a and b", "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
