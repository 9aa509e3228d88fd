"""The image size that the positions of a network are for, and which of its tokens have
positions."""

from __future__ import annotations

import math

from sws_jax.convert import base, keys, vit
from sws_jax.convert.recognition import Recognised, unlike
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.specs import LeViTSpec, ViTSpec
from sws_jax.specs.levit import STEM_STRIDE


def check_registers(file: Recognised) -> None:
    """Refuses registers without a class token, before their positions are counted."""
    spec, registers = file.spec, vit.TIMM.lone_token
    if isinstance(spec, ViTSpec) and spec.pool == "mean" and registers in file.named:
        raise UserError(
            f"{file.path} has registers ({registers}) and no class token, and networks "
            f"here have them beside one alone: it cannot be converted"
        )


def were_added(file: Recognised) -> bool:
    """Whether the tokens before the patches have no positions in the file."""
    name = vit.TIMM.pos_embed
    return name in file.named and file.flat[name].shape[1] > file.named[name].shape[1]


def check_config(file: Recognised, config: keys.Beside) -> None:
    """Refuses a config that is wrong about which tokens have positions."""
    if config.alone and vit.TIMM.pos_embed in file.named:
        key, value = config.alone
        added = were_added(file)
        # Where no token is before the patches, both are the same.
        if value != added and (added or vit.TIMM.cls_token in file.named):
            keys.agree(config.path, [(key, value, added)])


def check_tokens(file: Recognised, spec: ViTSpec) -> None:
    """Refuses to choose which tokens have positions, of a network that is all there."""
    if not were_added(file) or _differences(file, spec):
        return  # `load` tells of the differences.
    name = vit.TIMM.pos_embed
    rows = file.named[name].shape[1]
    side = math.isqrt(rows)
    raise UserError(
        f"{file.path}: {file.own(name)} has {rows} rows, which are those of {side} x "
        f"{side} patches without their class token, or with it of a grid that is no "
        f"square: give its image size (--image-size HEIGHTxWIDTH)"
    )


def _differences(file: Recognised, spec: ViTSpec) -> base.Mismatch | None:
    """How the tensors differ from those of the network, if they do."""
    params, layout = networks.abstract_params(spec), file.layout
    try:
        base.check(file.flat, layout.entries(spec), params, ignored=layout.ignored)
    except base.Mismatch as differences:
        return differences
    return None


def with_image_size(
    file: Recognised, size: tuple[int, int] | None, config: keys.Beside
) -> tuple[ViTSpec, list[str]]:
    """The spec of a ViT with the image size that its positions are for, and notes.

    Args:
      file: of a ViT.
      size: height and width in pixels that the caller gave.
      config: what stands beside the file, and may say a size.

    Raises:
      UserError: the positions are not those of the size, or of no size that is known.
    """
    spec = file.spec
    assert isinstance(spec, ViTSpec)
    entries = file.layout.entries(spec)
    (name,) = (entry.theirs for entry in entries if entry.ours == "pos_embed")
    patches = file.flat[name].shape[1] - (spec.tokens - math.prod(spec.grid))
    if config.size and (agreed := _of_config(spec, patches, config)):
        return agreed, []
    if size is not None:
        resized = spec.replace(image_size=size)
        if math.prod(resized.grid) == patches:
            return resized, []
    if math.prod(spec.grid) != patches:
        raise UserError(_no_square(file, spec, name, patches, size))
    if size is None:
        return spec, []
    high, wide = spec.image_size
    return spec, [
        f"{file.path} does not show its image size, and its positions are resized as "
        f"if it were square, {high}x{wide} pixels"
    ]


def _of_config(spec: ViTSpec, patches: int, config: keys.Beside) -> ViTSpec | None:
    """The spec with the image size that a config says, if the positions are for that.

    Raises:
      UserError: they are not, and the config says it in a key of its own.
    """
    assert config.size
    key, sides = config.size
    grid = tuple(side // spec.patch_size for side in sides)
    divides = not any(side % spec.patch_size for side in sides)
    if divides and math.prod(grid) == patches:
        return spec.replace(image_size=sides)
    if not key:
        return None
    if math.prod(grid) == patches:
        raise UserError(
            f"{config.path}: {key} is {sides[0]} x {sides[1]} pixels, which do not "
            f"divide into patches of {spec.patch_size}, and networks here leave no "
            f"pixels out: it cannot be converted"
        )
    raise UserError(
        f"{config.path} is of another network than the tensors beside it: {key} is "
        f"{sides[0]} x {sides[1]} pixels, and they have positions for {patches} "
        f"patches of {spec.patch_size} pixels; put their own there, or move this one "
        f"away"
    )


def _no_square(
    file: Recognised,
    spec: ViTSpec,
    name: str,
    patches: int,
    size: tuple[int, int] | None,
) -> str:
    """Why positions that are no square are refused."""
    # What else is another network's says more than a count of its positions.
    if not file.layout.method and (differences := _differences(file, spec)):
        if others := differences.without(name):
            return unlike(file.path, file.layout, spec, others.named(file.own))
    if size is not None:
        return (
            f"{file.path}: {file.own(name)} has {file.flat[name].shape[1]} rows, which "
            f"are not those of {size[0]} x {size[1]} pixels beside its "
            f"{spec.tokens - math.prod(spec.grid)} class tokens: give the image size "
            f"that it was trained at (--image-size HEIGHTxWIDTH)"
        )
    return (
        f"{file.path} has positions for {patches} patches, which are no square: give "
        f"its image size (--image-size HEIGHTxWIDTH)"
    )


def of_its_offsets(spec: LeViTSpec, sides: tuple[int, int]) -> LeViTSpec:
    """A LeViT for images of another shape that have as many patches, where there are
    such: tensors show no more."""
    divides = not any(side % STEM_STRIDE for side in sides)
    if divides and math.prod(sides) == math.prod(spec.image_size):
        return spec.replace(image_size=sides)
    return spec
