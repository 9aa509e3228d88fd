"""Names of classes: how they are kept, and whether two lists of them mean the same.

A label is a place in a list of names. Where two lists hold the same names in another
order, the names decide, and never the places.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence

from sws_jax.errors import UserError


def clean(name: str) -> str:
    r"""A name as it is kept and shown.

    In Unicode's composed form (NFC), so that a name that came by a Mac is the one that
    came by another way; with escapes (``\n``, ``\xe9``) for bytes that are no text and
    for characters that cannot be printed.
    """
    text = "".join(map(_shown, name))
    return unicodedata.normalize("NFC", text)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def check(names: Sequence[str], where: str) -> None:
    """Refuses names that do not tell classes apart.

    Args:
      names: as they stand in a set, or as `clean` gives them.
      where: they stand, for the message.

    Raises:
      UserError: a name is empty, or there twice.
    """
    seen: dict[str, tuple[int, str]] = {}
    for number, name in enumerate(names):
        kept = clean(name)
        if not kept.strip():
            raise UserError(
                f"{where}: class {number} has an empty name: every class needs one"
            )
        if kept in seen:
            first, before = seen[kept]
            how = "" if before == name else ", which differ in their Unicode form alone"
            raise UserError(
                f"{where}: classes {first} and {number} are both named {kept}{how}: "
                f"rename one, or make them one class"
            )
        seen[kept] = number, name


@dataclasses.dataclass(frozen=True)
class Match:
    """How the outputs of a head stand to the classes of a set.

    Attributes:
      order: of the classes, the output that is of each; None where each output is of
        the class in its place.
      text: what is to be said of the names; empty where they are the same in the same
        order.
    """

    order: tuple[int, ...] | None = None
    text: str = ""


def match(theirs: Sequence[str], ours: Sequence[str], *, who: str, whose: str) -> Match:
    """How a head whose outputs are called `theirs` serves the classes `ours`.

    The same names in another order are matched by name. Where no name of the one list
    stands at another place of the other, the lists are taken to be of the same classes
    in the same order: other words for them, or some that were renamed.

    Args:
      theirs, ours: names, of the same number.
      who: has `theirs`, and `whose` are `ours`, for messages.

    Raises:
      UserError: some names are shared, at other places, and others are not: neither
        names nor places tell which output is of which class.
    """
    theirs, ours = tuple(map(clean, theirs)), tuple(map(clean, ours))
    if theirs == ours:
        return Match()
    places = {name: number for number, name in enumerate(theirs)}
    if len(places) == len(theirs) and set(theirs) == set(ours):
        return Match(
            tuple(places[name] for name in ours),
            f"the classes of {who} are those of {whose} in another order, and are "
            f"matched by their names",
        )
    for number, name in enumerate(ours):
        if name in places and places[name] != number:
            raise UserError(
                f"{who} and {whose} share names of classes in other places, and not "
                f"all of them: {name} is output {places[name]} of the one and label "
                f"{number} of the other: give the classes the same names"
            )
    pairs = zip(theirs, ours, strict=False)
    first = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
    return Match(
        text=f"{who} knows other class names than {whose} has ({first[0]} for "
        f"{first[1]}{_likeness(*first)}), and its outputs are taken in its own order"
    )


def _likeness(one: str, other: str) -> str:
    """How two names that look alike differ."""
    if one.casefold() == other.casefold():
        return ", in other letters"
    if "".join(one.split()) == "".join(other.split()):
        return ", with other blanks"
    return ""
