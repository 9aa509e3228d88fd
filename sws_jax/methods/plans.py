"""Plans: the gene of every block of a descendant, and the three ways to ask for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.specs.base import DEPTH, MAX_DEPTH

# A descendant's plan: for each block the gene that it comes from; of a stitched network
# for each segment (instance, first block, end). A plan of segments is a method's own
# answer to a depth: those that users name are of the first kind.
Plan = tuple[int, ...] | tuple[tuple[int, int, int], ...]

# Checks of the three arguments that ask for a descendant.
PLAN = arguments.wholes(count=MAX_DEPTH)
REQUESTS = {
    "depth": arguments.optional(DEPTH),
    "plan": arguments.optional(PLAN),
    "allotment": arguments.optional(PLAN),
}


@arguments.checked(stages=PLAN, of_depth=arguments.function, **REQUESTS)
def resolve_plan(
    stages: tuple[int, ...],
    of_depth: Callable[[int], Plan],
    *,
    depth: int | None = None,
    plan: Sequence[int] | None = None,
    allotment: Sequence[int] | None = None,
) -> Plan:
    """The gene of every block, from exactly one of a depth, a plan or an allotment.

    Args:
      stages: lengths of the trained stages, one for each gene.
      of_depth: the method's rule, which makes the plan of a depth.
      depth: blocks of the descendant.
      plan: the gene of every block.
      allotment: how many blocks copy each gene.

    Raises:
      UserError: none or several of the three, or one that the genes cannot fill.
    """
    ways = (("depth", depth), ("plan", plan), ("allotment", allotment))
    requests = {name: value for name, value in ways if value is not None}
    if len(requests) != 1:
        shown = ", ".join(f"{k}={v}" for k, v in requests.items()) or "none of them"
        raise UserError(f"give exactly one of depth, plan and allotment, not {shown}")
    genes = len(stages)
    if depth is not None:
        return of_depth(depth)
    if allotment is not None:
        return _plan_of_counts(tuple(allotment), genes)
    assert plan is not None
    return of_genes(tuple(plan), genes)


def _plan_of_counts(counts: tuple[int, ...], genes: int) -> tuple[int, ...]:
    """The plan in which each gene is copied as often as an allotment says."""
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


def of_genes(plan: Plan, genes: int) -> tuple[int, ...]:
    """A plan, if every entry of it is a gene.

    Args:
      plan: the gene of every block.
      genes: how many there are.

    Raises:
      UserError: it is empty, too long, one of segments, or names a gene that is not
        there.
    """
    indices = PLAN("plan", plan)
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
