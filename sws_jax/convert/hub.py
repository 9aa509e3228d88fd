"""Folders of weights with a ``config.json``, as Hugging Face and timm write them.

Tensors do not show the number of heads, the epsilon of norms, nor how images are to be
prepared; the files beside them do. They are read where they are there, and never
needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from sws_jax import files
from sws_jax.convert.base import View
from sws_jax.errors import UserError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PREPROCESSOR = "preprocessor_config.json"

# The numbers that Pillow, and so Hugging Face, has for interpolations.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_GELUS = {
    "gelu": "exact",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_tanh": "tanh",
    "gelu_pytorch_tanh": "tanh",
}


@dataclasses.dataclass(frozen=True)
class Beside:
    """What the files beside weights say of them.

    Attributes:
      view: how images are prepared.
      fields: of a `ViTSpec`, by name.
      labels: of the classes, in order; empty where they are not named.
      path: of the file that says it, if there is one.
    """

    view: View
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    path: str = ""

    def class_names(self, classes: int) -> tuple[str, ...]:
        """The labels, if there is one for each class."""
        return self.labels if len(self.labels) == classes else ()


def read(path: str, usual: View) -> Beside:
    """What stands beside the file `path`; `usual` where nothing does.

    Raises:
      UserError: a file is there and is damaged, or says what cannot be done here.
    """
    folder = os.path.dirname(path)
    at, beside = os.path.join(folder, CONFIG), os.path.join(folder, PREPROCESSOR)
    config = _json(at)
    if "pretrained_cfg" in config or "architecture" in config:
        return dataclasses.replace(_sentence(at, _timm, config, usual), path=at)
    if "model_type" not in config:
        return Beside(usual)
    found = _sentence(at, _hugging_face, config, usual)
    view = _sentence(beside, _processor, _json(beside), usual)
    return dataclasses.replace(found, view=view, path=at)


def weights_in(path: str) -> str:
    """The file of weights in a folder that such libraries write; else the path."""
    inside = os.path.join(path, WEIGHTS)
    return inside if os.path.isfile(inside) else path


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Puts the file that said something before what is wrong with it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}" if path else str(error)) from None


def write(
    folder: str, flat: Mapping[str, np.ndarray], others: Mapping[str, Any]
) -> None:
    """Writes weights and the files beside them, whole or not at all.

    Args:
      folder: is made; it must not exist.
      flat: tensors by name.
      others: what to write as JSON, by the name of its file.

    Raises:
      UserError: the folder is there.
    """
    if os.path.exists(folder):
        raise UserError(f"{folder} is there already: name another folder, or remove it")
    parent = os.path.dirname(os.path.abspath(folder))
    try:
        os.makedirs(parent, exist_ok=True)
        _write(folder, parent, flat, others)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror})") from None


def _write(folder: str, parent: str, flat, others) -> None:
    with tempfile.TemporaryDirectory(dir=parent, prefix=".folder.") as made:
        whole = os.path.join(made, "whole")
        os.mkdir(whole, mode=0o755)
        files.write_tensors(os.path.join(whole, WEIGHTS), flat, {"format": "pt"})
        for name, value in others.items():
            files.write_json(os.path.join(whole, name), value)
        os.rename(whole, folder)


def _json(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    found = files.read_json(path, remedy="mend it, or move it away")
    # (null is what is written where nothing is said.)
    return {name: value for name, value in found.items() if value is not None}


def _sentence(path: str, read: Callable, config: Mapping[str, Any], usual: View) -> Any:
    try:
        with naming(path):
            return read(config, usual)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError) as e:
        raise UserError(
            f"{path} does not say what such files say ({e}): mend it, or move it away"
        ) from None


def _timm(config: Mapping[str, Any], usual: View) -> Beside:
    view, arguments = config.get("pretrained_cfg", config), config.get("model_args", {})
    view = {name: value for name, value in view.items() if value is not None}
    fields: dict[str, Any] = {}
    # What timm's names mean and tensors do not show.
    named = str(config.get("architecture", ""))
    if "siglip" in named:
        fields["gelu"] = "tanh"
    if named == "vit_base_patch16_gap_224":
        fields["heads"] = 16
    if arguments.get("num_heads") is not None:
        fields["heads"] = int(arguments["num_heads"])
    if arguments.get("act_layer") is not None:
        fields["gelu"] = _gelu(arguments["act_layer"])
    labels = view.get("label_names", ())
    if isinstance(labels, str):
        raise TypeError("label_names is one text")
    interpolation = view.get("interpolation", usual.interpolation)
    return Beside(
        View(
            mean=tuple(map(float, view.get("mean", usual.mean))),
            std=tuple(map(float, view.get("std", usual.std))),
            crop=float(view.get("crop_pct", usual.crop)),
            # timm's "random" is of training.
            interpolation="bicubic" if interpolation == "random" else interpolation,
        ),
        fields,
        tuple(map(str, labels)),
    )


def _hugging_face(config: Mapping[str, Any], usual: View) -> Beside:
    fields: dict[str, Any] = {}
    if config["model_type"] in ("vit", "deit"):
        if "num_attention_heads" in config:
            fields["heads"] = int(config["num_attention_heads"])
        if "layer_norm_eps" in config:
            fields["norm_eps"] = float(config["layer_norm_eps"])
        if "hidden_act" in config:
            fields["gelu"] = _gelu(config["hidden_act"])
    labels = {int(k): str(v) for k, v in config.get("id2label", {}).items()}
    named = tuple(labels[i] for i in sorted(labels))
    if named == tuple(f"LABEL_{i}" for i in range(len(named))):
        named = ()  # which is what is written where none were given
    return Beside(usual, fields, named)


def _processor(config: Mapping[str, Any], usual: View) -> View:
    if not config:
        return usual
    if not config.get("do_normalize", True):
        raise UserError("do_normalize is false, and networks here normalise: edit it")
    crop = 1.0
    if config.get("crop_pct") is not None:  # of ConvNeXt's processor, and LeViT's
        crop = float(config["crop_pct"])
    elif config.get("do_center_crop"):
        crop = _side(config["crop_size"]) / _side(config["size"])
    return View(
        mean=tuple(map(float, config.get("image_mean", usual.mean))),
        std=tuple(map(float, config.get("image_std", usual.std))),
        crop=min(crop, 1.0),
        interpolation=RESAMPLING[int(config.get("resample", 3))],
    )


def _side(size: Any) -> float:
    """Of a square, in any of the forms that processors have had."""
    if isinstance(size, Mapping):
        return float(size.get("shortest_edge") or size["height"])
    return float(size)


def _gelu(name: str) -> str:
    if name not in _GELUS:
        raise UserError(
            f"the activation {name!r} is not one of {', '.join(_GELUS)}, which are "
            f"those of the networks here"
        )
    return _GELUS[name]
