"""Boxes in rows and arrows between them, as an SVG: the same bytes on every machine.

Rows come from the layers, and within a layer from the longest way down. All arrows to
one box share a line, which has its colour, so that each can be followed by eye.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import escape

Pair = tuple[str, str]

WIDTH, MARGIN = 1000, 16
CHARACTER = 6.3  # of small text, in pixels: more than the usual fonts take
LETTER = 9.2  # of a name
LINE, HEAD, PADDING = 14, 24, 9
BETWEEN, BESIDE = 30, 18  # rows; boxes of a row
LANE = 12  # the width of a line where it passes boxes
# Legible on white and on black.
COLOURS = (
    "#2f81d6", "#d9822b", "#2e9e6b", "#b5549c", "#8a72d8", "#b08900", "#1f97a8",
    "#c8566a", "#6f8f2f", "#7d7f8c",
)  # fmt: skip
RED, GREY, INK, PAPER, FAINT = "#e5383b", "#7d8590", "#1c2128", "#f6f8fa", "#57606a"


@dataclasses.dataclass(frozen=True)
class Box:
    """A file, or a folder.

    Attributes:
      name: without an ending.
      files: of a folder, without the file that stands for the folder itself.
      lines: of all of them.
    """

    name: str
    files: tuple[str, ...]
    lines: int

    @property
    def text(self) -> list[str]:
        """The names of a folder's files, wrapped to a block of three by one."""
        words = " ".join(self.files)
        across = max(26, round(math.sqrt(len(words) * 7)))
        return textwrap.wrap(words, across, break_long_words=False)

    @property
    def width(self) -> int:
        text = max([len(line) for line in self.text], default=0) * CHARACTER
        head = len(self.name) * LETTER + len(self.size) * CHARACTER + 14
        return math.ceil(max(text, head) + 2 * PADDING + 4)

    @property
    def height(self) -> int:
        return HEAD + (LINE * len(self.text) + 6 if self.text else 4)

    @property
    def size(self) -> str:
        return hundreds(self.lines)


def hundreds(lines: int) -> str:
    """A number of lines, rounded so that few changes of them change the picture."""
    return f"{(lines + 50) // 100 * 100:,}" if lines >= 50 else "<50"


