"""Networks and learngenes under the names of other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sws_jax import trees
from sws_jax.convert import base, folders, hugging_face, tensors, timm, vit
from sws_jax.errors import UserError
from sws_jax.methods import learngenes, sws, tleg
from sws_jax.methods.base import Learngene
from sws_jax.models import networks, weights
from sws_jax.models.networks import Network
from sws_jax.specs import StitchedSpec, ViTSpec

# Two libraries' folders, and files of tensors.
TARGETS = ("timm", "hugging-face", "flax", "flax-stacked", "published")
# Names of the released Aux-Nets, by the method of their learngenes.
PUBLISHED = {sws.NAME: vit.SWS, tleg.NAME: vit.TLEG}


def write(path: str, network: Network | Learngene, to: str) -> None:
    """Writes a network or a learngene for a target; see `sws_jax.convert.save`.

    Raises:
      UserError: the target does not take it, or would not read it back as it is.
    """
    if isinstance(network, Learngene) != (to == "published"):
        what = "a learngene" if to == "published" else "a network"
        raise UserError(
            f"{to} takes {what}: a learngene is expanded first, and descendants of the "
            f"released code have the names of timm"
        )
    if isinstance(network, Learngene):
        return _write_published(path, network)
    spec = network.spec
    if isinstance(spec, StitchedSpec):
        raise UserError(
            f"{spec.name} cannot be written for other programs: none of them has the "
            f"linear maps between its segments"
        )
    if not isinstance(spec, ViTSpec):
        raise UserError(
            f"only plain ViTs are written for other programs, and this is {spec.name} "
            f"(a learngene is expanded first)"
        )
    description = networks.described(path, network)
    networks.check_params(network)
    if to == "timm":
        config = timm.config_of(description, spec)
        flat = _tensors(path, network, vit.TIMM, to)
        folders.write(path, flat, {folders.CONFIG: config})
    elif to == "hugging-face":
        configs = hugging_face.configs_of(description, spec)
        names = vit.HF_DEIT if spec.distilled else vit.HF_VIT
        folders.write(path, _tensors(path, network, names, to), configs)
    else:
        names = vit.UNSTACKED if to == "flax" else vit.STACKED
        tensors.write(path, _tensors(path, network, names, to))


def _write_published(path: str, learngene: Learngene) -> None:
    """Writes a learngene under the names of the released Aux-Nets."""
    description = learngene.description
    if description.method not in PUBLISHED:
        raise UserError(
            f"learngenes of the method {description.method!r} have no published names: "
            f"those of {' and '.join(PUBLISHED)} have"
        )
    learngenes.check_params(learngene)
    genes = description.vit.replace(depth=len(description.stages))
    entries = PUBLISHED[description.method].entries(genes)
    tensors.write(path, _checked(path, learngene.params, entries))


def _checked(
    path: str, params: Any, entries: Sequence[base.Entry]
) -> dict[str, np.ndarray]:
    """The tensors of a file, if `load` takes them for weights when it reads them."""
    flat = base.write(trees.unflatten(weights.on_host(path, params)), entries)
    name, why = base.first_invalid(flat, entries)
    if name:
        raise UserError(f"{path} cannot be written: {name} {why}")
    return flat


def _tensors(
    path: str, network: Network, names: vit.Names, to: str
) -> dict[str, np.ndarray]:
    """A network's tensors by those names, if they show which tokens are read."""
    spec = network.spec
    assert isinstance(spec, ViTSpec)
    flat = _checked(path, network.params, names.entries(spec))
    seen = names.recognise({name: array.shape for name, array in flat.items()})
    if seen is None or seen.read_tokens != spec.read_tokens:
        raise UserError(
            f"without a head, the names of {to} do not say that nothing reads the "
            f"distillation token of {spec.name}: it would be read as another network"
        )
    return flat
