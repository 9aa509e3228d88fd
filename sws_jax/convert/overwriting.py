"""What must not be written: what would replace something that is read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from sws_jax.convert import folders
from sws_jax.errors import UserError
from sws_jax.storage import files, paths

_BESIDE = (folders.CONFIG, folders.PREPROCESSOR, folders.PROCESSOR)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def refuse_overwriting(target: str, source: str, *, folder: bool = False) -> None:
    """Refuses to write what would replace something of what is read.

    Args:
      target: to be written.
      source: what is read, as it is named: a file, with what stands beside it, or a
        folder with all that is in it.
      folder: whether the target is going to be a folder.

    Raises:
      UserError: the target is one of those files, by whatever path or link; or would
        stand among them as another file that is read before them, or with them; or is
        no path on this machine or in a bucket; or is named as one file of several.
    """
    if (scheme := _SCHEME.match(target)) and not paths.is_remote(target):
        raise UserError(
            f"{target} begins with {scheme[0]}, and files are written to this "
            f"machine's disks or to a bucket (gs://, s3://): name a path as OUT"
        )
    if paths.is_remote(target) or paths.is_remote(source):
        if paths.absolute(target) == paths.absolute(source):
            raise UserError(f"{target} would be written over itself: name another OUT")
        if not folder:
            _refuse_shard(target)
        return
    with files.errors_as_refusals(target):
        # A cache of several versions is refused before all else.
        top = os.path.dirname(source) or "."
        if os.path.isdir(source):
            top = folders.snapshot(source)
        _refuse_replacing(target, source, folder)
        if not folder:
            _refuse_shard(target)
            _refuse_taking_over(target, source, top)


def _refuse_replacing(target: str, source: str, folder: bool) -> None:
    """Refuses what is one of the files that are read, or a folder among them."""
    if _is_same(target, source) or (_inode(target) in _read(source)):
        raise UserError(
            f"{target} would be written over itself or what it is read with, "
            f"{source}: name another OUT"
        )
    parent = os.path.dirname(os.path.abspath(target))
    if folder and os.path.isdir(source) and _is_within(parent, source):
        raise UserError(
            f"{target} would be a folder inside {source}, which is read: name "
            f"another OUT"
        )


def _refuse_taking_over(target: str, source: str, top: str) -> None:
    """Refuses a file that would then be read in place of the source, in `top`."""
    if not _is_same(os.path.dirname(os.path.abspath(target)), top):
        return
    is_folder = os.path.isdir(source)
    name, there = os.path.basename(target), os.listdir(top)
    is_weights = name.lower().endswith(folders.ENDINGS)
    if is_folder and is_weights and not {*there} & {*folders.USUAL}:
        raise UserError(
            f"{target} would stand beside the only weights of {source}, and neither "
            f"would then be read by the name of the folder: name another OUT"
        )
    if name in _before("" if is_folder else os.path.basename(source), there):
        raise UserError(
            f"{target} would be taken for the weights of {source}, which is read: "
            f"name another OUT"
        )


def _refuse_shard(target: str) -> None:
    """Refuses a file that is named as one of several."""
    shard = folders.SHARD.fullmatch(os.path.basename(target))
    if shard and int(shard[2]) > 1:
        raise UserError(
            f"{target} is named as one of {int(shard[2])} files that hold a network "
            f"together, and would be taken for that: name another OUT"
        )


def _before(name: str, there: Sequence[str]) -> tuple[str, ...]:
    """Names that are read instead of a file beside them, where such are looked for.

    Args:
      name: of the file; empty of all in a folder.
      there: the names in its folder.
    """
    if name in folders.USUAL:
        return folders.USUAL[: folders.USUAL.index(name)]
    return folders.USUAL if not name or folders.CONFIG in there else ()


def _read(source: str) -> set[tuple[int, int]]:
    """The files of a folder and below it; of a file, itself and what says more."""
    if os.path.isdir(source):
        below = [os.path.join(at, n) for at, _, names in os.walk(source) for n in names]
    else:
        folder = os.path.dirname(source)
        beside = [os.path.join(folder, name) for name in _BESIDE]
        below = [source, *beside]
        if source.endswith(folders.INDEX):
            below += folders.weights_in(source).files
    return {inode for file in below if (inode := _inode(file))}


def _inode(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # What is not there is not written over.
        return None
    return status.st_dev, status.st_ino


def _is_same(one: str, other: str) -> bool:
    return _inode(one) is not None and _inode(one) == _inode(other)


def _is_within(path: str, folder: str) -> bool:
    """Whether a folder, perhaps one that is not there yet, is another or inside it."""
    path, last = os.path.realpath(path), ""
    while path != last:
        if _is_same(path, folder):
            return True
        path, last = os.path.dirname(path), path
    return False
