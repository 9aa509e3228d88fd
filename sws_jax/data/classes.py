"""Names of classes: how they are stored, checked and matched."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence

from sws_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Match:
    """How the outputs of a head are assigned to the classes of a set.

    Attributes:
      order: output ``order[i]`` of the head is class i of the set; empty where both
        have the same order.
      note: a sentence on how the names differ; empty where they do not.
    """

    order: tuple[int, ...] = ()
    note: str = ""


def clean(name: str) -> str:
    """A class's name as it is stored and shown.

    In Unicode NFC. A character that cannot be printed, as a newline or a byte that is
    not UTF-8, becomes a backslash escape. ``clean(clean(name)) == clean(name)``.
    """
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return unicodedata.normalize("NFC", "".join(shown))


def check(names: Sequence[str], where: str) -> None:
    """Refuses names that do not tell classes apart.

    Args:
      names: of all classes, as the source writes them.
      where: the place of the names, for the message.

    Raises:
      UserError: one is blank, or two are the same.
    """
    seen: dict[str, str] = {}
    for label, name in enumerate(names):
        if not name.strip():
            raise UserError(f"{where}: class {label} has no name: give it one")
        cleaned = clean(name)
        if cleaned in seen:
            first = seen[cleaned]
            how = "" if first == name else f" ({_difference(first, name)})"
            raise UserError(
                f"{where}: two classes are called {cleaned!r}{how}: "
                f"rename or merge them"
            )
        seen[cleaned] = name


def match(theirs: Sequence[str], ours: Sequence[str], who: str, name: str) -> Match:
    """Matches the outputs of a head with the classes of a set, by name.

    Args:
      theirs: names of the head's outputs, in order; empty where they are not known.
      ours: names of the set's classes, in the order of labels; as many, or empty.
      who: the network that has the head, for messages.
      name: of the set.

    Raises:
      UserError: some names are at other places, and the others do not match.
    """
    if not theirs or not ours:
        return Match()
    left, right = [clean(n) for n in theirs], [clean(n) for n in ours]
    if left == right:
        return Match()
    places = {n: at for at, n in enumerate(left)}
    if len(places) == len(left) == len(right) and set(left) == set(right):
        note = f"the classes of {who} are those of {name} in another order"
        return Match(tuple(places[n] for n in right), f"{note}, and matched by name")
    for label, n in enumerate(right):
        if n in places and left[label : label + 1] != [n]:
            raise UserError(
                f"the classes of {who} and of {name} are not the same, and class {n!r} "
                f"is output {places[n]} of {who} and label {label} of {name}: take a "
                f"set with the same names"
            )
    pairs = zip(left, right, strict=False)
    a, b = next(((a, b) for a, b in pairs if a != b), (left[-1], right[-1]))
    note = f"the classes of {who} have other names than those of {name}"
    how = " (in case or blanks)" if _plain(left) == _plain(right) else ""
    return Match(note=f"{note}{how}: {a!r} there is {b!r} here; are they the same?")


def _difference(one: str, other: str) -> str:
    """How two names differ that `clean` makes the same."""
    forms = (unicodedata.normalize("NFC", name) for name in (one, other))
    if len(set(forms)) == 1:
        return "they differ in their Unicode form"
    return "one has the character that the other writes as an escape"


def _plain(names: Sequence[str]) -> list[str]:
    """Names without case and blanks."""
    return ["".join(name.casefold().split()) for name in names]
