"""What ways to have networks of many depths cost: their runs, added up and compared."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

from sws_jax import arguments, specs
from sws_jax.arguments import Range
from sws_jax.errors import UserError
from sws_jax.estimate import budgets, flops
from sws_jax.estimate.flops import TEACHER
from sws_jax.models.description import Description
from sws_jax.models.networks import SPEC
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec
from sws_jax.specs.base import COMPUTE, DEPTH, Compute
from sws_jax.training import roles

IMAGENET_IMAGES = 1_281_167  # in its training set (ILSVRC 2012, 1409.0575)
# SWS, 2404.16897: epochs of each network that the Aux-Net is compared with.
PAPER_EPOCHS = 100.0
PAPER_SIZES = {"S": "small", "B": "base"}
# Runs that start from trained weights; every other one is a pre-training.
INITIALISED = roles.DESCENDANTS

_EPOCHS = arguments.number(Range(0, math.inf))
_IMAGES = arguments.whole(1)
# A spec or a description: what `flops.params` counts.
_KEPT = arguments.kinds_of(flops.params)["spec"]
_DEPTHS = arguments.many(DEPTH, "whole numbers")


@arguments.checked(
    spec=SPEC,
    epochs=_EPOCHS,
    images=_IMAGES,
    compute=COMPUTE,
    teacher=TEACHER,
    counted=arguments.optional(arguments.number(Range(0, math.inf))),
    own=arguments.whole(0),
)
@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      role: of `sws_jax.training.roles`; those of `INITIALISED` start from trained
        weights.
      spec: of the network that is trained.
      epochs: of its training.
      images: of an epoch.
      compute: how it is run.
      teacher: whose forward is part of every step.
      counted: FLOPs for each image of a step; None counts those of one that trains the
        network as it is, on labels and teacher.
      own: parameters of what it minimises, which are trained beside the network's.
    """

    role: str
    spec: Spec
    epochs: float
    images: int = IMAGENET_IMAGES
    compute: Compute = Compute()
    teacher: Spec | None = None
    counted: float | None = None
    own: int = 0

    @property
    def layer_epochs(self) -> float:
        """Applied blocks times epochs."""
        return self.spec.depth * self.epochs

    @property
    def step_flops(self) -> float:
        """FLOPs for each image of a training step, as its steps are on average."""
        if self.counted is not None:
            return self.counted
        return flops.step_flops(self.spec, self.compute, self.teacher)

    @property
    def flops(self) -> float:
        """FLOPs of all training steps; evaluation is not counted."""
        return self.epochs * self.images * self.step_flops if self.epochs else 0.0

    @property
    def pretrains(self) -> bool:
        """Whether it is a training from random weights."""
        return self.role not in INITIALISED


