"""One training step, as pure functions."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from sws_jax import sharding, trees
from sws_jax.data.augment import Augment
from sws_jax.errors import UserError
from sws_jax.methods import base
from sws_jax.methods.objectives import Loss, Objective
from sws_jax.models import networks, vit
from sws_jax.models.networks import Predictor
from sws_jax.models.outputs import Outputs
from sws_jax.pixels import Normalization
from sws_jax.specs import Compute, Spec, Trained
from sws_jax.training.metrics import RESERVED
from sws_jax.training.optim import Optimizer

# Folded into the key of a run's seed to draw the objective's own parameters. Steps fold
# their numbers into the same key: they are int32, and never as large.
_OWN = np.uint32(2**32 - 1)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything static about a step; hashable, so equal recipes compile once.

    Attributes:
      spec: network to train.
      compute: how it is run.
      augment, normalization: from pixels to its input.
      loss: the objective, which is minimised.
      optimizer: how it is.
      accum_steps: micro-batches that a batch is computed in; the result is that of the
        whole batch.
      ema: decay of the moving average of the weights; 0 keeps none.
      teacher: the network that teaches, by which the objective makes its own
        parameters; None without one.
      forms: the networks that the step computes with the parameters of `spec`, one for
        each variant that it picks; empty in a run without variants, whose steps compute
        `spec`.
    """

    spec: Trained
    normalization: Normalization
    compute: Compute = Compute()
    augment: Augment = Augment()
    loss: Objective = Loss()
    optimizer: Optimizer = Optimizer()
    accum_steps: int = 1
    ema: float = 0.0
    teacher: Spec | None = None
    forms: tuple[Spec, ...] = ()


class TrainState(struct.PyTreeNode):
    """What a step changes."""

    step: Any  # int32 scalar; a sharding, in a tree of shardings
    params: trees.Tree
    opt: Any
    ema: trees.Tree | None
    own: trees.Tree | None = None  # of the objective; None where it has no parameters


class Student(NamedTuple):
    """What a variant passes to the program of a step, for its form.

    Attributes:
      ranges: [segments, 2] int32, which blocks run; None runs all of them.
      rates: [layers] float32, the rate of stochastic depth of each applied block, 0
        where it does not run; None where no block has any.
    """

    ranges: Any = None
    rates: Any = None


class Batch(NamedTuple):
    """What a step is computed from; every leaf has the global batch as first axis.

    Attributes:
      images: [batch, height, width, channels], normalised.
      targets: [batch, classes], distributions.
      drop_path: [batch, layers, 2] scales of branches; None without stochastic depth.
        A tuple of them, one for each of `Recipe.forms`, where there are any.
    """

    images: jax.Array
    targets: jax.Array
    drop_path: jax.Array | tuple[jax.Array | None, ...] | None = None


def new_state(
    recipe: Recipe, params: trees.Tree, ema: trees.Tree | None = None, seed: int = 0
) -> TrainState:
    """The state before the first step.

    Args:
      recipe: static.
      params: of the network.
      ema: where the moving average starts, if not from these.
      seed: of the run, from which the objective draws its own parameters.
    """
    own = nn.meta.unbox(_own(recipe, seed))
    opt = recipe.optimizer.build().init(_weights(params, own))
    start = params if ema is None else ema
    ema = jax.tree.map(jnp.copy, start) if recipe.ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, opt, ema, own)


def _own(recipe: Recipe, seed: int = 0) -> trees.Tree | None:
    """The objective's own parameters before the first step, boxed; None for none."""
    key = jax.random.fold_in(jax.random.key(seed), _OWN)
    own = base.initial_own(recipe.loss, key, recipe.spec, recipe.teacher)
    return own if jax.tree.leaves(own) else None


def _weights(params: trees.Tree, own: trees.Tree | None) -> trees.Tree:
    """All that the optimiser updates: one gradient, of one norm."""
    return params if own is None else {"network": params, "own": own}


def _split(weights: trees.Tree, has_own: bool) -> tuple[trees.Tree, trees.Tree | None]:
    """The inverse of `_weights`."""
    return (weights["network"], weights["own"]) if has_own else (weights, None)


