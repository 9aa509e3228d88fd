"""Weights of other programs as this project's, and back.

What is public stands here, and checks what it is handed. A file is identified
(`identification`), by its tensors (`recognition`) and what stands beside it (`beside`);
then it is converted (`reading`). The way back is `writing`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sws_jax import arguments
from sws_jax.convert import (
    base,
    identification,
    reading,
    recognition,
    renaming,
    writing,
)
from sws_jax.convert.base import Layout
from sws_jax.convert.base import View as View
from sws_jax.convert.identification import Identified, Options
from sws_jax.errors import UserError
from sws_jax.methods.base import LEARNGENE, Learngene
from sws_jax.models import networks, profiles
from sws_jax.models.networks import Network
from sws_jax.pixels import CROP, CROP_MODES, GIVEN_MEAN, GIVEN_STD, INTERPOLATIONS
from sws_jax.specs import Foreign
from sws_jax.specs import base as specs_base
from sws_jax.specs import vit as specs_vit

LAYOUTS = renaming.LAYOUTS
PUBLISHED = writing.PUBLISHED
TARGETS = writing.TARGETS  # What `save` writes for.

_SIZE = arguments.optional(arguments.size)
_TENSORS = arguments.of(Mapping, called="a mapping of tensors by name")


def _source(name: str, value: Any) -> Any:
    """A path, as text, or tensors by name."""
    if isinstance(value, (str, os.PathLike)):
        return arguments.path(name, value)
    if hasattr(value, "state_dict"):
        raise UserError(f"{name} is a model: give its state_dict()")
    return arguments.of(Mapping, called="a path, or a mapping of tensors")(name, value)


def _or_empty(choices: Iterable[str]) -> arguments.Kind:
    """One of the choices, or an empty text for none."""
    known = arguments.text(choices)

    def kind(name: str, value: Any) -> str:
        return "" if isinstance(value, str) and not value else known(name, value)

    return kind


def _network(name: str, value: Any) -> Network | Learngene:
    if isinstance(value, Learngene):
        return LEARNGENE(name, value)
    return networks.NETWORK(name, value)


@arguments.checked(
    path=arguments.path, flat=_TENSORS, image_size=_SIZE, own=arguments.function
)
def recognise(
    path: str,
    flat: Mapping[str, np.ndarray],
    *,
    layout: str = "",
    image_size: tuple[int, int] | None = None,
    own: Callable[[str], str] = str,
    part: str = "",
) -> tuple[Layout, Foreign, base.Flat]:
    """Which layout tensors have, and the spec of the network they are.

    Args:
      path: for messages.
      flat: tensors by name.
      layout: the key of the only one to try; default any.
      image_size: height and width in pixels, where tensors do not show it.
      own: from these names to those of the file, for messages.
      part: of the file that they are, for messages.

    Returns:
      The layout; the spec (of a learngene, that of its genes as so many blocks); and
      the tensors under the names of the layout.

    Raises:
      UserError: none of the known layouts, or not the one that was asked for.
    """
    match = renaming.match(flat, layout, image_size)
    file = recognition.recognised(path, flat, match, layout=layout, own=own, part=part)
    return file.layout, file.spec, file.flat


@arguments.checked(
    source=_source,
    heads=arguments.optional(specs_base.COUNT),
    norm_eps=arguments.optional(specs_base.RATIO),
    gelu=_or_empty(specs_vit.GELUS),
    pool_order=_or_empty(specs_vit.POOL_ORDERS),
    image_size=_SIZE,
    mean=GIVEN_MEAN,
    std=GIVEN_STD,
    crop=arguments.optional(CROP),
    interpolation=_or_empty(INTERPOLATIONS),
    crop_mode=_or_empty(CROP_MODES),
)
def identify(
    source: str | os.PathLike | Mapping[str, Any],
    *,
    layout: str = "",
    part: str = "",
    heads: int | None = None,
    norm_eps: float | None = None,
    gelu: str = "",
    pool_order: str = "",
    image_size: tuple[int, int] | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    crop: float | None = None,
    interpolation: str = "",
    crop_mode: str = "",
    dataset: str = "",
) -> Identified:
    """What a file is, from its tensors, what stands beside it and what is given.

    Args and errors are those of `load`; an image size is what its positions are for,
    where they fit it.
    """
    return identification.identify(
        source,  # type: ignore[arg-type]  # A path is text by now.
        Options(
            layout=layout,
            part=part,
            heads=heads,
            norm_eps=norm_eps,
            gelu=gelu,
            pool_order=pool_order,
            image_size=image_size,
            mean=mean,
            std=std,
            crop=crop,
            interpolation=interpolation,
            crop_mode=crop_mode,
            dataset=dataset,
        ),
    )


def _warn(note: str) -> None:
    warnings.warn(note, stacklevel=4)  # at the caller of `load`, which is guarded


@arguments.checked(
    rest=identify,
    source=_source,
    image_size=_SIZE,
    stages=specs_vit.STAGES,
    profile=_or_empty(profiles.PROFILES),
    tell=arguments.function,
)
def load(
    source: str | os.PathLike | Mapping[str, Any],
    *,
    image_size: int | Sequence[int] | None = None,
    stages: Sequence[int] = (),
    profile: str = "",
    tell: Callable[[str], None] = _warn,
    **known: Any,
) -> tuple[Network | Learngene, Layout]:
    """A network or a learngene from another program's file, or tensors in memory.

    What tensors do not show is taken from the ``config.json`` and
    ``preprocessor_config.json`` beside the file, where Hugging Face or timm wrote
    them, or else is what is usual in its layout; every argument comes before both.

    Args:
      source: a file or a folder, see `sws_jax.convert.tensors.read`; or tensors by
        name, like a model's ``state_dict()`` or a Flax tree.
      image_size: in pixels; positions of a ViT for another size are resized.
      stages: how often a published Aux-Net of SWS applies each of its blocks, or the
        depth of TLEG's.
      profile: of a learngene; "official" unless another is asked for.
      tell: is called with each note on how it was read, a sentence; default a warning.
      **known: what tensors do not show. ``part`` of a checkpoint that holds several,
        see `sws_jax.convert.tensors.read`; ``layout``, the key of a `Layout`, in place
        of the one that is recognised; ``heads``, ``norm_eps``, ``gelu`` ("exact" or
        "tanh") and ``pool_order`` of a ViT; ``mean`` and ``std`` of the pixels, for
        values from 0 to 1; ``crop``, the share of an image's shorter side that is
        looked at in evaluation; ``interpolation`` and ``crop_mode``, see
        `sws_jax.data.transforms.Fit`; and
        ``dataset``, on which it was trained: "imagenet2012" for released Aux-Nets of
        1000 classes, else unknown by default.

    Returns:
      The network (or learngene), described, and the layout that it had.

    Raises:
      UserError: the file is unreadable, unknown, or not all there; or an argument that
        it does not take.
    """
    size: Any = image_size  # Both sides, by now.
    file = identify(source, image_size=size, **known)
    for note in file.notes:
        tell(note)
    network = reading.converted(
        file, image_size=size, stages=tuple(stages), profile=profile
    )
    return network, file.layout


@arguments.checked(given=arguments.of(Identified, called="what identify returns"))
def refusal(given: Identified) -> str:
    """Why `load` does not take over a file that was identified; empty where it does.

    Of an Aux-Net it asks for its stages besides, which no file says.
    """
    return reading.refusal(given)


@arguments.checked(network=_network, to=arguments.text(TARGETS))
def save(path: str | os.PathLike[str], network: Network | Learngene, to: str) -> None:
    """Writes what is ours under another program's names, whole or not at all.

    Args:
      path: "timm" and "hugging-face" make a folder of that name, which must not exist,
        with weights and configuration; the others write a ``.safetensors`` or ``.npz``.
      network: with a description. "published" takes a learngene, the others a ViT.
      to: one of `TARGETS`. "flax" and "flax-stacked" are this project's tree, its
        blocks apart (``blocks_0/attn/qkv/kernel``) or stacked as they are here;
        "published" has the names of the released Aux-Nets.

    Raises:
      UserError: that program has no such network, with the reason; or the folder is
        there.
    """
    writing.write(os.fspath(path), network, to)
