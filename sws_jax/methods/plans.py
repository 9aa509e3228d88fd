"""Plans: the gene of every block of a descendant, and the three ways to ask for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.specs.base import DEPTH, MAX_DEPTH

# Kinds of the three ways to ask for a descendant.
PLAN = arguments.wholes(count=MAX_DEPTH)
REQUESTS = {
    "depth": arguments.optional(DEPTH),
    "plan": arguments.optional(PLAN),
    "allotment": arguments.optional(PLAN),
}


@arguments.checked(stages=PLAN, allot=arguments.function, **REQUESTS)
def resolve_plan(
    stages: tuple[int, ...],
    allot: Callable[[int, tuple[int, ...]], tuple[int, ...]],
    *,
    depth: int | None = None,
    plan: Sequence[int] | None = None,
    allotment: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The gene of every block, from the one of three requests that was made.

    Raises:
      UserError: none or several requests, or one that the genes cannot fill.
    """
    given = {"depth": depth, "plan": plan, "allotment": allotment}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        named = ", ".join(f"{k}={v}" for k, v in given.items()) or "none of them"
        raise UserError(f"give exactly one of depth, plan and allotment, not {named}")
    genes = len(stages)
    if depth is not None:
        return allot(depth, stages)
    if allotment is not None:
        counts = tuple(allotment)
        if len(counts) != genes:
            raise UserError(
                f"allotment {counts} has {len(counts)} counts for {genes} genes"
            )
        if min(counts) < 0 or not 1 <= sum(counts) <= MAX_DEPTH:
            raise UserError(
                f"allotment {counts} must hold counts of at least 0 that add up to "
                f"1 to {MAX_DEPTH} blocks"
            )
        return tuple(gene for gene, n in enumerate(counts) for _ in range(n))
    assert plan is not None
    indices = tuple(plan)
    if not indices:
        raise UserError(
            f"a plan names a gene for each of 1 to {MAX_DEPTH} blocks, and this one "
            f"has 0"
        )
    for position, gene in enumerate(indices):
        if not 0 <= gene < genes:
            raise UserError(
                f"plan[{position}] is gene {gene}, but there are {genes} genes, "
                f"0 to {genes - 1}"
            )
    return indices
