"""Recipes, batches and teachers for training steps that tests compare."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sws_jax import sharding, specs, trees
from sws_jax.data.augment import Augment
from sws_jax.methods import objectives
from sws_jax.models.networks import Network, Predictor
from sws_jax.pixels import Normalization
from sws_jax.training import step
from sws_jax.training.optim import Optimizer

from support.networks import TINY, aux_spec, params_of

GREY = Normalization((0.3,), (0.4,))
BATCH = 16
AUX = aux_spec((1, 2))
PLAIN = Augment(mixup=0.0, cutmix=0.0)


def recipe_of(spec, **changes):
    fields = dict(
        spec=spec,
        normalization=GREY,
        augment=Augment(erase=0.5, mixup=0.8, cutmix=1.0, label_smoothing=0.1),
        # With the usual eps, Adam turns a gradient of rounding noise into a step.
        optimizer=Optimizer(weight_decay=0.05, clip_norm=1.0, eps=1e-3),
        ema=0.9,
    )
    return step.Recipe(**{**fields, **changes})


def raw_batch(seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (BATCH, 8, 8, 1), dtype=np.uint8)
    labels = random.integers(0, 10, BATCH).astype(np.int32)
    return {"image": jnp.asarray(images), "label": jnp.asarray(labels)}


def drawn_batch(spec, seed=0):
    """A batch that nothing is compiled for: images, targets and masks are drawn.

    What `step.make_batch` makes of pixels has tests of its own.
    """
    random = np.random.default_rng(seed)
    rates = np.asarray(spec.drop_path_rates, np.float64)[:, None]
    kept = random.uniform(size=(BATCH, spec.depth, 2)) >= rates
    masks = (kept / (1 - rates)).astype(np.float32)
    return step.Batch(
        images=jnp.asarray(random.normal(size=(BATCH, 8, 8, 1)), jnp.float32),
        targets=jnp.asarray(random.dirichlet(np.ones(10), BATCH), jnp.float32),
        drop_path=jnp.asarray(masks) if rates.any() else None,
    )


# One program for all tests of a recipe; without it, every operation has its own.
make_batch = jax.jit(step.make_batch, static_argnums=0)


def teacher_of(**changes):
    spec = specs.ViTSpec(depth=2, **{**TINY, **changes})
    return Predictor(
        Network(spec, params_of(spec, seed=7)), Normalization((0.5,), (0.2,))
    )


def no_key_bias(params):
    """Parameters with the keys' biases set to zero.

    Softmax does not depend on such a bias: its gradient is rounding noise, which Adam
    turns into steps of full size.
    """

    def mask(name, leaf):
        leaf = np.array(leaf)
        if name.endswith("qkv/bias"):
            leaf[..., 1, :, :] = 0
        return leaf

    return trees.map_with_name(mask, params)


def placed(teacher, mesh):
    """A teacher whose weights lie where a step expects them."""
    spec, params = teacher.network.spec, teacher.network.params
    params = jax.device_put(params, step.network_shardings(spec, mesh))
    return dataclasses.replace(teacher, network=Network(spec, params))


def run(recipe, devices, steps=3, teacher=None, rate=0.01, sizes=None):
    """The compiled step on so many devices; losses and the last state."""
    mesh = sharding.make_mesh(jax.devices()[:devices], sizes)
    teacher = None if teacher is None else placed(teacher, mesh)
    shardings = step.state_shardings(recipe, mesh)
    params = jax.device_put(params_of(recipe.spec), shardings.params)
    begin = jax.jit(lambda p: step.new_state(recipe, p), out_shardings=shardings)
    state = begin(params)
    key = jax.random.key(3)
    losses = []
    for number in range(steps):
        raw = sharding.to_global(mesh, BATCH, trees.to_host(raw_batch(number)))
        state, metrics = step.compiled_step(recipe, mesh)(
            state, key, raw, np.float32(rate), teacher
        )
        losses.append(float(metrics["loss"]))
    return losses, jax.tree.map(np.asarray, state)


@dataclasses.dataclass(frozen=True)
class Mapped:
    """The blocks of a narrow student, mapped linearly to those of a wide teacher.

    Beside the cross entropy with the labels; it measures both parts.
    """

    weight: float = 0.5
    taps: ClassVar = ("blocks",)
    needs_teacher: ClassVar = True

    def init(self, key, student, teacher):
        shape = (student.net.width, teacher.net.width)
        kernel = nn.Partitioned(jax.random.normal(key, shape) / 4, ("embed", "mlp"))
        return {"map": {"kernel": kernel, "bias": jnp.full(shape[1:], 0.1)}}

    def __call__(self, own, students, targets, teacher):
        blocks = students[0].taps["blocks"][-1]
        mapped = blocks @ own["map"]["kernel"] + own["map"]["bias"]
        error = jnp.square(mapped - teacher.taps["blocks"][-1]).mean()
        labels = objectives.cross_entropy(students[0].logits, targets)
        return self.weight * error + labels, {"error": error, "labels": labels}


@dataclasses.dataclass(frozen=True)
class Summed:
    """The sum over all students of the cross entropy with the labels."""

    taps: ClassVar = ()
    needs_teacher: ClassVar = False

    def init(self, key, student, teacher):
        return {}

    def __call__(self, own, students, targets, teacher):
        losses = [objectives.cross_entropy(s.logits, targets) for s in students]
        return sum(losses), {"last": losses[-1]}


WIDE = dict(width=24, heads=2)


def mapped_recipe(spec, **changes):
    """A recipe whose objective has parameters of its own; teach with `teacher_of`."""
    teacher = teacher_of(**WIDE).network.spec
    return recipe_of(spec, loss=Mapped(), teacher=teacher, **changes)
