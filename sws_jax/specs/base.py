"""How networks are run, and specs as JSON."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import importlib
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from sws_jax import arguments
from sws_jax.arguments import MAX_SIZE, Range
from sws_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

# It refuses a typing error or a damaged file, not a network.
MAX_DEPTH = 1024
DTYPES = ("float32", "bfloat16", "float16")
# JAX's names, and two of ours: the one that runs, and none in particular.
BACKENDS = ("default", "plain", "cpu", "gpu", "tpu")
# The module of the package that has a family's network, and the network's class. They
# are imported by name and on use, since a spec is read where flax is not loaded.
FAMILIES = {
    "vit": ("models.vit", "ViT"),
    "aux_vit": ("models.aux_vit", "AuxViT"),
    "expanded": ("methods.expanded", "ExpandedViT"),
    "stitched": ("models.stitched", "StitchedViT"),
    "levit": ("models.levit", "LeViT"),
    "regnet": ("models.regnet", "RegNet"),
}
# Argument checks for the numbers of a network.
DEPTH = arguments.whole(1, MAX_DEPTH)
COUNT = arguments.whole(1, MAX_SIZE)
CLASSES = arguments.whole(0, MAX_SIZE)
RATIO = arguments.number(Range(0, MAX_SIZE, open_low=True))


def DTYPE(name: str, value: typing.Any) -> str:
    """A dtype, given by name or as a numpy or JAX dtype, as its name."""
    if not isinstance(value, str):
        import numpy as np  # A name needs none.

        if isinstance(value, (type, np.dtype)) or hasattr(value, "dtype"):
            with contextlib.suppress(TypeError):
                value = np.dtype(value).name
    return arguments.text(DTYPES)(name, value)


@arguments.checked(dtype=DTYPE, unroll=DEPTH, backend=arguments.text(BACKENDS))
@dataclasses.dataclass(frozen=True)
class Compute:
    """How a network is run; the same weights fit every setting.

    Attributes:
      dtype: of activations and matrix products. Parameters, softmax and the
        statistics of norms are float32 whatever it is.
      remat: recompute each block in the backward pass instead of storing it.
      unroll: blocks per iteration of the scan.
      backend: for which device it is compiled, whose rules
        (`sws_jax.models.rules`) the network takes: one of `BACKENDS`.
    """

    dtype: str = "float32"
    remat: bool = False
    unroll: int = 1
    backend: str = "default"


# The check of an argument that is a `Compute`.
COMPUTE = arguments.of(Compute, called="a Compute")


class Spec(Protocol):
    """What a network of any family says of itself; its class is a frozen dataclass.

    Attributes:
      family: one of `FAMILIES`.
      name: in tables, logs and messages.
      depth: blocks that are applied.
      image_size: height and width in pixels.
      channels: colour channels of the input.
      num_classes: outputs of the head; 0 for features.
      drop_path_rates: of stochastic depth, for each applied block, [depth].
      trainable: whether it is trained here; others only teach.
    """

    @property
    def family(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def depth(self) -> int: ...

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def channels(self) -> int: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def drop_path_rates(self) -> np.ndarray: ...

    @property
    def trainable(self) -> bool: ...

    def replace(self, **changes: typing.Any) -> typing.Self:
        """With changes to fields."""
        ...

    def build(self, compute: Compute = ...) -> typing.Any:
        """The linen module: images [batch, height, width, channels] to logits."""
        ...


def build(spec: Spec, compute: Compute) -> typing.Any:
    """The linen module of a spec."""
    module, name = FAMILIES[spec.family]
    network = getattr(importlib.import_module(f"sws_jax.{module}"), name)
    return network(spec, compute)


class Teacher(abc.ABC):
    """What the specs of families that only teach have in common."""

    @property
    @abc.abstractmethod
    def depth(self) -> int:
        """Blocks that are applied."""

    @property
    def trainable(self) -> bool:
        """False: it only teaches."""
        return False

    @property
    def drop_path_rates(self) -> np.ndarray:
        """Zeros: nothing is dropped in evaluation."""
        import numpy as np

        return np.zeros(self.depth, np.float32)


def check_depth(spec: Spec) -> None:
    """Refuses more than `MAX_DEPTH` blocks, where the depth is a sum."""
    if spec.depth > MAX_DEPTH:
        raise UserError(f"depth can be at most {MAX_DEPTH}, and is {spec.depth}")


def _is_dataclass(value: typing.Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _spec_of_any_family(name: str, value: typing.Any) -> typing.Any:
    if not _is_dataclass(value):
        raise UserError(f"{name} must be a spec, and is a {type(value).__name__}")
    return value


@arguments.checked(spec=_spec_of_any_family)
def to_dict(spec) -> dict:
    """A dataclass of plain values as JSON-ready data."""
    return dataclasses.asdict(spec)


@arguments.checked(
    spec_class=arguments.of(type, called="a class of specs"),
    data=arguments.of(Mapping, called="a mapping of fields"),
)
def from_dict(spec_class: type, data: Mapping) -> typing.Any:
    """The inverse of `to_dict`.

    Raises:
      UserError: the class has no such field, or no such value of it.
    """
    hints = typing.get_type_hints(spec_class)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise UserError(
            f"{spec_class.__name__} has no field {', '.join(unknown)}; it has "
            f"{', '.join(hints)}"
        )
    values = {
        key: _nested(f"{spec_class.__name__}.{key}", hints[key], value)
        for key, value in data.items()
    }
    return spec_class(**values)


def _nested(name: str, hint, value):
    """A value from JSON, its objects turned into the dataclasses that a field holds.

    Other values stay as they are, and are checked by the class that has the field.

    Args:
      name: of the field, for messages.
      hint: its type.
      value: from JSON.
    """
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        one, *_ = typing.get_args(hint)
        if dataclasses.is_dataclass(one):
            return [
                _nested(f"{name}[{at}]", one, part) for at, part in enumerate(value)
            ]
        return value
    kinds: list[typing.Any] = [
        kind
        for kind in (hint, *typing.get_args(hint))
        if dataclasses.is_dataclass(kind)
    ]
    if kinds and isinstance(value, Mapping):
        return from_dict(_kind(name, kinds, value), value)
    return value


def _kind(name: str, kinds: list, value: Mapping):
    """The dataclass of the family that a value names; the first where it names none."""
    family = value.get("family")
    for kind in kinds if family else kinds[:1]:
        fields = {field.name: field for field in dataclasses.fields(kind)}
        if not family or ("family" in fields and fields["family"].default == family):
            return kind
    raise UserError(f"{name} is of the family {family!r}, which is not known")
