"""Networks small in everything but their number of parts, and their parameters."""

import functools

import jax
import numpy as np

from sws_jax import specs, trees
from sws_jax.models import networks

TINY = dict(
    width=16,
    heads=2,
    patch_size=4,
    image_size=8,
    channels=1,
    num_classes=10,
    weight_init="fan_in",
    pos_embed_std=0.5,
)


def aux_spec(stages, **changes):
    net = specs.ViTSpec(depth=sum(stages), **{**TINY, "drop_path": 0.3, **changes})
    return specs.AuxViTSpec(net, stages)


def stitched_spec(**changes):
    """Of two widths; the second and third segment, which are equal, have a map
    between them too."""
    first = specs.ViTSpec(depth=2, **{**TINY, "drop_path": 0.3, **changes})
    wide = first.replace(depth=1, width=24, heads=3, mlp_ratio=2.0)
    return specs.StitchedSpec((first, wide, wide))


def params_of(spec, seed=0):
    """Numpy parameters with no zeros, so that every leaf matters."""
    random = np.random.default_rng(seed)

    def draw(name, leaf):
        kernel = name.endswith(("kernel", "embed", "token"))
        spread = 0.25 if kernel else 0.1
        values = random.normal(scale=spread, size=leaf.shape)
        return (values + name.endswith("scale")).astype(leaf.dtype)

    return trees.map_with_name(draw, networks.abstract_params(spec))


@functools.partial(jax.jit, static_argnums=0)
def logits_of(spec, params, images):
    """One program, which tests of equal networks share."""
    return spec.build().apply({"params": params}, images)
