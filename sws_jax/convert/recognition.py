"""Which network the tensors of a file are, or why they are none of those here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sws_jax.convert import base, parts, relatives, renaming
from sws_jax.convert.base import Layout
from sws_jax.errors import UserError
from sws_jax.specs import Foreign, Spec


@dataclasses.dataclass(frozen=True)
class Recognised:
    """Tensors whose layout is known.

    Attributes:
      path: for messages.
      layout: of the tensors.
      spec: of the network that they are; of a learngene, that of its genes as so many
        blocks.
      flat: the tensors under the names of the layout, as its entries expect them.
      named: the same before the layout normalised them.
      own: from these names to those of the file.
    """

    path: str
    layout: Layout
    spec: Foreign
    flat: base.Flat
    named: base.Flat
    own: Callable[[str], str]


def unlike(path: str, layout: Layout, spec: Spec, differences: base.Mismatch) -> str:
    """The message for tensors that are not all of the network that they look like."""
    return (
        f"{path} looks like a {layout.name} ({spec.name}), but is not all of that: "
        f"{differences}"
    )


def recognised(
    path: str,
    flat: base.Flat,
    match: renaming.Match | None,
    *,
    layout: str = "",
    own: Callable[[str], str] = str,
    part: str = "",
) -> Recognised:
    """The network of a match, or a refusal that says why there is none.

    Args:
      path: for messages.
      flat: tensors by name.
      match: of those tensors, see `renaming.match`.
      layout: the key of the only layout that was tried; empty where all were.
      own: from these names to those of the file, for messages.
      part: of the file that they are, for messages.

    Raises:
      UserError: none of the known layouts, or not the one that was asked for.
    """
    if match is None:
        raise UserError(_unknown(path, flat, layout, own, part))
    if match.spec is None:
        raise UserError(f"{path} is no {match.layout.name}: {match.refusal}")
    return Recognised(path, match.layout, match.spec, match.flat, flat, own)


def _unknown(
    path: str, flat: base.Flat, layout: str, own: Callable[[str], str], part: str
) -> str:
    """Why tensors are of no layout, as far as their names tell."""
    if deep := renaming.deep(flat):
        return (
            f"{path} numbers something {deep[0]} ({deep.string}), and no network here "
            f"is as deep"
        )
    layouts = {known.key: known for known in renaming.LAYOUTS}
    if layout and layout not in layouts:
        return f"there is no layout {layout!r}: it is one of {', '.join(layouts)}"
    examples = ", ".join(own(name)[:80] for name in sorted(flat)[:3])
    if layout:
        return (
            f"{path} holds no {layouts[layout].name} (its first names are {examples})"
        )
    relative = relatives.whose(flat)
    end = f"; they look like {relative}" if relative else ""
    if inside := renaming.inside({own(name): array for name, array in flat.items()}):
        ways = [parts.asked(path, f"{part}.{name}".lstrip(".")) for name in inside]
        takes = "takes" if len(ways) == 1 else "each take"
        end = f"; {' and '.join(ways)} {takes} what stands under that alone"
    return (
        f"{path} holds no network that is known here (its first names are {examples})"
        + (end or f"; known are {', '.join(layouts)}")
    )
