"""The two readings of the method: the released code's, and one that agrees with itself.

The release of SWS (2404.16897) trains its Aux-Net as one function and its descendants
as another. ``official`` repeats that, so that its checkpoints expand to what its
authors expanded them to; ``consistent`` is the same network in both, so that a
descendant of the Aux-Net's own plan *is* the Aux-Net. What a profile means for
training is set in `sws_jax.jobs.recipes`; here is what it means for networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sws_jax.errors import UserError
from sws_jax.specs import SIZES, ViTSpec

# Heads of the released Aux-Nets where they are not those of the DeiT of that width.
OFFICIAL_AUX_HEADS = {384: 12}
_DEIT_HEADS = dict(SIZES[size] for size in ("tiny", "small", "base"))


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a reading of the method decides about networks.

    Attributes:
      auxiliary: the net that an Aux-Net looks like, from that of its descendants.
      descendant: the net that an Aux-Net's genes initialise, from the Aux-Net's.
      patch_bias_init: how the patch embedding's bias starts; see `ViTSpec`.
      antialias: whether a position embedding that shrinks is smoothed.
      head_by: what decides that a head is inherited: the same "classes" by name, or
        the same "dataset".
    """

    auxiliary: Callable[[ViTSpec], ViTSpec]
    descendant: Callable[[ViTSpec], ViTSpec]
    patch_bias_init: str
    antialias: bool
    head_by: str


def _official_auxiliary(net: ViTSpec) -> ViTSpec:
    heads = OFFICIAL_AUX_HEADS.get(net.width, net.heads)
    return net.replace(heads=heads, norm_eps=1e-5, pool_order="norm_mean")


def _official_descendant(net: ViTSpec) -> ViTSpec:
    order = "mean_norm" if net.pool == "mean" else net.pool_order
    heads = _DEIT_HEADS.get(net.width, net.heads)
    return net.replace(heads=heads, norm_eps=1e-6, pool_order=order)


PROFILES = {
    "consistent": Profile(
        auxiliary=lambda net: net,
        descendant=lambda net: net,
        patch_bias_init="zeros",
        antialias=True,
        head_by="classes",
    ),
    "official": Profile(
        auxiliary=_official_auxiliary,
        descendant=_official_descendant,
        patch_bias_init="uniform",
        antialias=False,
        head_by="dataset",
    ),
}


def find(name: str) -> Profile:
    """The profile of that name.

    Raises:
      UserError: listing the known profiles, for an unknown one.
    """
    if name not in PROFILES:
        raise UserError(f"profile {name!r} is not one of {', '.join(PROFILES)}")
    return PROFILES[name]