def train_step(
    recipe: Recipe,
    state: TrainState,
    batch: Batch,
    rate: jax.Array,
    teacher: Predictor | None = None,
    students: tuple[Student, ...] = (),
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: gradient of the loss, AdamW, moving average.

    Args:
      recipe: static.
      state: before the step.
      batch: see `make_batch`.
      rate: learning rate.
      teacher: the network that teaches, if there is one.
      students: of each of `Recipe.forms`.

    Returns:
      The state after the step; ``loss``, ``grad_norm`` and what the objective measures.

    Raises:
      UserError: the objective measures something that cannot be logged.
    """
    has_own = state.own is not None

    def loss_of(weights, micro_batch: Batch):
        params, own = _split(weights, has_own)
        outputs = student_outputs(recipe, params, micro_batch, students)
        taught = _teacher_outputs(recipe, micro_batch, teacher)
        loss, measured = recipe.loss(own or {}, outputs, micro_batch.targets, taught)
        return loss, _loggable(measured)

    weights = _weights(state.params, state.own)
    (loss, measured), grads = accumulate(
        jax.value_and_grad(loss_of, has_aux=True), weights, batch, recipe.accum_steps
    )
    update, opt = recipe.optimizer.build().update(grads, state.opt, weights)
    weights = jax.tree.map(lambda p, u: p - rate * u, weights, update)
    params, own = _split(weights, has_own)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update(params, ema, 1.0 - recipe.ema)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), **measured}
    return TrainState(state.step + 1, params, opt, ema, own), metrics


def student_outputs(
    recipe: Recipe,
    params: trees.Tree,
    batch: Batch,
    students: tuple[Student, ...],
) -> tuple[Outputs, ...]:
    """What the network returns for a batch, in each of its forms.

    Args:
      recipe: static.
      params: of the network.
      batch: see `make_batch`.
      students: of each of `Recipe.forms`.
    """
    taps = recipe.loss.taps
    forms: tuple[Spec, ...] = recipe.forms
    masks: Any = batch.drop_path
    if not forms:
        forms, masks, students = (recipe.spec,), (masks,), (Student(),)
    outputs = []
    for form, mask, student in zip(forms, masks, students, strict=True):
        result = form.build(recipe.compute).apply(
            {"params": params},
            batch.images,
            None if mask is None else jnp.moveaxis(mask, 0, -1),
            taps=taps,
            ranges=student.ranges,
        )
        outputs.append(result if taps else Outputs(result))
    return tuple(outputs)


def _teacher_outputs(
    recipe: Recipe, batch: Batch, teacher: Predictor | None
) -> Outputs | None:
    """What the teacher returns for a batch, if there is a teacher."""
    if teacher is None:
        return None
    return teacher.outputs(batch.images, recipe.normalization, recipe.loss.taps)


def _loggable(measured: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What an objective measures, as numbers of a row of the log.

    Raises:
      UserError: one has the name of another column of the log, or is no scalar.
    """
    for name, value in measured.items():
        if name in RESERVED:
            raise UserError(
                f"the objective measures {name!r}, which is the name of another column "
                f"of the log: give it a name of its own"
            )
        if jnp.shape(value):
            raise UserError(
                f"the objective measures {name!r} of shape {jnp.shape(value)}, and the "
                f"log takes scalars: return its mean over the images"
            )
    return {name: jnp.asarray(v, jnp.float32) for name, v in measured.items()}


def accumulate(function, weights: trees.Tree, batch: Batch, micro_batches: int):
    """Mean of ``function(weights, micro_batch)`` over equal micro-batches.

    Micro-batch i takes rows i, i + micro_batches, ...: each device splits its own rows,
    and no image moves to another. Losses are means over the batch, so that the mean of
    the micro-batches' values and gradients is that of the whole batch.

    Args:
      function: of weights and a `Batch`; returns a tree of means over its batch.
      weights: of the network, and of the objective.
      batch: leaves [batch, ...].
      micro_batches: their number, which divides the batch.

    Returns:
      A tree like the function's.
    """
    if micro_batches == 1:
        return function(weights, batch)

    def split(rows):
        return rows.reshape(-1, micro_batches, *rows.shape[1:]).swapaxes(0, 1)

    def add(total, micro_batch):
        return jax.tree.map(jnp.add, total, function(weights, micro_batch)), None

    stacked = jax.tree.map(split, batch)
    first = jax.tree.map(lambda rows: rows[0], stacked)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(function, weights, first),
    )
    total, _ = jax.lax.scan(add, zeros, stacked)
    return jax.tree.map(lambda leaf: leaf / micro_batches, total)


def make_batch(
    recipe: Recipe,
    key: jax.Array,
    step: jax.Array,
    raw: dict,
    students: tuple[Student, ...] = (),
) -> Batch:
    """From pixels and labels to a batch; all that is random in a step is drawn here.

    Args:
      recipe: static.
      key: of the run's seed.
      step: folded into the key, so that a step's randomness is its own.
      raw: ``image`` uint8 [batch, ...] and ``label`` [batch].
      students: of each of `Recipe.forms`.
    """
    augment_key, drop_key = keys(key, step)
    spec, size = recipe.spec, len(raw["image"])
    images, targets = recipe.augment(
        augment_key, raw["image"], raw["label"], spec.num_classes, recipe.normalization
    )
    drop_path: Any = None
    if recipe.forms:
        drop_path = tuple(
            # The first one's are those of a network without variants.
            _masks(jax.random.fold_in(drop_key, i) if i else drop_key, s.rates, size)
            for i, s in enumerate(students)
        )
    elif spec.drop_path_rates.any():
        drop_path = _masks(drop_key, spec.drop_path_rates, size)
    return Batch(images, targets, drop_path)


def _masks(key: jax.Array, rates, size: int) -> jax.Array | None:
    """Scales of branches, [batch, layers, 2]; None where none is dropped."""
    if rates is None:
        return None
    return jnp.moveaxis(vit.drop_path_masks(key, rates, size), -1, 0)


