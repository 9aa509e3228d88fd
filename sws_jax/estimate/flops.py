"""What networks cost, as arithmetic: nothing is run or loaded.

FLOPs are counted in the program that runs, traced with shapes alone: matrix products
and convolutions, 2 for a multiply-add. Norms, softmax, activations, optimiser and
augmentation are not counted. A product counts where it stands in the traced program,
what rematerialisation computes again included, and a convolution as if its padding
were pixels. The published "GFLOPs" of DeiT, LeViT and RegNet are multiply-adds: half.
The program is the plain one unless a `Compute` names a backend: a device whose rules
(`sws_jax.models.rules`) compute some of it again has no higher costs than another.
A step is counted for one image: what an objective or an expansion multiplies that does
not depend on images counts for each of them.

Activation memory is what the forward pass of one image keeps for its backward pass, in
bytes; under rematerialisation, with what the one block needs that is computed again at
a time. Not in it: parameters, gradients, the optimiser's state, and the temporary
memory of a single block. XLA's own count for the compiled gradient of an S at 224 px on
a CPU (temporary memory, by image) is 3 to 10 % more, and under rematerialisation a
fifth to a third.
"""

from __future__ import annotations

import collections
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
from sws_jax.methods import base, learngenes
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.models.networks import SPEC, Network, Predictor
from sws_jax.models.outputs import Outputs
from sws_jax.pixels import Normalization, default_normalization
from sws_jax.specs import Spec, Trained, ViTSpec
from sws_jax.specs.base import COMPUTE, Compute
from sws_jax.specs.variants import Computation
from sws_jax.training import step as steps
from sws_jax.training.picks import Picks
from sws_jax.training.step import Recipe

# Picks are counted over so many steps at most.
_COUNTED_STEPS = 1000
TEACHER = arguments.optional(SPEC)


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
    module = spec.build(_counted(Compute()))

    def logits(params, images):
        return module.apply({"params": params}, images)

    return flops(logits, _abstract(spec), _images(spec, 1))


@arguments.checked(spec=SPEC, compute=COMPUTE, teacher=TEACHER)
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
    loss = Loss("soft" if teacher else "none")
    recipe = Recipe(
        _trained(spec),
        _normalization(spec),
        _counted(compute),
        loss=loss,
        teacher=teacher,
    )
    return _program_flops(recipe, ())


def mean_step_flops(picks: Picks, total: int) -> float:
    """FLOPs for each image of a training step of a run, as its steps are on average.

    Objective and teacher are those of the run. A block that a variant leaves out is not
    counted.

    Args:
      picks: of the run; its teacher is that of the recipe.
      total: steps of the run. Of a longer one than 1,000 only these are looked at.

    Raises:
      UserError: as `step_flops`.
    """
    recipe = _of_shapes(picks.recipe)
    if not picks.variants:
        return _program_flops(recipe, ())
    looked_at = max(min(total, _COUNTED_STEPS), 1)
    counts = collections.Counter(map(picks.picked, range(looked_at)))
    sums = sum(n * _picked_flops(recipe, picked) for picked, n in counts.items())
    return sums / looked_at


def own_params(recipe: Recipe) -> int:
    """Parameters that the objective of a run has beside the network's."""

    def init(key):
        return recipe.loss.init(key, recipe.spec, recipe.teacher)

    return trees.count(jax.eval_shape(init, jax.eval_shape(jax.random.key, 0)))


@functools.lru_cache(maxsize=512)
def _picked_flops(recipe: Recipe, picked: tuple[Computation, ...]) -> int:
    """FLOPs of a step that computes these variants.

    In the traced program every block of a form runs. Those that a variant leaves out
    are taken off as if the loss had a gradient through each of its variants.
    """
    forms = tuple(computation.form for computation in picked)
    ranges = tuple(len(computation.ranges or ()) for computation in picked)
    whole = _program_flops(dataclasses.replace(recipe, forms=forms), ranges)
    return whole - sum(
        step_flops(computation.form, recipe.compute)
        - step_flops(computation.spec, recipe.compute)
        for computation in picked
        if computation.ranges
    )


@functools.lru_cache(maxsize=512)
def _program_flops(recipe: Recipe, ranges: tuple[int, ...]) -> int:
    """FLOPs of the program of a step, for one image.

    Args:
      recipe: as `_of_shapes` has it.
      ranges: of each of its forms, how many; 0 for none.
    """
    return flops(
        functools.partial(steps.train_step, recipe),
        _state(recipe),
        _batch(recipe, 1),
        jax.ShapeDtypeStruct((), np.float32),
        _teacher(recipe),
        _students(ranges),
    )


def _of_shapes(recipe: Recipe) -> Recipe:
    """What of a recipe decides the shapes of one image's step; equal for many runs."""
    return Recipe(
        _trained(recipe.spec),
        _normalization(recipe.spec),
        _counted(recipe.compute),
        loss=recipe.loss,
        teacher=recipe.teacher,
        forms=recipe.forms,
    )


