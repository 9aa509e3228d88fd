"""Variants of a network: which of them one program computes, and what it is told.

Programs are compiled for shapes, and variants that differ only in which of their blocks
run have the same ones. They share the program of the longest of them, their form, which
is told in each step which of its blocks run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sws_jax.errors import UserError
from sws_jax.specs import AuxViTSpec, Spec, StitchedSpec, ViTSpec

# What all variants have in common, since one batch goes through each of them.
_COMMON = ("image_size", "channels", "num_classes")


@dataclasses.dataclass(frozen=True)
class Computation:
    """How a variant is computed.

    Attributes:
      form: the network whose program it is; variants of equal forms have one program.
      ranges: for each segment of the form (first, end), the blocks that run; None where
        all of them do, in every variant of this form.
      rates: of stochastic depth, for each block of the form; 0 for one that does not
        run.
    """

    form: Spec
    ranges: tuple[tuple[int, int], ...] | None
    rates: tuple[float, ...]

    @property
    def spec(self) -> Spec:
        """The variant itself."""
        if self.ranges is None:
            return self.form
        lengths = tuple(end - first for first, end in self.ranges)
        return _segments(self.form).with_lengths(self.form, lengths)


class _Segments(NamedTuple):
    """How the segments of a class of specs, of which blocks can be left out, are read.

    Attributes:
      lengths: how many blocks each segment of a spec applies.
      with_lengths: the spec with as many other lengths.
    """

    lengths: Callable[[Any], tuple[int, ...]]
    with_lengths: Callable[[Any, tuple[int, ...]], Spec]


def _aux(spec: AuxViTSpec, lengths: tuple[int, ...]) -> AuxViTSpec:
    return AuxViTSpec(spec.net.replace(depth=sum(lengths)), lengths)


def _stitched(spec: StitchedSpec, lengths: tuple[int, ...]) -> StitchedSpec:
    pairs = zip(spec.segments, lengths, strict=True)
    return StitchedSpec(tuple(segment.replace(depth=n) for segment, n in pairs))


# Variants of other classes have forms of their own.
_SEGMENTS: dict[type, _Segments] = {
    ViTSpec: _Segments(
        lambda spec: (spec.depth,), lambda spec, lengths: spec.replace(depth=lengths[0])
    ),
    AuxViTSpec: _Segments(lambda spec: spec.stages, _aux),
    StitchedSpec: _Segments(
        lambda spec: tuple(segment.depth for segment in spec.segments), _stitched
    ),
}
_WHOLE = _Segments(lambda spec: (spec.depth,), lambda spec, lengths: spec)


def computations(variants: Sequence[Spec]) -> tuple[Computation, ...]:
    """How each of the variants of a network is computed.

    Args:
      variants: over the same weights; the first is the reference.

    Returns:
      One for each, in their order.

    Raises:
      UserError: a variant is not trained here, or its images, channels or classes are
        not those of the first.
    """
    for variant in variants:
        _check(variants[0], variant)
    alike: dict[Spec, set[tuple[int, ...]]] = {}
    for variant in variants:
        alike.setdefault(_shortest(variant), set()).add(_lengths(variant))
    return tuple(_computation(spec, alike[_shortest(spec)]) for spec in variants)


def _segments(spec: Spec) -> _Segments:
    return _SEGMENTS.get(type(spec), _WHOLE)


def _lengths(spec: Spec) -> tuple[int, ...]:
    return _segments(spec).lengths(spec)


def _shortest(spec: Spec) -> Spec:
    """One block in each segment: equal for all variants that can share a form."""
    return _segments(spec).with_lengths(spec, (1,) * len(_lengths(spec)))


def _computation(variant: Spec, alike: set[tuple[int, ...]]) -> Computation:
    """How a variant is computed.

    Args:
      variant: a spec.
      alike: the lengths of all variants that share its form.
    """
    lengths, longest = _lengths(variant), tuple(map(max, zip(*alike, strict=True)))
    rates = [float(rate) for rate in variant.drop_path_rates]
    of_form: list[float] = []
    for length, places in zip(lengths, longest, strict=True):
        of_form += rates[:length] + [0.0] * (places - length)
        rates = rates[length:]
    return Computation(
        _segments(variant).with_lengths(variant, longest),
        tuple((0, length) for length in lengths) if len(alike) > 1 else None,
        tuple(of_form),
    )


def _check(first: Spec, variant: Spec) -> None:
    """Refuses a variant that cannot be computed beside the first."""
    if not variant.trainable:
        raise UserError(
            f"variants are networks that are trained here, and {variant.name} only "
            f"teaches"
        )
    for field in _COMMON:
        expected, value = getattr(first, field), getattr(variant, field)
        if value != expected:
            raise UserError(
                f"all variants have the same {field}, and {variant.name} has {value}, "
                f"where {first.name} has {expected}"
            )