def reachable(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """What each name leads to, over any number of arrows."""
    reach: dict[str, set[str]] = {}
    for a, b in pairs:
        reach.setdefault(a, set()).add(b)
    for middle in reach:
        for names in reach.values():
            if middle in names:
                names |= reach[middle]
    return reach


def levels(
    names: Sequence[str], pairs: Iterable[Pair], order: Sequence[Sequence[str]]
) -> dict[str, int]:
    """The row of each name, from 0 at the bottom.

    A layer begins above the one below it. In a layer, a name stands above all that it
    leads to there; names of one circle stand side by side.

    Args:
      names: of the boxes.
      pairs: (from, to).
      order: names of each layer, the lowest first; empty makes one layer of all.
    """
    rows: dict[str, int] = {}
    first = 0
    for layer in order or [names]:
        reach = reachable((a, b) for a, b in pairs if {a, b} <= set(layer))
        # A name that leads to another one leads to more names, itself included.
        for a in sorted(layer, key=lambda name: len(reach.get(name, set()) | {name})):
            below = {b for b in reach.get(a, ()) if a not in reach.get(b, ())} - {a}
            rows[a] = max([rows[b] + 1 for b in below], default=first)
        first = max([rows[name] + 1 for name in layer], default=first)
    return rows


def reduced(pairs: Iterable[Pair]) -> set[Pair]:
    """The arrows without those beside which a longer way leads to the same end.

    Only for arrows without circles.
    """
    pairs = set(pairs)
    reach = reachable(pairs)
    longer = {(a, c) for a, b in pairs for c in reach.get(b, ())}
    return pairs - longer


# A box in its row, or the line to a box in a row that it passes: (name, row).
Place = tuple[str, int]
# Lines between neighbouring rows, (upper place, lower place), each with the sources of
# the arrows that run along it.
Links = Mapping[tuple[Place, Place], set[str]]


@dataclasses.dataclass
class Plan:
    """The position of everything.

    Attributes:
      rows: places from left to right, the lowest row first.
      links: between the places.
      x: the middle of each place.
      room: the width of all rows.
    """

    rows: list[list[Place]]
    links: Links
    x: dict[Place, int]
    room: float


def arranged(boxes: Mapping[str, Box], at: Mapping[str, int], down: set[Pair]) -> Plan:
    """Orders the rows so that few lines cross, and puts each place near its neighbours.

    Args:
      boxes: by name.
      at: the row of each.
      down: arrows, each to a lower row.
    """
    rows: list[list[Place]] = [[] for _ in range(max(at.values()) + 1)]
    links: dict[tuple[Place, Place], set[str]] = {}
    for name in sorted(boxes):
        rows[at[name]].append((name, at[name]))
        sources = sorted(a for a, b in down if b == name)
        for row in range(at[name] + 1, max([at[a] for a in sources], default=0)):
            rows[row].append((name, row))
            links[(name, row), (name, row - 1)] = {a for a in sources if at[a] > row}
        for a in sources:
            links[(a, at[a]), (name, at[a] - 1)] = {a}
    uncross(rows, links)
    return Plan(rows, links, *_positions(rows, links, boxes, at))


def crossings(rows: list[list[Place]], links: Iterable[tuple[Place, Place]]) -> int:
    """How many pairs of lines cross between the rows."""
    index = {place: i for row in rows for i, place in enumerate(row)}
    between: dict[int, list[tuple[int, int]]] = {}
    for upper, lower in links:
        between.setdefault(upper[1], []).append((index[upper], index[lower]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for pairs in between.values()
        for a, b in itertools.combinations(pairs, 2)
    )


def uncross(rows: list[list[Place]], links: Links) -> None:
    """Sorts rows by their neighbours, then by single moves, so that few lines cross."""
    above, below = _neighbours(links)
    best, least = [list(row) for row in rows], _cost(rows, links)
    for sweep in range(6):
        down = sweep % 2 == 1
        for row in reversed(rows) if down else rows:
            middle, near = _middles(rows), above if down else below
            row.sort(key=lambda p: _mean([middle[n] for n in near.get(p, [p])]))
        cost = _moved(rows, links)
        if cost < least:
            best, least = [list(row) for row in rows], cost
    rows[:] = best


def _moved(rows: list[list[Place]], links: Links) -> tuple[int, float]:
    """Moves single places in their rows while the cost falls, and returns the cost."""
    least, before = _cost(rows, links), None
    while least != before:
        before = least
        for row in rows:
            for place, i in itertools.product(sorted(row), range(len(row))):
                old = list(row)
                row.remove(place)
                row.insert(i, place)
                if (cost := _cost(rows, links)) < least:
                    least = cost
                else:
                    row[:] = old
    return least


def _cost(rows: list[list[Place]], links: Links) -> tuple[int, float]:
    """The number of crossings, and then the lengths of lines to the side."""
    middle = _middles(rows)
    return crossings(rows, links), math.fsum(
        abs(middle[a] - middle[b]) for a, b in links
    )


def _middles(rows: list[list[Place]]) -> dict[Place, float]:
    return {p: i - len(row) / 2 for row in rows for i, p in enumerate(row)}


def _neighbours(links: Links) -> tuple[dict, dict]:
    above: dict[Place, list[Place]] = {}
    below: dict[Place, list[Place]] = {}
    for upper, lower in links:
        below.setdefault(upper, []).append(lower)
        above.setdefault(lower, []).append(upper)
    return above, below


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)  # Python 3.11 and 3.12 sum differently.


def _positions(rows, links, boxes, at) -> tuple[dict[Place, int], float]:
    """The middle of each place, and the width of all.

    Places are near their neighbours, in their order, and do not overlap.
    """
    above, below = _neighbours(links)
    lines: dict[str, list[Place]] = {}
    for place in sorted({p for link in links for p in link}):
        lines.setdefault(place[0], []).append(place)

    def is_lane(place: Place) -> bool:
        return at[place[0]] != place[1]

    def half(place: Place) -> float:
        return LANE / 2 if is_lane(place) else boxes[place[0]].width / 2

    offsets, ends = [], []
    for row in rows:
        gaps = [
            half(a) + half(b) + (8 if is_lane(a) or is_lane(b) else BESIDE)
            for a, b in itertools.pairwise(row)
        ]
        offsets.append(list(itertools.accumulate(gaps, initial=half(row[0]))))
        ends.append(offsets[-1][-1] + half(row[-1]))
    room = max(WIDTH - 2 * MARGIN, *ends)
    x = {}
    for row, places, end in zip(rows, offsets, ends, strict=True):
        x.update((p, o + (room - end) / 2) for p, o in zip(row, places, strict=True))
    for sweep in range(120):
        for i in range(len(rows)) if sweep % 2 else reversed(range(len(rows))):
            wanted, weights = [], []
            for place in rows[i]:
                if is_lane(place):  # A line is to be straight, above all.
                    wanted.append(_mean([x[p] for p in lines[place[0]]]))
                else:
                    near = [*above.get(place, []), *below.get(place, [])]
                    wanted.append(_mean([room / 2, *(x[p] for p in near * 2)]))
                weights.append(20.0 if is_lane(place) else 1.0)
            placed = _separated(wanted, weights, offsets[i], room - ends[i])
            x.update(zip(rows[i], placed, strict=True))
    left = min(x[p] - half(p) for p in x)
    right = max(x[p] + half(p) for p in x)
    return {
        p: round(v + MARGIN + (room - left - right) / 2) for p, v in x.items()
    }, room


def _separated(wanted, weights, offsets, free) -> list[float]:
    """The nearest places, by weighted squares, that keep their order and distances.

    Args:
      wanted: of each place.
      weights: of the squares.
      offsets: of the places where all are as far to the left as may be.
      free: how far the last one may be moved from there.
    """
    groups: list[tuple[float, float, int]] = []  # shift, weight, number of places
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        shift, number = want - offset, 1
        while groups and groups[-1][0] > shift:
            left, other, count = groups.pop()
            shift = (left * other + shift * weight) / (other + weight)
            weight, number = weight + other, number + count
        groups.append((shift, weight, number))
    shifts = [shift for shift, _, number in groups for _ in range(number)]
    return [
        offset + min(max(shift, 0.0), free)
        for shift, offset in zip(shifts, offsets, strict=True)
    ]


def draw(
    boxes: Sequence[Box],
    pairs: set[Pair],
    late: set[Pair],
    order: Sequence[Sequence[str]],
) -> str:
    """The picture, as the text of an SVG file.

    Args:
      boxes: all of them.
      pairs: (who imports, what is imported).
      late: those of the pairs that are drawn dashed.
      order: as for `levels`.
    """
    by_name = {box.name: box for box in boxes}
    at = levels(sorted(by_name), pairs, order)
    down = {(a, b) for a, b in pairs if at[a] > at[b]}
    wrong = sorted(pairs - down)  # upwards, or in a circle
    few = reduced(down)
    plan = arranged(by_name, at, few)
    y, tops, bottoms = MARGIN, {}, {}
    for row in reversed(range(len(plan.rows))):
        heights = [by_name[n].height for n, r in plan.rows[row] if at[n] == r]
        tops[row], bottoms[row] = y, y + max(heights)
        y = bottoms[row] + BETWEEN
    width = max(WIDTH, math.ceil(plan.room + 2 * MARGIN))
    names = [n for row in plan.rows for n, r in row if at[n] == r]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    frames = {
        name: (plan.x[name, row] - by_name[name].width / 2, tops[row], by_name[name])
        for name, row in at.items()
    }
    out = _bands(order, at, tops, bottoms, width)
    out += _lines(plan, frames, at, late, colours, tops, bottoms)
    out += [_wrong(frames[a], frames[b]) for a, b in wrong]
    for name, (left, top, box) in sorted(frames.items()):
        out += _box(box, left, top, pairs, colours[name])
    out += [
        f'<text class="caption" x="{MARGIN}" y="{y - 4 + i * 17}">{escape(line)}</text>'
        for i, line in enumerate(_caption(boxes, pairs, few, wrong))
    ]
    return "\n".join([*_head(width, y + 47), *out, "</svg>", ""])


def _caption(boxes, pairs, few, wrong) -> list[str]:
    total = hundreds(sum(box.lines for box in boxes))
    hidden = len(pairs) - len(few) - len(wrong)
    return [
        f"{len(boxes)} boxes, {total} lines; numbers of lines are rounded to hundreds. "
        f"An arrow leads from who imports down to what is imported.",
        f"{hidden} of the {len(pairs)} arrows are left out, since other arrows lead to "
        f"the same box: jobs import nearly all below them"
        + (f"; {len(wrong)} in red lead up, or in a circle." if wrong else "."),
        "Dashed: only inside functions, or for type checkers. "
        "Made by: python docs/house.py",
    ]


def _head(width: int, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" '
        f'font-family="Verdana, DejaVu Sans, Arial, sans-serif">',
        "<title>The boxes of sws_jax and what each imports</title>",
        "<style>",
        f".name {{ font-size: 13px; font-weight: bold; fill: {INK}; }}",
        f".files {{ font-size: 10px; fill: {FAINT}; }}",
        f".size {{ font-size: 10px; font-weight: bold; fill: {FAINT}; }}",
        f".caption {{ font-size: 11.5px; fill: {GREY}; }}",
        ".line { fill: none; stroke-width: 1.4; stroke-linecap: round; }",
        ".late { stroke-dasharray: 4 4; }",
        "</style>",
    ]


def _bands(order, at, tops, bottoms, width) -> list[str]:
    """A stripe behind every second layer."""
    out = []
    for layer in order[::2]:
        y = tops[max(at[name] for name in layer)] - BETWEEN // 2
        height = bottoms[min(at[name] for name in layer)] + BETWEEN // 2 - y
        out.append(
            f'<rect x="0" y="{y}" width="{width}" height="{height}" '
            f'fill="{GREY}" fill-opacity="0.10"/>'
        )
    return out


def _lines(plan, frames, at, late, colours, tops, bottoms) -> list[str]:
    """The lines between rows, and through the rows that they pass."""
    out, starts, heads = [], set(), set()
    for (upper, lower), sources in plan.links.items():
        (source, row), (target, below) = upper, lower
        x1, x2 = plan.x[upper], plan.x[lower]
        start, y1, y2, end = bottoms[row], bottoms[row], tops[below], bottoms[below]
        if at[source] == row:
            _, top, box = frames[source]
            x1, start = _side(frames[source], x2), top + box.height
            while (source, x1) in starts:  # Lines that leave a box do so side by side.
                x1 += 8 if x1 < plan.x[upper] else -8
            starts.add((source, x1))
        if at[target] == below:
            x2, end = _side(frames[target], x1), y2
            heads.add((x2, y2, colours[target]))
        middle = (y1 + y2) / 2
        kind = "line late" if all((a, target) in late for a in sources) else "line"
        out.append(
            f'<path class="{kind}" stroke="{colours[target]}" d="M{x1} {start}V{y1}'
            f'C{x1} {middle:g} {x2} {middle:g} {x2} {y2}V{end}"/>'
        )
    for x, y, colour in sorted(heads):
        out.append(f'<path fill="{colour}" d="M{x} {y}l-3.5 -6h7z"/>')
    return out


def _side(frame, x: int) -> int:
    """Where a line from or to x touches a box: as near to x as may be."""
    left, _, box = frame
    return round(min(max(x, left + 14), left + box.width - 14))


def _wrong(source, target) -> str:
    """An arrow that leads up or to the side, in red."""
    (left1, y1, box1), (left2, top, box2) = source, target
    x1, x2 = round(left1 + box1.width / 2), round(left2 + box2.width / 2)
    y2 = top + box2.height
    bend = (y1 + y2) / 2
    if y1 == top:  # Side by side, the arrow leads from below to below.
        y1 += box1.height
        bend = max(y1, y2) + BETWEEN - 6
    return (
        f'<path class="line" stroke="{RED}" '
        f'd="M{x1} {y1}C{x1} {bend:g} {x2} {bend:g} {x2} {y2 + 4}"/>'
        f'<path fill="{RED}" d="M{x2} {y2}l-3.5 6h7z"/>'
    )


def _box(box: Box, left, top, pairs: set[Pair], colour: str) -> list[str]:
    imports = sorted(b for a, b in pairs if a == box.name)
    users = sorted(a for a, b in pairs if b == box.name)
    title = (
        f"{box.name}: {box.size} lines\n"
        f"imports: {', '.join(imports) or 'nothing'}\n"
        f"imported by: {', '.join(users) or 'nothing'}"
    )
    folder = bool(box.files)

    def text(kind: str, x: float, y: float, words: str, more: str = "") -> str:
        return f'<text class="{kind}" x="{x:g}" y="{y:g}"{more}>{escape(words)}</text>'

    right = left + box.width - PADDING
    return [
        f"<g><title>{escape(title)}</title>",
        f'<rect x="{left:g}" y="{top}" width="{box.width}" height="{box.height}" '
        f'rx="5" fill="{PAPER}" stroke="{colour}" '
        f'stroke-width="{2 if folder else 1.2}"/>',
        text("name", left + PADDING, top + 17, box.name + "/" * folder),
        text("size", right, top + 17, box.size, ' text-anchor="end"'),
        *(
            text("files", left + PADDING, top + HEAD + 10 + i * LINE, line)
            for i, line in enumerate(box.text)
        ),
        "</g>",
    ]
