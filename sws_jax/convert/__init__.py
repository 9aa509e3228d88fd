"""Weights of other programs as this project's, and back."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sws_jax import arguments, trees
from sws_jax.convert import (
    base,
    beside,
    folders,
    hugging_face,
    keys,
    relatives,
    renaming,
    tensors,
    timm,
    vit,
)
from sws_jax.convert.base import Layout, View
from sws_jax.errors import UserError
from sws_jax.methods import learngenes
from sws_jax.methods.base import LEARNGENE, Learngene
from sws_jax.methods.surgery import resize_pos_embed
from sws_jax.models import networks, profiles, weights
from sws_jax.models.description import Description, versions
from sws_jax.models.networks import Network
from sws_jax.pixels import (
    CROP,
    CROP_MODES,
    GIVEN_MEAN,
    GIVEN_STD,
    INTERPOLATIONS,
    Normalization,
)
from sws_jax.specs import LeViTSpec, RegNetSpec, Spec, ViTSpec
from sws_jax.specs import base as specs_base
from sws_jax.specs import vit as specs_vit
from sws_jax.specs.levit import STEM_STRIDE

LAYOUTS = renaming.LAYOUTS
# Names of the released Aux-Nets, by the method of their learngenes.
PUBLISHED = {"sws": vit.SWS, "tleg": vit.TLEG}
# What `save` writes for: two libraries' folders, and files of tensors.
TARGETS = ("timm", "hugging-face", "flax", "flax-stacked", "published")


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
) -> tuple[Layout, Spec, base.Flat]:
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
    if deep := renaming.deep(flat):
        raise UserError(
            f"{path} numbers something {deep[0]} ({deep.string}), and no network here "
            f"is as deep"
        )
    known = {one.key: one for one in LAYOUTS}
    if layout and layout not in known:
        raise UserError(
            f"there is no layout {layout!r}: it is one of {', '.join(known)}"
        )
    for tried in [known[layout]] if layout else LAYOUTS:
        try:
            found = renaming.as_layout(tried, flat, image_size)
        except UserError as error:
            raise UserError(f"{path} is no {tried.name}: {error}") from None
        if found:
            return tried, *found
    some = ", ".join(own(name)[:80] for name in sorted(flat)[:3])
    if layout:
        raise UserError(
            f"{path} holds no {known[layout].name} (its first names are {some})"
        )
    told = relatives.told(flat)
    end = f"; they look like {told}" if told else ""
    if under := renaming.inside({own(name): array for name, array in flat.items()}):
        ways = [tensors.asked(path, f"{part}.{one}".lstrip(".")) for one in under]
        takes = "takes" if len(ways) == 1 else "each take"
        end = f"; {' and '.join(ways)} {takes} what stands under that alone"
    raise UserError(
        f"{path} holds no network that is known here (its first names are {some})"
        + (end or f"; known are {', '.join(known)}")
    )


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
    on_disk = isinstance(source, (str, os.PathLike))
    path = tensors.IN_MEMORY
    if on_disk:
        source = os.fspath(source)  # type: ignore[arg-type]
        path = folders.weights_in(source).path
    if os.path.isfile(path) and weights.is_ours(path):
        weights.describe(path)  # raises, where it is of a newer version
        raise UserError(
            f"{path} is this project's own: use it as it is, or write it for another "
            f"program (--to {', '.join(TARGETS)})"
        )
    held = tensors.read(source, part=part)
    names = renaming.renamed(held.flat, layout, image_size)
    whole, own = names.flat, names.own

    def seen(size: tuple[int, int] | None) -> tuple[Layout, Spec, base.Flat]:
        return recognise(
            path, whole, layout=layout, image_size=size, own=own, part=held.part
        )

    found, spec, flat = seen(image_size)
    _check_registers(path, whole, spec)
    said, notes = keys.Beside(found.view), [*held.notes]
    if on_disk:
        said = beside.read(path, found, spec.net, tuple(flat))
        notes += said.notes
    changes: dict[str, Any] = {"heads": heads, "norm_eps": norm_eps}
    changes |= {"gelu": gelu or None, "pool_order": pool_order or None}
    changes = {name: value for name, value in changes.items() if value is not None}
    _check_channels(spec.net.channels, said, mean, std)
    if isinstance(spec, ViTSpec):
        if "heads" not in said.fields:
            notes += _guessed(path, found, spec, changes, on_disk)
        if said.size and image_size is None:  # which tells whose the positions are
            found, spec, flat = seen(said.size[1])
        assert isinstance(spec, ViTSpec)
        spec, more = _of_its_positions(path, found, spec, flat, image_size, said, own)
        notes += more
        _check_positions(said, whole, flat)
        if image_size is None and not said.size:
            _check_tokens(path, found, spec, whole, flat, own)
        fields = {k: v for k, v in said.fields.items() if k not in changes}
        with keys.naming(said.path):
            spec = spec.replace(**fields)
        with keys.naming(path):
            spec = spec.replace(**changes)
    else:
        if not said.path:
            notes += _unseen(path, spec, on_disk)
        if isinstance(spec, RegNetSpec) and (image_size or said.size):
            size = image_size or said.size[1]  # type: ignore[index]
            spec = dataclasses.replace(spec, image_size=size)
        elif said.size and said.size[0]:
            if isinstance(spec, LeViTSpec):
                spec = _of_its_offsets(spec, said.size[1])
            keys.agree(said.path, [(*said.size, spec.net.image_size)])
        if image_size and spec.net.image_size != image_size:
            changes["image_size"] = image_size
        if changes:
            surplus = ", ".join(changes)
            which = "are of ViTs" if len(changes) > 1 else "is of ViTs"
            if "image_size" in changes:
                high, wide = spec.net.image_size
                which = f"it is one for {high} x {wide} pixels, as its tensors show"
            raise UserError(
                f"{path} is a {found.name}, and {surplus} {which}: leave {surplus} out"
            )
    look = said.view_path or said.path
    with keys.naming(look if said.view != found.view else ""):
        about = Description(
            kind="network",
            net=spec.net,
            dataset=dataset,
            class_names=said.labels,
            versions=versions(),
            **_view(
                spec.net.channels,
                said.view,
                *(mean, std, crop, interpolation, crop_mode),
            ),
        )
    if not on_disk and not (mean and std and crop):
        pixels = about.normalization
        notes.append(
            f"{path} does not say how its images are: mean {pixels.mean}, deviation "
            f"{pixels.std} and crop {about.eval_crop:g} are taken (give mean=, std= "
            f"and crop=)"
        )
    notes += _renamings(path, names, flat)
    return Identified(path, found, held.flat, flat, own, about, tuple(notes))


def _renamings(path: str, names: renaming.Renamed, flat: base.Flat) -> Iterator[str]:
    """What was done to the names of a file and to its positions, a sentence each."""
    if names.stripped:
        yield f"stripped {names.stripped} from the names of {path}"
    if names.removed:
        yield f"removed {', '.join(names.removed)} from inside the names of {path}"
    whole = names.flat
    if names.added and any("pooler." in name for name in flat):
        yield f"left the pooler of {path} out: features here come before it"
    name = vit.TIMM.pos_embed
    if name in whole and flat[name].shape[1] > whole[name].shape[1]:
        yield (
            f"the tokens before the patches of {path} have no position: they have one "
            f"of zeros here, which computes the same"
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
      tell: is given each sentence worth saying of how it was read; default a warning.
      **known: what tensors do not show. ``part`` of a checkpoint that holds several,
        see `sws_jax.convert.tensors.read`; ``layout``, the key of a `Layout`, in place
        of the one that is recognised; ``heads``, ``norm_eps``, ``gelu`` ("exact" or
        "tanh") and ``pool_order`` of a ViT; ``mean`` and ``std`` of the pixels, for
        values from 0 to 1; ``crop``, the share of an image's shorter side that is
        looked at in evaluation; ``interpolation`` and ``crop_mode``, see
        `sws_jax.data.transforms.Fit`; and
        ``dataset``, on which it was trained: "imagenet2012" for released Aux-Nets of
        1000 classes, else not known unless it is given.

    Returns:
      The network (or learngene), described, and the layout that it had.

    Raises:
      UserError: the file is unreadable, unknown, or not all there; or an argument that
        it does not take.
    """
    size: Any = image_size  # both sides, by now
    given = identify(source, image_size=size, **known)
    path, found, about = given.path, given.layout, given.description
    for note in given.notes:
        tell(note)
    if not found.method and (stages or profile):
        raise UserError(
            f"{path} is a {found.name} and no Aux-Net: leave stages and profile out"
        )
    made = _abstract(given, tuple(stages), profile or "official")
    if wrong := _wrong(given, made):
        raise UserError(wrong)
    entries = found.entries(about.net)
    params = base.read(given.flat, entries, made.params, ignored=found.ignored)
    return _at_size(dataclasses.replace(made, params=params), found, size), found


