"""The paper's claims about cost, which are arithmetic, beside what they leave out."""

from __future__ import annotations

import dataclasses

from sws_jax import specs
from sws_jax.estimate import comparison
from sws_jax.preview import costs


@dataclasses.dataclass(frozen=True)
class ClaimRow:
    """A ratio of the paper's comparison.

    Attributes:
      what: the quantity that is compared.
      each_depth: of a training of each depth.
      learngene: of one Aux-Net for all depths.
      ratio: of the first to the second.
      when: what is counted, and what is not.
    """

    what: str
    each_depth: float
    learngene: float
    ratio: float
    when: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The paper's comparison.

    Attributes:
      about: the networks and their training, in words.
      rows: a ratio each.
    """

    about: str
    rows: tuple[ClaimRow, ...]


def paper(size: str, teacher_name: str | None = None) -> Comparison:
    """The comparison of SWS, 2404.16897.

    Args:
      size: "S" or "B".
      teacher_name: name or file of a network whose forward counts in the FLOPs.

    Raises:
      UserError: another size, or no network has that name.
    """
    teacher = None
    if teacher_name:
        student = specs.named("vit_small_patch16_L12")
        teacher = costs.named_teacher(teacher_name, student)
    claims = comparison.paper(size, teacher)
    aux, *_ = (run.spec for run in claims[0].one.runs)
    nets = [run.spec for run in claims[0].many.runs]
    about = (
        f"{len(nets)} networks {nets[0].name} to {nets[-1].name}, "
        f"{comparison.PAPER_EPOCHS:g} epochs each, or\none {aux.name}; "
        f"1000 classes, 224 px; SWS, 2404.16897."
    )
    return Comparison(about, tuple(map(_row, claims)))


def _row(claim: comparison.Claim) -> ClaimRow:
    label = costs.LABELS[claim.quantity]
    return ClaimRow(label, *claim.values, claim.ratio, claim.condition)
