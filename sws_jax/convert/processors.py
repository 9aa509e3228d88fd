"""Processors of images, as transformers writes them beside weights.

What one does to an image is a `View`: how it is scaled, what is cut out of it,
and the mean and deviation of its pixels. What no view can say is refused by name.
Pixels are those of transformers on Pillow; on torchvision it rounds what it resizes in
another way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sws_jax.arguments import shown
from sws_jax.convert import keys
from sws_jax.convert.base import View
from sws_jax.convert.keys import Key, refused
from sws_jax.errors import UserError

# The numbers that Pillow, and so Hugging Face, has for interpolations.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_OTHERS = {4: "box", 5: "hamming"}
# The side below which ConvNext's cuts the centre out; and by how much LeViT's scales
# images to more than its size.
_WHOLE_FROM, _LEVIT = 384, 256 / 224


@dataclasses.dataclass(frozen=True)
class Processor:
    """What a class of image processors does where its file says nothing.

    Attributes:
      size: one number, or height and width.
      shortest: one number is of the shorter side; else of a square, into which images
        are squeezed.
      crop: the centre is cut out, 224 pixels.
      resample: see `RESAMPLING`.
      mean, std: of pixels from 0 to 1.
      scaled: what else is done to the size, for people.
    """

    size: int
    shortest: bool
    crop: bool
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scaled: str = ""


_HALVES: dict[str, Any] = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
_IMAGENET: dict[str, Any] = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CLIP: dict[str, Any] = dict(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
CROP = 224
# As transformers 5.23 has them; ...Fast, and the ...FeatureExtractor of older versions,
# are the same.
PROCESSORS = {
    "ViTImageProcessor": Processor(224, False, False, 2, **_HALVES),
    "DeiTImageProcessor": Processor(256, False, True, 3, **_HALVES),
    "LevitImageProcessor": Processor(
        224, True, True, 3, **_IMAGENET, scaled="256/224 of the size, rounded down"
    ),
    "ConvNextImageProcessor": Processor(
        384,
        True,
        False,
        3,
        **_HALVES,
        scaled="below 384, size/crop_pct rounded down, and the centre is cut out; from "
        "384 on, squeezed into a square",
    ),
    "BitImageProcessor": Processor(224, True, True, 3, **_CLIP),
    "CLIPImageProcessor": Processor(224, True, True, 3, **_CLIP),
}
_CONVNEXT, _CONVNEXT_CROP = "ConvNextImageProcessor", 224 / 256
# What `AutoImageProcessor` takes where a file names none.
_OF_FAMILY = {
    "vit": "ViTImageProcessor",
    "deit": "DeiTImageProcessor",
    "levit": "LevitImageProcessor",
    "regnet": _CONVNEXT,
}


def _edges(value: Any) -> int | dict[str, int]:
    """One number, or height and width or shortest_edge by name."""
    if isinstance(value, Mapping):
        if set(value) not in ({"height", "width"}, {"shortest_edge"}):
            raise ValueError("one whole number, height and width, or shortest_edge")
        return {name: keys.whole()(side) for name, side in value.items()}
    high, wide = keys.sides(value)
    if high != wide:  # Their order was not the same in all versions.
        raise ValueError('height and width by name, like {"height": 224, "width": 160}')
    return high


def _window(value: Any) -> tuple[int, int]:
    """Height and width of what is cut out."""
    edges = _edges(value)
    if isinstance(edges, int):
        return edges, edges
    if "shortest_edge" in edges:
        raise ValueError("one whole number, or height and width")
    return edges["height"], edges["width"]


def _resample(value: Any) -> str:
    code = keys.whole(0)(value)
    if code not in RESAMPLING:
        called = f" ({_OTHERS[code]})" if code in _OTHERS else ""
        codes = ", ".join(f"{number} ({name})" for number, name in RESAMPLING.items())
        raise ValueError(f"one of {codes}: networks here have no other{called}")
    return RESAMPLING[code]


def _of_channels(value: Any) -> float | tuple[float, ...]:
    """A number of each channel, or one of all."""
    if isinstance(value, list | tuple) and value:
        return keys.numbers(value)
    return keys.number(value)


def _spread(value: Any) -> float | tuple[float, ...]:
    deviations = _of_channels(value)
    each = deviations if isinstance(deviations, tuple) else (deviations,)
    if not all(deviation > 0 for deviation in each):
        raise ValueError("above 0")
    return deviations


def _factor(value: Any) -> float:
    if not keys.number(value) > 0:
        raise ValueError("above 0")
    return float(value)


KEYS = (
    Key("image_processor_type", "the class, whose defaults are below; others are "
        "refused", keys.text),
    Key("feature_extractor_type", "as image_processor_type, which older versions had "
        "not", keys.text),
    refused("do_resize", "takes images as large as they are", True),
    Key("size", "what images are scaled to: the shorter side, or height and width, "
        "into which they are squeezed", _edges),
    Key("default_to_square", "what one number in size is", keys.truth),
    Key("resample", "0 to 3; others are refused", _resample),
    Key("do_center_crop", "whether the centre is cut out", keys.truth),
    Key("crop_size", "height and width of the centre", _window),
    Key("crop_pct", "of ConvNext's: the share of the shorter side that is cut out",
        keys.within_unit),
    Key("do_rescale", "false leaves pixels from 0 to 255; folded into mean and "
        "deviation", keys.truth),
    Key("rescale_factor", "of pixels from 0 to 255; folded likewise", _factor),
    Key("do_normalize", "false is a mean of 0 and a deviation of 1", keys.truth),
    Key("image_mean", "a number a channel, or one of all", _of_channels),
    Key("image_std", "likewise", _spread),
    Key("do_convert_rgb", "true is refused of networks of other channels than three",
        keys.truth),
    refused("do_pad", "puts borders around images", False),
    refused("do_flip_channel_order", "takes colours in another order", False),
    refused("rescale_offset", "takes 1 from pixels", False),
    refused("offset", "takes 1 from pixels", False),
    refused("auto_map", "prepares images by code of its own"),
    Key("pad_size", "of borders, which are refused"),
    *keys.idle("of maps of segments", "do_reduce_labels", "reduce_labels"),
    *keys.idle("how it is computed, or handed on", "data_format", "input_data_format",
           "return_tensors", "device", "disable_grouping", "model_input_names",
           "use_fast", "backend", "_valid_processor_keys", "_valid_kwargs_names",
           "_processor_class", "processor_class", "image_seq_length"),
)  # fmt: skip


def defaults() -> str:
    """What processors do where their files say nothing, as a table for people."""
    rows = ["| class | size | crop_size | resample | image_mean | image_std |"]
    rows.append("|---|---|---|---|---|---|")
    for name, kind in PROCESSORS.items():
        size = f"{'shorter side' if kind.shortest else 'squeezed into'} {kind.size}"
        size += f" ({kind.scaled})" if kind.scaled else ""
        rows.append(
            f"| `{name}` | {size} | {CROP if kind.crop else 'none'} | "
            f"{kind.resample} ({RESAMPLING[kind.resample]}) | "
            f"{_listed(kind.mean)} | {_listed(kind.std)} |"
        )
    return "\n".join(rows)


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(map(str, numbers))


def preprocessing(
    path: str,
    config: Mapping[str, Any],
    family: str,
    channels: int,
) -> tuple[View, tuple[int, int], tuple[str, ...]]:
    """How a processor preprocesses images, their height and width after it, and notes.

    Args:
      path: of its file, for messages.
      config: what that holds.
      family: of the network, whose processor it is where no class is named.
      channels: of the network.

    Raises:
      UserError: it does what is not done here.
    """
    values, notes = keys.taken(path, KEYS, config)
    name = values.get("image_processor_type", values.get("feature_extractor_type", ""))
    kind = _kind(path, name or _OF_FAMILY[family])
    mode, scaled, images = _geometry(path, kind, values)
    if values.get("do_convert_rgb") and channels != 3:
        raise UserError(
            f"{path}: do_convert_rgb is true, and the network takes images of "
            f"{channels} channels, not 3: put false there"
        )
    crop = _share(images, scaled, values.get("crop_pct", 1.0))
    if crop is None:
        raise UserError(
            f"{path} scales images to {scaled[0]} x {scaled[1]} pixels (size) and cuts "
            f"{images[0]} x {images[1]} out of them (crop_size), and no one share of "
            f"both sides gives that here: make size and crop_size of one shape"
        )
    mean, std = _pixels(path, kind, values, channels)
    resample = values.get("resample", RESAMPLING[kind.resample])
    return View(mean, std, crop, resample, mode), images, notes


def _kind(path: str, class_name: str) -> Processor:
    """The class of a processor."""
    name = class_name.removesuffix("Fast").removesuffix("Pil")
    if name.endswith("FeatureExtractor"):
        name = name.removesuffix("FeatureExtractor") + "ImageProcessor"
    if name not in PROCESSORS:
        # Others have keys of the same names, and defaults and steps of their own.
        raise UserError(
            f"{path}: image_processor_type is {shown(class_name)}, which is not known "
            f"here: put one of {', '.join(PROCESSORS)} there that does the same"
        )
    return PROCESSORS[name]


# The mode of a view, what images are scaled to, and what is cut out of that, each as
# height and width. Of "center_down" what they are scaled to is what they cover: both
# sides are the shorter.
_Geometry = tuple[str, tuple[int, int], tuple[int, int]]


def _geometry(path: str, kind: Processor, values: Mapping[str, Any]) -> _Geometry:
    """How a processor scales and cuts images.

    Args:
      path: of its file, for messages.
      kind: its class.
      values: of the keys of its file.

    Raises:
      UserError: it does so in a way that no view has.
    """
    size = values.get("size", kind.size)
    if isinstance(size, int):
        shortest = not values.get("default_to_square", not kind.shortest)
        size = {"shortest_edge": size} if shortest else {"height": size, "width": size}
    cuts = values.get("do_center_crop", kind.crop)
    window = values.get("crop_size", (CROP, CROP) if kind.crop else None)
    if cuts and window is None:
        raise UserError(
            f"{path}: do_center_crop is true, and nothing is said of crop_size: put it "
            f"there"
        )
    window = window if cuts else None
    if kind is PROCESSORS[_CONVNEXT]:
        return _convnext(path, size, window, values.get("crop_pct", _CONVNEXT_CROP))
    if "shortest_edge" in size:
        return _of_shorter_side(path, kind, size["shortest_edge"], window)
    scaled = size["height"], size["width"]
    window = window or scaled
    rests = [whole - side for whole, side in zip(scaled, window, strict=True)]
    same = all(round(rest / 2) == rest // 2 for rest in rests)
    return _within(path, "squash" if same else "squash_down", scaled, window)


def _convnext(
    path: str, size: Mapping[str, int], window: tuple[int, int] | None, crop: float
) -> _Geometry:
    """`_geometry` of ConvNext's, which cuts the centre out of small images alone."""
    edge = size.get("shortest_edge", 0)
    if not edge:
        raise UserError(
            f"{path}: size is {size}, and {_CONVNEXT} takes a shortest_edge: put that "
            f"there"
        )
    square = (edge, edge)
    if window and window != square:
        raise UserError(
            f"{path}: do_center_crop cuts {window[0]} x {window[1]} pixels out of the "
            f"{edge} x {edge} that {_CONVNEXT} makes, which some versions of "
            f"transformers do and others do not: put false there"
        )
    if edge >= _WHOLE_FROM:
        return "squash", square, square
    side = int(edge / crop)
    return "center_down", (side, side), square