@arguments.checked(given=arguments.of(Identified, called="what identify returns"))
def refusal(given: Identified) -> str:
    """Why `load` does not take over a file that was identified; empty where it does.

    (Of an Aux-Net it asks for its stages besides, which no file says.)
    """
    layout, about = given.layout, given.description
    stages = (1,) * about.vit.depth if layout.method else ()
    return _wrong(given, _abstract(given, stages, "official"))


def _wrong(given: Identified, made: Network | Learngene) -> str:
    """What keeps tensors from being the network that they look like, in a sentence."""
    layout, about = given.layout, given.description
    entries = layout.entries(about.net)
    try:
        base.check(given.flat, entries, made.params, ignored=layout.ignored)
    except base.Mismatch as differences:
        return _unlike(given.path, layout, about.net, differences.named(given.own))
    name, why = base.no_weights(given.flat, entries)
    return f"{given.path}: {given.own(name)} {why}" if name else ""


def _unlike(path: str, layout: Layout, net: Spec, differences: base.Mismatch) -> str:
    return (
        f"{path} looks like a {layout.name} ({net.name}), but is not all of that: "
        f"{differences}"
    )


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
    path = os.fspath(path)
    if isinstance(network, Learngene) != (to == "published"):
        what = "a learngene" if to == "published" else "a network"
        raise UserError(
            f"{to} takes {what}: a learngene is expanded first, and descendants of the "
            f"released code have the names of timm"
        )
    if isinstance(network, Learngene):
        about = network.description
        if about.method not in PUBLISHED:
            raise UserError(
                f"learngenes of the method {about.method!r} have no published names: "
                f"those of {' and '.join(PUBLISHED)} have"
            )
        learngenes.check_params(network)
        entries = PUBLISHED[about.method].entries(
            about.vit.replace(depth=len(about.stages))
        )
        tensors.write(path, _written(path, network.params, entries))
        return
    spec = network.spec
    if not isinstance(spec, ViTSpec):
        raise UserError(
            f"only plain ViTs are written for other programs, and this is {spec.name} "
            f"(a learngene is expanded first)"
        )
    about = networks.described(path, network)
    networks.check_params(network)
    if to == "timm":
        config = timm.config_of(about, spec)
        flat = _tensors(path, network, vit.TIMM, to)
        folders.write(path, flat, {folders.CONFIG: config})
    elif to == "hugging-face":
        configs = hugging_face.configs_of(about, spec)
        names = vit.HF_DEIT if spec.distilled else vit.HF_VIT
        folders.write(path, _tensors(path, network, names, to), configs)
    else:
        names = vit.UNSTACKED if to == "flax" else vit.STACKED
        tensors.write(path, _tensors(path, network, names, to))


