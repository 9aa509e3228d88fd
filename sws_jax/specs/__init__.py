"""What a network is: frozen, hashable descriptions without a single array.

A spec says which function a network computes and how it is initialised. How the
function is run (dtype, rematerialisation, unrolling) is `Compute`: it never
changes a parameter's name, shape or layout.
"""

from sws_jax.specs.base import Compute, from_dict, to_dict
from sws_jax.specs.expanded import ExpandedSpec
from sws_jax.specs.levit import LEVITS, LeViTSpec
from sws_jax.specs.regnet import REGNETS, RegNetSpec
from sws_jax.specs.stitched import StitchedSpec
from sws_jax.specs.vit import SIZES, AuxViTSpec, ViTSpec, named, parse_stages

# Networks that are trained here; those of other families only teach. `isinstance` takes
# these unions, too.
Trained = ViTSpec | AuxViTSpec | ExpandedSpec | StitchedSpec
# Of networks that other programs have, too.
Foreign = ViTSpec | LeViTSpec | RegNetSpec
# Of networks that are no Aux-Nets.
Plain = Foreign | StitchedSpec
# Of any network that can be saved, evaluated and taught by.
Spec = Trained | Plain

__all__ = [
    "LEVITS",
    "REGNETS",
    "SIZES",
    "AuxViTSpec",
    "Compute",
    "ExpandedSpec",
    "Foreign",
    "LeViTSpec",
    "Plain",
    "RegNetSpec",
    "Spec",
    "StitchedSpec",
    "Trained",
    "ViTSpec",
    "from_dict",
    "named",
    "parse_stages",
    "to_dict",
]
