"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from typing import Any

from sws_jax import paths

_LFS = b"version https://git-lfs"
_PAGE = (b"<!doctype", b"<!DOCTYPE", b"<html", b"<HTML", b"<?xml")
# How files begin, and what they then are.
_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a single array of numpy (.npy)"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"GGUF", "a GGUF file of quantised weights"),
    *((tag, "a page of the web, and not the download that it names") for tag in _PAGE),
)
# What pickles of tensors are built of.
_TENSORS = (
    "torch._utils.",
    "torch.storage.",
    "torch._tensor.",
    "torch.serialization.",
    "collections.OrderedDict",
    "argparse.Namespace",
)


def told(path: str, ending: str) -> str:
    """What a file is that is not what its ending says, and what to do; else empty.

    Args:
      path: of a file that is there.
      ending: that it has, ``.safetensors``, ``.npz`` or one of PyTorch.
    """
    where = paths.here(path)
    try:
        with open(where, "rb") as file:
            start = file.read(64)
    except OSError:  # which whoever reads it tells
        return ""
    if not start:
        return "it is empty: copy it again"
    if start.startswith(_LFS):
        return (
            "it is a pointer of Git LFS, and the weights themselves were not fetched: "
            "run git lfs pull"
        )
    for first, words in _STARTS:
        if start.startswith(first):
            return f"it is {words}"
    if start.startswith(b"PK"):
        kind = _of_archive(where)
    elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        kind = ".safetensors"
    elif start[:1] == b"\x80":
        kind = ".pth"
    else:
        return ""
    if kind == "torchscript":
        return (
            "it is a program of TorchScript: load it with torch.jit.load and save its "
            "state_dict()"
        )
    mine = ending if ending in (".safetensors", ".npz") else ".pth"
    if not kind or kind == mine:
        return ""
    if kind == "zip" and ending == ".npz":
        return ""  # whose reader names the member that is no array
    if kind == "zip":
        return "it is a zip archive without weights: unpack it first"
    return f"it is a {kind} file under another ending: name it so"


def _of_archive(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return ""
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        return "torchscript"
    if any(name.endswith("data.pkl") for name in names):
        return ".pth"
    return ".npz" if any(name.endswith(".npy") for name in names) else "zip"


def wants(path: str) -> list[str]:
    """What a pickle would import that is not of tensors; nothing of it is run.

    Args:
      path: of a file of PyTorch, an archive or a bare pickle.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                data = [
                    archive.read(name)
                    for name in archive.namelist()
                    if name.endswith(".pkl")
                ]
        else:
            with open(path, "rb") as file:
                data = [file.read(2**26)]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return []
    named = dict.fromkeys(name for one in data for name in _globals(one))
    return [n for n in named if not n.startswith(_TENSORS) and not _of_storage(n)]


def _of_storage(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return module == "torch" and (last.endswith("Storage") or last[:1].islower())


def _globals(data: bytes) -> Iterator[str]:
    """``module.name`` of everything that a pickle looks up, as far as it is readable.

    A name that is assembled while it is read shows as far as its parts do.
    """
    file, texts = io.BytesIO(data), list[str]()
    try:
        while file.tell() < len(data):  # old files hold several, one after another
            yield from _of_one(file, texts)
    except Exception:  # noqa: BLE001  damage: what came before it is told
        return


def _of_one(file: io.BytesIO, texts: list[str]) -> Iterator[str]:
    memo: dict[int, str] = {}
    for code, argument, _ in pickletools.genops(file):
        value: Any = argument
        if code.name in ("GLOBAL", "INST"):
            yield value.replace(" ", ".")
        elif code.name == "STACK_GLOBAL" and len(texts) > 1:
            yield ".".join(texts[-2:])
        elif "UNICODE" in code.name or code.name.endswith("STRING"):
            texts.append(str(value))
        elif code.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif code.name in ("BINGET", "LONG_BINGET") and memo.get(value):
            texts.append(memo[value])
