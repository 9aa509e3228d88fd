"""Files by their paths: on this machine's disks, or in a bucket (``gs://BUCKET/...``).

In a bucket there are objects and no directories: an object is written, replaced and
removed whole, is never added to, and a "directory" is what names have in common. What
is there is asked for each time, since other machines write too. Buckets are reached by
fsspec, which takes a package for each kind of them (gcsfs, s3fs) that is not among the
requirements.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import logging
import os
import posixpath
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.storage.refusals import GOOGLE, explained


def is_remote(path: str | os.PathLike[str]) -> bool:
    return bool(arguments.scheme(os.fspath(path)))


def absolute(path: str) -> str:
    """A path that means the same in every directory."""
    return path.rstrip("/") if is_remote(path) else os.path.abspath(path)


def check_utf8(path: str, remedy: str) -> None:
    """Refuses a path that is not UTF-8, which weights and checkpoints cannot have."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"the path {path} is not UTF-8, and nothing can be kept there: {remedy}"
        ) from None


def exists(path: str) -> bool:
    return _type(path) != ""


def is_file(path: str) -> bool:
    return _type(path) == "file"


def is_dir(path: str) -> bool:
    return _type(path) == "directory"


def version(path: str) -> tuple[int | str, ...]:
    """The version of a file that exists; it changes when the file is written."""
    if not is_remote(path):
        status = os.stat(path)
        return status.st_ino, status.st_size, status.st_mtime_ns
    return (_version(_info(path) or {}),)


def names(directory: str) -> list[str]:
    """Names of all that is in a directory, sorted; none where there is no directory."""
    return [name for name, _ in _entries(directory)]


def folders(directory: str) -> list[str]:
    """Names of the directories in a directory, sorted."""
    return [name for name, is_folder in _entries(directory) if is_folder]


def objects(directory: str) -> dict[str, tuple[int, str]]:
    """Size in bytes and fingerprint of the files in and below a directory of a bucket,
    by their paths from there."""
    with _storage(directory) as (storage, top):
        entries = storage.find(top, detail=True)
    return {
        name[len(top) + 1 :]: (entry["size"], entry.get("crc32c") or _version(entry))
        for name, entry in sorted(entries.items())
    }


def here(path: str) -> str:
    """Where a file can be opened by a library that reads local files alone: the path
    itself, or that of a copy.

    The copy of an object is made once, is removed when this process ends, and is made
    anew when the object has been replaced.

    Raises:
      FileNotFoundError: there is no such object.
      UserError, OSError: it cannot be read.
    """
    if not is_remote(path):
        return path
    info = _info(path)
    if info is None:
        raise FileNotFoundError(f"there is no {path}")
    folder = os.path.join(_copies(), hashlib.blake2b(path.encode()).hexdigest()[:16])
    version_folder = os.path.join(folder, _version(info))
    target = os.path.join(version_folder, posixpath.basename(path))
    if not os.path.exists(target):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(version_folder)
        fetch(path, target)
    return target


def fetch(path: str, target: str) -> None:
    """Copies an object to this machine, whole or not at all."""
    part = f"{target}.part"
    try:
        with _storage(path) as (storage, name):
            storage.get_file(name, part)
        os.replace(part, target)
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def send(source: str, path: str) -> None:
    """Writes a file of this machine as an object, which is replaced whole."""
    with _storage(path) as (storage, name):
        storage.put_file(source, name)


def move(source: str, target: str) -> None:
    """Moves a directory to another place on the same disk or in buckets, where it
    replaces what was there."""
    if not is_remote(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(source, target)
        return
    remove(target)
    with _storage(source) as (storage, top):
        for name in storage.find(top):
            storage.cp_file(name, target + name.removeprefix(top))
    remove(source)


def remove(path: str) -> None:
    """Removes a file, or a directory with all that is in it, if it is there."""
    if is_remote(path):
        with contextlib.suppress(FileNotFoundError):
            with _storage(path) as (storage, name):
                storage.rm(name, recursive=True)
    elif os.path.isfile(path):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def clear() -> None:
    """Removes the copies of `here`, for a process that ends without `atexit`."""
    if _copies.cache_info().currsize:
        shutil.rmtree(_copies(), ignore_errors=True)


@functools.cache
def _copies() -> str:
    """The directory of this process's copies of objects."""
    folder = tempfile.mkdtemp(prefix="sws_jax_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# Local files are asked for of `os`, and not of fsspec, which reads ``~`` in them as a
# home and ``::`` as a chain of storages, and sees a file in a link to nothing.


def _type(path: str) -> str:
    """What is at a path: a "file", a "directory", "other", or nothing."""
    if is_remote(path):
        return (_info(path) or {"type": ""})["type"]
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}
    return kinds.get(stat.S_IFMT(mode), "other")


def _entries(directory: str) -> list[tuple[str, bool]]:
    """Name of everything in a directory, and whether it is a directory itself."""
    if not is_remote(directory):
        if not os.path.isdir(directory):
            return []
        with os.scandir(directory) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries)
    with contextlib.suppress(FileNotFoundError):
        with _storage(directory) as (storage, top):
            listed = storage.ls(top, detail=True)
        parts = [(entry["name"].rstrip("/"), entry["type"]) for entry in listed]
        return sorted(
            (posixpath.basename(name), kind == "directory")
            for name, kind in parts
            if name != top  # an object that marks the folder
        )
    return []


def _info(path: str) -> dict[str, Any] | None:
    """What fsspec says of a path in a bucket; None where there is nothing."""
    # The library's own `exists` is false where it could not ask.
    with contextlib.suppress(FileNotFoundError), _storage(path) as (storage, name):
        return storage.info(name)
    return None


def _version(info: Mapping[str, Any]) -> str:
    """The version of an object from its fsspec description: new with each content."""
    from fsspec.utils import tokenize

    return str(info.get("generation") or tokenize(info))


@contextlib.contextmanager
def _storage(path: str) -> Iterator[tuple[Any, str]]:
    """The file system of a bucket, and the name that a path has in it.

    What it raises within the block is said in one sentence, if it is about rights or
    the network.
    """
    try:
        yield _file_system(path)
    except (UserError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        raise explained(path, error) from None


def _file_system(path: str) -> tuple[Any, str]:
    """fsspec's file system, without a cache of listings, and a path's name in it."""
    from fsspec import config, core

    scheme = arguments.scheme(path)
    config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    try:
        if scheme == GOOGLE:  # whose package, and the one that `lease` needs
            import gcsfs  # noqa: F401
            import google.cloud.storage  # noqa: F401

            # Checkpoints are written through gcsfs by way of another package, which
            # would take TensorFlow where that is installed.
            os.environ.setdefault("EPATH_USE_TF", "false")
            # It logs, with their tracebacks, errors that this module explains.
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        return core.url_to_fs(path)
    except ImportError as error:
        raise UserError(
            f"a path that begins with {scheme}:// needs a package that is not "
            f"installed: pip install {_package(scheme, error)}"
        ) from None


def _package(scheme: str, error: ImportError) -> str:
    """The package that reaches the buckets of a scheme."""
    from fsspec.registry import known_implementations

    package = known_implementations[scheme]["class"].partition(".")[0]
    if package == "fsspec":  # whose own module needs another package
        missing = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        package = (missing.name or package).partition(".")[0]
    return package
