"""What networks cost, as arithmetic: nothing is run or loaded.

FLOPs are counted in the program that runs, traced with shapes alone: matrix products
and convolutions, 2 for a multiply-add. Norms, softmax, activations, optimiser and
augmentation are not counted. A product counts where it stands in the traced program,
what rematerialisation computes again included, and a convolution as if its padding
were pixels. The published "GFLOPs" of DeiT, LeViT and RegNet are multiply-adds: half.

Activation memory is what the forward pass of one image keeps for its backward pass, in
bytes; under rematerialisation, with what the one block needs that is computed again at
a time. Not in it: parameters, gradients, the optimiser's state, and the temporary
memory of a single block. XLA's own count for the compiled gradient of an S at 224 px on
a CPU (temporary memory, by image) is 3 to 10 % more, and under rematerialisation a
fifth to a third.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

from sws_jax import arguments, trees
from sws_jax.errors import UserError
from sws_jax.methods import learngenes
from sws_jax.methods.objectives import Loss, Objective
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.models.networks import SPEC, Network, Predictor
from sws_jax.pixels import Normalization
from sws_jax.specs import Spec, Trained, ViTSpec
from sws_jax.specs.base import COMPUTE, Compute
from sws_jax.training import step as steps

TEACHER = arguments.optional(SPEC)
_OBJECTIVE = arguments.optional(
    arguments.like("taps", "needs_teacher", "init", called="an objective, like a Loss")
)


def _spec_or_description(name: str, value: Any) -> Spec | Description:
    """The kind of argument that stands for a network, or for a learngene."""
    return value if isinstance(value, Description) else SPEC(name, value)


@arguments.checked(spec=_spec_or_description)
def params(spec: Spec | Description) -> int:
    """Parameters of a network, or of a learngene by its description.

    A shared block's parameters count once.
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
      UserError: there are products in a loop whose length is known only at run time.
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


@arguments.checked(
    spec=SPEC,
    compute=COMPUTE,
    teacher=TEACHER,
    objective=_OBJECTIVE,
    students=arguments.many(SPEC, "specs"),
)
@functools.lru_cache(maxsize=512)
def step_flops(
    spec: Spec,
    compute: Compute = Compute(),
    teacher: Spec | None = None,
    objective: Objective | None = None,
    students: tuple[Spec, ...] = (),
) -> int:
    """FLOPs for each image of a training step (`sws_jax.training.step.train_step`).

    Args:
      spec: of the network that is trained.
      compute: with `remat`, what is computed again counts again.
      teacher: of a distillation, on the student's own batch; its forward counts.
      objective: what is minimised, whose products with its own parameters count; None
        stands for the usual loss.
      students: variants that the step computes, of the network's weights, and not the
        network itself; empty for most.

    Raises:
      UserError: networks that are not trained here, or do not fit each other.
    """
    student = _trained(spec)
    halves = (0.5,) * spec.channels
    normalization = Normalization(halves, halves)
    frozen = None if teacher is None else _taught_by(spec, teacher, normalization)
    recipe = steps.Recipe(
        student,
        normalization,
        compute,
        loss=objective or Loss("soft" if teacher else "none"),
        teacher=teacher,
        students=students,
    )
    state = jax.eval_shape(functools.partial(steps.new_state, recipe), _abstract(spec))
    all_run = (steps.Student(),) * len(students)
    masks = (None,) * len(students) or None
    batch = steps.Batch(_images(spec, 1), _targets(spec, 1), masks)
    rate = jax.ShapeDtypeStruct((), np.float32)
    step = functools.partial(steps.train_step, recipe, students=all_run)
    return flops(step, state, batch, rate, frozen)


def _taught_by(spec: Spec, teacher: Spec, normalization: Normalization) -> Predictor:
    """The shapes of a teacher; one that does not fit the network is refused."""
    for field in ("num_classes", "channels"):
        ours, theirs = getattr(spec, field), getattr(teacher, field)
        if ours != theirs:
            raise UserError(
                f"{field} of {spec.name} is {ours}, and of its teacher "
                f"{teacher.name} {theirs}: they must be the same"
            )
    return Predictor(Network(teacher, _abstract(teacher)), normalization)


