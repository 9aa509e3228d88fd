"""Files of named tensors, whoever wrote them; nothing in them is run."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from sws_jax import files
from sws_jax.errors import UserError

ENDINGS = (".safetensors", ".npz", ".pth", ".pt", ".bin")
# Where training programs put a network's tensors inside what they save.
_INSIDE = ("model", "state_dict", "params")


def read(path: str) -> dict[str, np.ndarray]:
    """All tensors of a file, by name.

    Args:
      path: ``.safetensors``, ``.npz``, or (where torch is installed) ``.pth``, ``.pt``
        or ``.bin``. A checkpoint that holds more than weights is asked for its
        ``model`` or ``state_dict``.

    Raises:
      UserError: the file is missing, cut off, of another kind, or wants to run code.
    """
    readers = {".safetensors": _safetensors, ".npz": _npz}
    ending = next((e for e in ENDINGS if path.lower().endswith(e)), "")
    if not ending:
        raise UserError(f"{path} is none of the files {', '.join(ENDINGS)}")
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return readers.get(ending, _torch)(path)


def write(path: str, flat: Mapping[str, np.ndarray]) -> None:
    """Writes tensors by name to a ``.safetensors`` or ``.npz``, whole or not at all.

    Raises:
      UserError: the path has another ending.
    """
    if not path.endswith((".safetensors", ".npz")):
        raise UserError(f"{path} must end in .safetensors or .npz")
    with files.replacing(path) as temporary:
        if path.endswith(".npz"):
            # (numpy writes anything, and would not read ml_dtypes back.)
            odd = sorted({str(a.dtype) for a in flat.values() if a.dtype.kind == "V"})
            if odd:
                raise UserError(f"{path}: .npz holds no {odd[0]}; take .safetensors")
            with open(temporary, "wb") as file:
                np.savez(file, **dict(flat))  # type: ignore[arg-type]
        else:
            safetensors.numpy.save_file(dict(flat), temporary)


def _safetensors(path: str) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{path} is not a readable .safetensors file ({error}); it may be cut off: "
            f"copy it again"
        ) from None


def _npz(path: str) -> dict[str, np.ndarray]:
    try:
        # (numpy leaves a file open that it cannot read.)
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is one array")
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else error
        raise UserError(f"{path} is not a readable .npz of arrays ({reason})") from None


def _torch(path: str) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is a file of PyTorch, which is not installed: pip install torch, "
            f"or save the weights as .safetensors where it is"
        ) from None
    import argparse

    try:
        # Published checkpoints hold the Namespace of their arguments: that one class
        # is data, and nothing else than tensors and plain values is let in.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds; a hostile pickle is one of them
        reason = str(error).split("\n")[0].split(". ")[0]
        raise UserError(
            f"{path} is not a readable file of PyTorch weights ({reason})"
        ) from None
    found = _weights(found)
    if not found:
        raise UserError(f"{path} holds no named tensors")
    return {name: _array(value) for name, value in found.items()}


def _weights(found: Any) -> dict[str, Any]:
    """The tensors of a checkpoint, at its top or where trainers put them."""
    if not isinstance(found, Mapping):
        return {}
    for key in _INSIDE:
        if isinstance(found.get(key), Mapping):
            return _weights(found[key])
    return {str(k): v for k, v in found.items() if hasattr(v, "numpy")}


def _array(value: Any) -> np.ndarray:
    value = value.detach().cpu()
    with contextlib.suppress(TypeError):
        return value.numpy()
    import ml_dtypes  # numpy has no bfloat16 of its own
    import torch

    assert value.dtype == torch.bfloat16, value.dtype
    return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
