"""Recipes, batches and teachers for training steps that tests compare."""

import jax.numpy as jnp
import numpy as np

from sws_jax import specs, trees
from sws_jax.data.augment import Augment
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
