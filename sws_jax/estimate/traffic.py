"""What the devices of a compiled program send each other, read from its text."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator

import numpy as np
from jax.sharding import Mesh

from sws_jax import sharding

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_HEAD = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = (.*)")
_OPCODE = re.compile(r"([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"(\d+)"')
_CALLED = re.compile(
    r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# The three ways to write groups of devices: one by one, as a reshaped and transposed
# range, and as axes of such a mesh.
_EXPLICIT = re.compile(r"replica_groups=\{(\{.*?\})\}")
_RANGE = re.compile(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)")
_AXES = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One communicating operation of a program.

    Attributes:
      kind: one of `KINDS`.
      arrays: (type, shape) of what a device has afterwards.
      groups: numbers of the devices of each group, [groups, size]; empty where the text
        does not tell.
      size: devices of a group; all devices where the text does not tell.
      times: how often it runs in each run of the program.
      counted: whether `times` is known; a loop of unknown length counts once.
      loops: how many loops it is nested in.
      source: the operation of the traced program that it comes from.
    """

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    groups: tuple[tuple[int, ...], ...]
    size: int
    times: int
    counted: bool
    loops: int
    source: str

    @property
    def bytes(self) -> int:
        """Bytes that a device has afterwards, of one run of the operation."""
        return sum(_size(name) * math.prod(shape) // 8 for name, shape in self.arrays)

    @property
    def sent(self) -> float:
        """Bytes that a device sends in one run, in a ring of its group.

        An all-reduce of B bytes is a reduce-scatter and an all-gather, each of which
        passes on (n - 1) / n of B; a permutation sends all it has.
        """
        n, size = self.size, self.bytes
        if self.kind == "collective-permute":
            return size
        share = (n - 1) / n
        if self.kind == "reduce-scatter":
            return size * n * share  # A share of what it had before, n times as much.
        return size * share * (2 if self.kind == "all-reduce" else 1)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a device sends in all collectives of a kind over the same mesh axes.

    Attributes:
      kind: one of `KINDS`.
      axes: of the mesh; empty where the groups do not run along axes.
      count: of collectives in a step.
      bytes: that a device sends, by ring algorithms.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: float


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, those in loops as often as they run.

    All branches of a condition count.

    Args:
      text: `jax.stages.Compiled.as_text()`.
    """
    bodies, entry = _computations(text)
    counts = re.findall(r"(?:replica_count|num_partitions)=(\d+)", text.split("\n")[0])
    devices = math.prod(map(int, counts))
    return list(_walk(bodies, entry, devices, 1, True, 0)) if entry else []


def by_axes(operations: Iterable[Collective], mesh: Mesh) -> tuple[Traffic, ...]:
    """Sums of collectives by their kind and the mesh axes they run over.

    Args:
      operations: of the program.
      mesh: that the program runs on.

    Returns:
      The most bytes first.
    """
    axes_of = _axes(mesh)
    totals: dict[tuple[str, tuple[str, ...]], tuple[int, float]] = {}
    for operation in operations:
        if operation.size < 2:
            continue
        groups = operation.groups
        members = next((frozenset(group) for group in groups if 0 in group), None)
        if not groups and operation.kind != "collective-permute":
            members = frozenset(range(mesh.size))
        key = operation.kind, axes_of.get(members, ())
        count, sent = totals.get(key, (0, 0.0))
        totals[key] = count + operation.times, sent + operation.times * operation.sent
    rows = [Traffic(*key, *values) for key, values in totals.items()]
    return tuple(sorted(rows, key=lambda row: -row.bytes))


def _axes(mesh: Mesh) -> dict[frozenset[int] | None, tuple[str, ...]]:
    """The axes along which each group of devices lies that holds the first device."""
    positions = np.arange(mesh.size).reshape(mesh.devices.shape)
    split = [axis for axis in sharding.AXES if mesh.shape[axis] > 1]
    axes_of: dict[frozenset[int] | None, tuple[str, ...]] = {}
    for count in range(1, len(split) + 1):
        for axes in itertools.combinations(split, count):
            index = tuple(slice(None) if a in axes else 0 for a in sharding.AXES)
            axes_of[frozenset(positions[index].reshape(-1).tolist())] = axes
    return axes_of


def _computations(text: str) -> tuple[dict[str, list[tuple[str, str, str]]], str]:
    """(type, opcode, rest of the line) of every operation, by computation."""
    bodies: dict[str, list[tuple[str, str, str]]] = {}
    entry, name = "", ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name = head[1]
            bodies[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name and (operation := _LINE.match(line)):
            result, rest = _split_type(operation[1])
            if opcode := _OPCODE.match(rest):
                bodies[name].append((result, opcode[1], rest))
    return bodies, entry


def _split_type(text: str) -> tuple[str, str]:
    """``f32[2]{0} add(...)`` as (type, rest); a tuple's type is in brackets."""
    if not text.startswith("("):
        result, _, rest = text.partition(" ")
        return result, rest
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[: position + 1], text[position + 2 :]
    return text, ""


def _walk(
    bodies, name: str, devices: int, times: int, counted: bool, loops: int
) -> Iterator[Collective]:
    """The collectives of a computation and of those that it calls.

    Args:
      bodies: of all computations; see `_computations`.
      name: of the computation.
      devices: of the program.
      times: how often the computation runs in each run of the program.
      counted: whether `times` is known.
      loops: how many loops the computation is nested in.
    """
    for result, opcode, rest in bodies.get(name, ()):
        if opcode == "while":
            trips = _TRIPS.search(rest)
            inside = (
                times * int(trips[1]) if trips else times,
                bool(trips) and counted,
            )
            for called_name in re.findall(r"(?:condition|body)=%?([\w.\-]+)", rest):
                yield from _walk(bodies, called_name, devices, *inside, loops + 1)
            continue
        if opcode.endswith(("-done", "-update")):
            continue  # Its -start is counted.
        kind = opcode.removesuffix("-start")
        if kind not in KINDS:
            names = _CALLED.findall(rest)
            for branches in _BRANCHES.findall(rest):
                names += re.findall(r"[\w.\-]+", branches)
            for called_name in names:
                yield from _walk(bodies, called_name, devices, times, counted, loops)
            continue
        groups = _groups(rest)
        source = re.search(r'op_name="([^"]*)"', rest)
        yield Collective(
            kind,
            _arrays(_received(result, opcode)),
            groups,
            max(map(len, groups), default=devices),
            times,
            counted,
            loops,
            source[1] if source else "",
        )


def _received(result: str, opcode: str) -> str:
    """The type of what a device has afterwards.

    The result of a -start is a tuple: the operand, then what is received.
    """
    if opcode not in ("all-gather-start", "collective-permute-start"):
        return result
    parts, depth, last = [], 0, 1
    for position, letter in enumerate(result[:-1]):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 1:
            parts.append(result[last:position])
            last = position + 1
    return [*parts, result[last:-1]][1]


def _arrays(result: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(
        (name, tuple(int(n) for n in shape.split(",") if n))
        for name, shape in _ARRAY.findall(result)
    )


def _size(name: str) -> int:
    """Bits of a number of that type."""
    bits = re.search(r"\d+", name)
    return int(bits[0]) if bits else 8 * (name == "pred")


def _groups(text: str) -> tuple[tuple[int, ...], ...]:
    if explicit := _EXPLICIT.search(text):
        groups = re.findall(r"\{([\d, ]*)\}", explicit[1])
        return tuple(tuple(map(int, group.split(","))) for group in groups if group)
    if reshaped := _RANGE.search(text):
        return tuple(map(tuple, _range(reshaped[1]).tolist()))
    if along_axes := _AXES.search(text):
        return _mesh_groups(*along_axes.groups(default=""))
    return ()


def _range(text: str) -> np.ndarray:
    """``[4,2]<=[2,4]T(1,0)``: a range reshaped, transposed and reshaped again."""
    shape, _, source = text.rpartition("<=")
    dims, _, order = source.partition("T")
    whole = _ints(dims)
    ids = np.arange(math.prod(whole)).reshape(whole)
    if order:
        ids = ids.transpose(_ints(order))
    return ids.reshape(_ints(shape)) if shape else ids


def _mesh_groups(mesh: str, ids: str, axes: str) -> tuple[tuple[int, ...], ...]:
    """Groups along `axes` (``'a','b'``, or ``'a':(2)4`` for a part of one)."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']*)'=(\d+)", mesh)}
    chosen = re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", axes)
    shape: list[int] = []
    along = {}  # (axis, position of its part) -> dimension
    for name, size in sizes.items():
        cuts = sorted({1, size} | {
            cut
            for axis, before, part in chosen
            if axis == name and part
            for cut in (int(before), int(before) * int(part))
        })  # fmt: skip
        for before, after in itertools.pairwise(cuts):
            along[name, before] = (len(shape), after)
            shape.append(after // before)
    wanted = []
    for name, before, part in chosen:
        first = int(before) if part else 1
        end = first * int(part) if part else sizes[name]
        wanted += [
            dimension
            for (axis, at), (dimension, after) in along.items()
            if axis == name and first <= at and after <= end
        ]
    devices = math.prod(shape)
    if "T" in ids or "<=" in ids or re.fullmatch(r"\[[\d,]*\]", ids):
        order = _range(ids).reshape(-1)
    else:
        order = np.asarray(_ints(ids) if ids else range(devices))
    others = [d for d in range(len(shape)) if d not in wanted]
    grouped = order.reshape(shape).transpose(*others, *wanted)
    size = math.prod(shape[d] for d in wanted)
    return tuple(map(tuple, grouped.reshape(-1, size).tolist()))


def _ints(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]
