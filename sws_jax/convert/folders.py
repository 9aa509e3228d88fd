"""Folders of weights, as Hugging Face and timm write them: which files are read, and
how one is written whole.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sws_jax.errors import UserError
from sws_jax.runtime import words
from sws_jax.storage import array_files, contents, documents, files, paths
from sws_jax.storage.names import WEIGHTS as OF_A_RUN

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # It may hold what PREPROCESSOR does.
# Endings of the files that hold tensors by name.
ENDINGS = (".safetensors", ".npz", *contents.PYTORCH)
INDEX = ".index.json"  # what the name of an index ends with
# What the libraries look for in a folder, in the order of transformers; then what a
# finished run leaves.
USUAL = (
    WEIGHTS,
    WEIGHTS + INDEX,
    "pytorch_model.bin",
    "pytorch_model.bin" + INDEX,
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    OF_A_RUN,
)
# What trainers leave beside weights, under the same endings.
_NO_WEIGHTS = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|sampler"
    r"|dataloader).*|.*(optim_states|_optimizer)\b.*"
)
_UNREAD = (
    *(".msgpack", ".h5", ".hdf5", ".keras", ".ckpt.index", ".onnx", ".gguf"),
    *(".pkl", ".pickle", ".tflite", ".torchscript"),
)
# The name of one file of several, with their number.
SHARD = re.compile(r"(.+)-\d+-of-0*(\d+)(\.\w+)")
_SHOWN = 4  # names in a sentence


class Nothing(UserError):
    """A folder holds no file of weights of any kind."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """The files in which a network's tensors are.

    Attributes:
      path: stands for all of them in messages: the only file, or the index of several.
        What says more of them (``config.json``) is in the same folder.
      files: to be read and handed to `joined` in this order.
      index: the file of each tensor, where an index says it; empty of a single file.
      notes: what is worth saying of the choice, a sentence each.
    """

    path: str
    files: tuple[str, ...]
    index: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def weights_in(path: str) -> Weights:
    """The files of weights that a path stands for.

    Args:
      path: a file; the index of a sharded one (``model.safetensors.index.json``); a
        folder as such libraries write it; or a model's folder in the cache of the
        Hugging Face hub (``models--ORGANISATION--NAME``). Where a folder has weights
        twice, those are read that transformers reads: ``model.safetensors``, else its
        index, else ``pytorch_model.bin``, else its index; then those of open_clip; else
        the only file with one of `ENDINGS`. A path that is not there, and one in a
        bucket, stands for itself.

    Raises:
      Nothing: a folder without weights.
      UserError: a folder whose weights are of a kind that is not read, are several, are
        behind a broken link, or are not all there; one shard of several.
    """
    if paths.is_remote(path):
        return Weights(path, (path,))
    with files.errors_as_refusals(path):
        if not os.path.isdir(path):
            return _one(path)
        return _in_folder(snapshot(path))


def _one(path: str) -> Weights:
    if path.endswith(INDEX):
        return _sharded(path)
    if (shard := SHARD.fullmatch(os.path.basename(path))) and int(shard[2]) > 1:
        whole = os.path.dirname(path) or "."
        raise UserError(
            f"{path} is one of {int(shard[2])} files that hold a network together: "
            f"give the folder, {whole}"
        )
    return Weights(path, (path,))


def _in_folder(folder: str) -> Weights:
    """The files of weights in a folder, by their usual names or the only ones there.

    Raises:
      UserError: there are none, or several networks.
    """
    names = sorted(os.listdir(folder))
    there = [name for name in USUAL if name in names]
    for name in there:
        link = os.path.join(folder, name)
        if not os.path.exists(link):
            raise UserError(
                f"{link} is a link to {os.readlink(link)}, which is not there: "
                f"download or copy it again, with what links point to"
            )
        usual = _one(link)
        return dataclasses.replace(usual, notes=_beside_an_index(folder, name))
    plain = [name for name in names if not name.startswith(".")]
    tensors = [
        name
        for name in plain
        if name.lower().endswith(ENDINGS) and not _NO_WEIGHTS.fullmatch(name)
    ]
    if len(tensors) == 1:
        return _one(os.path.join(folder, tensors[0]))
    if shards := [name for name in tensors if SHARD.fullmatch(name)]:
        raise UserError(
            f"the directory {folder} holds {_listed(shards)} and no {WEIGHTS}{INDEX} "
            f"that says what is in each: copy that file too"
        )
    if tensors:
        raise UserError(
            f"the directory {folder} holds {len(tensors)} files of weights and none "
            f"that is called {WEIGHTS}: name one of {_listed(tensors)}"
        )
    if unread := [name for name in plain if name.lower().endswith(_UNREAD)]:
        raise UserError(
            f"the directory {folder} holds {_listed(unread)}, which is not read here, "
            f"and no {WEIGHTS}: open it with the library that wrote it, and save "
            f"{WEIGHTS} there"
        )
    inside = f"it holds {_listed(plain)}" if plain else "it is empty"
    raise Nothing(
        f"the directory {folder} holds no weights.safetensors, no {WEIGHTS} and no "
        f"other file of weights ({inside}): name the file, or its folder"
    )


def _beside_an_index(folder: str, name: str) -> tuple[str, ...]:
    """What is to be said of a file that stands beside an index of other files."""
    index = os.path.join(folder, name + INDEX)
    if name.endswith(INDEX) or not os.path.isfile(index):
        return ()
    named = sorted(set(_weight_map(index).values()))
    if named == [name]:
        return ()
    return (
        f"{os.path.join(folder, name)} is read, as transformers does, though "
        f"{name}{INDEX} beside it names {_listed(named)}: move {name} away to read "
        f"those",
    )


def _weight_map(path: str) -> dict[str, str]:
    """The file of each tensor, all in the folder of the index `path`."""
    files.check_readable(path)
    remedy = "copy it again"
    whole = documents.read_json(path, holds={"weight_map": {}}, remedy=remedy)
    by_tensor = whole["weight_map"]
    for name, file in by_tensor.items():
        if isinstance(file, str):
            by_tensor[name] = file = file.removeprefix("./")
        # What an index names is opened, so it must not name a file elsewhere.
        if not isinstance(file, str) or not _is_plain(file):
            raise UserError(
                f"{path} says that {name} is in {file!r}, which is no name of a file "
                f"beside it: {remedy}"
            )
    if not by_tensor:
        raise UserError(f"{path} names no tensors: {remedy}")
    return by_tensor


def _is_plain(name: str) -> bool:
    """Whether a name leads to no other folder, on any system."""
    return name not in ("", ".", "..") and not re.search(r"[/\\:\0]", name)


def _sharded(path: str) -> Weights:
    index = _weight_map(path)
    folder = os.path.dirname(path)
    names = sorted(set(index.values()))
    lacking = [n for n in names if not os.path.exists(os.path.join(folder, n))]
    if lacking:
        raise UserError(
            f"{path} names {len(names)} files, and {_listed(lacking)} is not there: "
            f"copy or download all of them"
        )
    at = {name: os.path.join(folder, name) for name in names}
    return Weights(path, tuple(at.values()), {k: at[v] for k, v in index.items()})


def joined(
    weights: Weights, parts: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The tensors of all files in one mapping.

    Args:
      weights: from `weights_in`.
      parts: the tensors of each of its files, by name.

    Raises:
      UserError: its index names a tensor that none of them has.
    """
    whole = {name: array for part in parts for name, array in part.items()}
    by_file = dict(zip(weights.files, parts, strict=True))
    for name, file in weights.index.items():
        # A file that the index does not name for it may hold a stale tensor.
        if name in by_file[file]:
            whole[name] = by_file[file][name]
    lacking = sorted(weights.index.keys() - whole.keys())
    if lacking:
        raise UserError(
            f"{weights.path} names {len(lacking)} tensors that none of its files has "
            f"({_listed(lacking)}): copy or download all of them again"
        )
    return whole


