"""All fields of a config in words, for ``--help`` and for ``docs/fields.md``.

``python -m sws_jax.jobs.reference`` writes the page. Both are printed from the table in
`sws_jax.jobs.fields`, and nothing is said here that stands there.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping

from sws_jax.jobs import fields
from sws_jax.jobs.fields import Field

PATH = os.path.join("docs", "fields.md")
WIDTH = 88

# How a list says of a field that a run may go on with another value of it.
_RESUME = {
    fields.HARMLESS: "may change on resume",
    fields.CHANGEABLE: "may change on resume, and the result tells",
    "": "",
}
_NOTES = """\
Fields, as --config.FIELD=VALUE, with their defaults; a recipe in configs/ sets many of
them to other values. A run that has begun goes on with the values that it began with,
but for those that may change on resume. A job of several runs has groups ancestor, tune
and scratch too: any field of a run can be set in them for those runs alone, as
--config.tune.schedule.rate=1e-4.
"""
_PAGE = """\
# Fields of a config

Each is set on the command line as `--config.FIELD=VALUE` or in a config file. A recipe
in `configs/` sets many of them to other values than these defaults; tuples are written
`"(1,2,3)"`. A job of several runs has groups `ancestor`, `tune` and `scratch` too: any
field of a run can be set in them, as `--config.tune.schedule.rate=1e-4`, and holds for
those runs alone.

A run that has begun goes on with the values that it began with; another value is
refused. The last column has the exceptions. *free*: the field changes how a run is
computed or watched, and not what it computes. *told*: it does change that, and the
run's result says from which step on it had which value.

This page is printed from the code; `python -m sws_jax.jobs.reference` rewrites it.
"""
_CELL = {fields.HARMLESS: "free", fields.CHANGEABLE: "told", "": ""}


def listing() -> str:
    """All fields for ``--help``, in lines of at most `WIDTH` characters."""
    lines = _NOTES.splitlines()
    for group, about, table in _groups():
        lines += ["", f"{group}: {about}" if group else about, ""]
        for name, field in table.items():
            remarks = "; ".join(filter(None, (field.values, _RESUME[field.resume])))
            lines += _wrapped(f"{name}={shown(field.default)}  ({remarks})", "  ")
            lines += _wrapped(field.meaning, "      ")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page ``docs/fields.md``."""
    parts = [_PAGE]
    for group, about, table in _groups():
        heading = f"`{group}`: {about}" if group else about[0].upper() + about[1:]
        rows = [
            f"| `{name}` | {_code(shown(field.default))} | {field.values} "
            f"| {field.meaning} | {_CELL[field.resume]} |"
            for name, field in table.items()
        ]
        head = "| field | default | may be | meaning | on resume |"
        parts.append(
            "\n".join([f"## {heading}\n", head, "|---|---|---|---|---|", *rows])
        )
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def shown(value: object) -> str:
    """A default as a command line gives it, numbers to four digits."""
    if isinstance(value, tuple):
        return f"({','.join(map(shown, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else "empty"


def _groups() -> Iterator[tuple[str, str, dict[str, Field]]]:
    """Name, subject and fields of each group, of runs and then of jobs."""
    tables: tuple[tuple[Mapping[str, str], Mapping[str, Field]], ...] = (
        (fields.GROUPS, fields.RUN),
        (fields.JOB_GROUPS, fields.JOB),
    )
    for groups, table in tables:
        for group, about in groups.items():
            inside = {n: f for n, f in table.items() if n.rpartition(".")[0] == group}
            yield group, about, inside


def _wrapped(text: str, margin: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=margin,
        subsequent_indent="      ",
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    from sws_jax.storage import files

    with files.replacing(PATH) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(page())
