"""Files of named tensors, whoever wrote them; nothing in them is run."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sws_jax.convert import folders
from sws_jax.errors import UserError
from sws_jax.storage import array_files, contents, files, paths

IN_MEMORY = "what is in memory"  # in messages, where there is no path
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
    *("_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
)
# What torch puts inside names, wherever a module was compiled or wrapped.
_INNER = re.compile(
    r"(?<![^./])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)[./]"
)
# Of names under which a network may stand: parts, how often it is there, and how many.
_DEEPEST, _FEWEST, _MOST = 3, 8, 64
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


def read(path: str | os.PathLike[str] | Mapping[str, Any], *, part: str = "") -> Held:
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


def _read(path: str | Mapping[str, Any], part: str) -> Held:
    notes: tuple[str, ...] = ()
    if isinstance(path, str):
        there = folders.weights_in(path)
        where = there.path
        tree = folders.joined(there, [_reader(file)(file) for file in there.files])
        tree, took, left = _part(where, tree, part)
        notes = (*there.notes, *left)
    else:
        where = IN_MEMORY
        tree, took, notes = _part(where, path, part, nested=True)
        tree = dict(_leaves(tree))  # (a Flax tree is nested)
    found = {name: _plain(where, name, value) for name, value in tree.items()}
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


def without_wrappers(
    flat: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, str], tuple[str, ...]]:
    """Tensors without what torch puts inside their names, if they stay apart.

    Returns:
      The tensors; the name that each had, by its new one; and what was removed.
    """
    old = {_INNER.sub("", name): name for name in flat}
    if len(old) < len(flat):
        return dict(flat), {name: name for name in flat}, ()
    removed = dict.fromkeys(m[0] for name in flat for m in _INNER.finditer(name))
    return {new: flat[name] for new, name in old.items()}, old, tuple(removed)


def shared(
    flat: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """What stands before all names but those of counters, and the tensors without it:
    nothing, the first part of the names, the first two and so on."""
    yield "", dict(flat)
    names = [name for name in flat if not _COUNTERS.fullmatch(name)]
    prefix = ""
    while names and (first := re.match(r"[^./]+[./]", names[0][len(prefix) :])):
        prefix += first[0]
        if not all(n.startswith(prefix) and len(n) > len(prefix) for n in names):
            return
        yield prefix, {name[len(prefix) :]: flat[name] for name in names}


def beginnings(names: Iterable[str]) -> list[str]:
    """What stands before several of the names and may be what a network is called, the
    shortest first: up to three parts."""
    counts: collections.Counter[str] = collections.Counter()
    for name in names:
        dots = itertools.islice(re.finditer(r"[./]", name), _DEEPEST)
        counts.update(name[: dot.end()] for dot in dots)
    several = [prefix for prefix, n in counts.most_common(_MOST) if n >= _FEWEST]
    return sorted(several, key=lambda prefix: (len(re.findall("[./]", prefix)), prefix))


def asked(where: str, part: str = "") -> str:
    """How a part is chosen: on the command line, or in memory."""
    if where == IN_MEMORY:
        return f"part={part!r}" if part else "part="
    return f"--part {part}".rstrip()


def _part(
    where: str, found: Mapping[Any, Any], part: str, *, nested: bool = False
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The tensors of one network of a checkpoint, its name, and a note on the others.

    Where they may be `nested`, as a Flax tree is, what has none of the usual parts and
    no state_dict is one network.
    """
    tree, at, left = _grouped(_by_name(found)), "", []
    steps = [s for s in re.split(r"[./]", part) if s]
    while True:
        inside = [k for k, v in tree.items() if _holds(v)]
        top = {k: v for k, v in tree.items() if _is_tensor(v)}
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
                    f"{where} has no part {at + steps[0]}: it has {there} "
                    f"({asked(where)})"
                )
            pick = steps.pop(0)
        elif part == ".":
            pick = ""
        else:
            known = [k for k in _PARTS if k in options]
            flat = [k for k in options if _is_flat(tree[k])]
            if nested and not known and flat:
                options = flat
            elif nested and not known:
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
                    f": choose one with {asked(where)}"
                )
        others = [at + k for k in inside if k != pick]
        if pick and weighs:
            others.append(f"{len(top)} tensors at its top ({asked(where, '.')})")
        if pick or not options or top:
            left += others
        if not pick:
            break
        at, tree = f"{at}{pick}.", _grouped(_by_name(tree[pick]))
    if not top and inside:
        raise UserError(
            f"{where} holds no tensors by name that are known as a network's: it has "
            f"{_few([at + k for k in inside])}, {_how(where, at, tree, inside)}"
        )
    for name, value in tree.items():
        if re.search("[./]", name) and _is_numbers(value):
            raise UserError(
                f"{where}: {name} is a {type(value).__name__}, and no array: make it "
                f"one (numpy.asarray)"
            )
    took = at.rstrip(".")
    if not left or part:
        return top, took, ()
    note = (
        f"took {took or 'the tensors at the top'} of {where}; left {_few(left)}: "
        f"choose with {asked(where)}"
    )
    return top, took, (note,)


