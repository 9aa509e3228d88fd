"""What was found so far, as files that are whole after each row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from benchmarks import measure
from benchmarks.accelerator.parts import Part
from benchmarks.accelerator.targets import TARGETS
from benchmarks.measure import Row
from sws_jax.storage import files

# Of a row: it has no figures, and why.
FAILED, SKIPPED = "failed", "skipped"
# In the JSON file, and not in the table.
HIDDEN = ("temp_mib",)
# Whose versions stand in the table.
PACKAGES = ("python", "jax", "jaxlib", "flax", "torch", "timm")


class Report:
    """The rows of each part, and how it ended.

    Attributes:
      machine: where it ran; empty until a part has told.
      rows: by part.
      ends: by part, "done" or the reason why it is not; a part that is running has
        none.
    """

    def __init__(self, out: str, parts: Sequence[Part], toy: bool):
        self.out, self.parts, self.toy = out, tuple(parts), toy
        self.machine: dict[str, Any] = {}
        self.rows: dict[str, list[Row]] = {part.name: [] for part in parts}
        self.ends: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.write()

    def add(self, part: Part, row: Row) -> None:
        """A row of a running part."""
        self.rows[part.name].append(row)
        measure.say(part.name, row)
        self.write()

    def end(self, part: Part, reason: str, seconds: float = 0.0) -> None:
        """A part is over, or is not begun."""
        self.ends[part.name] = reason
        self.seconds[part.name] = round(seconds, 1)
        self.write()

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be, a line each."""
        lines = []
        for part in self.parts:
            if not part.decides:
                continue
            end = self.ends.get(part.name, "")
            if end.startswith(FAILED):
                lines.append(f"{part.name} {end}")
            for row in self.rows[part.name]:
                if FAILED in row:
                    lines.append(f"{part.name}, {row['what']}: {row[FAILED]}")
                elif row.get("right") == "no":
                    lines.append(f"{part.name}, {row['what']}: not right")
        return lines

    @property
    def targets(self) -> list[Row]:
        """Each of `TARGETS` of these parts, beside the best figure."""
        judged = not self.toy and self.machine.get("platform") == "gpu"
        known = [target for target in TARGETS if target.part in self.rows]
        return [target.row(self.rows, judged) for target in known]

    def table(self) -> str:
        """All of it as text."""
        lines = ["# An accelerator, checked and measured", ""]
        if self.toy:
            lines += ["Toy sizes: a rehearsal, whose figures mean nothing.", ""]
        if self.machine:
            versions = self.machine["versions"]
            known = [name for name in PACKAGES if name in versions]
            lines += [
                f"{self.machine['date_utc']} UTC, {self.machine['device_count']} x "
                f"{self.machine['device']}, "
                + ", ".join(f"{name} {versions[name]}" for name in known),
                "",
            ]
        lines += [f"- WRONG: {line}" for line in self.wrong]
        for part in self.parts:
            end = self.ends.get(part.name, "not done yet")
            lines.append(f"- {part.name}: {end}, {self.seconds.get(part.name, 0)} s")
        for title, rows in (("targets", self.targets), *self._tables()):
            if rows:
                lines += ["", f"## {title}", "", "```text"]
                lines += [measure.table(rows, HIDDEN), "```"]
        return "\n".join(lines) + "\n"

    def _tables(self) -> list[tuple[str, list[Row]]]:
        return [(f"{p.name}: {p.text}", self.rows[p.name]) for p in self.parts]

    def write(self) -> None:
        """Both files, each replaced whole."""
        document = {
            "toy": self.toy,
            "machine": self.machine,
            "ends": self.ends,
            "seconds": self.seconds,
            "wrong": self.wrong,
            "targets": self.targets,
            "rows": self.rows,
        }
        files.write_json(os.path.join(self.out, "results.json"), document)
        files.write_text(os.path.join(self.out, "table.md"), self.table())
