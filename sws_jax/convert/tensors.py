"""Files of named tensors, whoever wrote them; nothing in them is run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sws_jax.convert import folders, parts
from sws_jax.convert.parts import IN_MEMORY
from sws_jax.errors import UserError
from sws_jax.storage import array_files, contents, files, paths

# How programs that quantise call what they put beside, or in place of, weights.
_QUANTISED = re.compile(
    r".*([._](qweight|qzeros|scales|SCB|weight_scale(_inv)?|weight_zero_point|absmax"
    r"|quant_map|quant_state.*|_packed_params.*|zero_point)|weight\._?scale)"
)


@dataclasses.dataclass(frozen=True)
class TensorFile:
    """The tensors of a file.

    Attributes:
      flat: by name.
      part: that was taken, with dots; empty where all were.
      notes: what is worth saying of how they were read, a sentence each.
    """

    flat: dict[str, np.ndarray]
    part: str = ""
    notes: tuple[str, ...] = ()


def read(
    path: str | os.PathLike[str] | Mapping[str, Any], *, part: str = ""
) -> TensorFile:
    """All tensors of a file, by name; of a mapping, its arrays or torch tensors.

    Args:
      path: a mapping, or a file or folder, see `folders.weights_in`. Read are
        ``.safetensors``, ``.npz``, or (where torch is installed) ``.pth``, ``.pt``,
        ``.bin``, ``.pth.tar``, ``.ckpt`` or ``.th``.
      part: of a checkpoint that holds more than one network, like "model_ema";
        nested with dots, and "." for the tensors at its top; or what stands before the
        names of one of several, like "teacher.module.backbone". Default the usual one,
        and a note says which others there are.

    Raises:
      UserError: the file is missing, cut off, of another kind, wants to run code, or
        holds several parts none of which is usual, or not the one asked for.
    """
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    try:
        return _read(path, part)
    except RecursionError:
        where = path if isinstance(path, str) else IN_MEMORY
        raise UserError(
            f"{where} is nested too deeply, or holds itself: save the tensors of one "
            f"network by their names"
        ) from None


def _read(path: str | Mapping[str, Any], part: str) -> TensorFile:
    notes: tuple[str, ...] = ()
    if isinstance(path, str):
        weights = folders.weights_in(path)
        where = weights.path
        tree = folders.joined(weights, [_reader(file)(file) for file in weights.files])
        tree, taken, left = parts.chosen(where, tree, part)
        notes = (*weights.notes, *left)
    else:
        where = IN_MEMORY
        tree, taken, notes = parts.chosen(where, path, part, nested=True)
        tree = dict(_leaves(tree))  # A Flax tree is nested.
    arrays = {name: _plain(where, name, value) for name, value in tree.items()}
    if not arrays:
        raise UserError(f"{where} holds no named tensors")
    for name in arrays:
        if _QUANTISED.fullmatch(name):
            raise UserError(
                f"{where} is quantised ({name}), and weights are read in full: save it "
                f"as float32, float16 or bfloat16 with the program that wrote it"
            )
    flat = {name: _numbers(where, name, array) for name, array in arrays.items()}
    return TensorFile(flat, taken, notes)


def _leaves(tree: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """What is in a nested tree, by its names joined with a slash; nothing of None."""
    for name, value in tree.items():
        if isinstance(value, Mapping) or (
            isinstance(value, list | tuple) and not parts.is_numbers(value)
        ):
            yield from _leaves(parts.by_name(value), f"{inside}{name}/")
        elif value is not None:
            yield f"{inside}{name}", value


def _plain(where: str, name: str, value: Any) -> np.ndarray:
    """A tensor or an array of any library as one of numpy."""
    try:
        return _array(value)
    except ValueError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001  what libraries raise is of many kinds
        why = "has no values here (" + re.split(r"\n|\. ", str(error))[0] + ")"
    raise UserError(f"{where}: {name} {why}")


def _reader(path: str) -> Callable[[str], dict[str, Any]]:
    """The function that reads a file of this ending, which exists."""
    if paths.is_remote(path):
        command = f" (gcloud storage cp {path} .)" if path.startswith("gs://") else ""
        raise UserError(
            f"{path} is in a bucket, and weights of other programs are read from this "
            f"machine's disks: copy it here first{command}"
        )
    files.check_readable(path)
    ending = next((e for e in folders.ENDINGS if path.lower().endswith(e)), "")
    if not ending:
        fitting = contents.ending_of(path)
        what = f"{path} is none of the files {', '.join(folders.ENDINGS)}"
        if fitting:
            what += f"; it holds what a {fitting} file does: copy or link it as one"
        raise UserError(what)
    if os.path.isfile(path) and (damage := contents.mismatch(path, ending)):
        plain = ending in (".safetensors", ".npz")
        what = f"{ending} file" if plain else "file of PyTorch"
        raise UserError(f"{path} is not a readable {what} ({damage})")
    return {".safetensors": _safetensors, ".npz": array_files.read_npz}.get(
        ending, _torch
    )


def _numbers(where: str, name: str, array: np.ndarray) -> np.ndarray:
    """The array, if it holds numbers of a kind that networks have."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and not array.dtype.names:
        return array.view(ml_dtypes.bfloat16)  # which numpy forgets in an .npz
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        return array
    if array.dtype == ml_dtypes.bfloat16:
        return array
    raise UserError(
        f"{where}: {name} holds {array.dtype}, and weights are numbers of float16, "
        f"bfloat16, float32 or float64: save it as one of those"
    )


