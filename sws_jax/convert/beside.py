"""What the files beside weights say of them.

Tensors do not show the number of heads, the epsilon of norms, nor how images are to be
prepared; ``config.json`` and ``preprocessor_config.json``, as timm and transformers
write them, do. They are read where they are there, and never needed. Each library's
own keys are in the module of its name.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from sws_jax import files
from sws_jax.convert import hugging_face, timm
from sws_jax.convert.base import Layout, View
from sws_jax.convert.folders import CONFIG, PREPROCESSOR
from sws_jax.convert.keys import Beside, naming
from sws_jax.errors import UserError

_LARGEST = 64 * 2**20  # bytes; a config with the names of all classes takes far less


def read(path: str, layout: Layout, spec: timm.Plain) -> Beside:
    """What stands beside the file `path`; the layout's view where nothing does.

    Args:
      path: of the weights.
      layout, spec: what their tensors are.

    Raises:
      UserError: a file is there and is damaged, or says what cannot be done here.
    """
    folder, usual = os.path.dirname(path), layout.view
    at, beside = os.path.join(folder, CONFIG), os.path.join(folder, PREPROCESSOR)
    config = _json(at)
    if "pretrained_cfg" in config or "architecture" in config:
        return dataclasses.replace(timm.read(at, config, layout, spec), path=at)
    if "model_type" not in config:
        return Beside(usual)
    found = _sentence(at, hugging_face.read, config, usual)
    view = _sentence(beside, hugging_face.view, _json(beside), usual)
    return dataclasses.replace(found, view=view, path=at)


def _json(path: str) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    files.check_readable(path)
    remedy = "mend it, or move it away"
    with files.told(path):
        if os.path.getsize(path) > _LARGEST:
            raise UserError(f"{path} is larger than such files are: {remedy}")
        found = files.read_json(path, remedy=remedy)
    # (null is what is written where nothing is said.)
    return {name: value for name, value in found.items() if value is not None}


def _sentence(path: str, read: Callable, config: Mapping[str, Any], usual: View) -> Any:
    try:
        with naming(path):
            return read(config, usual)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as e:
        raise UserError(
            f"{path} does not say what such files say ({e}): mend it, or move it away"
        ) from None