def _written(
    path: str, params: Any, entries: Sequence[base.Entry]
) -> dict[str, np.ndarray]:
    """The tensors of a file, if `load` takes them for weights when it reads them."""
    flat = base.write(trees.unflatten(weights.on_host(path, params)), entries)
    name, why = base.no_weights(flat, entries)
    if name:
        raise UserError(f"{path} cannot be written: {name} {why}")
    return flat


def _tensors(
    path: str, network: Network, names: vit.Names, to: str
) -> dict[str, np.ndarray]:
    """A network's tensors by those names, if they show which tokens are read."""
    spec = network.spec
    assert isinstance(spec, ViTSpec)
    flat = _written(path, network.params, names.entries(spec))
    seen = names.recognise({name: array.shape for name, array in flat.items()})
    if seen is None or seen.read_tokens != spec.read_tokens:
        raise UserError(
            f"without a head, the names of {to} do not say that nothing reads the "
            f"distillation token of {spec.name}: it would be read as another network"
        )
    return flat


def _guessed(
    path: str, layout: Layout, spec: ViTSpec, given: Mapping[str, Any], on_disk: bool
) -> list[str]:
    """Of what neither tensors nor a config or an argument says: what is taken.

    The command prints the function of a network, so of published widths nothing is
    worth saying but in memory, where nothing is printed.

    Raises:
      UserError: tensors in memory are of a width that no published network has.
    """
    heads = "heads" in given or not layout.heads_guessed
    if not heads and spec.width not in vit.PUBLISHED_WIDTHS:
        if not on_disk:
            raise UserError(
                f"{path} does not show how many heads its attention has, and no "
                f"published network is {spec.width} wide: give heads="
            )
        return [
            f"{path} does not show how many heads its attention has, and no published "
            f"network is {spec.width} wide: {spec.heads} of {spec.head_size} are taken "
            f"(heads=, or --heads, says another number)"
        ]
    names, activation = timm.unusual(spec) if layout.key == "timm-vit" else ([], "")
    if names and "gelu" not in given:
        others = (
            f"is as large as timm's {', '.join(names)}, whose activation is "
            f"{activation}, and does not show its own"
        )
        if not on_disk:
            raise UserError(f"{path} {others}: give gelu=, exact or tanh")
        return [
            f"{path} {others}: exact GELU is taken (gelu=, or --gelu, says another one)"
        ]
    if on_disk or (heads and {"norm_eps", "gelu"} <= set(given)):
        return []
    guessed = [] if heads else [f"{spec.heads} heads"]
    if "norm_eps" not in given:
        guessed.append(f"LayerNorm epsilon {spec.norm_eps:g}")
    if "gelu" not in given:
        guessed.append({"exact": "exact GELU", "tanh": "tanh GELU"}[spec.gelu])
    if spec.pool == "token":
        guessed.append("the class token is classified")
    elif "pool_order" not in given:
        order = {"norm_mean": "norm, then mean", "mean_norm": "mean, then norm"}
        guessed.append(f"patches are averaged ({order[spec.pool_order]})")
    return [
        f"{path} does not show all that it computes, and what is usual is taken: "
        f"{', '.join(guessed)} (give heads=, norm_eps= and gelu=)"
    ]


