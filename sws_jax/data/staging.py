"""Prepared sets that are in a bucket, copied to this machine's disk.

The reader of array_record files opens files of this machine alone, and reads in any
order: each host copies a set once, and reads its copy. A set that has changed in its
place gets a copy of its own, since the earlier one may be read by a run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from sws_jax.errors import UserError
from sws_jax.runtime import words
from sws_jax.runtime.progress import bytes_bar, say
from sws_jax.storage import locks, paths

LOCK = "lock"
_PARALLEL = 8
RESERVE = 2**30  # bytes of a disk that are left free
_POLL_SECONDS = 1.0


def staged(path: str, cache: str = "") -> str:
    """The directory of a prepared version on this machine.

    Files that are there in their full size are not copied again, so that a copy that
    was broken off goes on. The directory's name is made of what the files hold.

    Args:
      path: of the version's directory; one on this machine is returned as it is.
      cache: directory for copies; empty takes ``~/.cache/sws_jax``.

    Raises:
      UserError: the disk is too small for it.
    """
    target, wanted = _listed(path, cache)
    while _missing(target, wanted):
        # Of several processes of a host one copies, and the others wait.
        lock = os.path.join(f"{target}.staging", LOCK)
        with locks.claimed(lock, remedy="give data.cache another directory") as mine:
            if mine:
                _copy(path, target, wanted)
                if _missing(target, wanted) or _listed(path, cache)[0] != target:
                    shutil.rmtree(target, ignore_errors=True)  # of two states, perhaps
                    raise UserError(
                        f"{path} changed while it was copied: is it being prepared? "
                        f"the same command begins anew when it is whole"
                    )
                break
        time.sleep(_POLL_SECONDS)
    return target


def awaited(path: str, cache: str = "") -> tuple[str, int]:
    """Where `staged` puts a version, and how many bytes of it are not there yet."""
    target, wanted = _listed(path, cache)
    return target, sum(wanted[name] for name in _missing(target, wanted))


def _listed(path: str, cache: str) -> tuple[str, dict[str, int]]:
    """The directory of a copy, and the bytes of the files that are read, by name.

    A directory of this machine is its own copy, of which no file is awaited.
    """
    if not paths.is_remote(path):
        return path, {}
    entries = {
        name: entry
        for name, entry in paths.objects(path).items()
        # Neither files of another format nor objects that mark a folder.
        if ".tfrecord" not in name and not name.endswith("/")
    }
    digest = hashlib.blake2b(repr(sorted(entries.items())).encode(), digest_size=6)
    where, version = os.path.split(path.partition("://")[2])
    cache = os.path.expanduser(cache or "~/.cache/sws_jax")
    target = os.path.join(cache, where, digest.hexdigest(), version)
    return target, {name: size for name, (size, _) in entries.items()}


def _earlier(target: str) -> list[str]:
    """Copies of earlier states of the set."""
    current, version = os.path.split(target)
    where = os.path.dirname(current)
    return [
        os.path.join(where, name, version)
        for name in paths.folders(where)
        if name != os.path.basename(current)
        and os.path.isdir(os.path.join(where, name, version))
    ]


def _missing(target: str, wanted: dict[str, int]) -> list[str]:
    """Names of the files that are not here in their full size."""

    def size_here(name: str) -> int:
        file = os.path.join(target, name)
        return os.path.getsize(file) if os.path.isfile(file) else -1

    return [name for name, size in wanted.items() if size_here(name) != size]


def _copy(path: str, target: str, wanted: dict[str, int]) -> None:
    """Copies the files that are missing from a bucket to this machine, with a bar.

    Args:
      path: of the set in the bucket.
      target: the directory of the copy.
      wanted: sizes in bytes of all files, by their names.

    Raises:
      UserError: the disk has too little space.
    """
    missing = _missing(target, wanted)
    size = sum(wanted[name] for name in missing)
    say(
        f"{path}: {len(missing)} of {len(wanted)} files, {words.gib(size)}, are copied "
        f"to {target}"
    )
    os.makedirs(target, exist_ok=True)
    earlier = _earlier(target)
    if earlier:
        say(f"copies of an earlier state stay, to be removed: {', '.join(earlier)}")
    free = shutil.disk_usage(target).free
    if size > free - RESERVE:
        raise UserError(
            f"{path} takes {words.gib(size)} more than is here, and the disk of "
            f"{target} has {words.gib(free)} free: make room, or give data.cache "
            f"another"
        )

    def fetch(name: str) -> str:
        file = os.path.join(target, name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        paths.fetch(os.path.join(path, name), file)
        return name

    with bytes_bar(size) as bar, ThreadPoolExecutor(_PARALLEL) as pool:
        for name in pool.map(fetch, missing):
            bar.update(wanted[name])
