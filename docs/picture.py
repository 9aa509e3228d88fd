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
LANE = 12  # that a line takes where it passes boxes
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
    """A number of lines, so roughly that few changes of them change the picture."""
    return f"{(lines + 50) // 100 * 100:,}" if lines >= 50 else "<50"


def reachable(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """What each name leads to, over any number of arrows."""
    after: dict[str, set[str]] = {}
    for a, b in pairs:
        after.setdefault(a, set()).add(b)
    reach = {}
    for start in after:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = after.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        reach[start] = seen
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
        inside = set(layer)
        down: dict[str, set[str]] = {name: set() for name in layer}
        for a, b in pairs:
            if a in inside and b in inside:
                down[a].add(b)
        reach = reachable((a, b) for a, below in down.items() for b in below)
        # Who stands above another one has more names from itself down.
        for a in sorted(layer, key=lambda name: len(reach.get(name, set()) | {name})):
            circle = [b for b in reach.get(a, ()) if a in reach.get(b, ())] or [a]
            below = {b for c in circle for b in down[c]} - set(circle)
            rows[a] = max([rows[b] + 1 for b in below], default=first)
        first = max([rows[name] + 1 for name in layer], default=first)
    return rows


def reduced(pairs: Iterable[Pair]) -> set[Pair]:
    """The arrows without those beside which a longer way leads to the same end.

    Only for arrows without circles.
    """
    pairs = set(pairs)
    reach = reachable(pairs)
    after: dict[str, set[str]] = {}
    for a, b in pairs:
        after.setdefault(a, set()).add(b)
    return {
        (a, b)
        for a, b in pairs
        if not any(b in reach.get(c, ()) for c in after[a] - {b})
    }


# A place in a row: of a box, or of the line to a box where it passes a row.
Place = tuple[str, int]


@dataclasses.dataclass
class Plan:
    """Where everything is.

    Attributes:
      rows: places from left to right, the lowest row first.
      links: (upper place, lower place), of neighbouring rows.
      x: the middle of each place.
      room: how wide all of it is.
    """

    rows: list[list[Place]]
    links: list[tuple[Place, Place]]
    x: dict[Place, float]
    room: float


def arranged(boxes: Mapping[str, Box], at: Mapping[str, int], down: set[Pair]) -> Plan:
    """Orders the rows so that few lines cross, and moves each place to its neighbours.

    Args:
      boxes: by name.
      at: the row of each.
      down: arrows, each to a lower row.
    """
    height = max(at.values()) + 1
    rows: list[list[Place]] = [[] for _ in range(height)]
    for name in sorted(boxes):
        rows[at[name]].append((name, at[name]))
    links = set()
    for target in sorted(boxes):
        sources = [a for a, b in down if b == target]
        top = max([at[a] for a in sources], default=at[target])
        for row in range(at[target] + 1, top):
            rows[row].append((target, row))
            links.add(((target, row), (target, row - 1)))
        for source in sources:
            links.add(((source, at[source]), (target, at[source] - 1)))
    ordered = sorted(links)
    rows = _uncrossed(rows, ordered)
    return Plan(rows, ordered, *_positions(rows, ordered, boxes, at))


def _neighbours(links: Iterable[tuple[Place, Place]]) -> tuple[dict, dict]:
    above: dict[Place, list[Place]] = {}
    below: dict[Place, list[Place]] = {}
    for upper, lower in links:
        below.setdefault(upper, []).append(lower)
        above.setdefault(lower, []).append(upper)
    return above, below


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)  # (sum() rounds otherwise from 3.12 on)


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


def _uncrossed(rows: list[list[Place]], links: list) -> list[list[Place]]:
    """The rows in the best order that sweeps over them meet."""
    above, below = _neighbours(links)
    best, fewest = [list(row) for row in rows], crossings(rows, links)
    for sweep in range(40):
        upward = sweep % 2 == 0
        for row in rows if upward else rows[::-1]:
            index = {p: i for r in rows for i, p in enumerate(r)}
            beside = below if upward else above
            if sweep % 8 >= 6:
                key = {p: [*below.get(p, []), *above.get(p, [])] for p in row}
            else:
                key = {p: beside.get(p, []) for p in row}
            row.sort(key=lambda p: _mean([index[n] for n in key[p]] or [index[p]]))
        _swap_neighbours(rows, above, below)
        if (count := crossings(rows, links)) < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def _swap_neighbours(rows: list[list[Place]], above: dict, below: dict) -> None:
    """Exchanges neighbours as long as fewer lines cross by it."""
    index = {place: i for row in rows for i, place in enumerate(row)}

    def crossed(left: Place, right: Place) -> int:
        return sum(
            index[a] > index[b]
            for beside in (above, below)
            for a in beside.get(left, ())
            for b in beside.get(right, ())
        )

    better = True
    while better:
        better = False
        for row in rows:
            for i in range(len(row) - 1):
                left, right = row[i], row[i + 1]
                if crossed(right, left) < crossed(left, right):
                    row[i], row[i + 1] = right, left
                    index[left], index[right] = i + 1, i
                    better = True


