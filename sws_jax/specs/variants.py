"""Variants of a network: which of them one program computes, and what it is told.

Programs are compiled for shapes, and variants that differ only in which of their blocks
run have the same ones. They share the program of the longest of them, their form, which
is told for each step which of its blocks run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sws_jax.errors import UserError
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec

# What is the same in all variants, since one batch goes through each of them.
_COMMON = ("image_size", "channels", "num_classes")


@dataclasses.dataclass(frozen=True)
class Computation:
    """How a variant is computed.

    Attributes:
      form: the network whose program it is; variants of equal forms have one program.
      ranges: for each segment of the form (first, end), the blocks that run; None where
        all of them do in every variant of this form.
      rates: of stochastic depth, for each block of the form; 0 of those that do not
        run.
    """

    form: Spec
    ranges: tuple[tuple[int, int], ...] | None
    rates: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class _Lengths:
    """What a class of specs calls the lengths of its segments.

    Attributes:
      of: the lengths of a spec.
      replaced: the spec with other lengths, as many.
      own_weights: whether each block has weights of its own, so that the first variant
        must be as long as any.
    """

    of: Callable[[Any], tuple[int, ...]]
    replaced: Callable[[Any, tuple[int, ...]], Spec]
    own_weights: bool


def _aux_of(spec: AuxViTSpec, stages: tuple[int, ...]) -> AuxViTSpec:
    return AuxViTSpec(spec.net.replace(depth=sum(stages)), stages)


# By the class of a spec. A new one needs a line here to have variants.
_LENGTHS: dict[type, _Lengths] = {
    ViTSpec: _Lengths(
        lambda spec: (spec.depth,),
        lambda spec, lengths: spec.replace(depth=lengths[0]),
        own_weights=True,
    ),
    AuxViTSpec: _Lengths(lambda spec: spec.stages, _aux_of, own_weights=False),
}


def computations(variants: Sequence[Spec]) -> tuple[Computation, ...]:
    """How each of the variants of a network is computed.

    Args:
      variants: over the same weights, which are those of the first.

    Returns:
      One for each, in their order.

    Raises:
      UserError: a variant is of a family that is not trained, takes or gives something
        else than the first, or has blocks that the first has no weights for.
    """
    for variant in variants:
        _check(variants[0], variant)
    families: dict[Spec, list[tuple[int, ...]]] = {}
    for variant in variants:
        families.setdefault(_shortest(variant), []).append(_lengths(variant))
    computed = tuple(
        _computation(variant, families[_shortest(variant)]) for variant in variants
    )
    _check_weights(variants, computed)
    return computed


def forms(variants: Sequence[Spec]) -> tuple[Spec, ...]:
    """The form of each of the variants; see `Computation`."""
    return tuple(computation.form for computation in computations(variants))


def programs(variants: Sequence[Spec], picks: Iterable[tuple[int, ...]]) -> int:
    """How many programs a phase compiles.

    Args:
      variants: of the phase.
      picks: what its steps compute, as places in `variants`.
    """
    form_of = forms(variants)
    return len({tuple(form_of[place] for place in pick) for pick in picks})


def _lengths(spec: Spec) -> tuple[int, ...]:
    return _LENGTHS[type(spec)].of(spec)


def _shortest(spec: Spec) -> Spec:
    """The spec with one block in each segment: equal for all that can share a form."""
    return _LENGTHS[type(spec)].replaced(spec, (1,) * len(_lengths(spec)))


def _computation(variant: Spec, alike: list[tuple[int, ...]]) -> Computation:
    """How a variant is computed.

    Args:
      variant: a spec.
      alike: the lengths of all variants that can share its form.
    """
    lengths, longest = _lengths(variant), tuple(map(max, zip(*alike, strict=True)))
    form = _LENGTHS[type(variant)].replaced(variant, longest)
    rates = [float(rate) for rate in _rates(variant)]
    laid_out: list[float] = []
    for length, places in zip(lengths, longest, strict=True):
        laid_out += rates[:length] + [0.0] * (places - length)
        rates = rates[length:]
    is_alone = set(alike) == {longest}
    ranges = None if is_alone else tuple((0, length) for length in lengths)
    return Computation(form, ranges, tuple(laid_out))


def _rates(spec: Spec):
    return (spec.net if isinstance(spec, AuxViTSpec) else spec).drop_path_rates


def _check(first: Spec, variant: Spec) -> None:
    """Refuses a variant that cannot be computed beside the first."""
    if type(variant) not in _LENGTHS:
        raise UserError(
            f"variants are networks that are trained, and {variant.name} is of a "
            f"family that only teaches"
        )
    for field in _COMMON:
        expected, value = (getattr(spec.net, field) for spec in (first, variant))
        if value != expected:
            raise UserError(
                f"variants have the same {field}, and {variant.name} has {value}, "
                f"where {first.name} has {expected}"
            )


def _check_weights(variants: Sequence[Spec], computed: Sequence[Computation]) -> None:
    """Refuses a variant that is longer than the first, whose weights it would take."""
    if not variants or not _LENGTHS[type(variants[0])].own_weights:
        return
    first, form = variants[0], computed[0].form
    if form != first:
        raise UserError(
            f"variants have the weights of the first, and {first.name} has none for "
            f"the blocks of {form.name}: put the longest first"
        )
