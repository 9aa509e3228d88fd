"""Learngenes of small Aux-Nets, and descriptions of those."""

import sws_jax
from sws_jax.models.description import Description
from sws_jax.pixels import Normalization

from support.networks import aux_spec, params_of

DIGITS = tuple("0123456789")


def describe(spec, **changes):
    fields = dict(
        kind="aux_net",
        net=spec.net,
        stages=spec.stages,
        method="sws",
        normalization=Normalization((0.3,), (0.4,)),
        class_names=DIGITS,
        teacher="vit_base_patch16_L12",
        dataset="digits",
        accuracy=0.5,
        step=3,
    )
    return Description(**{**fields, **changes})


def learngene(stages=(3, 3, 4, 3, 3), about=None, **changes):
    spec = aux_spec(stages, **changes)
    description = describe(spec, **(about or {}))
    network = sws_jax.Network(spec, params_of(spec), description)
    return sws_jax.extract(network)


GENE = learngene()
