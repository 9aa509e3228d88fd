"""Keys of other libraries' configs: one table says what becomes of each.

A table is applied (`taken`) and printed into the documentation (`markdown`). A note
names each key that is in no row, so that nothing is left out in silence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sws_jax.arguments import MAX_SIZE, shown
from sws_jax.convert.base import View
from sws_jax.data import classes
from sws_jax.errors import UserError

# What no tensor of these families shows, as all published ones but a few have it.
UNSEEN = {
    "levit": "hard swish, the mean over patches, a stride of 16 that each step between "
    "stages doubles",
    "regnet": "ReLU, the mean over pixels, a stride of 32",
}
_LONGEST = 60  # characters of a key in a message
_GELUS = {
    "gelu": "exact",
    "gelu_python": "exact",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_tanh": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
    "gelu_accurate": "tanh",
}


@dataclasses.dataclass(frozen=True)
class Beside:
    """What the config files beside weights say of them.

    Attributes:
      view: how images are preprocessed.
      fields: of a `ViTSpec`, by name.
      labels: names of the classes, one for each; empty where they have none.
      size: the key of an image size, and its height and width in pixels, where a file
        has one; the key is empty where no more than a network's name implies it.
      path: of the config, if there is one.
      view_path: of the file that says how images are preprocessed, if any.
      notes: what is worth saying of them, a sentence each.
      alone: the key that says whether positions are of patches alone, and what it says.
    """

    view: View
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    size: tuple[str, tuple[int, int]] | None = None
    path: str = ""
    view_path: str = ""
    notes: tuple[str, ...] = ()
    alone: tuple[str, bool] | None = None


@dataclasses.dataclass(frozen=True)
class Key:
    """What becomes of one key.

    Attributes:
      name: as the file has it.
      why: for people: what it decides here, why it has no effect, or why it is refused.
      parse: of a key that is honoured: its value to ours; raises ValueError with what
        it must be. None where the key is not honoured.
      fine: of a key that is not honoured: whether a value asks for nothing but what is
        done anyway. Every other one is refused.
      unless: the values that are fine, for people; None where all are.
    """

    name: str
    why: str
    parse: Callable[[Any], Any] | None = None
    fine: Callable[[Any], bool] = lambda value: True
    unless: tuple[Any, ...] | None = None


def refused(
    name: str, why: str, *unless: Any, read: Callable[[Any], Any] = lambda value: value
) -> Key:
    """A key that is refused, unless its value is one of those as it is read."""
    return Key(name, why, fine=lambda value: read(value) in unless, unless=unless)


def idle(why: str, *names: str) -> tuple[Key, ...]:
    """Keys without effect, for one reason."""
    return tuple(Key(name, why) for name in names)


def taken(
    path: str, table: Sequence[Key], config: Mapping[str, Any], *, within: str = ""
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of honoured keys, by their names, and notes on unknown ones.

    Args:
      path: of the file, for messages.
      table: of all the keys that are known.
      config: content of the file; null stands where a key says nothing.
      within: what stands before a key in messages: ``model_args.``, say.

    Raises:
      UserError: a key is refused, or has a value that is none; it names both.
    """
    rows = {row.name: row for row in table}
    values, unknown = {}, []
    for name, value in config.items():
        if value is None:
            continue
        row = rows.get(name)
        if row is None:
            unknown.append(within + shown_key(name))
        elif row.parse is not None:
            try:
                values[name] = row.parse(value)
            except UserError as error:
                raise UserError(f"{path}: {within}{name}: {error}") from None
            except (TypeError, ValueError, OverflowError) as error:
                raise UserError(
                    f"{path}: {within}{name} is {shown(value)}, and must be {error}"
                ) from None
        elif not row.fine(value):
            raise UserError(
                f"{path}: {within}{name} is {shown(value)}, and {row.why}: networks "
                f"here cannot do that, so train or export one without it"
            )
    if not unknown:
        return values, ()
    first = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    plural = "keys that are" if len(unknown) > 1 else "a key that is"
    return values, (f"{path} has {plural} not known here, and left out: {first}",)