def _of_shorter_side(
    path: str, kind: Processor, edge: int, window: tuple[int, int] | None
) -> _Geometry:
    """`_geometry` where the shorter side is scaled, and images keep their shapes."""
    if not window:
        raise UserError(
            f"{path}: do_center_crop is false and size is of the shorter side, so that "
            f"images keep their shapes, and networks here take images of one: put "
            f"height and width there, or let the centre be cut out"
        )
    if window[0] != window[1]:
        raise UserError(
            f"{path}: crop_size is {window[0]} x {window[1]} pixels, which are cut out "
            f"of a shorter side of {edge}, and here a part that is no square is cut "
            f"out in another way: put height and width into size"
        )
    side = int(_LEVIT * edge) if kind is PROCESSORS["LevitImageProcessor"] else edge
    return _within(path, "center_down", (side, side), window)


def _within(
    path: str, mode: str, scaled: tuple[int, int], window: tuple[int, int]
) -> _Geometry:
    """The geometry, if nothing is cut out that is not there."""
    if window[0] > scaled[0] or window[1] > scaled[1]:
        raise UserError(
            f"{path}: crop_size is {window[0]} x {window[1]} pixels, more than "
            f"size leaves ({scaled[0]} x {scaled[1]}), and black borders are not put "
            f"around images here: make size as large"
        )
    return mode, scaled, window


