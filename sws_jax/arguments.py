"""Arguments of public functions: converted to what these use, or refused by name.

A *kind* takes the name of an argument and its value, and returns the value that the
function uses: a path as text, a number of numpy or JAX as Python's, a list or an array
as a tuple. For what it cannot use it raises a `UserError` that names the argument.
`checked` puts the kinds of all arguments before a function or a class. A number that
JAX is tracing is refused, since shapes come from numbers; leaves of trees are not
checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import numbers
import operator
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sws_jax.errors import UserError

Kind = Callable[[str, Any], Any]
_Target = TypeVar("_Target", bound=Callable[..., Any])

# It refuses a typing error or a damaged file, not a network.
MAX_SIZE = 2**20
_LARGEST = 2**63 - 1  # whole number of an array
_LONGEST = 100  # characters of a value in a message
# How a path begins that is on no disk of this machine; pathlib leaves it one slash.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)")
# What fsspec reaches besides (web pages, archives, other hosts) holds no buckets.
_BUCKETS = ("gs", "gcs", "s3", "s3a", "az", "abfs", "abfss", "adl", "oss", "memory")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60
_SHOWN.maxlevel = 2


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Attributes:
      low, high: its ends, of which an open one is itself outside.
      open_low, open_high: whether they are.
      endless: whether infinity is inside, where `high` is.
    """

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    endless: bool = False

    @property
    def words(self) -> str:
        """The numbers inside, in words: ``0 to 1``, ``above 0, at most 1``."""
        if not (self.open_low or self.open_high or math.isinf(self.high)):
            return f"{_short(self.low)} to {_short(self.high)}"
        ends = [f"{'above' if self.open_low else 'at least'} {_short(self.low)}"]
        if not math.isinf(self.high):
            ends.append(
                f"{'below' if self.open_high else 'at most'} {_short(self.high)}"
            )
        return ", ".join(ends)

    def check(self, name: str, value: float) -> None:
        """Refuses a number outside.

        Raises:
          UserError: naming the field.
        """
        # A whole number is finite, though it may be larger than any float.
        is_finite = isinstance(value, int) or math.isfinite(value)
        if not is_finite and not (self.endless and value == math.inf):
            raise UserError(f"{name} must be finite, and is {value}")
        under = value <= self.low if self.open_low else value < self.low
        over = value >= self.high if self.open_high else value > self.high
        if not (under or over):
            return
        if self.high == 1:
            ends = f"{'(' if self.open_low else '['}{self.low:g}, 1"
            wanted = f"in {ends}{')' if self.open_high else ']'}"
        elif under:
            wanted = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        else:
            high = f"{self.high:,.0f}" if self.high >= 1000 else f"{self.high:g}"
            wanted = f"{'below' if self.open_high else 'at most'} {high}"
        digits = f"{value}"
        words = digits if len(digits) <= _LONGEST else shown(value)
        raise UserError(f"{name} must be {wanted}, and is {words}")


def _short(end: float) -> str:
    """An end of a range."""
    return f"{end:,.0f}" if 1e3 <= end < 1e15 else f"{end:g}"


def checked(
    *, rest: Callable[..., Any] | None = None, **kinds: Kind
) -> Callable[[_Target], _Target]:
    """A decorator that checks and converts the arguments of a function.

    Name, signature and docstring stay. An argument without a kind here has that of its
    annotation, where it is a plain one (`int`, `tuple[float, ...]`, `str | None`); one
    without either stops the import. Of a class, the constructor is guarded.

    Args:
      rest: a checked function that the function's ``**`` arguments are passed to.
      **kinds: by the names of the arguments.

    Raises:
      UserError: when the function is called, of an argument that it does not have,
        lacks or cannot use.
    """

    def decorate(target):
        if not isinstance(target, type):
            return _guarded(target, "", kinds, rest)
        plain = vars(target)["__init__"]  # its own, and no other class's
        setattr(target, "__init__", _guarded(plain, target.__name__, kinds, rest))  # noqa: B010
        return target

    return decorate


