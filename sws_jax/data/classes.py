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


def match(
    theirs: Sequence[str], ours: Sequence[str], network: str, dataset: str
) -> Match:
    """Matches the outputs of a head with the classes of a set, by name.

    Args:
      theirs: names of the head's outputs, in order; empty where they are not known.
      ours: names of the set's classes, in the order of labels; as many, or empty.
      network: the one that has the head, for messages.
      dataset: name of the set, for messages.

    Raises:
      UserError: some names are at other positions, and the others do not match.
    """
    if not theirs or not ours:
        return Match()
    head_names, set_names = list(map(clean, theirs)), list(map(clean, ours))
    if head_names == set_names:
        return Match()
    output_of = {name: output for output, name in enumerate(head_names)}
    if len(output_of) == len(head_names) and sorted(head_names) == sorted(set_names):
        order = tuple(output_of[name] for name in set_names)
        note = f"the classes of {network} are those of {dataset} in another order"
        return Match(order, f"{note}, and matched by name")
    for label, name in enumerate(set_names):
        if name in output_of and head_names[label : label + 1] != [name]:
            raise UserError(
                f"the classes of {network} and of {dataset} are not the same, and "
                f"class {name!r} is output {output_of[name]} of {network} and label "
                f"{label} of {dataset}: take a set with the same names"
            )
    pairs = zip(head_names, set_names, strict=False)
    differing = (pair for pair in pairs if pair[0] != pair[1])
    head_name, set_name = next(differing, (head_names[-1], set_names[-1]))
    note = f"the classes of {network} have other names than those of {dataset}"
    how = " (in case or blanks)" if _plain(head_names) == _plain(set_names) else ""
    examples = f"{head_name!r} there is {set_name!r} here"
    return Match(note=f"{note}{how}: {examples}; are they the same?")


def _difference(one: str, other: str) -> str:
    """How two names differ that `clean` makes the same."""
    forms = (unicodedata.normalize("NFC", name) for name in (one, other))
    if len(set(forms)) == 1:
        return "they differ in their Unicode form"
    return "one has the character that the other writes as an escape"


def _plain(names: Sequence[str]) -> list[str]:
    """Names without case and blanks."""
    return ["".join(name.casefold().split()) for name in names]
