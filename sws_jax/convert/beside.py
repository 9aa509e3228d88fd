"""What the files beside weights say of them.

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

from sws_jax.convert import hugging_face, timm
from sws_jax.convert.base import Layout, Plain
from sws_jax.convert.folders import CONFIG, PREPROCESSOR, PROCESSOR
from sws_jax.convert.keys import Beside, shown
from sws_jax.errors import UserError
from sws_jax.storage import documents, files

_LARGEST = 64 * 2**20  # bytes; a config with the names of all classes takes far less


def read(path: str, layout: Layout, spec: Plain, tensors: Sequence[str] = ()) -> Beside:
    """What stands beside the file `path`; the layout's view where nothing does.

    Args:
      path: of the weights.
      layout, spec: what their tensors are.
      tensors: the names of those, in the layout.

    Raises:
      UserError: a file is there and is damaged, or says what cannot be done here.
    """
    folder = os.path.dirname(path)
    at = os.path.join(folder, CONFIG)
    config = _json(at)
    if "pretrained_cfg" in config or "architecture" in config:
        said = timm.read(at, config, layout, spec, tensors)
        others = [
            name
            for name in (PREPROCESSOR, PROCESSOR)
            if os.path.lexists(os.path.join(folder, name))
        ]
        if others:
            said = dataclasses.replace(
                said,
                notes=(
                    *said.notes,
                    f"{' and '.join(others)} beside {at} are not read: of timm's "
                    f"networks it says how images are",
                ),
            )
        return dataclasses.replace(said, path=at)
    look_at, look = _processor(folder)
    notes: tuple[str, ...] = ()
    if config and "model_type" not in config:
        notes = (
            f"{at} says neither model_type, as transformers writes it, nor "
            f"architecture, as timm does, so that nothing is taken from it",
        )
        config = {}
    if not config and not look:
        return Beside(layout.view, notes=notes)
    said = hugging_face.read(
        at, config, layout, spec, processor_path=look_at, processor=look
    )
    return dataclasses.replace(
        said,
        path=at if config else "",
        view_path=look_at if look else "",
        notes=(*notes, *said.notes),
    )


def _processor(folder: str) -> tuple[str, dict[str, Any]]:
    """The file that says how images are prepared, and what it says of that.

    As transformers does: what is within ``processor_config.json`` comes first.
    """
    within = "image_processor"
    both = os.path.join(folder, PROCESSOR)
    found = _json(both).get(within)
    if isinstance(found, dict):
        return both, found
    if found is not None:
        raise UserError(
            f"{both}: {within} is {shown(found)}, and must be an object of keys and "
            f"values: mend it, or move it away"
        )
    at = os.path.join(folder, PREPROCESSOR)
    return at, _json(at)


def _json(path: str) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    files.check_readable(path)
    remedy = "mend it, or move it away"
    with files.told(path):
        if os.path.getsize(path) > _LARGEST:
            raise UserError(f"{path} is larger than such files are: {remedy}")
        found = documents.read_json(path, remedy=remedy)
    # (null is what is written where nothing is said.)
    return {name: value for name, value in found.items() if value is not None}
