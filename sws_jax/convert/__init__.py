"""Weights under other names: what PyTorch and other Flax code call the same tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from sws_jax import networks
from sws_jax.convert import base, levit, regnet, tensors, vit
from sws_jax.convert.base import Layout
from sws_jax.data.base import default_normalization
from sws_jax.description import Description, versions
from sws_jax.errors import UserError
from sws_jax.networks import Network
from sws_jax.specs import Spec, ViTSpec

LAYOUTS: tuple[Layout, ...] = (*vit.LAYOUTS, *levit.LAYOUTS, *regnet.LAYOUTS)


def recognise(path: str, flat: Mapping[str, np.ndarray]) -> tuple[Layout, Spec]:
    """Which layout tensors have, and the spec of the network they are.

    Args:
      path: for messages.
      flat: tensors by name.

    Raises:
      UserError: none of the known layouts.
    """
    shapes = {name: tuple(a.shape) for name, a in flat.items()}
    for layout in LAYOUTS:
        spec = layout.recognise(shapes)
        if spec is not None:
            return layout, spec
    some = ", ".join(sorted(flat)[:3])
    raise UserError(
        f"{path} holds no network that is known here (its first names are {some}); "
        f"known are {', '.join(layout.name for layout in LAYOUTS)}"
    )


def load(path: str, **changes) -> tuple[Network, Layout]:
    """A network from a file of another program.

    Args:
      path: see `sws_jax.convert.tensors.read`.
      **changes: fields of a ViT that its tensors do not show: heads, norm_eps.

    Returns:
      The network, described with ImageNet's normalisation where it takes colours, and
      the layout that it had.

    Raises:
      UserError: the file is unreadable, unknown, or not all there.
    """
    flat = tensors.read(path)
    layout, spec = recognise(path, flat)
    if changes and not isinstance(spec, ViTSpec):
        raise UserError(
            f"{path} is a {layout.name}, whose tensors show all there is to know: "
            f"leave {', '.join(changes)} out"
        )
    spec = dataclasses.replace(spec, **changes)
    abstract = networks.abstract_params(spec)
    try:
        params = base.read(flat, layout.entries(spec), abstract, ignored=layout.ignored)
    except base.Mismatch as found:
        raise UserError(
            f"{path} looks like a {layout.name} ({spec.name}), but is not: {found}"
        ) from None
    about = Description(
        kind="network",
        net=spec.net,
        normalization=default_normalization(spec.net.channels),
        dataset="imagenet2012" if spec.net.num_classes == 1000 else "",
        versions=versions(),
    )
    return Network(spec, params, about), layout