def keys(key: jax.Array, step: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """The keys of a step: of its augmentation and of its stochastic depth."""
    augment_key, drop_key = jax.random.split(jax.random.fold_in(key, step))
    return augment_key, drop_key


def network_shardings(spec: Spec, mesh: Mesh) -> trees.Tree:
    """The sharding of each parameter of a network."""
    boxed = networks.abstract_params(spec, boxed=True)
    return sharding.tree_shardings(boxed, mesh)


def state_shardings(recipe: Recipe, mesh: Mesh) -> TrainState:
    """The sharding of each leaf of the state; optimiser and EMA follow the weights."""
    params = network_shardings(recipe.spec, mesh)
    everywhere = sharding.replicated(mesh)
    boxed_own = jax.eval_shape(functools.partial(_own, recipe))
    own = _own_shardings(boxed_own, mesh)
    abstract = networks.abstract_params(recipe.spec)
    optimizer = recipe.optimizer.build()
    opt = optax.tree_map_params(
        optimizer,
        lambda _, weight_sharding: weight_sharding,
        jax.eval_shape(optimizer.init, _weights(abstract, nn.meta.unbox(boxed_own))),
        _weights(params, own),
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(everywhere, params, opt, params if recipe.ema else None, own)


def _own_shardings(boxed_own: trees.Tree | None, mesh: Mesh) -> trees.Tree | None:
    """The sharding of an objective's own parameters: replicated where not boxed."""

    def is_boxed(leaf) -> bool:
        return isinstance(leaf, nn.Partitioned)

    def leaf_sharding(leaf):
        if is_boxed(leaf):
            return sharding.tree_shardings(leaf, mesh)
        return sharding.replicated(mesh)

    return jax.tree.map(leaf_sharding, boxed_own, is_leaf=is_boxed)


@functools.lru_cache(maxsize=16)
def compiled_step(recipe: Recipe, mesh: Mesh):
    """The jitted ``(state, key, raw, rate, teacher) -> (state, metrics)``.

    With `Recipe.forms` it takes a tuple of `Student` as well. The old state's
    buffers are donated. Cached: runs with equal recipes (tuning and training from
    scratch at one depth, say) share one compilation.
    """

    def run(state, key, raw, rate, teacher, students=()):
        with sharding.constrained(mesh):
            batch = make_batch(recipe, key, state.step, raw, students)
            return train_step(recipe, state, batch, rate, teacher, students)

    state, everywhere = state_shardings(recipe, mesh), sharding.replicated(mesh)
    rows = sharding.batch_sharding(mesh)
    # A teacher stays where it is placed, by `network_shardings`.
    places: tuple[Any, ...] = (state, everywhere, rows, everywhere, None)
    if recipe.forms:
        places += (everywhere,)
    return jax.jit(
        run, in_shardings=places, out_shardings=(state, everywhere), donate_argnums=0
    )


def argument_shapes(
    recipe: Recipe,
    mesh: Mesh,
    size: int,
    teacher: Predictor | None,
    students: tuple[Student, ...] = (),
) -> tuple[Any, ...]:
    """Shapes and shardings of what `compiled_step` takes.

    Args:
      recipe: static.
      mesh: to run on.
      size: of the global batch.
      teacher: of arrays, or of shapes, with their shardings.
      students: of arrays, for each of `Recipe.forms`.
    """
    params = networks.abstract_params(recipe.spec)
    state = jax.eval_shape(functools.partial(new_state, recipe), params)
    everywhere, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    shape = (size, *recipe.spec.image_size, recipe.spec.channels)
    raw = {
        "image": jax.ShapeDtypeStruct(shape, np.uint8, sharding=rows),
        "label": jax.ShapeDtypeStruct((size,), np.int32, sharding=rows),
    }
    key = jax.eval_shape(jax.random.key, 0)
    leaves = (
        jax.tree.map(with_sharding, state, state_shardings(recipe, mesh)),
        with_sharding(key, everywhere),
        raw,
        jax.ShapeDtypeStruct((), np.float32, sharding=everywhere),
        jax.tree.map(lambda leaf: with_sharding(leaf, leaf.sharding), teacher),
    )
    if not recipe.forms:
        return leaves
    return *leaves, jax.tree.map(lambda leaf: with_sharding(leaf, everywhere), students)


@sharding.alone()
def program(
    recipe: Recipe,
    mesh: Mesh,
    size: int,
    teacher: Predictor | None = None,
    students: tuple[Student, ...] = (),
) -> jax.stages.Compiled:
    """`compiled_step`, compiled before it is called; equal ones once.

    Args:
      recipe: static.
      mesh: to run on.
      size: of the global batch.
      teacher, students: as in `argument_shapes`.
    """
    shapes = argument_shapes(recipe, mesh, size, teacher, students)
    leaves, tree = jax.tree.flatten(shapes)
    return _program(recipe, mesh, tree, tuple(leaves))


@functools.lru_cache(maxsize=16)
def _program(recipe: Recipe, mesh: Mesh, tree, leaves) -> jax.stages.Compiled:
    lowered = compiled_step(recipe, mesh).lower(*jax.tree.unflatten(tree, leaves))
    return lowered.compile()


def with_sharding(leaf, leaf_sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array, with a sharding."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf_sharding)
