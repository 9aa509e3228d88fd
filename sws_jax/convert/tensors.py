"""Files of named tensors, whoever wrote them; nothing in them is run."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sws_jax import contents, files, paths, trees
from sws_jax.convert import folders
from sws_jax.errors import UserError

# Where training programs put a network's tensors inside what they save; the first that
# is there is taken, and the others are told. (DINO evaluates the teacher.)
_PARTS = (
    *("model", "state_dict", "params", "model_state_dict", "model_state", "module"),
    *("net", "network", "weights", "target", "model_ema", "state_dict_ema"),
    *("ema_state_dict", "params_ema", "ema", "ema_model", "teacher", "student"),
    *("backbone", "encoder", "target_encoder"),
)
# What else they save that holds tensors, and no network.
_OTHERS = re.compile(
    r"(opt|optim\w*|opt_state|state|lr_sched\w*|\w*scheduler\w*|\w*scaler|rng\w*|args)"
)
# What programs put before every name of what they save.
_WRAPPERS = (
    *("module", "_orig_mod", "_forward_module", "model", "net", "network", "backbone"),
    *("encoder", "teacher", "student", "params", "opt", "target", "state_dict"),
    *("ema_model", "ema", "model_ema", "online_network", "target_encoder"),
)
# Counts that training keeps beside names with a prefix, without one.
_COUNTERS = re.compile(r"n_averaged|num_updates|num_batches_tracked|initted|step|epoch")
# How programs that quantise call what they put beside, or in place of, weights.
_QUANTISED = re.compile(
    r".*([._](qweight|qzeros|scales|SCB|weight_scale(_inv)?|weight_zero_point|absmax"
    r"|quant_map|quant_state.*|_packed_params.*|zero_point)|weight\._?scale)"
)


@dataclasses.dataclass(frozen=True)
class Held:
    """The tensors of a file.

    Attributes:
      flat: by name.
      part: that was taken, with dots; empty where all were.
      notes: what is worth saying of how they were read, a sentence each.
    """

    flat: dict[str, np.ndarray]
    part: str = ""
    notes: tuple[str, ...] = ()


def read(path: str | Mapping[str, Any], *, part: str = "") -> Held:
    """All tensors of a file, by name; of a mapping, its arrays or torch tensors.

    Args:
      path: a mapping, or a file or folder, see `folders.weights_in`. Read are
        ``.safetensors``, ``.npz``, or (where torch is installed) ``.pth``, ``.pt``
        or ``.bin``.
      part: of a checkpoint that holds more than one network, like "model_ema";
        nested with dots, and "." for the tensors at its top; or what stands before the
        names of one of several, like "teacher.module.backbone". Default the usual one,
        and a note says which others there are.

    Raises:
      UserError: the file is missing, cut off, of another kind, wants to run code, or
        holds several parts none of which is usual, or not the one asked for.
    """
    notes: tuple[str, ...] = ()
    took = ""
    if isinstance(path, str):
        there = folders.weights_in(path)
        where = there.path
        found = folders.joined(there, [_reader(file)(file) for file in there.files])
        found, took, left = _part(where, found, part)
        notes = (*there.notes, *left)
        found = {name: _plain(where, name, a) for name, a in found.items()}
    else:
        where, found = "what is in memory", {}
        try:
            tree, took, notes = _part(where, dict(path), part, nested=True)
            # (A Flax tree is nested.)
            for name, value in trees.flatten(tree).items():
                torch = hasattr(value, "detach")
                found[str(name)] = _array(name, value) if torch else np.asarray(value)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  as from files
            raise UserError(f"{where} is no mapping of tensors ({error})") from None
    if not found:
        raise UserError(f"{where} holds no named tensors")
    for name in found:
        if _QUANTISED.fullmatch(name):
            raise UserError(
                f"{where} is quantised ({name}), and weights are read in full: save it "
                f"as float32, float16 or bfloat16 with the program that wrote it"
            )
    return Held(
        {name: _numbers(where, name, a) for name, a in found.items()}, took, notes
    )


def unwrapped(flat: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Tensors without what programs put before all their names, and what that was.

    ``module._orig_mod.`` and the like, of any order and number, only where every tensor
    but a counter has them.
    """
    prefix = ""
    counters = [name for name in flat if _COUNTERS.fullmatch(name)]
    names = [name for name in flat if name not in counters]
    while names:
        first = re.match(r"(\w+)[./]", names[0][len(prefix) :])
        if not first or first[1] not in _WRAPPERS:
            break
        if not all(name.startswith(prefix + first[0]) for name in names):
            break
        prefix += first[0]
    if not prefix:
        return dict(flat), ""
    return {name[len(prefix) :]: flat[name] for name in names}, prefix


def wrapped(flat: Mapping[str, np.ndarray]) -> str:
    """What stands before most names, where others have something else; or nothing."""
    firsts = collections.Counter(re.split(r"[./]", name)[0] for name in flat)
    known = [name for name, _ in firsts.most_common() if name in _WRAPPERS]
    return known[0] if known and len(firsts) > 1 else ""