def kinds_of(target: Callable[..., Any]) -> dict[str, Kind]:
    """The kinds of the arguments of what is `checked`; of anything else, none."""
    guarded = vars(target).get("__init__") if isinstance(target, type) else target
    return getattr(guarded, "__kinds__", {})


def _guarded(function, class_name: str, kinds: Mapping[str, Kind], rest):
    """A function behind its kinds; messages name the class whose constructor it is."""
    signature = inspect.signature(function)
    rows, spread = {}, ""
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            spread = name
        elif name not in ("self", "cls"):
            rows[name] = kinds.get(name) or _by_annotation(function, parameter)
    if surplus := kinds.keys() - rows:
        raise TypeError(f"{function.__qualname__} has no argument {', '.join(surplus)}")
    handed = {k: v for k, v in kinds_of(rest).items() if k not in rows} if rest else {}
    known = {**rows, **handed}

    @functools.wraps(function)
    def guard(*args, **kwargs):
        unknown = [name for name in kwargs if name not in known]
        if unknown and (rest or not spread):
            called = class_name or _called(function)
            raise UserError(
                f"{called} has no argument {', '.join(unknown)}: it takes "
                f"{', '.join(known) or 'none'}"
            )
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            called = class_name or _called(function)
            raise UserError(
                f"{called} takes {', '.join(known) or 'no arguments'}, and its call "
                f"does not fit ({error})"
            ) from None
        values = bound.arguments
        for name, kind in rows.items():
            if name in values:
                values[name] = kind(name, values[name])
        if handed and spread in values:
            values[spread] = {k: handed[k](k, v) for k, v in values[spread].items()}
        return function(*bound.args, **bound.kwargs)

    guard.__kinds__ = known  # type: ignore[attr-defined]
    return guard


def check_nul(path: str, called: str = "") -> None:
    """Refuses what no system has as a path; it is called `called`, or as it is."""
    if "\0" in path:
        raise UserError(f"{called or path} is no path (it holds a NUL)")


def _called(function) -> str:
    """As a user writes it: sws_jax.expand, specs.from_dict, convert.load.

    That is by the outermost package that has it among its public names, and else by its
    module.
    """
    *packages, module = function.__module__.split(".")
    name = function.__qualname__
    for end, package in enumerate(packages, 1):
        public = getattr(sys.modules.get(".".join(packages[:end])), "__all__", ())
        if name.partition(".")[0] in public:
            return f"{package}.{name}"
    return f"{module}.{name}"


def anything(name: str, value: Any) -> Any:
    """Any value, passed on or, as trees of arrays are, checked by the function."""
    return value


def optional(kind: Kind) -> Kind:
    """The kind, or None."""
    return lambda name, value: None if value is None else kind(name, value)


def path(name: str, value: Any) -> str:
    """Text or `os.PathLike`, as text."""
    text = None
    with contextlib.suppress(Exception):  # what an object of somebody's raises
        text = os.fspath(value)
    if not isinstance(text, str):
        raise _wrong(name, "a path (text, or a pathlib.Path)", value)
    if not text:
        raise UserError(f"{name} must name a file or folder, and is empty")
    check_nul(text, f"{name} {shown(value)}")
    text = str.__str__(text)
    if not isinstance(value, str) and (kept_by := scheme(text, slashes=1)):
        text = f"{kept_by}://" + text.removeprefix(f"{kept_by}:").lstrip("/")
    return text


def scheme(path: str, slashes: int = 2) -> str:
    """``gs`` of ``gs://bucket/file``; empty for a path on this machine's disks.

    Args:
      path: any text. What is no scheme of a bucket is part of a local path.
      slashes: after the colon; 1 takes what `pathlib` makes of such a path, too.
    """
    match = _SCHEME.match(path)
    if not match or match[1] not in _BUCKETS or 1 + len(match[2]) < slashes:
        return ""
    return match[1]


def path_or_none(name: str, value: Any) -> str:
    """A `path`, or an empty text for none."""
    return "" if isinstance(value, str) and not value else path(name, value)


