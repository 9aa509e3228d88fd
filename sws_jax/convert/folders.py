"""Folders of weights, as Hugging Face and timm write them: which file is read, and how
one is written whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from sws_jax import files
from sws_jax.errors import UserError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PREPROCESSOR = "preprocessor_config.json"


def weights_in(path: str) -> str:
    """The file of weights in a folder that such libraries write; else the path."""
    inside = os.path.join(path, WEIGHTS)
    return inside if os.path.isfile(inside) else path


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