def _unseen(path: str, spec: Spec, on_disk: bool) -> list[str]:
    """Of what no tensor of a LeViT or a RegNet shows, without a config: what is taken.

    Raises:
      UserError: of timm's networks of these sizes none computes that.
    """
    family = "regnet" if isinstance(spec, RegNetSpec) else "levit"
    names, activation = timm.unusual(spec)  # type: ignore[arg-type]
    if names:
        where = "beside it" if on_disk else "into a folder with them, and convert that"
        raise UserError(
            f"{path} is as large as timm's {', '.join(names)}, whose activation is "
            f"{activation} and none of the networks here, and tensors do not show "
            f"theirs: put the config.json of timm that says act_layer {where}"
        )
    if on_disk:
        return []  # the command prints it
    return [
        f"{path} does not show all that it computes, and what is usual is taken: "
        f"{keys.UNSEEN[family]} (a folder with the config.json of timm or transformers "
        f"says it)"
    ]


def _of_its_offsets(spec: LeViTSpec, sides: tuple[int, int]) -> LeViTSpec:
    """A LeViT for images of another shape that have as many patches, where there are
    such: tensors show no more."""
    fits = not any(side % STEM_STRIDE for side in sides)
    if fits and math.prod(sides) == math.prod(spec.image_size):
        return spec.replace(image_size=sides)
    return spec