def _part(
    where: str, found: Mapping[str, Any], part: str, *, nested: bool = False
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The tensors of one network of a checkpoint, its name, and a note on the others.

    Where they may be `nested`, as a Flax tree is, what has none of the usual parts is
    one network.
    """
    tree, at, left = _grouped(found), "", []
    steps = [s for s in re.split(r"[./]", part) if s]
    while True:
        inside = [str(k) for k, v in tree.items() if _holds(v)]
        top = {str(k): v for k, v in tree.items() if _is_tensor(v)}
        weighs = any(len(getattr(v, "shape", ())) for v in top.values())
        options = [k for k in inside if _may_be_network(k, tree[k])]
        if steps:
            if steps[0] not in inside:
                start = re.compile(r"[./]".join(map(re.escape, steps)) + r"[./]")
                if under := {
                    k[m.end() :]: v for k, v in top.items() if (m := start.match(k))
                }:
                    return under, part, ()  # what stands under a prefix
                there = ", ".join(at + k for k in inside) or "no parts"
                raise UserError(
                    f"{where} has no part {at + steps[0]}: it has {there} (--part)"
                )
            pick = steps.pop(0)
        elif part == ".":
            pick = ""
        else:
            known = [k for k in _PARTS if k in options]
            if nested and not known:
                top = {k: v for k, v in tree.items() if k in options or k in top}
                inside = [k for k in inside if k not in options]
                options, weighs = [], False
            if part and top and not nested:
                known, options, weighs = [], [], False
            known += [k for k in options if len(options) == 1 and not weighs]
            pick = known[0] if known else ""
            if not pick and options and not weighs:
                raise UserError(
                    f"{where} holds several parts, {', '.join(at + k for k in options)}"
                    f": choose one with --part"
                )
        others = [at + k for k in inside if k != pick]
        if pick and weighs:
            others.append(f"{len(top)} tensors at its top (--part .)")
        if pick or not options or top:
            left += others
        if not pick:
            break
        at, tree = f"{at}{pick}.", _grouped(tree[pick])
    if not left or part:
        return top, at.rstrip("."), ()
    took, more = at.rstrip("."), f" and {len(left) - 6} more" if len(left) > 6 else ""
    note = (
        f"took {took or 'the tensors at the top'} of {where}; left "
        f"{', '.join(left[:6])}{more}: choose with --part"
    )
    return top, took, (note,)


def _grouped(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Flat names like ``teacher.a`` and ``student.a`` as two parts; else the same."""
    split = [re.match(r"(\w+)[./](.+)", str(name)) for name in tree]
    firsts = {m[1] for m in split if m}
    flat = all(split) and all(map(_is_tensor, tree.values()))
    # (Vision Transformer's checkpoints have their network as opt/target.)
    both = firsts == {"opt"} and not all(n.startswith("opt/target/") for n in tree)
    if not flat or (len(firsts) < 2 and not both):
        return tree
    networks = firsts & set(_PARTS)
    others = {first for first in firsts if _OTHERS.fullmatch(first)}
    if firsts - networks - others or not (networks or both):
        return tree
    parts: dict[str, dict[str, Any]] = {}
    for match, value in zip(split, tree.values(), strict=True):
        assert match
        parts.setdefault(match[1], {})[match[2]] = value
    return parts


def _may_be_network(name: str, inside: Mapping[str, Any]) -> bool:
    if name == "opt" and any(str(key).startswith("target") for key in inside):
        return True
    return not _OTHERS.fullmatch(name)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _holds(value: Any) -> bool:
    """Whether a part of a checkpoint has tensors under names."""
    return isinstance(value, Mapping) and any(
        (isinstance(k, str) and _is_tensor(v)) or _holds(v) for k, v in value.items()
    )


def _plain(where: str, name: str, value: Any) -> np.ndarray:
    try:
        return _array(name, value) if hasattr(value, "detach") else value
    except ValueError as error:
        raise UserError(
            f"{where} is not a readable file of PyTorch weights ({error})"
        ) from None


def _reader(path: str) -> Callable[[str], dict[str, Any]]:
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
    if os.path.isfile(path) and (told := contents.told(path, ending)):
        what = ending if ending in (".safetensors", ".npz") else "PyTorch"
        raise UserError(f"{path} is not a readable file of {what} ({told})")
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
        raise UserError(
            f"{path} is not a readable .safetensors file ({_odd(path) or error}): save "
            f"it as float32, float16 or bfloat16"
        ) from None
    # What libraries raise about damage is of many kinds.
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
    for name, about in header.items():
        kind = about.get("dtype", "BF16")
        if kind not in known and not kind.startswith("U"):
            return f"{name} holds {kind}, of which no network here is"
    return ""


def _torch(path: str) -> dict[str, Any]:
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
    # Of many kinds; a hostile pickle is one of them.
    except Exception as error:  # noqa: BLE001
        reason = str(error).split("\n")[0].split(". ")[0]
        if other := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            reason = f"it holds a Python object, {other[1]}: save the weights alone"
        if strange := contents.wants(path):
            reason = (
                f"it wants to run or build {', '.join(strange[:3])}, and nothing of a "
                f"file is run here: save the weights alone"
            )
        elif "weights_only" in reason or "Weights only" in reason:
            reason = "it holds more than tensors: save the weights alone"
        elif "inline_container" in reason or "zip archive" in reason:
            reason = "it is cut off or damaged: copy it again"
        if len(reason) < 6:  # a number, or nothing at all
            reason = f"{type(error).__name__} {reason}".strip()
        raise UserError(
            f"{path} is not a readable file of PyTorch weights ({reason})"
        ) from None
    if isinstance(found, Mapping):
        return dict(found)
    kind = f"{type(found).__module__}.{type(found).__qualname__}"
    raise UserError(f"{path} holds a {kind}, and no tensors by name: save a state_dict")


def _array(name: str, value: Any) -> np.ndarray:
    value = value.detach().cpu()
    with contextlib.suppress(TypeError):
        return value.numpy()
    import torch

    if value.dtype != torch.bfloat16 or value.layout != torch.strided:
        kind = f"{value.dtype}, {value.layout}"
        raise ValueError(f"{name} is a tensor of {kind}, which is not read here")
    return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
