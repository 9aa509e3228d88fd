"""How networks are run, and specs as JSON."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

import numpy as np

from sws_jax.errors import UserError

# Both refuse a typing error or a damaged file, not a network.
MAX_DEPTH = 1024
MAX_SIZE = 2**20


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a network is run; the same weights fit every setting.

    Attributes:
      dtype: of activations and matrix products. Parameters, softmax and the
        statistics of norms are float32 whatever it is.
      remat: recompute each block in the backward pass instead of storing it.
      unroll: blocks per iteration of the scan.
    """

    dtype: str = "float32"
    remat: bool = False
    unroll: int = 1

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise UserError(
                f"compute dtype {self.dtype!r} is not one of float32, bfloat16, float16"
            )
        if self.unroll < 1:
            raise UserError(f"unroll must be at least 1, and is {self.unroll}")


def is_whole(value: typing.Any, least: float = 1) -> bool:
    """Whether a value is a whole number and not too small; a bool is not one."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return bool(whole and value >= least)


def check_sizes(spec: typing.Any) -> None:
    """Refuses numbers that no network has, before anything is made of them.

    Args:
      spec: of a network, whose fields are of their types.

    Raises:
      UserError: naming the field.
    """
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not number <= MAX_SIZE:
                raise UserError(
                    f"{field.name} must be a number of at most {MAX_SIZE}, and is "
                    f"{number}"
                )
    if spec.depth > MAX_DEPTH:
        raise UserError(f"depth can be at most {MAX_DEPTH}, and is {spec.depth}")


def image_size(given: typing.Any) -> tuple[int, int]:
    """Height and width in pixels from one side or both.

    Raises:
      UserError: `given` is neither.
    """
    size = (given,) * 2 if isinstance(given, (int, np.integer)) else given
    if not (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(isinstance(side, (int, np.integer)) for side in size)
        and not any(isinstance(side, bool) for side in size)
    ):
        raise UserError(
            f"image_size is one side or (height, width) in pixels, and {given!r} is "
            f"neither"
        )
    return int(size[0]), int(size[1])


def to_dict(spec) -> dict:
    """A dataclass of plain values as JSON-ready data."""
    return dataclasses.asdict(spec)


def from_dict(cls, data: Mapping) -> typing.Any:
    """The inverse of `to_dict`, refusing fields that `cls` does not have."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise UserError(
            f"{cls.__name__} has no field {', '.join(unknown)}; it has "
            f"{', '.join(hints)}"
        )
    values = {
        key: _convert(f"{cls.__name__}.{key}", hints[key], value)
        for key, value in data.items()
    }
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{cls.__name__} cannot be read: {error}") from None


def _convert(name: str, hint, value):
    """A value of JSON as the type that a field states; lists become tuples."""
    kinds: list[typing.Any] = [
        kind for kind in typing.get_args(hint) if dataclasses.is_dataclass(kind)
    ]
    if dataclasses.is_dataclass(hint) or kinds:
        if isinstance(value, dict):
            return from_dict(_kind(name, kinds or [hint], value), value)
    elif typing.get_origin(hint) is tuple:
        inner, *rest = typing.get_args(hint)
        many = rest == [...]  # else as many as there are types
        if isinstance(value, (list, tuple)) and (many or len(value) == 1 + len(rest)):
            return tuple(_convert(name, inner, v) for v in value)
    elif hint is float and isinstance(value, (int, float)):
        return value
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name_of_hint = hint if typing.get_args(hint) else hint.__name__
    wanted = " or ".join(kind.__name__ for kind in kinds) or name_of_hint
    raise UserError(f"{name} must be of type {wanted}, and is {value!r}")


def _kind(name: str, kinds: list, value: Mapping):
    """Which of several dataclasses: the one of that family; the first has none."""
    family = value.get("family")
    for kind in kinds if family else kinds[:1]:
        fields = {field.name: field for field in dataclasses.fields(kind)}
        if not family or ("family" in fields and fields["family"].default == family):
            return kind
    raise UserError(f"{name} is of the family {family!r}, which is not known")
