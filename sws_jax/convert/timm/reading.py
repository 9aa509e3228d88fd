"""timm's ``config.json`` beside tensors: whether it is theirs, and what it adds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sws_jax.arguments import shown
from sws_jax.convert import keys, labels, vit
from sws_jax.convert.base import Layout, View
from sws_jax.convert.keys import Beside
from sws_jax.convert.timm import sizes
from sws_jax.convert.timm.parsing import Config, parsed
from sws_jax.convert.timm.tables import AFTER, USUAL
from sws_jax.errors import UserError
from sws_jax.specs import Foreign, LeViTSpec, ViTSpec

# Tensors of layer scale.
_SCALES = re.compile(r"(^|\.)(ls\d\.gamma|gamma_\d)$")
_LABELS = ("label_names", "labels")
# Usual values that are sizes.
_SIZES = ("patch_size", "mlp_ratio", "key_dim", "attn_ratio", "se_ratio", "stem_width")


def read(
    path: str,
    content: Mapping[str, Any],
    layout: Layout,
    spec: Foreign,
    tensors: Sequence[str] = (),
) -> Beside:
    """What a ``config.json`` of timm says of tensors.

    Args:
      path: of the file, for messages.
      content: of the file.
      layout: of the tensors; its view holds where the file says nothing.
      spec: that the tensors show.
      tensors: their names, which show what no spec does.

    Raises:
      UserError: it is of another network, or of one that is none of those here.
    """
    config = parsed(path, content, sizes.family(spec), layout)
    _check_counts(config, spec)
    fields = _fields(config, spec) if isinstance(spec, ViTSpec) else {}
    if layout.name.startswith("timm"):
        _check_parts(config, layout, spec, tensors)
    notes = (*config.notes, *_size_notes(config, spec))
    names, more = _class_names(config, spec.num_classes)
    alone = None
    if config.family == "vit" and (
        config.is_named or "no_embed_class" in config.stated
    ):
        argument = "no_embed_class"
        alone = config.where(argument), config.known.get(argument, False)
    view, pretrained = layout.view.of_channels(spec.channels), config.pretrained
    return Beside(
        View(
            mean=pretrained.get("mean", view.mean),
            std=pretrained.get("std", view.std),
            crop=pretrained.get("crop_pct", view.crop),
            interpolation=pretrained.get("interpolation", view.interpolation),
            crop_mode=pretrained.get("crop_mode", "center"),
        ),
        fields,
        names,
        _image_size(config),
        notes=(*notes, *more),
        alone=alone,
    )


def _check_counts(config: Config, spec: Foreign) -> None:
    """Refuses other numbers of classes and channels than the tensors have."""
    top, stated, pretrained = config.top, config.stated, config.pretrained
    classes = "num_classes"
    counts = [(classes, top.get(classes))]
    counts.append((f"model_args.{classes}", stated.get(classes)))
    if classes not in top:
        counts.append((f"pretrained_cfg.{classes}", pretrained.get(classes)))
    if "num_features" in top:
        features = spec.width if isinstance(spec, ViTSpec) else spec.widths[-1]
        keys.agree(config.path, [("num_features", top["num_features"], features)])
    counts.append(("model_args.in_chans", stated.get("in_chans")))
    if "in_chans" not in stated and "input_size" in pretrained:
        channels = pretrained["input_size"][0]
        counts.append(("the first of pretrained_cfg.input_size", channels))
    keys.agree(
        config.path,
        [
            (key, count, spec.num_classes if classes in key else spec.channels)
            for key, count in counts
            if count is not None
        ],
    )


def _fields(config: Config, spec: ViTSpec) -> dict[str, Any]:
    """Fields of a ViT that its tensors do not show.

    Raises:
      UserError: it reads its tokens otherwise than its tensors do.
    """
    path, known, arguments = config.path, config.known, config.arguments
    token = spec.pool == "token"
    if config.is_named or "class_token" in known:
        where = config.where("class_token")
        keys.agree(path, [(where, bool(arguments["class_token"]), token)])
    pool = arguments["global_pool"]
    if pool != ("token" if token else "avg"):
        kind = "without a class token average their patches"
        if token:
            kind = "with a class token read it"
        raise UserError(
            f"{path}: {config.where('global_pool')} is {shown(pool)}, and networks "
            f"here {kind}: it would be another function, so it cannot be converted"
        )
    after = arguments.get("fc_norm")
    after = pool in AFTER if after is None else after
    if after != (spec.pool_order == "mean_norm"):
        raise UserError(
            f"{path}: fc_norm is {after}, and the tensors have "
            f"{'norm' if after else 'fc_norm'}: put their own config there, or move "
            f"this one away"
        )
    fields = {
        "norm_eps": arguments["norm_eps"],
        # The usual activation is not among what is parsed.
        "gelu": known.get("act_layer", "exact"),
    }
    if config.is_named or "num_heads" in known:
        fields["heads"] = known.get("num_heads", arguments["num_heads"])
    ratio = known.get("mlp_ratio", 0.0)
    if int(spec.width * ratio) == spec.hidden:
        fields["mlp_ratio"] = ratio  # as the config writes it
    return fields


def _check_parts(
    config: Config, layout: Layout, spec: Foreign, tensors: Sequence[str]
) -> None:
    """Refuses a config of a network with other parts than the tensors are of."""
    arguments = config.known
    if config.is_named:  # What a name implies nothing of is usual.
        usual = {**USUAL[config.family], "init_values": 0.0}
        arguments = {**usual, **arguments}
    if "init_values" in config.written and not config.written["init_values"]:
        arguments["init_values"] = 0.0
    registers = arguments.get("reg_tokens", 0)
    if registers > 1 and (not tensors or "reg_token" in tensors):
        raise UserError(
            f"{config.path}: {config.where('reg_tokens')} is {registers}, and networks "
            f"here have one register at most: it cannot be converted"
        )
    seen: dict[str, Any] = {}
    if isinstance(spec, ViTSpec):
        two = spec.distilled and spec.dist_head
        seen = {"distilled": two, "reg_tokens": int(spec.distilled and not two)}
        if "init_values" in arguments:
            scaled = any(map(_SCALES.search, tensors))
            same = bool(arguments["init_values"]) == scaled
            seen["init_values"] = arguments["init_values"] if same else None
            if scaled and not same:
                seen["init_values"] = "layer scale"
    elif isinstance(spec, LeViTSpec):
        seen = {"use_conv": layout.name.endswith("convolutions")}
        if spec.num_classes:
            seen["distilled"] = spec.distilled
    keys.agree(
        config.path,
        [
            (config.where(name), arguments[name], value)
            for name, value in seen.items()
            if name in arguments
        ],
    )


def _size_notes(config: Config, spec: Foreign) -> tuple[str, ...]:
    """Notes on sizes that a name implies and the tensors do not have.

    Raises:
      UserError: other sizes are not those of the tensors.
    """
    arguments, stated = config.known, config.stated
    notes: tuple[str, ...] = ()
    if config.is_named:
        usual = USUAL[config.family]
        arguments = {**{k: usual[k] for k in _SIZES if k in usual}, **arguments}
    pairs = sizes.compared(spec, arguments, stated)
    differing = {
        name: (implied, seen)
        for name, (implied, seen) in pairs.items()
        if name not in stated and implied != seen
    }
    if isinstance(spec, ViTSpec) and differing and _states_heads(config, spec):
        # Its heads are stated, and all else is seen.
        pairs = {name: pair for name, pair in pairs.items() if name not in differing}
        text = ", ".join(
            f"{name} {implied} (the tensors {seen})"
            for name, (implied, seen) in differing.items()
        )
        notes = (
            f"{config.path}: its architecture {shown(config.architecture)} has {text}, "
            f"and sizes are those of the tensors",
        )
    keys.agree(
        config.path, [(config.where(name), *pair) for name, pair in pairs.items()]
    )
    return notes


def _states_heads(config: Config, spec: ViTSpec) -> bool:
    """Whether a config states heads that may be those of a network of that width."""
    usual = spec.heads if spec.width in vit.PUBLISHED_WIDTHS else None
    heads = config.stated.get("num_heads")
    return heads is not None and usual in (None, heads)


def _class_names(
    config: Config, classes: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes, of which all keys must say the same, and notes."""
    top, pretrained = config.top, config.pretrained
    within = "" if pretrained is top else "pretrained_cfg."
    by_key = {key: top[key] for key in _LABELS if key in top}
    by_key |= {within + key: pretrained[key] for key in _LABELS if key in pretrained}
    first, names = next(iter(by_key.items()), ("", ()))
    for key, others in by_key.items():
        if others != names:
            raise UserError(
                f"{config.path}: {first} and {key} name the classes in two ways: take "
                f"one of them out"
            )
    return labels.counted(config.path, first, names, classes)


def _image_size(config: Config) -> tuple[str, tuple[int, int]] | None:
    """Height and width of the images, with the key that says it."""
    pretrained, images = config.pretrained, None
    if "input_size" in pretrained:
        images = pretrained["input_size"][1:]
    if "img_size" in config.stated:
        size = config.stated["img_size"]
        if images and images != size:
            raise UserError(
                f"{config.path}: pretrained_cfg.input_size has images of {images[0]} x "
                f"{images[1]} pixels and model_args.img_size {size[0]} x {size[1]}: "
                f"make them the same (its positions are for one size)"
            )
        return "model_args.img_size", size
    if images:
        return "pretrained_cfg.input_size", images
    if config.family != "regnet" and "img_size" in config.implied:
        return "", config.implied["img_size"]
    return None
