"""What networks and plans of runs cost, as arithmetic: nothing is run or loaded.

FLOPs are counted in the program that runs, traced with shapes alone: matrix products
and convolutions, 2 for a multiply-add. Norms, softmax, activations, optimiser and
augmentation are not counted. A product counts where it stands in the traced program,
what rematerialisation computes again included, and a convolution as if its padding
were pixels. The published "GFLOPs" of DeiT, LeViT and RegNet are multiply-adds: half.

Activation memory is what one image makes the backward pass wait with: the bytes that
the forward pass leaves for it, and, under rematerialisation, those of the one block
that is computed again at a time. Not in it: parameters, gradients, the optimiser's
state, and the space in which a single block works. XLA's own account of the compiled
gradient of an S at 224 px on a CPU (temporary memory, by image) is 3 to 10 % more, and
under rematerialisation a fifth to a third.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from sws_jax import arguments, specs, trees
from sws_jax.arguments import Range
from sws_jax.errors import UserError
from sws_jax.estimate import budgets
from sws_jax.methods import learngenes
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.models.networks import SPEC, Network, Predictor
from sws_jax.pixels import Normalization
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec
from sws_jax.specs.base import COMPUTE, DEPTH, Compute
from sws_jax.training import step as steps

IMAGENET_IMAGES = 1_281_167  # in its training set (ILSVRC 2012, 1409.0575)
# SWS, 2404.16897, trains the networks that it compares with so long.
PAPER_EPOCHS = 100.0
PAPER_SIZES = {"S": "small", "B": "base"}
# Runs that start from trained weights; every other one is a pre-training.
INITIALISED = ("untuned", "tune")


_TEACHER = arguments.optional(SPEC)
_EPOCHS = arguments.number(Range(0, math.inf))
_IMAGES = arguments.whole(1)
_DEPTHS = arguments.many(DEPTH, "whole numbers")


def _kept_one(name: str, value: Any) -> Spec | Description:
    return value if isinstance(value, Description) else SPEC(name, value)


@arguments.checked(spec=_kept_one)
def params(spec: Spec | Description) -> int:
    """Parameters of a network, or of a learngene by its description.

    Those of a shared block count once.
    """
    if isinstance(spec, Description):
        return trees.count(learngenes.abstract_learngene(spec).params)
    return trees.count(_abstract(spec))


@arguments.checked(function=arguments.function, arguments=arguments.anything)
def flops(function: Callable, *arguments: Any) -> int:
    """FLOPs of a call: 2 for each multiply-add of a product or convolution.

    Args:
      function: anything that jax can trace.
      *arguments: arrays, or trees of `jax.ShapeDtypeStruct`.

    Raises:
      UserError: there are products in a loop whose length only running it tells.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


@arguments.checked(spec=SPEC)
@functools.lru_cache(maxsize=512)
def forward_flops(spec: Spec) -> int:
    """FLOPs of the logits of one image."""
    module = spec.build()

    def logits(params, images):
        return module.apply({"params": params}, images)

    return flops(logits, _abstract(spec), _images(spec, 1))


@arguments.checked(spec=SPEC, compute=COMPUTE, teacher=_TEACHER)
@functools.lru_cache(maxsize=512)
def step_flops(
    spec: Spec, compute: Compute = Compute(), teacher: Spec | None = None
) -> int:
    """FLOPs for each image of a training step (`sws_jax.training.step.train_step`).

    Args:
      spec: of the network that is trained.
      compute: with `remat`, what is computed again counts again.
      teacher: of a distillation, on the student's own batch; its forward counts.

    Raises:
      UserError: networks that are not trained here, or do not fit each other.
    """
    student = _trained(spec)
    look = Normalization((0.5,) * spec.net.channels, (0.5,) * spec.net.channels)
    frozen = None
    if teacher is not None:
        for field in ("num_classes", "channels"):
            ours, theirs = getattr(spec.net, field), getattr(teacher.net, field)
            if ours != theirs:
                raise UserError(
                    f"{field} of {spec.name} is {ours}, and of its teacher "
                    f"{teacher.name} {theirs}: they must be the same"
                )
        frozen = Predictor(Network(teacher, _abstract(teacher)), look)
    loss = Loss("soft" if teacher else "none")
    recipe = steps.Recipe(student, look, compute, loss=loss)
    state = jax.eval_shape(functools.partial(steps.new_state, recipe), _abstract(spec))
    batch = steps.Batch(_images(spec, 1), _targets(spec, 1))
    rate = jax.ShapeDtypeStruct((), np.float32)
    return flops(
        functools.partial(steps.train_step, recipe), state, batch, rate, frozen
    )