def snapshot(path: str) -> str:
    """The folder of the files of a model in the hub's cache; else the path itself.

    Raises:
      UserError: the cache holds no version of the model, or several.
    """
    whole, last = os.path.split(os.path.abspath(path))
    if last == "snapshots" and os.path.basename(whole).startswith("models--"):
        path = os.path.relpath(whole) if not os.path.isabs(path) else whole
    inside = os.path.join(path, "snapshots")
    if not os.path.isdir(inside):
        return path
    names = sorted(os.listdir(inside))
    main = os.path.join(path, "refs", "main")
    if os.path.isfile(main):
        with open(main, errors="replace") as file:
            name = file.read(256).strip()
        if name in names:
            return os.path.join(inside, name)
    if len(names) == 1:
        return os.path.join(inside, names[0])
    if not names:
        raise Nothing(
            f"the directory {inside} is empty, and no {WEIGHTS} is in it: download the "
            f"model again"
        )
    raise UserError(
        f"the directory {inside} holds {len(names)} versions of a model, and {main} "
        f"names none of them: name one of {_listed(names)}"
    )


def _listed(names: Sequence[str]) -> str:
    return words.few(names, _SHOWN)


def write(
    folder: str, flat: Mapping[str, np.ndarray], others: Mapping[str, Any]
) -> None:
    """Writes weights and the files beside them, whole or not at all.

    Args:
      folder: to make; it must not exist.
      flat: tensors by name.
      others: what to write as JSON, by the name of its file.

    Raises:
      UserError: the folder is there.
      Unwritable: the disk is full, or the directory read-only.
    """
    if os.path.lexists(folder):
        raise UserError(f"{folder} is there already: name another folder, or remove it")
    with files.making(os.path.dirname(os.path.abspath(folder)), folder) as parent:
        _write(folder, parent, flat, others)


def _write(folder: str, parent: str, flat, others) -> None:
    with tempfile.TemporaryDirectory(dir=parent, prefix=".folder.") as temporary:
        whole = os.path.join(temporary, "whole")
        os.mkdir(whole, mode=0o755)
        array_files.write_tensors(os.path.join(whole, WEIGHTS), flat, {"format": "pt"})
        for name, value in others.items():
            files.write_json(os.path.join(whole, name), value)
        os.rename(whole, folder)
