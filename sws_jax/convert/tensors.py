"""Files of named tensors, whoever wrote them; nothing in them is run."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sws_jax import files, paths, trees
from sws_jax.convert import folders
from sws_jax.errors import UserError

# Where training programs put a network's tensors inside what they save.
_INSIDE = ("model", "state_dict", "params")


@dataclasses.dataclass(frozen=True)
class Held:
    """The tensors of a file.

    Attributes:
      flat: by name.
      notes: what is worth saying of how they were read, a sentence each.
    """

    flat: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def read(path: str | Mapping[str, Any]) -> Held:
    """All tensors of a file, by name; of a mapping, its arrays or torch tensors.

    Args:
      path: a mapping, or a file or folder, see `folders.weights_in`. Read are
        ``.safetensors``, ``.npz``, or (where torch is installed) ``.pth``, ``.pt``
        or ``.bin``. A checkpoint that holds more than weights is asked for its
        ``model`` or ``state_dict``.

    Raises:
      UserError: the file is missing, cut off, of another kind, or wants to run code.
    """
    notes: tuple[str, ...] = ()
    if isinstance(path, str):
        there = folders.weights_in(path)
        where, notes = there.path, there.notes
        found = folders.joined(there, [_reader(file)(file) for file in there.files])
    else:
        where, found = "what is in memory", {}
        try:
            # (A Flax tree is nested.)
            for name, value in trees.flatten(dict(path)).items():
                torch = hasattr(value, "detach")
                found[str(name)] = _array(name, value) if torch else np.asarray(value)
        except Exception as error:  # noqa: BLE001  as from files
            raise UserError(f"{where} is no mapping of tensors ({error})") from None
    if not found:
        raise UserError(f"{where} holds no named tensors")
    numbers = {name: _numbers(where, name, a) for name, a in found.items()}
    return Held(numbers, notes)


def _reader(path: str) -> Callable[[str], dict[str, np.ndarray]]:
    """Of a file, which exists."""
    if paths.is_remote(path):
        raise UserError(
            f"{path} is in a bucket, and weights of other programs are read from this "
            f"machine's disks: copy it here first (gcloud storage cp {path} .)"
        )
    files.check_readable(path)
    ending = next((e for e in folders.ENDINGS if path.lower().endswith(e)), "")
    if not ending:
        raise UserError(f"{path} is none of the files {', '.join(folders.ENDINGS)}")
    return {".safetensors": _safetensors, ".npz": files.read_npz}.get(ending, _torch)


def _numbers(where: str, name: str, array: np.ndarray) -> np.ndarray:
    """The array, if it holds numbers of a kind that networks have."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and not array.dtype.names:
        return array.view(ml_dtypes.bfloat16)  # which numpy forgets in an .npz
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        return array
    if array.dtype == ml_dtypes.bfloat16:
        return array
    raise UserError(
        f"{where}: {name} holds {array.dtype}, and weights are numbers of up to 64 bits"
    )


def write(path: str, flat: Mapping[str, np.ndarray]) -> None:
    """Writes tensors by name to a ``.safetensors`` or ``.npz``, whole or not at all.

    Raises:
      UserError: the path has another ending.
    """
    if not path.endswith((".safetensors", ".npz")):
        raise UserError(f"{path} must end in .safetensors or .npz")
    if path.endswith(".safetensors"):
        return files.write_tensors(path, flat)
    # (numpy writes anything, and would not read ml_dtypes back.)
    odd = sorted({str(a.dtype) for a in flat.values() if a.dtype.kind == "V"})
    if odd:
        raise UserError(f"{path}: .npz holds no {odd[0]}; take .safetensors")
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **dict(flat))  # type: ignore[arg-type]


def _safetensors(path: str) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except AttributeError as error:  # a kind of number that numpy has no name for
        reason = f"it holds numbers that are not read here: {error}"
    # What libraries raise about damage is of many kinds.
    except Exception as error:  # noqa: BLE001
        reason = f"{error}"
    raise UserError(
        f"{path} is not a readable .safetensors file ({reason}); if it is cut off, "
        f"copy it again"
    )


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
        found = {name: _array(name, value) for name, value in _weights(found).items()}
    # Of many kinds; a hostile pickle is one of them.
    except Exception as error:  # noqa: BLE001
        reason = str(error).split("\n")[0].split(". ")[0]
        if other := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            reason = f"it holds a Python object, {other[1]}: save the weights alone"
        if len(reason) < 6:  # a number, or nothing at all
            reason = f"{type(error).__name__} {reason}".strip()
        raise UserError(
            f"{path} is not a readable file of PyTorch weights ({reason})"
        ) from None
    return found


def _weights(found: Any) -> dict[str, Any]:
    """The tensors of a checkpoint, at its top or where trainers put them."""
    if not isinstance(found, Mapping):
        return {}
    for key in _INSIDE:
        if isinstance(found.get(key), Mapping):
            return _weights(found[key])
    return {str(k): v for k, v in found.items() if hasattr(v, "numpy")}


def _array(name: str, value: Any) -> np.ndarray:
    value = value.detach().cpu()
    with contextlib.suppress(TypeError):
        return value.numpy()
    import torch

    if value.dtype != torch.bfloat16 or value.layout != torch.strided:
        kind = f"{value.dtype}, {value.layout}"
        raise ValueError(f"{name} is a tensor of {kind}, which is not read here")
    return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