def text(choices: Iterable[str] = ()) -> Kind:
    """A text; one of the choices, where there are any."""
    known = tuple(choices)

    def kind(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong(name, f"one of {', '.join(known)}" if known else "text", value)
        if known and value not in known:
            raise UserError(f"{name} {shown(value)} is not one of {', '.join(known)}")
        return str.__str__(value)

    return kind


def truth(name: str, value: Any) -> bool:
    """True or False, numpy's too; 0 and 1 are numbers."""
    _refuse_traced(name, value)
    plain = isinstance(value, bool)
    if not plain and not (_is_scalar(value) and "bool" in str(value.dtype)):
        raise _wrong(name, "True or False", value)
    return bool(value)


def whole(least: int | None = None, most: int | None = None) -> Kind:
    """A whole number, of at least `least` and at most `most`."""
    low = -math.inf if least is None else least
    high = _LARGEST if most is None else most
    ends = "" if least is None else f" of at least {least}"
    if high != MAX_SIZE and most is not None:
        ends = f" from {least} to {most}"

    def kind(name: str, value: Any) -> int:
        number = _whole(name, value)
        if number is None or not low <= number <= high:
            above = number is not None and number > high == MAX_SIZE
            end = f" of at most {most}" if above else ends
            raise _wrong(name, f"a whole number{end}", value)
        return number

    return kind


def number(within: Range | None = None) -> Kind:
    """A finite number, as a float; in a range, which alone may hold infinity."""

    def kind(name: str, value: Any) -> float:
        real = _number(name, value)
        endless = within is not None and within.endless and real == math.inf
        if real is None or math.isnan(real) or not (math.isfinite(real) or endless):
            raise _wrong(name, "a number", value)
        if within is not None:
            within.check(name, real)
        return real

    return kind


def many(kind: Kind, things: str, most: int = MAX_SIZE) -> Kind:
    """A sequence of values of a kind, as a tuple: a list, an array, a generator.

    Args:
      kind: of each, which is called ``name[position]``.
      things: what they are, in words.
      most: how many there can be.
    """

    def many_of(name: str, value: Any) -> tuple:
        _refuse_traced(name, value)
        unordered = isinstance(value, (str, bytes, Mapping, set, frozenset))
        try:
            if unordered:
                raise TypeError
            rows = _as_array(value) if hasattr(value, "__array__") else value
            items = tuple(itertools.islice(rows, most + 1))  # it may be endless
        except Exception:  # noqa: BLE001  what an object of somebody's raises
            raise _wrong(name, f"a sequence of {things}", value) from None
        if len(items) > most:
            raise UserError(f"{name} can have at most {most} {things}, and has more")
        return tuple(kind(f"{name}[{at}]", item) for at, item in enumerate(items))

    return many_of


def wholes(
    least: int | None = None, most: int | None = None, count: int = MAX_SIZE
) -> Kind:
    """A sequence of at most `count` numbers as `whole` takes them."""
    return many(whole(least, most), "whole numbers", count)


def reals(within: Range | None = None) -> Kind:
    """A sequence of numbers as `number` takes them."""
    return many(number(within), "numbers")


TEXTS = many(text(), "texts")
SEED = whole(0, 2**32 - 1)  # of a random key


def pairs(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    """A sequence of pairs of texts."""
    rows = many(TEXTS, "pairs of texts")(name, value)
    for at, pair in enumerate(rows):
        if len(pair) != 2:
            raise _wrong(f"{name}[{at}]", "two texts", pair)
    return rows


def size(name: str, value: Any) -> tuple[int, int]:
    """Height and width of an image in pixels, from one side or both."""
    sides: Any = None
    if (side := _whole(name, value)) is not None:
        sides = (side, side)
    elif not isinstance(value, str):
        try:
            sides = wholes(count=2)(name, value)
        except UserError:
            _refuse_traced(name, value)
    if not sides or len(sides) != 2:
        raise UserError(
            f"{name} is one side or (height, width) in pixels, and {shown(value)} is "
            f"neither"
        )
    if min(sides) < 1:
        raise UserError(f"{name} must be at least 1, and is {shown(value)}")
    if max(sides) > MAX_SIZE:
        raise UserError(f"{name} must be at most {MAX_SIZE}, and is {shown(value)}")
    return sides


def of(*classes: type, called: str, hint: Callable[[Any], str] | None = None) -> Kind:
    """An instance of one of the classes.

    Args:
      *classes: any of them.
      called: what it is, in words.
      hint: what to do about something else, from that; may be empty.
    """

    def kind(name: str, value: Any) -> Any:
        if isinstance(value, classes):
            return value
        what = _wrong(name, called, value)
        more = hint(value) if hint else ""
        raise UserError(f"{what}: {more}") if more else what

    return kind


def like(*attributes: str, called: str) -> Kind:
    """Anything that has these attributes."""

    def kind(name: str, value: Any) -> Any:
        if isinstance(value, type) or not all(hasattr(value, a) for a in attributes):
            raise _wrong(name, called, value)
        return value

    return kind


def function(name: str, value: Any) -> Callable[..., Any]:
    """What can be called."""
    if not callable(value):
        raise _wrong(name, "a function", value)
    return value


_PLAIN: dict[str, Kind] = {
    "str": text(),
    "int": whole(),
    "float": number(),
    "bool": truth,
    "tuple[int, ...]": wholes(),
    "tuple[float, ...]": reals(),
    "tuple[str, ...]": TEXTS,
    "Sequence[int]": wholes(),
    "Sequence[float]": reals(),
    "str | os.PathLike[str]": path,
}
_PLAIN |= {f"{name} | None": optional(kind) for name, kind in _PLAIN.items()}


def _by_annotation(function, parameter: inspect.Parameter) -> Kind:
    kind = _PLAIN.get(str(parameter.annotation))
    if kind is None:
        raise TypeError(
            f"{function.__qualname__}: say what kind of argument {parameter.name} is, "
            f"which is annotated {parameter.annotation}"
        )
    return kind


def _is_scalar(value: Any) -> bool:
    """A number of numpy, JAX or PyTorch, or an array without axes."""
    return hasattr(value, "dtype") and getattr(value, "shape", None) == ()


def _as_array(value: Any) -> Any:
    """What calls itself an array, as numpy has it."""
    import numpy as np  # What has none of these is checked without numpy.

    return np.asarray(value)


def _whole(name: str, value: Any) -> int | None:
    """A whole number as Python's; None where it is none."""
    _refuse_traced(name, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if not _is_scalar(value) or "int" not in str(value.dtype):
        return None
    try:
        return operator.index(value)
    except Exception:  # noqa: BLE001  an array that is deleted, or not here
        return None


def _number(name: str, value: Any) -> float | None:
    """A number as Python's; None where it is none, or too large."""
    _refuse_traced(name, value)
    if _is_scalar(value):
        dtype = str(value.dtype)
        if "float" not in dtype and "int" not in dtype:
            return None
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except Exception:  # noqa: BLE001  an array that is deleted, or not here
        return None


def _refuse_traced(name: str, value: Any) -> None:
    """Refuses what has no value yet; where JAX is not loaded, nothing is traced."""
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, jax.core.Tracer):
        raise UserError(
            f"{name} is being traced by JAX and has no value yet, and the shape of a "
            f"network depends on it: give Python's number (jax.jit: static_argnames)"
        )


def _wrong(name: str, wanted: str, value: Any) -> UserError:
    return UserError(f"{name} must be {wanted}, and is {shown(value)}")


def quoted(text: str) -> str:
    """A text in quotes, without its middle where it is long."""
    return _SHOWN.repr(text)


def shown(value: Any) -> str:
    """A value in a few words."""
    builtin = (str, bytes, numbers.Number, type(None), tuple, list, dict)
    try:
        if isinstance(value, builtin):
            words = " ".join(_SHOWN.repr(value).split())
            return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
        if isinstance(value, type):
            return f"the class {value.__name__}"
        if _is_scalar(value):
            return f"{value} ({value.dtype})"
        if shape := getattr(value, "shape", None):
            return f"an array of shape {tuple(shape)}"
    except Exception:  # noqa: BLE001, S110  what the objects of somebody raise
        pass
    return f"a {type(value).__name__}"