def _share(
    images: tuple[int, int], scaled: tuple[int, int], preferred: float
) -> float | None:
    """The crop of a view that scales images so before the centre is cut out, if any is.

    Args:
      images: height and width of what is cut out.
      scaled: likewise, of what it is cut out of.
      preferred: the crop to take if it gives that.
    """
    least = min(side / whole for side, whole in zip(images, scaled, strict=True))
    # A quotient may be rounded up, and then covers a pixel less.
    for share in (preferred, least, math.nextafter(least, 0.0)):
        if tuple(math.floor(side / share) for side in images) == scaled:
            return share
    return None


def _pixels(
    path: str, kind: Processor, values: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of pixels from 0 to 1, whatever pixels the file means.

    A pixel p from 0 to 255 becomes (p * factor - mean) / std, which is
    (p / 255 - mean / whole) / (std / whole) for whole = 255 * factor.
    """
    factor = 1
    if values.get("do_rescale", True):
        factor = values.get("rescale_factor", 1 / 255)
    whole = 255 * factor
    mean: Any = 0.0
    std: Any = 1.0
    if values.get("do_normalize", True):
        mean = values.get("image_mean", kind.mean)
        std = values.get("image_std", kind.std)
    folded = [
        tuple(n / whole for n in (x if isinstance(x, tuple) else (x,) * channels))
        for x in (mean, std)
    ]
    if not all(map(keys.holds, [*folded[0], *folded[1]])) or not all(folded[1]):
        raise UserError(
            f"{path}: rescale_factor is {shown(factor)}, with which image_mean "
            f"and image_std are no numbers of pixels from 0 to 1: mend it"
        )
    return folded[0], folded[1]
