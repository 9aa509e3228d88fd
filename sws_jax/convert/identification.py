"""What a file of another program is: from its tensors, from what stands beside it and
from what the caller says."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sws_jax.convert import (
    base,
    beside,
    folders,
    keys,
    parts,
    positions,
    renaming,
    tensors,
    unseen,
    writing,
)
from sws_jax.convert.base import Layout, View
from sws_jax.convert.recognition import Recognised, recognised
from sws_jax.errors import UserError
from sws_jax.models import weights
from sws_jax.models.description import Description, versions
from sws_jax.pixels import Normalization
from sws_jax.specs import Foreign, LeViTSpec, RegNetSpec, ViTSpec


@dataclasses.dataclass(frozen=True)
class Options:
    """What a caller says of a file; see `sws_jax.convert.load`."""

    layout: str = ""
    part: str = ""
    heads: int | None = None
    norm_eps: float | None = None
    gelu: str = ""
    pool_order: str = ""
    image_size: tuple[int, int] | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    crop: float | None = None
    interpolation: str = ""
    crop_mode: str = ""
    dataset: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of a `ViTSpec` that are given, by name."""
        fields = {
            "heads": self.heads,
            "norm_eps": self.norm_eps,
            "gelu": self.gelu or None,
            "pool_order": self.pool_order or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Identified:
    """What a file of another program is, before its tensors are taken over.

    Attributes:
      path: for messages.
      layout: that it has.
      tensors: as the file has them.
      flat: the same under the names of the layout.
      own: from those names to the file's.
      description: of the network; of a learngene, of its genes as so many blocks.
      notes: what is worth saying of how it was read, a sentence each.
    """

    path: str
    layout: Layout
    tensors: base.Flat
    flat: base.Flat
    own: Callable[[str], str]
    description: Description
    notes: tuple[str, ...] = ()


def identify(source: str | Mapping[str, Any], options: Options) -> Identified:
    """Identifies a file, or tensors in memory; see `sws_jax.convert.identify`."""
    path, on_disk = parts.IN_MEMORY, False
    if isinstance(source, str):
        path, on_disk = folders.weights_in(source).path, True
    _refuse_ours(path)
    stored = tensors.read(source, part=options.part)
    names = renaming.renamed(stored.flat, options.layout, options.image_size)

    def recognise(match: renaming.Match | None) -> Recognised:
        return recognised(
            path,
            names.flat,
            match,
            layout=options.layout,
            own=names.own,
            part=stored.part,
        )

    file = recognise(names.match)
    spec = file.spec
    positions.check_registers(file)
    notes, config = [*stored.notes], keys.Beside(file.layout.view)
    if on_disk:
        config = beside.read(path, file.layout, file.spec, tuple(file.flat))
        notes += config.notes
    _check_channels(file.spec.channels, config, options)
    if isinstance(spec, ViTSpec):
        if "heads" not in config.fields:
            notes += unseen.of_vit(path, file.layout, spec, options.fields, on_disk)
        if config.size and options.image_size is None:
            # The size tells which tokens the positions are of.
            sides = config.size[1]
            file = recognise(renaming.match(names.flat, options.layout, sides))
        spec, size_notes = _vit(file, config, options)
        notes += size_notes
    else:
        if not config.path:
            notes += unseen.of_others(path, spec, on_disk)
        spec = _other(file, config, options)
    description = _described(file.layout, spec, config, options)
    if not on_disk and not (options.mean and options.std and options.crop):
        notes.append(_usual_pixels(path, description))
    notes += _renamings(names, file)
    return Identified(
        path,
        file.layout,
        stored.flat,
        file.flat,
        names.own,
        description,
        tuple(notes),
    )


def _refuse_ours(path: str) -> None:
    """Refuses a file of this project."""
    if os.path.isfile(path) and weights.is_ours(path):
        weights.describe(path)  # It raises where the file is of a newer version.
        raise UserError(
            f"{path} is this project's own: use it as it is, or write it for another "
            f"program (--to {', '.join(writing.TARGETS)})"
        )


def _check_channels(channels: int, config: keys.Beside, options: Options) -> None:
    """Refuses a mean or a deviation of pixels with more or fewer channels."""
    for name, numbers in (("mean", options.mean), ("std", options.std)):
        if numbers and len(numbers) != channels:
            raise UserError(
                f"{name} has {len(numbers)} numbers, and the network takes {channels} "
                f"channels: give one for each"
            )
        count = len(getattr(config.view, name))
        where = config.view_path or config.path
        if where and not numbers and count != channels:
            raise UserError(
                f"{where}: {name} has {count} numbers, and the network takes "
                f"{channels} channels: mend it, or give {name} (--{name})"
            )


def _vit(
    file: Recognised, config: keys.Beside, options: Options
) -> tuple[ViTSpec, list[str]]:
    """The spec of a ViT, with what is known besides its tensors, and notes."""
    spec, notes = positions.with_image_size(file, options.image_size, config)
    positions.check_config(file, config)
    if options.image_size is None and not config.size:
        positions.check_tokens(file, spec)
    of_caller = options.fields
    with keys.naming(config.path):
        spec = spec.replace(
            **{name: v for name, v in config.fields.items() if name not in of_caller}
        )
    with keys.naming(file.path):
        return spec.replace(**of_caller), notes


def _other(file: Recognised, config: keys.Beside, options: Options) -> Foreign:
    """The spec of what is no ViT, at the image size that is said.

    Raises:
      UserError: the config says another size than the tensors, or the caller says what
        is of ViTs.
    """
    spec, size = file.spec, options.image_size
    if isinstance(spec, RegNetSpec) and (size or config.size):
        spec = spec.replace(image_size=size or config.size[1])  # type: ignore[index]
    elif config.size and config.size[0]:
        if isinstance(spec, LeViTSpec):
            spec = positions.of_its_offsets(spec, config.size[1])
        keys.agree(config.path, [(*config.size, spec.image_size)])
    surplus = list(options.fields)
    reason = "are of ViTs" if len(surplus) > 1 else "is of ViTs"
    if size and spec.image_size != size:
        surplus.append("image_size")
        high, wide = spec.image_size
        reason = f"it is one for {high} x {wide} pixels, as its tensors show"
    if surplus:
        names = ", ".join(surplus)
        raise UserError(
            f"{file.path} is a {file.layout.name}, and {names} {reason}: leave {names} "
            f"out"
        )
    return spec


def _described(
    layout: Layout, spec: Foreign, config: keys.Beside, options: Options
) -> Description:
    """The description of a network, of which what is given comes first."""
    where = config.view_path or config.path
    with keys.naming(where if config.view != layout.view else ""):
        return Description(
            kind="network",
            net=spec,
            dataset=options.dataset,
            class_names=config.labels,
            versions=versions(),
            **_view(spec.channels, config.view, options),
        )


def _view(channels: int, view: View, options: Options) -> dict[str, Any]:
    """Fields of a description that say how images are preprocessed."""
    mean, std = options.mean, options.std
    if not mean and not std:
        view = view.of_channels(channels)
    return dict(
        normalization=Normalization(tuple(mean) or view.mean, tuple(std) or view.std),
        eval_crop=view.crop if options.crop is None else options.crop,
        interpolation=options.interpolation or view.interpolation,
        crop_mode=options.crop_mode or view.crop_mode,
    )


def _usual_pixels(path: str, description: Description) -> str:
    """The note that pixels are taken as usual."""
    pixels = description.normalization
    return (
        f"{path} does not say how its images are: mean {pixels.mean}, deviation "
        f"{pixels.std} and crop {description.eval_crop:g} are taken (give mean=, std= "
        f"and crop=)"
    )


def _renamings(names: renaming.Renamed, file: Recognised) -> Iterator[str]:
    """What was done to the names of a file and to its positions, a sentence each."""
    path = file.path
    if names.stripped:
        yield f"stripped {names.stripped} from the names of {path}"
    if names.removed:
        yield f"removed {', '.join(names.removed)} from inside the names of {path}"
    if names.added and any("pooler." in name for name in file.flat):
        yield f"left the pooler of {path} out: features here come before it"
    if positions.were_added(file):
        yield (
            f"the tokens before the patches of {path} have no position: they have one "
            f"of zeros here, which computes the same"
        )
