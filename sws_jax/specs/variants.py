"""Variants of a network, and which of them share a compiled program.

Programs are compiled for shapes, and variants that differ only in the number of their
blocks have the same ones. They share the program of their form, the longest of them.
Which of its blocks run in a step is an argument of the program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sws_jax.errors import UserError
from sws_jax.specs import AuxViTSpec, Spec, StitchedSpec, ViTSpec

# What all variants have in common, since one batch goes through each of them.
_COMMON = ("image_size", "channels", "num_classes")

# From the seed and the number of a step, from 0, to the variants of that step, by their
# places. The same two numbers give the same variants, whatever was asked before.
Pick = Callable[[int, int], tuple[int, ...]]


def pick_first(seed: int, step: int) -> tuple[int, ...]:
    """Picks the first variant alone, the reference, in every step."""
    return (0,)


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
    """How a class of specs is divided into segments, of which blocks can be left out.

    Attributes:
      lengths: how many blocks each segment of a spec applies.
      with_lengths: the spec with other lengths, one for each segment.
    """

    lengths: Callable[[Any], tuple[int, ...]]
    with_lengths: Callable[[Any, tuple[int, ...]], Spec]


def _aux(spec: AuxViTSpec, lengths: tuple[int, ...]) -> AuxViTSpec:
    return AuxViTSpec(spec.net.replace(depth=sum(lengths)), lengths)


def _stitched(spec: StitchedSpec, lengths: tuple[int, ...]) -> StitchedSpec:
    pairs = zip(spec.segments, lengths, strict=True)
    return StitchedSpec(tuple(segment.replace(depth=n) for segment, n in pairs))


_SEGMENTS: dict[type, _Segments] = {
    ViTSpec: _Segments(
        lambda spec: (spec.depth,), lambda spec, lengths: spec.replace(depth=lengths[0])
    ),
    AuxViTSpec: _Segments(lambda spec: spec.stages, _aux),
    StitchedSpec: _Segments(
        lambda spec: tuple(segment.depth for segment in spec.segments), _stitched
    ),
}
# Of other classes, of which no block is left out: each variant is its own form.
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
    lengths: dict[Spec, set[tuple[int, ...]]] = {}
    for variant in variants:
        lengths.setdefault(_shortest(variant), set()).add(_lengths(variant))
    return tuple(_computation(spec, lengths[_shortest(spec)]) for spec in variants)


def _segments(spec: Spec) -> _Segments:
    return _SEGMENTS.get(type(spec), _WHOLE)


def _lengths(spec: Spec) -> tuple[int, ...]:
    return _segments(spec).lengths(spec)


def _shortest(spec: Spec) -> Spec:
    """The spec with one block in each segment: equal for all that share a form."""
    return _segments(spec).with_lengths(spec, (1,) * len(_lengths(spec)))


def _computation(variant: Spec, all_lengths: set[tuple[int, ...]]) -> Computation:
    """How a variant is computed.

    Args:
      variant: a spec.
      all_lengths: of the segments of each variant that shares its form.
    """
    lengths = _lengths(variant)
    longest = tuple(map(max, zip(*all_lengths, strict=True)))
    rates = [float(rate) for rate in variant.drop_path_rates]
    of_form: list[float] = []
    for length, places in zip(lengths, longest, strict=True):
        of_form += rates[:length] + [0.0] * (places - length)
        rates = rates[length:]
    return Computation(
        _segments(variant).with_lengths(variant, longest),
        tuple((0, length) for length in lengths) if len(all_lengths) > 1 else None,
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