def _counted(compute: Compute) -> Compute:
    """How a network is run to be counted: the same on every machine."""
    if compute.backend != "default":
        return compute
    return dataclasses.replace(compute, backend="plain")


def _normalization(spec: Spec) -> Normalization:
    """A placeholder: a normalisation has no products."""
    return default_normalization(spec.channels)


def _state(recipe: Recipe) -> steps.TrainState:
    """The shapes of a run's state."""
    new_state = functools.partial(steps.new_state, recipe)
    return jax.eval_shape(new_state, _abstract(recipe.spec))


def _batch(recipe: Recipe, size: int) -> steps.Batch:
    """The shapes of a batch, of which no branch is dropped."""
    spec, masks = recipe.spec, (None,) * len(recipe.forms)
    return steps.Batch(_images(spec, size), _targets(spec, size), masks or None)


def _students(ranges: tuple[int, ...]) -> tuple[steps.Student, ...]:
    """The shapes of what each variant passes to a program; see `_program_flops`."""
    return tuple(
        steps.Student(jax.ShapeDtypeStruct((count, 2), np.int32) if count else None)
        for count in ranges
    )


def _teacher(recipe: Recipe) -> Predictor | None:
    """The shapes of the network that teaches a run, if one does.

    Raises:
      UserError: it does not fit the run's network.
    """
    spec, teacher = recipe.spec, recipe.teacher
    if teacher is None:
        return None
    for field in ("num_classes", "channels"):
        ours, theirs = getattr(spec, field), getattr(teacher, field)
        if ours != theirs:
            raise UserError(
                f"{field} of {spec.name} is {ours}, and of its teacher "
                f"{teacher.name} {theirs}: they must be the same"
            )
    network = Network(teacher, _abstract(teacher))
    return Predictor(network, recipe.normalization, _counted(Compute()))


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
    recipe = Recipe(_trained(spec), _normalization(spec), _counted(compute))
    return _step_bytes(recipe, ())


def step_bytes(recipe: Recipe, students: tuple[steps.Student, ...] = ()) -> int:
    """`activation_bytes` of a run's step, with its objective and all its forms.

    Args:
      recipe: static.
      students: of each of its forms.
    """
    recipe = _of_shapes(recipe)
    if base.is_usual(recipe.loss):  # It keeps no more where it is distilled.
        recipe = dataclasses.replace(recipe, loss=Loss(), teacher=None)
    ranges = (0 if s.ranges is None else len(s.ranges) for s in students)
    return _step_bytes(recipe, tuple(ranges))


@functools.lru_cache(maxsize=512)
def _step_bytes(recipe: Recipe, ranges: tuple[int, ...]) -> int:
    """`step_bytes`, of arguments as `_program_flops` takes them."""
    kept = _kept(recipe, ranges)
    if recipe.compute.remat:
        forms = [_trained(form) for form in recipe.forms or (recipe.spec,)]
        vits = {vit.replace(depth=1) for form in forms for vit in form.vits}
        plain = dataclasses.replace(recipe.compute, remat=False)
        kept += max(_of_block(vit, plain) for vit in vits)
    return kept


@functools.lru_cache(maxsize=512)
def _of_block(spec: ViTSpec, compute: Compute) -> int:
    """Bytes that one block of a ViT keeps, for each image."""
    normalization = _normalization(spec)
    one, two = (
        _kept(Recipe(spec.replace(depth=depth), normalization, compute), ())
        for depth in (1, 2)
    )
    return two - one


def _kept(recipe: Recipe, ranges: tuple[int, ...]) -> int:
    """Bytes that the forward pass keeps for the backward pass, for each image."""
    state, students = _state(recipe), _students(ranges)

    def residuals(params, own, batch, taught, students):
        def loss_of(params, own):
            outputs = steps.student_outputs(recipe, params, batch, students)
            return recipe.loss(own or {}, outputs, batch.targets, taught)[0]

        return jax.tree.leaves(jax.vjp(loss_of, params, own)[1])

    def size(images: int) -> int:
        batch = _batch(recipe, images)
        arrays = (
            state.params,
            state.own,
            batch,
            _teacher_outputs(recipe, batch),
            students,
        )
        leaves = jax.eval_shape(residuals, *arrays)
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    # The residuals include the weights, whatever the batch: the difference of two
    # batches is that of one image.
    return size(3) - size(2)


def _teacher_outputs(recipe: Recipe, batch: steps.Batch) -> Outputs | None:
    """The shapes of what the teacher returns for a batch, if there is one."""
    teacher = _teacher(recipe)
    if teacher is None:
        return None
    taps = recipe.loss.taps
    return jax.eval_shape(
        lambda teacher, images: teacher.outputs(images, recipe.normalization, taps),
        teacher,
        batch.images,
    )


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