def _positions(rows, links, boxes, at) -> tuple[dict[Place, float], float]:
    """The middle of each place, and the width of all.

    Places are near their neighbours, in their order, and do not overlap.
    """
    above, below = _neighbours(links)

    def width(place: Place) -> float:
        name, row = place
        return boxes[name].width if at[name] == row else LANE

    def is_lane(place: Place) -> bool:
        return at[place[0]] != place[1]

    def gap(left: Place, right: Place) -> float:
        lanes = is_lane(left) + is_lane(right)
        return (width(left) + width(right)) / 2 + (BESIDE, 8, 0)[lanes]

    needed = max(
        (width(row[0]) + width(row[-1])) / 2
        + math.fsum(gap(a, b) for a, b in itertools.pairwise(row))
        for row in rows
    )
    room = max(WIDTH - 2 * MARGIN, needed)
    x: dict[Place, float] = {}
    for row in rows:
        offset = 0.0
        for i, place in enumerate(row):
            offset += gap(row[i - 1], place) if i else width(place) / 2
            x[place] = offset
        shift = (room - offset - width(row[-1]) / 2) / 2
        x.update((place, x[place] + shift) for place in row)
    lines: dict[str, list[Place]] = {}  # the places of each, from the lowest up
    for place in itertools.chain.from_iterable(rows):
        if is_lane(place):
            lines.setdefault(place[0], []).append(place)

    def limits(row: list[Place]) -> tuple[float, float]:
        return width(row[0]) / 2, room - width(row[-1]) / 2

    for sweep in range(80):
        for row in rows if sweep % 2 else rows[::-1]:
            wanted, weights = [], []
            for place in row:
                near = [*above.get(place, ()), *below.get(place, ())]
                if is_lane(place):  # a line wants to be straight, more than all else
                    line = [x[p] for p in lines[place[0]]]
                    ends = [x[p] for p in near if not is_lane(p)]
                    wanted.append(_mean([_mean(line), *ends[:1]]))
                    weights.append(8.0)
                else:
                    wanted.append(
                        _mean([room / 2, *(x[p] for p in near for _ in "12")])
                    )
                    weights.append(1.0)
            gaps = [gap(a, b) for a, b in itertools.pairwise(row)]
            placed = _separated(wanted, weights, gaps, *limits(row))
            x.update(zip(row, placed, strict=True))
    index = {place: i for row in rows for i, place in enumerate(row)}
    for _ in range(4):
        for name in sorted(lines, key=lambda name: (-len(lines[name]), name)):
            _straighten(lines[name], x, (rows, index, gap, limits), x[name, at[name]])
    return {place: value + MARGIN for place, value in x.items()}, room


def _straighten(line: list[Place], x: dict[Place, float], room, first: float) -> None:
    """Moves the places of a line to as few columns as their neighbours leave room for.

    Args:
      line: its places, the lowest first.
      x: of all places; changed.
      room: the rows, the index of each place, and what `_positions` knows of both.
      first: the column to begin in.
    """
    rows, index, gap, limits = room
    column, free = first, (-math.inf, math.inf)
    places: list[Place] = []
    for place in [*line, None]:
        if place is not None:
            row, i = rows[place[1]], index[place]
            low, high = limits(row)
            low = x[row[i - 1]] + gap(row[i - 1], place) if i else low
            high = x[row[i + 1]] - gap(place, row[i + 1]) if row[i + 1 :] else high
            both = max(free[0], low), min(free[1], high)
            if both[0] <= both[1]:
                places, free = [*places, place], both
                continue
        column = min(max(column, free[0]), free[1])
        x.update((p, column) for p in places)
        if place is not None:
            places, free = [place], (low, high)