def _check_registers(path: str, flat: base.Flat, spec: Spec) -> None:
    """Refuses registers without a class token, before their positions are counted."""
    registers = vit.TIMM.lone_token
    if isinstance(spec, ViTSpec) and spec.pool == "mean" and registers in flat:
        raise UserError(
            f"{path} has registers ({registers}) and no class token, and networks "
            f"here have them beside one alone: it cannot be converted"
        )


def _check_tokens(
    path: str,
    layout: Layout,
    spec: ViTSpec,
    whole: base.Flat,
    flat: base.Flat,
    own: Callable[[str], str],
) -> None:
    """Refuses to choose which tokens have positions, of a network that is all there."""
    name = vit.TIMM.pos_embed
    if name not in whole or flat[name].shape[1] == whole[name].shape[1]:
        return
    params = networks.abstract_params(spec)
    try:
        base.check(flat, layout.entries(spec), params, ignored=layout.ignored)
    except base.Mismatch:
        return  # which is told
    rows = whole[name].shape[1]
    side = math.isqrt(rows)
    raise UserError(
        f"{path}: {own(name)} has {rows} rows, which are those of {side} x {side} "
        f"patches without their class token, or with it of a grid that is no square: "
        f"give its image size (--image-size HEIGHTxWIDTH)"
    )


def _check_positions(said: keys.Beside, whole: base.Flat, flat: base.Flat) -> None:
    """Refuses a config that is wrong about which tokens have positions."""
    name = vit.TIMM.pos_embed
    if said.alone and name in whole:
        key, value = said.alone
        added = flat[name].shape[1] > whole[name].shape[1]
        # (Where no token is before the patches, both are the same.)
        if value != added and (added or vit.TIMM.cls_token in whole):
            keys.agree(said.path, [(key, value, added)])