def _how(where: str, at: str, tree: Mapping[str, Any], inside: Sequence[str]) -> str:
    """How one of the parts that hold tensors is chosen, the first that has names."""
    for name in inside:
        part = tree[name]
        if isinstance(part, Mapping):
            return f"of which one is chosen with {asked(where, at + name)}"
        places = [n for n, one in enumerate(part) if isinstance(one, Mapping)]
        if places:
            like = f"{at}{name}.{places[0]}"
            return f"of which one is chosen with {asked(where, like)}"
    return "and tensors in a list have no names: save them by name"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _by_name(tree: Any) -> dict[str, Any]:
    """A mapping whose keys are text: of a list, places; of Flax's flat ones, joined."""
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {
        "/".join(map(str, k)) if isinstance(k, tuple) else str(k): v for k, v in pairs
    }


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


def _may_be_network(name: str, inside: Any) -> bool:
    if not isinstance(inside, Mapping):
        return False  # a list is taken where it is asked for
    if name == "opt" and any(str(key).startswith("target") for key in inside):
        return True
    return not _OTHERS.fullmatch(name)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _holds(value: Any) -> bool:
    """Whether a part of a checkpoint has tensors, under names or in a list."""
    if isinstance(value, Mapping):
        return any(
            (isinstance(k, str | tuple) and _is_tensor(v)) or _holds(v)
            for k, v in value.items()
        )
    return isinstance(value, list | tuple) and any(
        (_is_tensor(v) and len(v.shape)) or _holds(v) for v in value
    )


def _is_flat(part: Any) -> bool:
    """Whether it is a state_dict: tensors alone, under names with dots."""
    tensors = {str(k): v for k, v in part.items() if _is_tensor(v)}
    return any("." in name for name in tensors) and not any(map(_holds, part.values()))


def _is_numbers(value: Any) -> bool:
    """Whether it is a list of numbers, or of such lists."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(v, int | float) or _is_numbers(v) for v in value)


def _leaves(tree: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """What is in a nested tree, by its names joined with a slash; nothing of None."""
    for name, value in tree.items():
        if isinstance(value, Mapping) or (
            isinstance(value, list | tuple) and not _is_numbers(value)
        ):
            yield from _leaves(_by_name(value), f"{inside}{name}/")
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
    """Of a file, which exists."""
    if paths.is_remote(path):
        command = f" (gcloud storage cp {path} .)" if path.startswith("gs://") else ""
        raise UserError(
            f"{path} is in a bucket, and weights of other programs are read from this "
            f"machine's disks: copy it here first{command}"
        )
    files.check_readable(path)
    ending = next((e for e in folders.ENDINGS if path.lower().endswith(e)), "")
    if not ending:
        kind = contents.kind_of(path)
        what = f"{path} is none of the files {', '.join(folders.ENDINGS)}"
        if kind:
            what += f"; it holds what a {kind} file does: copy or link it as one"
        raise UserError(what)
    if os.path.isfile(path) and (told := contents.told(path, ending)):
        plain = ending in (".safetensors", ".npz")
        what = f"{ending} file" if plain else "file of PyTorch"
        raise UserError(f"{path} is not a readable {what} ({told})")
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
            warnings.catch_warnings(),  # of old protocols, which are told below
            torch.serialization.safe_globals([argparse.Namespace]),
        ):
            warnings.simplefilter("ignore")
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
        elif (protocol := contents.protocol(path)) not in (2, 3):
            number = protocol or "0 or 1"
            reason = (
                f"it was saved with pickle_protocol={number}, which is not read "
                f"without running it: save it again with the default"
            )
        elif "weights_only" in reason or "Weights only" in reason:
            reason = (
                "it holds more than tensors, or is cut off: save the weights alone, or "
                "copy it again"
            )
        elif "inline_container" in reason or "zip archive" in reason:
            reason = "it is cut off or damaged: copy it again"
        elif not other:
            if len(reason) < 6:  # a number, or nothing at all
                reason = f"{type(error).__name__} {reason}".strip()
            reason += "; if it is cut off, copy it again"
        raise UserError(
            f"{path} is not a readable file of PyTorch weights ({reason})"
        ) from None
    if isinstance(found, Mapping):
        return dict(found)
    kind = f"{type(found).__module__}.{type(found).__qualname__}"
    raise UserError(f"{path} holds a {kind}, and no tensors by name: save a state_dict")


def _array(value: Any) -> np.ndarray:
    """Raises ValueError with what it is, after its name."""
    if hasattr(value, "detach"):
        return _of_torch(value)
    if np.ma.is_masked(value):
        raise ValueError("has a mask: fill it (numpy.ma.filled)")
    if _is_numbers(value):
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
