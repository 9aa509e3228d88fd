"""What a set of weights is, and where it comes from."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any, get_args

from sws_jax import arguments, pixels, specs
from sws_jax.arguments import Range
from sws_jax.errors import UserError
from sws_jax.models import profiles
from sws_jax.pixels import Normalization
from sws_jax.specs import AuxViTSpec, ExpandedSpec, Plain, Spec, ViTSpec, limits
from sws_jax.specs.vit import STAGES

KINDS = ("network", "aux_net", "learngene")
# The method whose learngenes older software described without their `source`.
_WITHOUT_SOURCE = "tleg"
# A ViTSpec is the first, as it is the one that names no family in a file.
Source = Plain | ExpandedSpec


_WHOLE = arguments.whole(0)
_SEGMENT = arguments.wholes(0)


def _block_of_plan(name: str, value: Any) -> int | tuple[int, ...]:
    """A gene, or a segment of a stitched network: (instance, first block, end)."""
    if not isinstance(value, (list, tuple)):
        return _WHOLE(name, value)
    segment = _SEGMENT(name, value)
    if len(segment) != 3:
        raise UserError(f"{name} is an instance, a first block and an end, not {value}")
    return segment


@arguments.checked(
    kind=arguments.text(KINDS),
    net=arguments.of(
        *get_args(Plain), called="a ViTSpec, StitchedSpec, LeViTSpec or RegNetSpec"
    ),
    source=arguments.optional(
        arguments.of(*get_args(Source), called="a spec of a network")
    ),
    normalization=pixels.NORMALIZATION,
    profile=arguments.text(profiles.PROFILES),
    stages=STAGES,
    plan=arguments.many(_block_of_plan, "genes or segments"),
    step=arguments.whole(0),
    accuracy=arguments.number(Range(-1, 1)),
    seed=arguments.SEED,
    versions=arguments.pairs,
    eval_crop=pixels.CROP,
    interpolation=arguments.text(pixels.INTERPOLATIONS),
    crop_mode=arguments.text(pixels.CROP_MODES),
    val_fraction=arguments.number(limits.VAL_FRACTION),
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """Everything about weights but the weights: hashable, JSON both ways.

    Attributes:
      kind: "network" (a ViT), "aux_net" or "learngene".
      net: the network; for a learngene, the Aux-Net it was taken from. LeViTs and
        RegNets are teachers.
      normalization: of the input pixels.
      method: that made a learngene or a descendant; empty for others.
      profile: which reading of the method, see `sws_jax.models.profiles`.
      stages: how often the Aux-Net applies each gene; empty for other networks.
      plan: gene of every block of a descendant, or of a stitched one (instance, first
        block, end) of every segment; empty for other networks.
      source: the network that was trained, of an Aux-Net or a learngene, where it is
        no `AuxViTSpec` of `net` and `stages`; None else.
      teacher: name of the Ans-Net, if any.
      dataset: trained on.
      class_names: in the order of the head's outputs.
      step: updates made.
      accuracy: top-1 on the held-out part of the training set, 0..1; -1 unknown.
      seed: of the run.
      versions: (package, version) pairs of the software that wrote it.
      eval_crop: share of the shorter side of an image that it was scored on.
      interpolation: that images are resized with for it; see `sws_jax.pixels`.
      crop_mode: whether an image keeps its aspect ratio; see
        `sws_jax.data.transforms.Fit`.
      val_fraction: of the training images, held out where the set has no others.
    """

    kind: str
    net: Plain
    normalization: Normalization
    method: str = ""
    profile: str = "consistent"
    stages: tuple[int, ...] = ()
    plan: tuple[int, ...] | tuple[tuple[int, int, int], ...] = ()
    source: Source | None = None
    teacher: str = ""
    dataset: str = ""
    class_names: tuple[str, ...] = ()
    step: int = 0
    accuracy: float = -1.0
    seed: int = 0
    versions: tuple[tuple[str, str], ...] = ()
    eval_crop: float = 1.0
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    val_fraction: float = 0.1

    def __post_init__(self):
        if self.class_names and len(self.class_names) != self.net.num_classes:
            raise UserError(
                f"there are {len(self.class_names)} class names for a head of "
                f"{self.net.num_classes} classes"
            )
        if self.normalization.channels != self.net.channels:
            raise UserError(
                f"the normalisation is for {self.normalization.channels} channels and "
                f"the network takes {self.net.channels}"
            )
        if self.kind != "network" and self.source is None:
            AuxViTSpec(self.vit, self.stages)  # refuses stages that do not add up

    @property
    def vit(self) -> ViTSpec:
        """The network, which must be a ViT of one width.

        Raises:
          UserError: it is of another family.
        """
        if not isinstance(self.net, ViTSpec):
            raise UserError(f"{self.net.name} is no plain Vision Transformer")
        return self.net

    @property
    def spec(self) -> Spec:
        """The spec of the network that these weights are, or come from."""
        if self.kind == "network":
            return self.net
        return self.source or AuxViTSpec(self.vit, self.stages)

    def replace(self, **changes) -> Description:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """JSON-ready data; without `source` where there is none, as older software
        knows none."""
        data = specs.to_dict(self)
        return data if self.source else {k: v for k, v in data.items() if k != "source"}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    @arguments.checked(data=arguments.of(Mapping, called="a mapping of fields"))
    def from_dict(cls, data: Mapping[str, Any]) -> Description:
        """The inverse of `to_dict`.

        Raises:
          UserError: the data does not describe weights.
        """
        about = specs.from_dict(cls, data)
        if about.method == _WITHOUT_SOURCE and about.kind == "learngene":
            source = ExpandedSpec(about.vit, about.stages, about.method)
            return about.replace(source=about.source or source)
        return about

    @classmethod
    @arguments.checked()
    def from_json(cls, text: str) -> Description:
        """Raises UserError where the text does not describe weights."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"the description is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise UserError("the description is not a JSON object")
        return cls.from_dict(data)


DESCRIPTION = arguments.of(Description, called="a Description")


def versions() -> tuple[tuple[str, str], ...]:
    """(package, version) of the packages that decide the numbers."""
    packages = ("jax", "flax", "optax")
    return tuple((name, importlib.metadata.version(name)) for name in packages)