def _of_its_positions(
    path: str,
    layout: Layout,
    spec: ViTSpec,
    flat: base.Flat,
    size: tuple[int, int] | None,
    said: keys.Beside,
    own: Callable[[str], str],
) -> tuple[ViTSpec, list[str]]:
    """The spec with the image size that a file's positions are for, and notes."""
    (name,) = (e.theirs for e in layout.entries(spec) if e.ours == "pos_embed")
    patches = flat[name].shape[1] - (spec.tokens - math.prod(spec.grid))
    if said.size:
        key, sides = said.size
        grid = tuple(side // spec.patch_size for side in sides)
        fits = not any(side % spec.patch_size for side in sides)
        if fits and math.prod(grid) == patches:
            return spec.replace(image_size=sides), []
        if math.prod(grid) == patches and key:
            raise UserError(
                f"{said.path}: {key} is {sides[0]} x {sides[1]} pixels, which do not "
                f"divide into patches of {spec.patch_size}, and networks here leave no "
                f"pixels out: it cannot be converted"
            )
        if key:
            raise UserError(
                f"{said.path} is of another network than the tensors beside it: {key} "
                f"is {sides[0]} x {sides[1]} pixels, and they have positions for "
                f"{patches} patches of {spec.patch_size} pixels; put their own there, "
                f"or move this one away"
            )
    if size is not None:
        other = spec.replace(image_size=size)
        if math.prod(other.grid) == patches:
            return other, []
    if math.prod(spec.grid) != patches:
        # What else is another net's says more than a count of its positions.
        if not layout.method:
            params = networks.abstract_params(spec)
            try:
                base.check(flat, layout.entries(spec), params, ignored=layout.ignored)
            except base.Mismatch as all_:
                if others := all_.without(name):
                    raise UserError(
                        _unlike(path, layout, spec, others.named(own))
                    ) from None
        if size is not None:
            raise UserError(
                f"{path}: {own(name)} has {flat[name].shape[1]} rows, which are not "
                f"those of {size[0]} x {size[1]} pixels beside its "
                f"{spec.tokens - math.prod(spec.grid)} class tokens: give the image "
                f"size that it was trained at (--image-size HEIGHTxWIDTH)"
            )
        raise UserError(
            f"{path} has positions for {patches} patches, which are no square: give "
            f"its image size (--image-size HEIGHTxWIDTH)"
        )
    if size is None:
        return spec, []
    high, wide = spec.image_size
    return spec, [
        f"{path} does not show its image size, and its positions are resized as if it "
        f"were square, {high}x{wide} pixels"
    ]


def _abstract(
    given: Identified, stages: tuple[int, ...], profile: str
) -> Network | Learngene:
    """The names and shapes of what a file holds, if it is what it looks like."""
    about = given.description
    if given.layout.method:
        return _learngene(given.path, given.layout, about, stages, profile)
    return Network(about.net, networks.abstract_params(about.net), about)


def _learngene(
    path: str, layout: Layout, about: Description, stages: tuple[int, ...], profile: str
) -> Learngene:
    """The names and shapes of the learngene that a published Aux-Net holds."""
    genes = about.vit.depth
    if not stages and layout.method == "tleg":
        stages = (vit.TLEG_DEPTH,)
    if len(stages) != genes:
        given = f", not {'-'.join(map(str, stages))}" if stages else ""
        raise UserError(
            f"{path} holds an Aux-Net of {genes} shared blocks, and how often each is "
            f"applied is not in it: give {genes} of them as --stages, like 3-3-4-3-3"
            f"{given}"
        )
    released = "imagenet2012" if about.vit.num_classes == 1000 else ""
    about = about.replace(
        kind="learngene",
        dataset=about.dataset or released,
        method=layout.method,
        profile=profile,
        net=about.vit.replace(
            depth=sum(stages), patch_bias_init=profiles.find(profile).patch_bias_init
        ),
        stages=stages,
    )
    return learngenes.abstract_learngene(about)


def _check_channels(channels: int, said: keys.Beside, mean, std) -> None:
    """Refuses what is given or a config says of pixels with more or fewer channels."""
    for name, given in (("mean", mean), ("std", std)):
        if given and len(given) != channels:
            raise UserError(
                f"{name} has {len(given)} numbers, and the network takes {channels} "
                f"channels: give one for each"
            )
        count = len(getattr(said.view, name))
        where = said.view_path or said.path
        if where and not given and count != channels:
            raise UserError(
                f"{where}: {name} has {count} numbers, and the network takes "
                f"{channels} channels: mend it, or give {name} (--{name})"
            )


def _view(
    channels: int, view: View, mean, std, crop, interpolation, crop_mode
) -> dict[str, Any]:
    """Fields of a description: what was asked for, else the view."""
    if not mean and not std:
        view = view.of_channels(channels)
    return dict(
        normalization=Normalization(tuple(mean) or view.mean, tuple(std) or view.std),
        eval_crop=view.crop if crop is None else crop,
        interpolation=interpolation or view.interpolation,
        crop_mode=crop_mode or view.crop_mode,
    )


def _at_size(
    made: Network | Learngene, layout: Layout, size: tuple[int, int] | None
) -> Network | Learngene:
    """The same for images of another size; only positions depend on it."""
    about = made.description
    assert about is not None
    if size is None or about.net.image_size == size:
        return made
    old = about.vit
    new, params = old.replace(image_size=size), dict(made.params)
    params["pos_embed"] = resize_pos_embed(
        params["pos_embed"], old, new, antialias=layout.antialias
    )
    about = about.replace(net=new)
    if isinstance(made, Learngene):
        return Learngene(params, about)
    return Network(new, params, about)