def whole(least: int = 1) -> Callable[[Any], int]:
    """A parser of whole numbers; 12.0 is one, True is none."""

    def parse(value: Any) -> int:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or value != value or value in (math.inf, -math.inf):
            raise ValueError(f"a whole number of at least {least}")
        if int(value) != value:
            raise ValueError(f"a whole number of at least {least}")
        if value < least:
            raise ValueError(f"at least {least}")
        if value > MAX_SIZE:
            raise ValueError(f"at most {MAX_SIZE}")
        return int(value)

    return parse


def wholes(value: Any) -> tuple[int, ...]:
    """Whole numbers, one for each stage."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of whole numbers")
    return tuple(map(whole(), value))


def number(value: Any) -> float:
    """A finite number, as float32 has them."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or value != value or value in (math.inf, -math.inf):
        raise ValueError("a number")
    if not holds(value):
        raise ValueError("a number that float32 can hold")
    return float(value)


def holds(value: float) -> bool:
    """Whether float32 holds a number, to all of its digits."""
    least, most = (float(n) for n in (np.finfo("f4").tiny, np.finfo("f4").max))
    return not value or least <= abs(value) <= most


def ratio(value: Any) -> float:
    """A number above 0, small enough to multiply the largest sizes by."""
    if not 0 < number(value) <= MAX_SIZE:
        raise ValueError(f"above 0, and at most {MAX_SIZE}")
    return float(value)


def one_or_each(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A parser of one value, or of one for each stage."""

    def both(value: Any) -> Any:
        return tuple(map(parse, value)) if isinstance(value, list) else parse(value)

    return both


def numbers(value: Any) -> tuple[float, ...]:
    """Finite numbers, one for each channel or stage."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of numbers")
    return tuple(map(number, value))


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def truth(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def within_unit(value: Any) -> float:
    """A share, above 0 and up to 1."""
    if not 0.0 < number(value) <= 1.0:
        raise ValueError("in (0, 1]")
    return float(value)


def sides(value: Any) -> tuple[int, int]:
    """Height and width; one number is a square."""
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise ValueError("one whole number, or height and width")
        return whole()(value[0]), whole()(value[1])
    return whole()(value), whole()(value)


def square(value: Any) -> int:
    """The side of a square patch."""
    high, wide = sides(value)
    if high != wide:
        raise ValueError("square")
    return high


def object_of(value: Any) -> dict[str, Any]:
    """An object of JSON."""
    if not isinstance(value, Mapping):
        raise ValueError("an object of keys and values")
    return dict(value)


def agree(path: str, pairs: Iterable[tuple[str, Any, Any]]) -> None:
    """Refuses a config that is not of the tensors beside it.

    Args:
      path: of the config.
      pairs: each a key, its value, and what the tensors have there.
    """
    for key, value, seen in pairs:
        if value != seen:
            raise UserError(
                f"{path} is of another network than the tensors beside it: {key} is "
                f"{shown(value)}, and theirs is {shown(seen)}; put their own there, "
                f"or move this one away"
            )


def markdown(table: Sequence[Key]) -> str:
    """The rows as a table for people."""
    rows = ["| key | what becomes of it |", "|---|---|"]
    for row in table:
        rows.append(f"| `{row.name}` | {_fate(row)}: {row.why} |")
    return "\n".join(rows)


def _fate(row: Key) -> str:
    if row.parse:
        return "honoured"
    unless = row.unless
    if unless is None:
        return "no effect"
    if not unless:
        return "refused"
    return f"refused unless {' or '.join(f'`{json.dumps(v)}`' for v in unless)}"


def shown_key(name: str) -> str:
    """A key for a message: on one line, short, and without quotes."""
    text = classes.clean(name[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Puts the path of a file before what is wrong with its content."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}" if path else str(error)) from None


def gelu(name: str) -> str:
    """The GELU that an activation of transformers is, as `ViTSpec` calls it."""
    if not isinstance(name, str) or name not in _GELUS:
        raise UserError(
            f"the activation {shown(name)} is not one of {', '.join(_GELUS)}, which "
            f"are those of the networks here"
        )
    return _GELUS[name]
