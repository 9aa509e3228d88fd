"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import io
import os
import pickletools
import zipfile
from collections.abc import Iterator
from typing import Any

from sws_jax.storage import paths

_LFS = b"version https://git-lfs"
_PAGE = (b"<!doctype", b"<!DOCTYPE", b"<html", b"<HTML", b"<?xml")
# How files begin, and what they then are.
_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a single array of numpy (.npy)"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"GGUF", "a GGUF file of quantised weights"),
    (b"\x89PNG", "an image (PNG)"),
    (b"\xff\xd8\xff", "an image (JPEG)"),
    (b"BZh", "compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed with xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (b"7z\xbc\xaf", "an archive of 7-Zip: unpack it first"),
    *((tag, "a page of the web, and not the download that it names") for tag in _PAGE),
)
_TAR, _TAR_AT = b"ustar", 257
_READ = 512  # bytes, which tell what a file is
_SHOWN = 16  # of them in a sentence
_LARGEST_PICKLE = 2**28  # bytes; names and shapes of tensors take a few megabytes
# Endings of files that torch.save writes.
PYTORCH = (".pth", ".pt", ".bin", ".pth.tar", ".ckpt", ".th")
_USUAL = 2  # protocol of torch.save
_OPERATIONS = 12  # that text which is no pickle does not have by chance
# What pickles of tensors are built of.
_TENSORS = (
    "torch._utils.",
    "torch.storage.",
    "torch._tensor.",
    "torch.serialization.",
    "collections.OrderedDict",
    "argparse.Namespace",
)


def mismatch(path: str, ending: str) -> str:
    """What a file is, and what to do, if it is not what its ending says; else empty.

    Args:
      path: of a file that is there.
      ending: that it has, ``.safetensors``, ``.npz`` or one of PyTorch.
    """
    local = paths.here(path)
    try:
        with open(local, "rb") as file:
            start = file.read(_READ)
    except OSError:  # whoever reads the file reports it
        return ""
    if not start:
        return "it is empty: copy it again"
    if start.startswith(_LFS):
        return (
            "it is a pointer of Git LFS, and the weights themselves were not fetched: "
            "run git lfs pull"
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for first, words in _STARTS:
        if start.startswith(first) or (first in _PAGE and text.startswith(first)):
            return f"it is {words}"
    if start[_TAR_AT:].startswith(_TAR):
        return "it is a tar archive: unpack it first"
    if start.startswith(b"PK"):
        kind = _kind_of_archive(local)
    elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        kind = ".safetensors"
    elif start[:1] == b"\x80" or (ending in PYTORCH and _is_pickle(start)):
        kind = ".pth"
    elif ending == ".safetensors" and (start[8:9] == b"{" or len(start) < 9):
        return ""  # the reader of such files says what is wrong
    else:
        shown = start[:_SHOWN].decode("latin-1")
        return (
            f"its first bytes are {ascii(shown)}, with which no such file begins: if "
            f"it is damaged, copy it again"
        )
    if kind == "torchscript":
        return (
            "it is a program of TorchScript: load it with torch.jit.load and save its "
            "state_dict()"
        )
    expected = ending if ending in (".safetensors", ".npz") else ".pth"
    if not kind or kind == expected:
        return ""
    if kind == "zip" and ending == ".npz":
        return ""  # the reader of such files names the member that is no array
    if kind == "zip":
        return "it is a zip archive without weights: unpack it first"
    return f"it is a {kind} file under another ending: name it so"


def ending_of(path: str) -> str:
    """The ending that a file should have for what it holds, or nothing."""
    for ending in (".safetensors", ".npz", ".pth"):
        if mismatch(path, ending) == "" and os.path.isfile(path):
            with open(path, "rb") as file:
                start = file.read(9)
            if start[:2] == b"PK" or start[8:] == b"{" or start[:1] == b"\x80":
                return ending
    return ""


def is_pointer(path: str) -> bool:
    """Whether a file is a placeholder of Git LFS for one that was not fetched."""
    with open(paths.here(path), "rb") as file:
        return file.read(len(_LFS)) == _LFS


def _is_pickle(start: bytes) -> bool:
    """Whether a file may begin a pickle of the oldest protocols, which are text."""
    try:
        for n, (code, *_) in enumerate(pickletools.genops(start)):
            if n >= _OPERATIONS or code.name == "STOP":
                return True
    except Exception:  # noqa: BLE001  what is no pickle ends in errors of many kinds
        return False
    return False


def damage(path: str) -> str:
    """What is wrong with an archive of PyTorch, and what to do, before it is read.

    Args:
      path: of any file; one that is no archive has no known damage.
    """
    cut = "it is cut off or damaged: copy it again"
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            for info in infos:
                if info.filename.endswith(".pkl") and info.file_size > _LARGEST_PICKLE:
                    return (
                        f"its {info.filename} unpacks to {info.file_size:,} bytes, "
                        f"which no names of tensors take: it is damaged"
                    )
            if len({info.filename for info in infos}) < len(infos):
                return "it holds two members of one name: save it again"
            name = archive.testzip()
    except Exception:  # noqa: BLE001  damage raises errors of many kinds
        return cut
    if name is None:
        return ""
    return (
        f"{name} in it does not have the checksum that was written with it: copy it "
        f"again; or, if it was written with torch.serialization.set_crc32_options"
        f"(False), save it with True"
    )


def protocol(path: str) -> int:
    """The protocol of the pickle in a file of PyTorch.

    Protocols 0 and 1, which a file does not name, are 0; a file without a pickle has
    the usual one.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if n.endswith("data.pkl")]
                with archive.open(names[0]) as file:
                    start = file.read(_READ)
        else:
            with open(path, "rb") as file:
                start = file.read(_READ)
    except (zipfile.BadZipFile, OSError, IndexError, RuntimeError):
        return _USUAL
    if start[:1] == b"\x80" and len(start) > 1:
        return start[1]
    return 0 if _is_pickle(start) else _USUAL


def _kind_of_archive(path: str) -> str:
    """The ending for what is in a zip archive, "torchscript", "zip", or nothing."""
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
    """What a pickle would import besides tensors; nothing of it is run.

    Args:
      path: of a file of PyTorch, an archive or a bare pickle.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                data = [
                    archive.open(name).read(_LARGEST_PICKLE)
                    for name in archive.namelist()
                    if name.endswith(".pkl")
                ]
        else:
            with open(path, "rb") as file:
                data = [file.read(2**26)]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return []
    names = dict.fromkeys(name for pickled in data for name in _globals(pickled))
    return [n for n in names if not n.startswith(_TENSORS) and not _of_storage(n)]


def _of_storage(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return module == "torch" and (last.endswith("Storage") or last[:1].islower())


def _globals(data: bytes) -> Iterator[str]:
    """``module.name`` of everything that a pickle looks up, as far as it is readable.

    Of a name that is put together while it is read, only the parts are seen.
    """
    file, texts = io.BytesIO(data), list[str]()
    try:
        while file.tell() < len(data):  # old files hold several, one after another
            yield from _globals_of_one(file, texts)
    except Exception:  # noqa: BLE001  what came before the damage is returned
        return


def _globals_of_one(file: io.BytesIO, texts: list[str]) -> Iterator[str]:
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
