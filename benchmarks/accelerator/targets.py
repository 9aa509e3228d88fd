"""What is wanted of an H100-class GPU, beside what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.measure import Row


@dataclasses.dataclass(frozen=True)
class Target:
    """A bound of one figure.

    Attributes:
      text: what is wanted.
      part: whose rows have it.
      where: what such a row says in other columns.
      column: of the figure.
      bound: that it is compared with.
      at_least: whether more is better.
    """

    text: str
    part: str
    where: Mapping[str, str]
    column: str
    bound: float
    at_least: bool = True

    def row(self, rows: Mapping[str, Sequence[Row]], judged: bool) -> Row:
        """The best figure of the rows, and whether it is within the bound.

        Args:
          rows: of each part.
          judged: the sizes and the device are those that the bound is meant for.
        """
        found = [
            row[self.column]
            for row in rows.get(self.part, ())
            if self.column in row
            and all(row.get(name) == value for name, value in self.where.items())
        ]
        row: Row = {"target": self.text}
        row["wanted"] = f"{'at least' if self.at_least else 'at most'} {self.bound:g}"
        if not found:
            return row | {"measured": "-", "met": "not measured"}
        best = max(found) if self.at_least else min(found)
        met = best >= self.bound if self.at_least else best <= self.bound
        verdict = ("yes" if met else "no") if judged else "not judged"
        return row | {"measured": best, "met": verdict}


TARGETS = (
    Target(
        "B/16: share of the matmul rate",
        "steps",
        {"what": "B/16"},
        "share",
        0.5,
    ),
    Target(
        "S/16: share of the matmul rate",
        "steps",
        {"what": "S/16"},
        "share",
        0.35,
    ),
    Target(
        "B/16: images a second over timm's, compiled",
        "peers",
        {"what": "B/16", "peer_mode": "compiled"},
        "speed_over_peer",
        1.2,
    ),
    Target(
        "S/16: images a second over timm's, compiled",
        "peers",
        {"what": "S/16", "peer_mode": "compiled"},
        "speed_over_peer",
        1.2,
    ),
    Target(
        "step with LeViT-384 over one without a teacher",
        "teachers",
        {"what": "LeViT-384"},
        "step_over_plain",
        1.35,
        at_least=False,
    ),
)
