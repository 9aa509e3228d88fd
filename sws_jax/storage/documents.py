"""JSON documents: read whole, checked against what they must hold, and compared."""

from __future__ import annotations

import json
from typing import Any

from sws_jax.errors import UserError
from sws_jax.storage import contents, paths

# What a value of JSON is called.
_TYPE_NAMES = {
    bool: "truth value",
    dict: "object",
    float: "number",
    int: "whole number",
    list: "list",
    str: "text",
    type(None): "null",
}


def read_json(
    path: str,
    *,
    holds: Any = {},  # noqa: B006  never changed
    remedy: str = "restore it, or remove its directory",
) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
      path: of a file that is there.
      holds: what must be in it, as in `misfit`.
      remedy: against damage, for the message.

    Raises:
      UserError: it holds something else.
    """
    if contents.is_pointer(path):
        raise UserError(
            f"{path} is a pointer of Git LFS, and the file itself was not fetched: run "
            f"git lfs pull"
        )
    try:
        # Some editors put a byte order mark before UTF-8.
        with open(paths.here(path), encoding="utf-8-sig") as file:
            document = json.load(file, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is damaged (it is not UTF-8 from byte {error.start} on): {remedy}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} holds no JSON object: {remedy}")
    if wrong := misfit(document, holds):
        raise UserError(f"{path} is damaged ({wrong}): {remedy}")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no name has two different values."""
    values = dict(pairs)
    if len(values) < len(pairs):
        for name, value in pairs:
            if value != values[name]:
                raise ValueError(f"{name} stands in it twice, with different values")
    return values


def misfit(value: Any, wanted: Any, name: str = "it") -> str:
    """The first thing that a value of JSON lacks or has of another type, in words.

    Args:
      value: as JSON gives it.
      wanted: a type (``float`` takes whole numbers too), or several in a tuple; a set
        of values; ``[WANTED]`` for a list, ``[WANTED, ...]`` for one that is not
        empty; ``{NAME: WANTED}`` for an object with those names, where ``NAME?`` may
        be absent, and others may be there.
      name: of the value.

    Returns:
      Nothing where it is all as wanted.
    """
    if isinstance(wanted, dict):
        return _misfit_of_object(value, wanted, name)
    if isinstance(wanted, list):
        if not isinstance(value, list) or (wanted[1:] and not value):
            return f"{name} is no list" + (" of at least one" if wanted[1:] else "")
        parts = (misfit(v, wanted[0], f"{name}[{n}]") for n, v in enumerate(value))
        return next(filter(None, parts), "")
    if isinstance(wanted, frozenset):
        return "" if isinstance(value, str) and value in wanted else f"odd {name}"
    types = wanted if isinstance(wanted, tuple) else (wanted,)
    if type(value) in types or (float in types and type(value) is int):
        return ""
    words = " or ".join(_TYPE_NAMES[each] for each in types)
    return f"{name} is {json.dumps(value)[:40]} and no {words}"


def _misfit_of_object(value: Any, wanted: dict[str, Any], name: str) -> str:
    if not isinstance(value, dict):
        return f"{name} is no object"
    for key, inner in wanted.items():
        field = key.removesuffix("?")
        inside = field if name == "it" else f"{name}.{field}"
        if field in value:
            if wrong := misfit(value[field], inner, inside):
                return wrong
        elif field == key:
            return f"{inside} is missing"
    return ""


def plain(value: Any) -> Any:
    """A config as JSON gives it back: tuples as lists."""
    return json.loads(json.dumps(value))


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts: all of `new`, and of `old` what `new` does not say."""
    both = {**old, **new}
    for key in old.keys() & new.keys():
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            both[key] = merged(old[key], new[key])
    return both


def differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two nested dicts differ."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [prefix]
    names = []
    for key in sorted(set(old) | set(new)):
        name = f"{prefix}.{key}" if prefix else key
        if key in old and key in new:
            names += differing(old[key], new[key], name)
        else:
            names.append(name)
    return names