def write(path: str, flat: Mapping[str, np.ndarray]) -> None:
    """Writes tensors by name to a ``.safetensors`` or ``.npz``, whole or not at all.

    Raises:
      UserError: the path has another ending.
    """
    if not path.endswith((".safetensors", ".npz")):
        raise UserError(f"{path} must end in .safetensors or .npz")
    if path.endswith(".safetensors"):
        return array_files.write_tensors(path, flat)
    # numpy writes anything, and would not read ml_dtypes back.
    odd = sorted({str(a.dtype) for a in flat.values() if a.dtype.kind == "V"})
    if odd:
        raise UserError(f"{path}: .npz holds no {odd[0]}; take .safetensors")
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **dict(flat))  # type: ignore[arg-type]


def _safetensors(path: str) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except AttributeError as error:  # a kind of number that numpy has no name for
        raise UserError(
            f"{path} is not a readable .safetensors file ({_odd(path) or error}): save "
            f"it as float32, float16 or bfloat16"
        ) from None
    # Libraries raise errors of many kinds about damage.
    except Exception as error:  # noqa: BLE001
        reason = f"{error}"
    raise UserError(
        f"{path} is not a readable .safetensors file ({reason}); if it is cut off, "
        f"copy it again"
    )


def _odd(path: str) -> str:
    """The first tensor of a whole ``.safetensors`` whose numbers are not read here."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    known = ("BOOL", "BF16", "F16", "F32", "F64", *(f"I{n}" for n in (8, 16, 32, 64)))
    for name, entry in header.items():
        kind = entry.get("dtype", "BF16")
        if kind not in known and not kind.startswith("U"):
            return f"{name} holds {kind}, of which no network here is"
    return ""


def _torch(path: str) -> dict[str, Any]:
    """What a file of PyTorch holds by name, read without running anything of it.

    Raises:
      UserError: torch is not installed, or the file is damaged, wants to run code, or
        holds something else than a mapping.
    """
    if damage := contents.damage(path):
        raise UserError(f"{path} is not a readable file of PyTorch weights ({damage})")
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
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([argparse.Namespace]),
        ):
            # It warns of old protocols, of which `_reason` tells.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    # A hostile pickle raises anything.
    except Exception as error:  # noqa: BLE001
        raise UserError(
            f"{path} is not a readable file of PyTorch weights ({_reason(path, error)})"
        ) from None
    if isinstance(content, Mapping):
        return dict(content)
    kind = f"{type(content).__module__}.{type(content).__qualname__}"
    raise UserError(f"{path} holds a {kind}, and no tensors by name: save a state_dict")


def _reason(path: str, error: Exception) -> str:
    """Why PyTorch did not read a file, and what to do."""
    if strange := contents.wants(path):
        return (
            f"it wants to run or build {', '.join(strange[:3])}, and nothing of a file "
            f"is run here: save the weights alone"
        )
    if (protocol := contents.protocol(path)) not in (2, 3):
        number = protocol or "0 or 1"
        return (
            f"it was saved with pickle_protocol={number}, which is not read without "
            f"running it: save it again with the default"
        )
    other = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if other:
        reason = f"it holds a Python object, {other[1]}: save the weights alone"
    else:
        reason = str(error).split("\n")[0].split(". ")[0]
    if "weights_only" in reason or "Weights only" in reason:
        return (
            "it holds more than tensors, or is cut off: save the weights alone, or "
            "copy it again"
        )
    if "inline_container" in reason or "zip archive" in reason:
        return "it is cut off or damaged: copy it again"
    if other:
        return reason
    if len(reason) < 6:  # a number, or nothing at all
        reason = f"{type(error).__name__} {reason}".strip()
    return f"{reason}; if it is cut off, copy it again"


def _array(value: Any) -> np.ndarray:
    """Raises ValueError with what it is, after its name."""
    if hasattr(value, "detach"):
        return _of_torch(value)
    if np.ma.is_masked(value):
        raise ValueError("has a mask: fill it (numpy.ma.filled)")
    if parts.is_numbers(value):
        kind = type(value).__name__
        raise ValueError(f"is a {kind}, and no array: make it one (numpy.asarray)")
    if hasattr(value, "shape") and not hasattr(value, "__array__"):
        raise ValueError("has a shape and no values: give the array itself")
    return np.asarray(value)


def _of_torch(value: Any) -> np.ndarray:
    if value.device.type == "meta":
        raise ValueError(
            "is on the device meta, where tensors have no values: save it with them"
        )
    value = value.detach().cpu().resolve_conj().resolve_neg()
    with contextlib.suppress(TypeError):
        return value.numpy()
    import torch

    if value.dtype != torch.bfloat16 or value.layout != torch.strided:
        raise ValueError(
            f"is a tensor of {value.dtype}, {value.layout}, which is not read here: "
            f"save it as float32, float16 or bfloat16"
        )
    return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