def _separated(
    wanted: list[float],
    weights: list[float],
    gaps: list[float],
    lowest: float,
    highest: float,
) -> list[float]:
    """The nearest places, by weighted squares, that keep their order and the gaps."""
    offsets = [0.0, *itertools.accumulate(gaps)]
    blocks: list[list[float]] = []  # value, weight, count
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        blocks.append([want - offset, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            value, w, n = blocks.pop()
            before = blocks[-1]
            total = before[1] + w
            before[0] = (before[0] * before[1] + value * w) / total
            before[1], before[2] = total, before[2] + n
    values = [value for value, _, n in blocks for _ in range(int(n))]
    last = highest - offsets[-1]
    return [min(max(v, lowest), last) + o for v, o in zip(values, offsets, strict=True)]


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
    top, tops, bottoms = MARGIN, {}, {}
    for row in range(len(plan.rows) - 1, -1, -1):
        heights = [by_name[n].height for n, r in plan.rows[row] if at[n] == r]
        tops[row], bottoms[row] = top, top + max(heights)
        top = bottoms[row] + BETWEEN
    bottom = top - BETWEEN
    width = max(WIDTH, math.ceil(plan.room + 2 * MARGIN))
    colours = _colours(plan, at)
    out: list[str] = []
    out += _bands(order, at, tops, bottoms, width)
    out += _lines(plan, by_name, at, late, colours, tops, bottoms)
    out += [_wrong(a, b, plan, by_name, at, tops) for a, b in wrong]
    for name in sorted(by_name):
        out += _box(by_name[name], plan.x[name, at[name]], tops[at[name]], pairs,
                    colours[name])  # fmt: skip
    hidden = len(pairs) - len(few) - len(wrong)
    total = hundreds(sum(box.lines for box in boxes))
    caption = [
        f"{len(boxes)} boxes, {total} lines (bold, in hundreds). A line leads from who "
        f"imports down to what is imported, in the colour of the latter.",
        f"Drawn are {len(few)} of {len(pairs)} arrows: beside the other {hidden}, a "
        f"longer way of arrows leads to the same box"
        + (f"; {len(wrong)} in red lead up, or in a circle." if wrong else "."),
        "Dashed: only inside functions, or for type checkers. "
        "Made by: python docs/house.py",
    ]
    for i, line in enumerate(caption):
        y = bottom + 26 + i * 17
        out.append(
            f'<text class="caption" x="{MARGIN}" y="{_n(y)}">{escape(line)}</text>'
        )
    height = math.ceil(bottom + 26 + 17 * len(caption))
    return "\n".join([*_head(width, height), *out, "</svg>", ""])


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


def _n(value: float) -> str:
    """A number with at most one digit behind the point."""
    return f"{value:.1f}".removesuffix(".0")


def _colours(plan: Plan, at: Mapping[str, int]) -> dict[str, str]:
    """Each box its colour, and neighbours different ones."""
    names = [n for row in plan.rows for n, r in row if at[n] == r]
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _bands(order, at, tops, bottoms, width) -> list[str]:
    """A stripe behind every second layer."""
    out = []
    for i, layer in enumerate(order):
        rows = [at[name] for name in layer]
        if i % 2 == 0 and rows:
            y = tops[max(rows)] - BETWEEN / 2
            height = bottoms[min(rows)] + BETWEEN / 2 - y
            out.append(
                f'<rect x="0" y="{_n(y)}" width="{width}" height="{_n(height)}" '
                f'fill="{GREY}" fill-opacity="0.10"/>'
            )
    return out


def _lines(plan, boxes, at, late, colours, tops, bottoms) -> list[str]:
    """The lines between rows, and through the rows that they pass."""
    ends = _ends(plan, boxes, at)
    dashed = _dashed(plan, at, late)
    out, heads = [], set()
    for upper, lower in plan.links:
        target = lower[0]
        low = bottoms[upper[1]]
        is_box = at[upper[0]] == upper[1]
        start = tops[upper[1]] + boxes[upper[0]].height if is_box else low
        end = tops[lower[1]]
        x1, x2 = ends[upper, lower, "from"], ends[upper, lower, "to"]
        middle = (low + end) / 2
        path = f"M{_n(x1)} {_n(start)}"
        if start < low:
            path += f"V{_n(low)}"
        path += f"C{_n(x1)} {_n(middle)} {_n(x2)} {_n(middle)} {_n(x2)} {_n(end)}"
        if at[target] != lower[1]:  # on through the row
            path += f"V{_n(bottoms[lower[1]])}"
        else:
            heads.add((x2, end, colours[target]))
        kind = "line late" if (upper, lower) in dashed else "line"
        out.append(f'<path class="{kind}" stroke="{colours[target]}" d="{path}"/>')
    for x, y, colour in sorted(heads):
        out.append(f'<path fill="{colour}" d="M{_n(x)} {_n(y)}l-3.5 -6h7z"/>')
    return out


def _dashed(plan: Plan, at, late: set[Pair]) -> set[tuple[Place, Place]]:
    """The links that late arrows alone run along."""
    dashed = set()
    above, _ = _neighbours(plan.links)
    for upper, lower in sorted(plan.links, key=lambda link: -link[0][1]):
        if at[upper[0]] == upper[1]:
            if (upper[0], lower[0]) in late:
                dashed.add((upper, lower))
        elif all((higher, upper) in dashed for higher in above[upper]):
            dashed.add((upper, lower))
    return dashed


def _ends(plan: Plan, boxes, at) -> dict:
    """Where each line touches its places: side by side, in the order of the others."""
    above, below = _neighbours(plan.links)
    ends = {}
    for beside, side in ((below, "from"), (above, "to")):
        for place, others in beside.items():
            name, row = place
            if at[name] != row or side == "to":
                # All lines to a box arrive at one point, as do those to its line.
                points = [plan.x[place]] * len(others)
                if at[name] == row and side == "to":
                    points = _spread(plan.x[place], boxes[name].width, len(others))
            else:
                points = _spread(plan.x[place], boxes[name].width, len(others))
            others = sorted(others, key=lambda o: (plan.x[o], o))
            for other, point in zip(others, points, strict=True):
                pair = (place, other) if side == "from" else (other, place)
                ends[(*pair, side)] = point
    return ends


def _spread(middle: float, width: float, count: int) -> list[float]:
    step = min(14.0, (width - 24) / max(count - 1, 1))
    return [middle + (i - (count - 1) / 2) * step for i in range(count)]


def _wrong(a, b, plan, boxes, at, tops) -> str:
    """An arrow that leads up or to the side, in red."""
    x1, x2 = plan.x[a, at[a]], plan.x[b, at[b]]
    y1 = tops[at[a]]
    y2 = tops[at[b]] + boxes[b].height
    if at[a] == at[b]:
        y1 = tops[at[a]] + boxes[a].height
        x1, x2 = x1 + (14 if x2 > x1 else -14), x2 + (14 if x1 > x2 else -14)
        low = max(y1, y2) + BETWEEN * 0.8
        curve = f"M{_n(x1)} {_n(y1)}C{_n(x1)} {_n(low)} {_n(x2)} {_n(low)} "
    else:
        middle = (y1 + y2) / 2
        curve = f"M{_n(x1)} {_n(y1)}C{_n(x1)} {_n(middle)} {_n(x2)} {_n(middle)} "
    return (
        f'<path class="line" stroke="{RED}" d="{curve}{_n(x2)} {_n(y2 + 4)}"/>'
        f'<path fill="{RED}" d="M{_n(x2)} {_n(y2)}l-3.5 6h7z"/>'
    )


def _box(box: Box, x: float, y: float, pairs: set[Pair], colour: str) -> list[str]:
    left, width = x - box.width / 2, box.width
    imports = sorted(b for a, b in pairs if a == box.name)
    users = sorted(a for a, b in pairs if b == box.name)
    title = (
        f"{box.name}: {box.size} lines\n"
        f"imports: {', '.join(imports) or 'nothing'}\n"
        f"imported by: {', '.join(users) or 'nothing'}"
    )
    folder = bool(box.files)
    name = box.name + ("/" if folder else "")
    out = [
        f"<g><title>{escape(title)}</title>",
        f'<rect x="{_n(left)}" y="{_n(y)}" width="{width}" height="{box.height}" '
        f'rx="5" fill="{PAPER}" stroke="{colour}" '
        f'stroke-width="{2 if folder else 1.2}"/>',
        f'<text class="name" x="{_n(left + PADDING)}" y="{_n(y + 17)}">'
        f"{escape(name)}</text>",
        f'<text class="size" text-anchor="end" x="{_n(left + width - PADDING)}" '
        f'y="{_n(y + 17)}">{escape(box.size)}</text>',
    ]
    for i, line in enumerate(box.text):
        out.append(
            f'<text class="files" x="{_n(left + PADDING)}" '
            f'y="{_n(y + HEAD + 10 + i * LINE)}">{escape(line)}</text>'
        )
    return [*out, "</g>"]
