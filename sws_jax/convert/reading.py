"""Networks and learngenes from tensors that were identified."""

from __future__ import annotations

import dataclasses

from sws_jax.convert import base, vit
from sws_jax.convert.base import Layout
from sws_jax.convert.identification import Identified
from sws_jax.convert.recognition import unlike
from sws_jax.errors import UserError
from sws_jax.methods import learngenes, tleg
from sws_jax.methods.base import Learngene
from sws_jax.methods.surgery import resize_pos_embed
from sws_jax.models import networks, profiles
from sws_jax.models.description import Description
from sws_jax.models.networks import Network
from sws_jax.specs import ExpandedSpec

PROFILE = "official"  # unless another is asked for


def converted(
    file: Identified,
    *,
    image_size: tuple[int, int] | None = None,
    stages: tuple[int, ...] = (),
    profile: str = "",
) -> Network | Learngene:
    """The network, or the learngene, that a file holds; see `sws_jax.convert.load`.

    Raises:
      UserError: the tensors are not what they look like, or an argument does not fit.
    """
    layout = file.layout
    if not layout.method and (stages or profile):
        raise UserError(
            f"{file.path} is a {layout.name} and no Aux-Net: leave stages and profile "
            f"out"
        )
    abstract = _abstract(file, stages, profile or PROFILE)
    if reason := _refusal(file, abstract):
        raise UserError(reason)
    entries = layout.entries(file.description.net)
    params = base.read(file.flat, entries, abstract.params, ignored=layout.ignored)
    return at_size(dataclasses.replace(abstract, params=params), layout, image_size)


def refusal(file: Identified) -> str:
    """Why a file is not converted; empty where it is."""
    layout, description = file.layout, file.description
    stages = (1,) * description.vit.depth if layout.method else ()
    return _refusal(file, _abstract(file, stages, PROFILE))


def _refusal(file: Identified, abstract: Network | Learngene) -> str:
    """What keeps tensors from being the network that they look like, in a sentence."""
    layout, net = file.layout, file.description.net
    entries = layout.entries(net)
    try:
        base.check(file.flat, entries, abstract.params, ignored=layout.ignored)
    except base.Mismatch as differences:
        return unlike(file.path, layout, net, differences.named(file.own))
    name, why = base.first_invalid(file.flat, entries)
    return f"{file.path}: {file.own(name)} {why}" if name else ""


def _abstract(
    file: Identified, stages: tuple[int, ...], profile: str
) -> Network | Learngene:
    """The names and shapes of what a file holds, if it is what it looks like."""
    description = file.description
    if file.layout.method:
        return _learngene(file.path, file.layout, description, stages, profile)
    params = networks.abstract_params(description.net)
    return Network(description.net, params, description)


def _learngene(
    path: str,
    layout: Layout,
    description: Description,
    stages: tuple[int, ...],
    profile: str,
) -> Learngene:
    """The names and shapes of the learngene that a published Aux-Net holds."""
    genes = description.vit.depth
    if not stages and layout.method == tleg.NAME:
        stages = (vit.TLEG_DEPTH,)
    if len(stages) != genes:
        instead = f", not {'-'.join(map(str, stages))}" if stages else ""
        raise UserError(
            f"{path} holds an Aux-Net of {genes} shared blocks, and how often each is "
            f"applied is not in it: give {genes} of them as --stages, like 3-3-4-3-3"
            f"{instead}"
        )
    released = "imagenet2012" if description.vit.num_classes == 1000 else ""
    net = description.vit.replace(
        depth=sum(stages), patch_bias_init=profiles.find(profile).patch_bias_init
    )
    is_expanded = layout.method == tleg.NAME
    description = description.replace(
        kind="learngene",
        source=ExpandedSpec(net, stages, layout.method) if is_expanded else None,
        dataset=description.dataset or released,
        method=layout.method,
        profile=profile,
        net=net,
        stages=stages,
    )
    return learngenes.abstract_learngene(description)


def at_size(
    network: Network | Learngene, layout: Layout, size: tuple[int, int] | None
) -> Network | Learngene:
    """The same for images of another size; only positions depend on it.

    Args:
      network: that a file of the layout holds, described.
      layout: whose library decides how positions are resized.
      size: height and width in pixels; None leaves the network as it is.
    """
    description = network.description
    assert description is not None
    if size is None or description.net.image_size == size:
        return network
    old = description.vit
    new, params = old.replace(image_size=size), dict(network.params)
    params["pos_embed"] = resize_pos_embed(
        params["pos_embed"], old, new, antialias=layout.antialias
    )
    source = description.source and description.source.replace(image_size=size)
    description = description.replace(net=new, source=source)
    if isinstance(network, Learngene):
        return Learngene(params, description)
    return Network(new, params, description)
