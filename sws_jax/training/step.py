"""One training step, as pure functions."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from sws_jax import sharding, trees
from sws_jax.data.augment import Augment
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks, vit
from sws_jax.models.networks import Predictor
from sws_jax.pixels import Normalization
from sws_jax.specs import Compute, Spec, Trained
from sws_jax.training.optim import Optimizer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything static about a step; hashable, so equal recipes compile once.

    Attributes:
      spec: network to train.
      compute: how it is run.
      augment, normalization: from pixels to its input.
      loss, optimizer: what is minimised, and how.
      accum_steps: micro-batches that a batch is computed in; the result is that of the
        whole batch.
      ema: decay of the moving average of the weights; 0 keeps none.
    """

    spec: Trained
    normalization: Normalization
    compute: Compute = Compute()
    augment: Augment = Augment()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    accum_steps: int = 1
    ema: float = 0.0


class TrainState(struct.PyTreeNode):
    """What a step changes."""

    step: Any  # int32 scalar; a sharding, in a tree of shardings
    params: trees.Tree
    opt: Any
    ema: trees.Tree | None


class Batch(NamedTuple):
    """What a step is computed from; every leaf has the global batch as first axis.

    Attributes:
      images: [batch, height, width, channels], normalised.
      targets: [batch, classes], distributions.
      drop_path: [batch, layers, 2] scales of branches; None without stochastic depth.
      teacher_logits: [batch, classes]; None where there are none yet.
    """

    images: jax.Array
    targets: jax.Array
    drop_path: jax.Array | None = None
    teacher_logits: jax.Array | None = None


def new_state(
    recipe: Recipe, params: trees.Tree, ema: trees.Tree | None = None
) -> TrainState:
    """The state before the first step.

    Args:
      recipe: static.
      params: of the network.
      ema: where the moving average starts, if not from these.
    """
    opt = recipe.optimizer.build().init(params)
    start = params if ema is None else ema
    ema = jax.tree.map(jnp.copy, start) if recipe.ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, opt, ema)


