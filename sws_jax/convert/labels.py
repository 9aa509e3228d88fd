"""Names of classes, as other libraries' configs have them.

A name belongs to the number of an output. Where a file does not say which name has
which number, or says it in two ways, that is refused: nothing is numbered anew, and no
name is left out without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sws_jax.arguments import shown
from sws_jax.data.classes import clean
from sws_jax.errors import UserError


def listed(value: Any) -> tuple[str, ...]:
    """Names in the order of their numbers.

    Args:
      value: a list of them, or an object by their numbers, which are text in JSON.

    Raises:
      ValueError: it is neither, with what it must be.
      UserError: the numbers are not those from 0 on, or a class has no name.
    """
    if isinstance(value, Mapping):
        by_number: dict[int, Any] = {}
        for key, name in value.items():
            number = _number(key)
            if number in by_number:
                raise UserError(f"class {number} has two names: take one out")
            by_number[number] = name
        if missing := set(range(len(by_number))) - set(by_number):
            raise UserError(
                f"its {len(by_number)} classes must be numbered from 0 without gaps, "
                f"and {min(missing)} is missing: number them as the outputs are"
            )
        value = [by_number[number] for number in range(len(by_number))]
    if not isinstance(value, list | tuple):
        raise ValueError("a list of names")
    return tuple(_name(number, name) for number, name in enumerate(value))


def numbered(value: Any) -> dict[str, int]:
    """Numbers by name, as ``label2id`` has them: whole, or the text of such.

    Raises:
      ValueError: it is none, with what it must be.
    """
    if not isinstance(value, Mapping):
        raise ValueError("an object of numbers by name")
    return {clean(name): _number(number) for name, number in value.items()}


def _number(value: Any) -> int:
    whole = isinstance(value, int | str) and not isinstance(value, bool)
    if not whole or not re.fullmatch("[0-9]{1,9}", str(value)):
        raise ValueError("names by whole numbers from 0")
    return int(value)


def _name(number: int, name: Any) -> str:
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        what = "no name" if name is None else f"{shown(name)}, which is no name"
        raise UserError(f"class {number} has {what}: give it one, or take the key out")
    if not str(name).strip():
        raise UserError(
            f"class {number} has an empty name: give it one, or take the key out"
        )
    return clean(str(name))


def usual(classes: int) -> tuple[str, ...]:
    """What transformers calls classes that have no names."""
    return tuple(f"LABEL_{number}" for number in range(classes))


def counted(
    path: str, key: str, names: Sequence[str], classes: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a network's classes, and notes.

    What is called LABEL_0 and so on has no name.

    Args:
      path, key: of the file and within it, for messages.
      names: of all classes, in order; empty where there are none.
      classes: outputs of the head that the tensors have; 0 without one.

    Raises:
      UserError: there are more or fewer names than classes.
    """
    unnamed = tuple(names) == usual(len(names))
    if classes and names and len(names) != classes:
        raise UserError(
            f"{path} is of another network than the tensors beside it: {key} names "
            f"{len(names)} classes, and they have {classes}; put the names of theirs "
            f"there, or take them out"
        )
    if unnamed:
        return (), ()
    if not classes:
        return (), (
            f"{path}: {key} names {len(names)} classes, and the tensors have no head "
            f"for them, so that the names are left out",
        )
    return tuple(names), ()


def agreed(
    path: str, by_number: Sequence[str], by_name: Mapping[str, int], classes: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that ``id2label`` and ``label2id`` give, and notes.

    Where one of the two has no names, the other may.

    Args:
      path: of the file, for messages.
      by_number: what id2label says; empty where it says nothing.
      by_name: what label2id says, which lacks classes where two have one name.
      classes: outputs of the head that the tensors have; 0 without one.

    Raises:
      UserError: the two say different things, or not one name for each class.
    """
    names, notes = counted(path, "id2label", by_number, classes)
    if not by_name or by_name == _numbers(usual(len(by_name))):
        return names, notes
    if tuple(by_number) == usual(len(by_number)):
        return counted(path, "label2id", _inverse(path, by_name), classes)
    for name, number in by_name.items():
        other = by_number[number] if number < len(by_number) else None
        if other != name:
            also = "no name" if other is None else shown(other)
            raise UserError(
                f"{path}: label2id calls class {number} {shown(name)}, and id2label "
                f"gives it {also}: make them say the same, or take label2id out"
            )
    return names, notes


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """Numbers by name; of two with one name, the later."""
    return {name: number for number, name in enumerate(names)}


def _inverse(path: str, by_name: Mapping[str, int]) -> tuple[str, ...]:
    """Names in order, from label2id alone."""
    by_number = {number: name for name, number in by_name.items()}
    if len(by_number) < len(by_name):
        raise UserError(
            f"{path}: label2id gives two names to one class, and id2label none: take "
            f"one out"
        )
    try:
        return listed(by_number)
    except UserError as error:
        raise UserError(f"{path}: label2id: {error}") from None


def written(names: Sequence[str], classes: int) -> dict[str, Any]:
    """``id2label`` and ``label2id`` of a config of transformers.

    The second is null where two classes have one name: it would lack one of them.

    Args:
      names: of the classes; empty where they are not known.
      classes: how many there are.
    """
    names = tuple(names) or usual(classes)
    numbers = _numbers(names)
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": numbers if len(numbers) == len(names) else None,
    }
