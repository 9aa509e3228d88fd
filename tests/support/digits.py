"""Networks for the digits, with the description that a run gives them."""

import sws_jax
from sws_jax.data import load_dataset
from sws_jax.models.networks import Network

from support.networks import params_of

DIGITS = load_dataset("digits")


def describe(**fields):
    about = dict(
        normalization=DIGITS.normalization,
        dataset="digits",
        class_names=DIGITS.class_names,
    )
    return sws_jax.Description(**{**about, **fields})


def network_of(spec, seed=0, **fields):
    about = describe(kind="network", net=spec, **fields)
    return Network(spec, params_of(spec, seed), about)