@arguments.checked(spec=SPEC, compute=COMPUTE)
@functools.lru_cache(maxsize=512)
def activation_bytes(spec: Spec, compute: Compute = Compute()) -> int:
    """Bytes of activations that training holds for each image.

    The residuals of `jax.vjp` that grow with the batch and, with `compute.remat`,
    those of one block, which is computed again while it is passed backwards; see
    the text on top for what is not in it.

    Raises:
      UserError: for a network that is not trained here.
    """
    net = _trained(spec).net
    kept = _kept(spec, compute)
    if compute.remat:
        plain = dataclasses.replace(compute, remat=False)
        one, two = (_kept(net.replace(depth=depth), plain) for depth in (1, 2))
        kept += two - one
    return kept


def _kept(spec: Spec, compute: Compute) -> int:
    """Bytes from forward to backward pass, for each image."""
    module = spec.build(compute)

    def residuals(params, images, targets):
        def loss_of(params):
            return Loss()(module.apply({"params": params}, images), targets)

        return jax.tree.leaves(jax.vjp(loss_of, params)[1])

    def size(batch: int) -> int:
        found = jax.eval_shape(
            residuals,
            _abstract(spec),
            _images(spec, batch),
            _targets(spec, batch),
        )
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in found)

    # Weights are among the residuals, whatever the batch: the difference leaves the
    # image's.
    return size(3) - size(2)


@functools.lru_cache(maxsize=512)
def _abstract(spec: Spec) -> trees.Tree:
    return networks.abstract_params(spec)


def _trained(spec: Spec) -> ViTSpec | AuxViTSpec:
    if not isinstance(spec, ViTSpec | AuxViTSpec):
        raise UserError(f"{spec.name} is a teacher here, and is not trained")
    if not spec.net.num_classes:
        raise UserError(f"{spec.name} has no classes, and so no loss to train it with")
    return spec


def _images(spec: Spec, batch: int) -> Any:
    net = spec.net
    return jax.ShapeDtypeStruct((batch, *net.image_size, net.channels), np.float32)


def _targets(spec: Spec, batch: int) -> Any:
    return jax.ShapeDtypeStruct((batch, spec.net.num_classes), np.float32)


def _flops(program: core.Jaxpr) -> int:
    """Of a traced program and everything inside it."""
    return sum(_of_equation(equation) for equation in program.eqns)