@arguments.checked(
    runs=arguments.many(arguments.of(Run, called="a Run"), "runs"),
    kept=arguments.many(_KEPT, "specs or descriptions"),
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """A strategy: the runs that together give a network of every depth.

    It is no plan of blocks, as a descendant has.

    Attributes:
      runs: all that is trained.
      kept: networks and learngenes to store, to have every depth without training it
        long again.
    """

    runs: tuple[Run, ...]
    kept: tuple[Spec | Description, ...]

    @property
    def stored(self) -> int:
        """Parameters of the networks that are kept."""
        return sum(map(flops.params, self.kept))

    @property
    def pretrainings(self) -> int:
        """Number of trainings from random weights."""
        return sum(run.pretrains for run in self.runs)

    @property
    def epochs(self) -> float:
        return sum(run.epochs for run in self.runs)

    @property
    def layer_epochs(self) -> float:
        return sum(run.layer_epochs for run in self.runs)

    @property
    def flops(self) -> float:
        """FLOPs of all training steps of all runs."""
        return sum(run.flops for run in self.runs)


QUANTITIES = ("stored", "pretrainings", "epochs", "layer_epochs", "flops")


_PLAN = arguments.of(Plan, called="a Plan")


@arguments.checked(many=_PLAN, one=_PLAN)
def ratios(many: Plan, one: Plan) -> dict[str, float]:
    """The ratio `many` / `one` of each of `QUANTITIES`; infinite where `one` has 0."""
    pairs = ((name, getattr(many, name), getattr(one, name)) for name in QUANTITIES)
    return {name: a / b if b else math.inf for name, a, b in pairs}


@arguments.checked(
    aux=arguments.of(AuxViTSpec, called="an AuxViTSpec"),
    depths=_DEPTHS,
    epochs=_EPOCHS,
    tuning=_EPOCHS,
    teacher=TEACHER,
    images=_IMAGES,
)
def by_learngene(
    aux: AuxViTSpec,
    depths: Sequence[int],
    *,
    epochs: float,
    tuning: float = 0.0,
    teacher: Spec | None = None,
    images: int = IMAGENET_IMAGES,
) -> Plan:
    """Every depth from one Aux-Net, which is what is kept.

    Args:
      aux: the Aux-Net.
      depths: of its descendants.
      epochs: of the Aux-Net.
      tuning: epochs of each descendant; 0 counts none.
      teacher: whose forward counts in every step of the Aux-Net.
      images: of an epoch.
    """
    runs = [Run(roles.SOURCE, aux, epochs, images, teacher=teacher)]
    role = roles.TUNED if tuning else roles.UNTUNED
    nets = [aux.net.replace(depth=depth) for depth in depths]
    runs += [Run(role, net, tuning, images) for net in nets]
    return Plan(tuple(runs), (aux,))


@arguments.checked(
    net=arguments.of(ViTSpec, called="a ViTSpec"),
    depths=_DEPTHS,
    epochs=_EPOCHS,
    images=_IMAGES,
)
def separately(
    net: ViTSpec,
    depths: Sequence[int],
    *,
    epochs: float,
    images: int = IMAGENET_IMAGES,
) -> Plan:
    """Every depth trained on its own, and kept.

    Args:
      net: of any depth.
      depths: of the networks.
      epochs: of each of them.
      images: of an epoch.
    """
    nets = tuple(net.replace(depth=depth) for depth in depths)
    runs = tuple(Run(roles.SCRATCH_LONG, spec, epochs, images) for spec in nets)
    return Plan(runs, nets)


@arguments.checked(quantity=arguments.text(QUANTITIES), many=_PLAN, one=_PLAN)
@dataclasses.dataclass(frozen=True)
class Claim:
    """A ratio of the paper's comparison, with what it leaves out.

    Attributes:
      quantity: what is compared, of `QUANTITIES`.
      many: a training of each depth.
      one: one Aux-Net for all depths.
      condition: what is counted, and what is not.
    """

    quantity: str
    many: Plan
    one: Plan
    condition: str

    @property
    def values(self) -> tuple[float, float]:
        """The quantity of `many`, and that of `one`."""
        return getattr(self.many, self.quantity), getattr(self.one, self.quantity)

    @property
    def ratio(self) -> float:
        many, one = self.values
        return many / one


@arguments.checked(teacher=TEACHER)
def paper(size: str, teacher: Spec | None = None) -> list[Claim]:
    """The comparison of SWS, 2404.16897, whose ratios are arithmetic.

    Ten depths, 6 to 15 (inferred: they fit the claims), 100 epochs each, against an
    Aux-Net of stages 3-3-4-3-3 and 10 epochs of tuning; 1000 classes, 224 px, no class
    token. The Aux-Net's epochs are those of the published code: 150 (S) or 100 (B).
    Two readings of its "6.6 times" less training fit, both without tuning and teacher:
    epochs of S (6.67) and layer-epochs of B (6.56).

    Args:
      size: "S" or "B".
      teacher: whose forward counts in the FLOPs.

    Raises:
      UserError: another size.
    """
    if size not in PAPER_SIZES:
        raise UserError(
            f"the paper compares sizes {' and '.join(PAPER_SIZES)}, and not {size!r}"
        )
    budget = budgets.budget(size)
    stages = "-".join(map(str, budget.stages))
    aux = specs.named(f"aux_vit_{PAPER_SIZES[size]}_patch16_{stages}")
    assert isinstance(aux, AuxViTSpec)
    make = functools.partial(
        by_learngene, aux, budget.depths, epochs=budget.aux_epochs, teacher=teacher
    )
    alone = separately(aux.net, budget.depths, epochs=PAPER_EPOCHS)
    aux_alone, with_tuning = make(), make(tuning=budget.tune_epochs)
    trained = f"Aux-Net {budget.aux_epochs:g} epochs"
    without = f"{trained}; tuning and teacher not counted"
    reading = {"S": "epochs", "B": "layer_epochs"}[size]
    conditions = {
        quantity: without + (" (a reading of 6.6)" if quantity == reading else "")
        for quantity in ("epochs", "layer_epochs")
    }
    tuning = f"{trained} and {budget.tune_epochs:g} of tuning for each depth"
    uncounted = "teacher not counted"
    teacher_note = uncounted
    if teacher:
        teacher_note = f"forward of {teacher.name} as teacher counted"
    kept = "to initialise all depths; once tuned, a network is as large either way"
    return [
        Claim("stored", alone, aux_alone, kept),
        Claim(
            "pretrainings", alone, aux_alone, "the teacher's own training not counted"
        ),
        Claim("epochs", alone, aux_alone, conditions["epochs"]),
        Claim("layer_epochs", alone, aux_alone, conditions["layer_epochs"]),
        Claim("layer_epochs", alone, with_tuning, f"{tuning}; {uncounted}"),
        Claim("flops", alone, with_tuning, f"{tuning}; {teacher_note}"),
    ]
