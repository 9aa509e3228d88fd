"""Files of arrays: ``.safetensors`` written, ``.npz`` read without trusting it."""

from __future__ import annotations

import collections
import json
import math
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from sws_jax.errors import UserError
from sws_jax.storage import files, paths

# What the format calls the numbers of numpy and ml_dtypes.
_SAFETENSORS = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


def write_tensors(
    path: str, flat: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes one ``.safetensors`` file, whole or not at all.

    Equal content is equal bytes, whatever the order of the names, where the library
    writes the metadata of each file in another order.

    Raises:
      Unwritable: the disk is full, or the directory read-only; or an array holds no
        numbers that such files have.

    Reference:
      https://github.com/huggingface/safetensors#format
    """
    for name, array in flat.items():
        if array.dtype.name not in _SAFETENSORS:
            odd = ValueError(f"{name} holds {array.dtype}")
            raise files.Unwritable(path, odd)
    # By the width of a number, the widest first, so that every array is aligned.
    names = sorted(flat, key=lambda name: (-flat[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    start = 0
    for name in names:
        array = flat[name]
        header[name] = {
            "dtype": _SAFETENSORS[array.dtype.name],
            "shape": array.shape,
            "data_offsets": (start, start := start + array.nbytes),
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:  # one at a time, row by row, the lowest byte first
            array = flat[name].astype(flat[name].dtype.newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def read_npz(path: str, names: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``, without running or allocating what it claims.

    Args:
      path: of a file that is there.
      names: of arrays to read, as far as they are in it; default all of them.

    Raises:
      UserError: it is damaged, or holds anything but arrays under those names.
    """
    try:
        with zipfile.ZipFile(paths.here(path)) as archive:
            infos = archive.infolist()
            members = {m.filename.removesuffix(".npy"): m for m in infos}
            if len(members) < len(infos):
                twice = collections.Counter(m.filename for m in infos).most_common(1)
                raise ValueError(f"it holds two arrays called {twice[0][0]}")
            return {
                name: _member(archive, member)
                for name, member in members.items()
                if not names or name in names
            }
    except Exception as error:  # noqa: BLE001  what damage raises is of many kinds
        reason = " ".join(files.reason(error).split()) or type(error).__name__
        remedy = "write it with numpy.savez"
        if isinstance(error, zipfile.BadZipFile | EOFError | zlib.error):
            remedy = "if it is cut off or damaged, copy it again"
        raise UserError(
            f"{path} is not a readable .npz of plain arrays ({reason}); {remedy}"
        ) from None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive, which is as large as its own header says."""
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename} is no array")
    with archive.open(member) as file:
        major, _ = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0
        if major > 1:
            read_header = np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects")
        data_bytes = member.file_size - file.tell()
    if math.prod(shape) * dtype.itemsize != data_bytes:
        raise ValueError(f"{member.filename} is not as large as its header says")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