@arguments.checked(spec=SPEC, compute=COMPUTE)
@functools.lru_cache(maxsize=512)
def activation_bytes(spec: Spec, compute: Compute = Compute()) -> int:
    """Bytes of activations that training holds for each image.

    The residuals of `jax.vjp` that grow with the batch and, with `compute.remat`,
    those of the largest block, as each is computed again while it is passed backwards;
    see the text on top for what is not in it.

    Raises:
      UserError: for a network that is not trained here.
    """
    vits = {vit.replace(depth=1) for vit in _trained(spec).vits}
    kept = _kept(spec, compute)
    if compute.remat:
        plain = dataclasses.replace(compute, remat=False)
        kept += max(_of_block(vit, plain) for vit in vits)
    return kept


def _of_block(spec: ViTSpec, compute: Compute) -> int:
    """Bytes that one block of a ViT keeps, for each image."""
    one, two = (_kept(spec.replace(depth=depth), compute) for depth in (1, 2))
    return two - one


def _kept(spec: Spec, compute: Compute) -> int:
    """Bytes that the forward pass keeps for the backward pass, for each image."""
    module = spec.build(compute)

    def residuals(params, images, targets):
        def loss_of(params):
            return Loss().of(module.apply({"params": params}, images), targets)

        return jax.tree.leaves(jax.vjp(loss_of, params)[1])

    def size(batch: int) -> int:
        leaves = jax.eval_shape(
            residuals,
            _abstract(spec),
            _images(spec, batch),
            _targets(spec, batch),
        )
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    # The residuals include the weights, whatever the batch: the difference of two
    # batches is that of one image.
    return size(3) - size(2)


@functools.lru_cache(maxsize=512)
def _abstract(spec: Spec) -> trees.Tree:
    return networks.abstract_params(spec)


def _trained(spec: Spec) -> Trained:
    if not isinstance(spec, Trained):
        raise UserError(f"{spec.name} is a teacher here, and is not trained")
    if not spec.num_classes:
        raise UserError(f"{spec.name} has no classes, and so no loss to train it with")
    return spec


def _images(spec: Spec, batch: int) -> Any:
    shape = (batch, *spec.image_size, spec.channels)
    return jax.ShapeDtypeStruct(shape, np.float32)


def _targets(spec: Spec, batch: int) -> Any:
    return jax.ShapeDtypeStruct((batch, spec.num_classes), np.float32)


def _flops(program: core.Jaxpr) -> int:
    """FLOPs of a traced program, with those of the programs inside it."""
    return sum(_of_equation(equation) for equation in program.eqns)


def _of_equation(equation) -> int:
    """FLOPs of one equation of a traced program, those of its inner programs included.

    Raises:
      UserError: it is a while loop with products in it.
    """
    kind = equation.primitive.name
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        outputs = math.prod(equation.outvars[0].aval.shape)
        return 2 * outputs * math.prod(left[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        # The kernel has the input channels of one group alone. Each output is a sum of
        # as many products as the kernel has numbers for one output channel.
        axis = equation.params["dimension_numbers"].rhs_spec[0]
        kernel = equation.invars[1].aval.shape
        outputs = math.prod(equation.outvars[0].aval.shape)
        return 2 * outputs * math.prod(kernel) // kernel[axis]
    inner = [_flops(program) for program in _programs(equation.params.values())]
    if kind == "scan":
        return equation.params["length"] * sum(inner)
    if kind == "cond":
        return max(inner)  # One branch runs: the most expensive one counts.
    if kind == "while" and sum(inner):
        raise UserError(
            "FLOPs cannot be counted: there are matrix products in a while loop, whose "
            "length is not known before it runs; write it as jax.lax.scan"
        )
    return sum(inner)


def _programs(values) -> list[core.Jaxpr]:
    """Programs among the parameters of an equation: of loops, calls, branches."""
    programs = []
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            programs.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            programs.append(value)
        elif isinstance(value, (tuple, list)):
            programs += _programs(value)
    return programs
