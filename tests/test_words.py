"""Sizes, durations and lists, as they are printed."""

import pytest

from sws_jax.runtime import words


@pytest.mark.parametrize(
    "count, size, rounded",
    [
        (0, "0 B", "0 bytes"),
        (1023, "1023 B", "1023 bytes"),
        (1536, "1.5 KiB", "1.5 KiB"),
        (12.34 * 2**20, "12.3 MiB", "12.3 MiB"),
        (1.25 * 2**30, "1.25 GiB", "1.2 GiB"),
        (2**41, "2048 GiB", "2048.0 GiB"),
    ],
)
def test_sizes(count, size, rounded):
    assert words.size(count) == size
    assert words.rounded(count) == rounded


def test_sizes_in_one_unit():
    assert words.gib(2**20) == "0.00 GiB"
    assert words.gib(1234.5 * 2**30) == "1,234.50 GiB"
    assert words.gib(1234.4 * 2**30, 0) == "1,234 GiB"


@pytest.mark.parametrize(
    "seconds, duration, clock",
    [
        (0.2, "1 s", "0:00:00"),
        (59.4, "59 s", "0:00:59"),
        (200, "3 min 20 s", "0:03:20"),
        (7500, "2 h 5 min", "2:05:00"),
        (90000, "25 h 0 min", "1 day, 1:00:00"),
    ],
)
def test_durations(seconds, duration, clock):
    assert words.duration(seconds) == duration
    assert words.clock(seconds) == clock


def test_short_durations():
    assert words.short(0.01234) == "12.3 ms"
    assert words.short(1.166) == "1.17 s"
    assert words.short(61) == "1 min 1 s"


def test_counts():
    assert words.many(1, "image") == "1 image"
    assert words.many(1000, "image") == "1,000 images"


def test_lists():
    assert words.few(["a", "b", "c"]) == "a, b, c"
    assert words.few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert words.few(["a", "b"], most=1) == "a and 1 more"
    assert words.few(["a", "b"], separator="; ") == "a; b"
    assert words.joined(["a"]) == "a"
    assert words.joined(["a", "b"]) == "a and b"
    assert words.joined(["a", "b", "c"]) == "a, b and c"


def test_errors_on_one_line():
    assert words.brief(ValueError("no\n  room ")) == "no room"
    assert words.brief("no room left", most=5) == "no ro"