def _of_equation(equation) -> int:
    kind = equation.primitive.name
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        made = math.prod(equation.outvars[0].aval.shape)
        return 2 * made * math.prod(left[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        # A kernel's input channels are those of one group: its numbers over its
        # output channels are what each output is summed from.
        axis = equation.params["dimension_numbers"].rhs_spec[0]
        kernel = equation.invars[1].aval.shape
        made = math.prod(equation.outvars[0].aval.shape)
        return 2 * made * math.prod(kernel) // kernel[axis]
    found = [_flops(body) for body in _bodies(equation.params.values())]
    if kind == "scan":
        return equation.params["length"] * sum(found)
    if kind == "cond":
        return max(found)  # one branch runs; the dearest, if that is not known
    if kind == "while" and sum(found):
        raise UserError(
            "FLOPs cannot be counted: there are matrix products in a while loop, whose "
            "length is not known before it runs; write it as jax.lax.scan"
        )
    return sum(found)


def _bodies(values) -> list[core.Jaxpr]:
    """Programs among the parameters of an equation: of loops, calls, branches."""
    found = []
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            found.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _bodies(value)
    return found


@arguments.checked(
    spec=SPEC, epochs=_EPOCHS, images=_IMAGES, compute=COMPUTE, teacher=_TEACHER
)
@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      role: as in `sws_jax.jobs.rows.Run`; those of `INITIALISED` start from trained
        weights.
      spec: of the network that is trained.
      epochs: of its training.
      images: of an epoch.
      compute: how it is run.
      teacher: whose forward is part of every step.
    """

    role: str
    spec: Spec
    epochs: float
    images: int = IMAGENET_IMAGES
    compute: Compute = Compute()
    teacher: Spec | None = None

    @property
    def layer_epochs(self) -> float:
        """Applied blocks times epochs."""
        return self.spec.depth * self.epochs

    @property
    def flops(self) -> float:
        """Of all training steps; evaluation is not counted."""
        if not self.epochs:
            return 0.0
        step = step_flops(self.spec, self.compute, self.teacher)
        return self.epochs * self.images * step

    @property
    def pretrains(self) -> bool:
        """Whether it is a training from random weights."""
        return self.role not in INITIALISED


@arguments.checked(
    runs=arguments.many(arguments.of(Run, called="a Run"), "runs"),
    kept=arguments.many(_kept_one, "specs or descriptions"),
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """Runs that together give a network of every depth.

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
        return sum(map(params, self.kept))

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
        """Of all training steps of all runs."""
        return sum(run.flops for run in self.runs)


QUANTITIES = ("stored", "pretrainings", "epochs", "layer_epochs", "flops")


_PLAN = arguments.of(Plan, called="a Plan")


@arguments.checked(many=_PLAN, one=_PLAN)
def ratios(many: Plan, one: Plan) -> dict[str, float]:
    """How often `one` goes into `many`, for each of `QUANTITIES`."""
    pairs = ((name, getattr(many, name), getattr(one, name)) for name in QUANTITIES)
    return {name: a / b if b else math.inf for name, a, b in pairs}


@arguments.checked(
    aux=arguments.of(AuxViTSpec, called="an AuxViTSpec"),
    depths=_DEPTHS,
    epochs=_EPOCHS,
    tuning=_EPOCHS,
    teacher=_TEACHER,
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
    runs = [Run("aux", aux, epochs, images, teacher=teacher)]
    role = "tune" if tuning else "untuned"
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
    """Every depth trained on its own, and kept."""
    nets = tuple(net.replace(depth=depth) for depth in depths)
    runs = tuple(Run("scratch_long", spec, epochs, images) for spec in nets)
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
        """Of many, and of one."""
        return getattr(self.many, self.quantity), getattr(self.one, self.quantity)

    @property
    def ratio(self) -> float:
        many, one = self.values
        return many / one


@arguments.checked(teacher=_TEACHER)
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
    bare, tuned = make(), make(tuning=budget.tune_epochs)
    trained = f"Aux-Net {budget.aux_epochs:g} epochs"
    without = f"{trained}; tuning and teacher not counted"
    reading = {"S": "epochs", "B": "layer_epochs"}[size]
    conditions = {
        quantity: without + (" (a reading of 6.6)" if quantity == reading else "")
        for quantity in ("epochs", "layer_epochs")
    }
    tuning = f"{trained} and {budget.tune_epochs:g} of tuning for each depth"
    uncounted = "teacher not counted"
    seen = f"forward of {teacher.name} as teacher counted" if teacher else uncounted
    kept = "to initialise all depths; once tuned, a network is as large either way"
    return [
        Claim("stored", alone, bare, kept),
        Claim("pretrainings", alone, bare, "the teacher's own training not counted"),
        Claim("epochs", alone, bare, conditions["epochs"]),
        Claim("layer_epochs", alone, bare, conditions["layer_epochs"]),
        Claim("layer_epochs", alone, tuned, f"{tuning}; {uncounted}"),
        Claim("flops", alone, tuned, f"{tuning}; {seen}"),
    ]
