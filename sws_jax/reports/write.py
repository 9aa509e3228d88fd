"""Writes the report of a job, and says in a sentence what a run has reached."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sws_jax.reports import figures, grouping, rows, tables
from sws_jax.reports.rows import Result
from sws_jax.runtime.progress import say
from sws_jax.storage import files, names


def write(results: Sequence[Result], workdir: str) -> None:
    """Writes ``results.csv``, ``table.md`` and ``report.png``; prints the table."""
    path = os.path.join(workdir, names.RESULTS)
    files.write_text(path, rows.to_csv(rows.rows(results)))
    markdown = tables.table(results, markup="github")
    files.write_text(os.path.join(workdir, names.TABLE), markdown + "\n")
    picture = os.path.join(workdir, names.PICTURE)
    figures.draw(results, workdir, picture)
    say("\n" + tables.table(results))
    say(f"\n{path}\n{picture}")


def sentence(result: Result) -> str:
    """A finished run in one line."""
    scores = ", ".join(
        f"{score['top1']:.1%} {'after ' if score['epochs'] else ''}"
        f"{grouping.epochs_text(score['epochs'])}"
        for score in result["test"]
    )
    last = result["test"][-1]
    of_images = ""
    # Results of older software have no count of skipped images.
    if skipped := int(last.get("skipped", 0)):
        count = int(last["count"])
        of_images = (
            f" of {count:,} of {count + skipped:,} images, as {skipped:,} cannot be "
            f"read"
        )
    return f"test top-1 {scores}{of_images} ({result['seconds']:.0f} s of training)"
