"""Prepared sets that are in a bucket, brought to this machine's disk.

The reader of array_record files opens files of this machine alone, and reads in any
order: each host copies a set once, and reads its copy.
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from sws_jax import files, paths
from sws_jax.errors import UserError
from sws_jax.progress import say

LOCK = "lock"
_PARALLEL = 8
RESERVE = 2**30  # bytes of a disk that are left free
_POLL_SECONDS = 1.0


def staged(path: str, cache: str = "") -> str:
    """The directory of a prepared version on this machine.

    Files that are there in their full size are not copied again, so that a copy that
    was broken off goes on. (A version of a set never changes.)

    Args:
      path: of the version's directory; one that is here is given back.
      cache: directory for copies; empty takes ``~/.cache/sws_jax``.

    Raises:
      UserError: the disk is too small for it.
    """
    if not paths.is_remote(path):
        return path
    target = _target(path, cache)
    wanted = _wanted(path)
    while _missing(target, wanted):
        # Of several processes of a host one copies, and the others wait.
        with files.claimed(os.path.join(f"{target}.staging", LOCK)) as mine:
            if mine:
                _copy(path, target, wanted)
                break
        time.sleep(_POLL_SECONDS)
    return target


def awaited(path: str, cache: str = "") -> tuple[str, int]:
    """Where `staged` puts a version, and how many bytes of it are not there yet."""
    target = _target(path, cache)
    wanted = _wanted(path)
    return target, sum(wanted[name] for name in _missing(target, wanted))


def _target(path: str, cache: str) -> str:
    cache = os.path.expanduser(cache or "~/.cache/sws_jax")
    return os.path.join(cache, path.removeprefix(paths.BUCKET))


def _wanted(path: str) -> dict[str, int]:
    """Bytes of the files that are read, by name: not those of other formats."""
    return {
        name: size
        for name, size in paths.sizes(path).items()
        if ".tfrecord" not in name and not name.endswith("/")
    }


def _missing(target: str, wanted: dict[str, int]) -> list[str]:
    """Names of the files that are not here in their full size."""

    def held(name: str) -> int:
        file = os.path.join(target, name)
        return os.path.getsize(file) if os.path.isfile(file) else -1

    return [name for name, size in wanted.items() if held(name) != size]


def _copy(path: str, target: str, wanted: dict[str, int]) -> None:
    missing = _missing(target, wanted)
    size = sum(wanted[name] for name in missing)
    say(
        f"{path}: {len(missing)} of {len(wanted)} files, {_gib(size)}, are copied to "
        f"{target}"
    )
    os.makedirs(target, exist_ok=True)
    free = shutil.disk_usage(target).free
    if size > free - RESERVE:
        raise UserError(
            f"{path} takes {_gib(size)} more than is here, and the disk of {target} "
            f"has {_gib(free)} free: make room, or give data.cache another"
        )

    def fetch(name: str) -> str:
        file = os.path.join(target, name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        paths.fetch(os.path.join(path, name), file)
        return name

    bar = tqdm(total=size, unit="B", unit_scale=True, disable=None, leave=False)
    with bar, ThreadPoolExecutor(_PARALLEL) as pool:
        for name in pool.map(fetch, missing):
            bar.update(wanted[name])
    left = _missing(target, wanted)
    if left:
        raise UserError(
            f"{path} changed while it was copied ({left[0]} has another size): is it "
            f"being prepared? the same command goes on when it is whole"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"
