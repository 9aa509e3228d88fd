"""What the config files beside weights say of them.

Tensors do not show the number of heads, the epsilon of norms, nor how images are to be
prepared; ``config.json`` and ``preprocessor_config.json``, as timm and transformers
write them, do. They are read where they are there, and never needed. Each library's
own keys are in the module of its name.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from sws_jax.arguments import shown
from sws_jax.convert import hugging_face, timm
from sws_jax.convert.base import Layout
from sws_jax.convert.folders import CONFIG, PREPROCESSOR, PROCESSOR
from sws_jax.convert.keys import Beside
from sws_jax.errors import UserError
from sws_jax.specs import Foreign
from sws_jax.storage import documents, files

_LARGEST = 64 * 2**20  # bytes; a config with the names of all classes takes far less


def read(
    path: str, layout: Layout, spec: Foreign, tensors: Sequence[str] = ()
) -> Beside:
    """What the files beside weights say; the layout's view where there are none.

    Args:
      path: of the weights.
      layout, spec: what their tensors are.
      tensors: the names of those, in the layout.

    Raises:
      UserError: a file is there and is damaged, or says what cannot be done here.
    """
    folder = os.path.dirname(path)
    config_path = os.path.join(folder, CONFIG)
    config = _json(config_path)
    if "pretrained_cfg" in config or "architecture" in config:
        beside = timm.read(config_path, config, layout, spec, tensors)
        notes = (*beside.notes, *_unread(folder, config_path))
        return dataclasses.replace(beside, notes=notes, path=config_path)
    processor_path, processor = _processor(folder)
    notes = ()
    if config and "model_type" not in config:
        notes = (
            f"{config_path} says neither model_type, as transformers writes it, nor "
            f"architecture, as timm does, so that nothing is taken from it",
        )
        config = {}
    if not config and not processor:
        return Beside(layout.view, notes=notes)
    beside = hugging_face.read(
        config_path,
        config,
        layout,
        spec,
        processor_path=processor_path,
        processor=processor,
    )
    return dataclasses.replace(
        beside,
        path=config_path if config else "",
        view_path=processor_path if processor else "",
        notes=(*notes, *beside.notes),
    )


def _unread(folder: str, config_path: str) -> tuple[str, ...]:
    """A note on files of processors that stand beside a config of timm."""
    present = [
        name
        for name in (PREPROCESSOR, PROCESSOR)
        if os.path.lexists(os.path.join(folder, name))
    ]
    if not present:
        return ()
    return (
        f"{' and '.join(present)} beside {config_path} are not read: of timm's "
        f"networks it says how images are",
    )


def _processor(folder: str) -> tuple[str, dict[str, Any]]:
    """The file that says how images are preprocessed, and its content.

    As in transformers, what is within ``processor_config.json`` comes first.
    """
    key = "image_processor"
    outer_path = os.path.join(folder, PROCESSOR)
    processor = _json(outer_path).get(key)
    if isinstance(processor, dict):
        return outer_path, processor
    if processor is not None:
        raise UserError(
            f"{outer_path}: {key} is {shown(processor)}, and must be an object of keys "
            f"and values: mend it, or move it away"
        )
    path = os.path.join(folder, PREPROCESSOR)
    return path, _json(path)


def _json(path: str) -> dict[str, Any]:
    """The keys of a JSON file that have a value; none where there is no file."""
    if not os.path.lexists(path):
        return {}
    files.check_readable(path)
    remedy = "mend it, or move it away"
    with files.errors_as_refusals(path):
        if os.path.getsize(path) > _LARGEST:
            raise UserError(f"{path} is larger than such files are: {remedy}")
        content = documents.read_json(path, remedy=remedy)
    # null is written where a key says nothing.
    return {name: value for name, value in content.items() if value is not None}