def train_step(
    recipe: Recipe,
    state: TrainState,
    batch: Batch,
    rate: jax.Array,
    teacher: Predictor | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: gradient of the loss, AdamW, moving average.

    Args:
      recipe: static.
      state: before the step.
      batch: see `make_batch`.
      rate: learning rate.
      teacher: whose logits are computed where the batch has none.

    Returns:
      The state after the step, and ``loss`` and ``grad_norm``.
    """
    module = recipe.spec.build(recipe.compute)

    def loss_of(params, micro_batch: Batch):
        masks = micro_batch.drop_path
        masks = None if masks is None else jnp.moveaxis(masks, 0, -1)
        logits = module.apply({"params": params}, micro_batch.images, masks)
        teacher_logits = micro_batch.teacher_logits
        if teacher_logits is None and teacher is not None:
            teacher_logits = teacher.logits(micro_batch.images, recipe.normalization)
        return recipe.loss.of(logits, micro_batch.targets, teacher_logits)

    loss, grads = accumulate(
        jax.value_and_grad(loss_of), state.params, batch, recipe.accum_steps
    )
    update, opt = recipe.optimizer.build().update(grads, state.opt, state.params)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, update)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update(params, ema, 1.0 - recipe.ema)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, opt, ema), metrics


def accumulate(function, params: trees.Tree, batch: Batch, micro_batches: int):
    """Mean of ``function(params, micro_batch)`` over equal micro-batches.

    Micro-batch i takes rows i, i + micro_batches, ...: each device splits its own rows,
    and no image moves to another. Losses are means over the batch, so that the mean of
    the micro-batches' values and gradients is that of the whole batch.

    Args:
      function: of params and a `Batch`; returns a tree of means over its batch.
      params: of the network.
      batch: leaves [batch, ...].
      micro_batches: their number, which divides the batch.

    Returns:
      A tree like the function's.
    """
    if micro_batches == 1:
        return function(params, batch)

    def split(rows):
        return rows.reshape(-1, micro_batches, *rows.shape[1:]).swapaxes(0, 1)

    def add(total, micro_batch):
        return jax.tree.map(jnp.add, total, function(params, micro_batch)), None

    stacked = jax.tree.map(split, batch)
    first = jax.tree.map(lambda rows: rows[0], stacked)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(function, params, first),
    )
    total, _ = jax.lax.scan(add, zeros, stacked)
    return jax.tree.map(lambda leaf: leaf / micro_batches, total)


def make_batch(recipe: Recipe, key: jax.Array, step: jax.Array, raw: dict) -> Batch:
    """From pixels and labels to a batch; all that is random in a step is drawn here.

    Args:
      recipe: static.
      key: of the run's seed.
      step: folded into the key, so that a step's randomness is its own.
      raw: ``image`` uint8 [batch, ...] and ``label`` [batch].
    """
    augment_key, drop_key = keys(key, step)
    spec, size = recipe.spec, len(raw["image"])
    images, targets = recipe.augment(
        augment_key, raw["image"], raw["label"], spec.num_classes, recipe.normalization
    )
    drop_path = None
    if spec.drop_path_rates.any():
        masks = vit.drop_path_masks(drop_key, spec.drop_path_rates, size)
        drop_path = jnp.moveaxis(masks, -1, 0)
    return Batch(images, targets, drop_path)


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
    abstract = networks.abstract_params(recipe.spec)
    optimizer = recipe.optimizer.build()
    opt = optax.tree_map_params(
        optimizer,
        lambda _, param_sharding: param_sharding,
        jax.eval_shape(optimizer.init, abstract),
        params,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(everywhere, params, opt, params if recipe.ema else None)


@functools.lru_cache(maxsize=16)
def compiled_step(recipe: Recipe, mesh: Mesh):
    """The jitted ``(state, key, raw, rate, teacher) -> (state, metrics)``.

    The old state's buffers are donated. Cached: runs with equal recipes (tuning and
    training from scratch at one depth, say) share one compilation.
    """

    def run(state, key, raw, rate, teacher):
        with sharding.constrained(mesh):
            batch = make_batch(recipe, key, state.step, raw)
            return train_step(recipe, state, batch, rate, teacher)

    state, everywhere = state_shardings(recipe, mesh), sharding.replicated(mesh)
    rows = sharding.batch_sharding(mesh)
    return jax.jit(
        run,
        # A teacher stays where it is placed, by `network_shardings`.
        in_shardings=(state, everywhere, rows, everywhere, None),
        out_shardings=(state, everywhere),
        donate_argnums=0,
    )


def arguments(recipe: Recipe, mesh: Mesh, size: int, teacher: Predictor | None):
    """Shapes and shardings of what `compiled_step` takes.

    Args:
      recipe: static.
      mesh: to run on.
      size: of the global batch.
      teacher: of arrays, or of shapes, with their shardings.
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
    return (
        jax.tree.map(with_sharding, state, state_shardings(recipe, mesh)),
        with_sharding(key, everywhere),
        raw,
        jax.ShapeDtypeStruct((), np.float32, sharding=everywhere),
        jax.tree.map(lambda leaf: with_sharding(leaf, leaf.sharding), teacher),
    )


@sharding.alone()
def program(
    recipe: Recipe, mesh: Mesh, size: int, teacher: Predictor | None = None
) -> jax.stages.Compiled:
    """`compiled_step`, compiled before it is called; equal ones once.

    Args:
      recipe: static.
      mesh: to run on.
      size: of the global batch.
      teacher: as in `arguments`.
    """
    leaves, tree = jax.tree.flatten(arguments(recipe, mesh, size, teacher))
    return _program(recipe, mesh, tree, tuple(leaves))


@functools.lru_cache(maxsize=16)
def _program(recipe: Recipe, mesh: Mesh, tree, leaves) -> jax.stages.Compiled:
    lowered = compiled_step(recipe, mesh).lower(*jax.tree.unflatten(tree, leaves))
    return lowered.compile()


def with_sharding(leaf, leaf_sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array, with a sharding."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf_sharding)
