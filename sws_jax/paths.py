"""Files by their paths: on this machine's disks, or in a bucket (``gs://BUCKET/...``).

In a bucket there are objects and no directories: an object is written, replaced and
removed whole, is never added to, and a "directory" is what names have in common. What
is there is asked for each time, since other machines write too. Buckets are reached by
gcsfs, which is not among the requirements.
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
import tempfile
from collections.abc import Iterator
from typing import Any

from sws_jax.errors import UserError

BUCKET = "gs://"


class Unreachable(OSError):
    """A bucket does not answer, for now."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).startswith(BUCKET)


def absolute(path: str) -> str:
    """A path that means the same in every directory."""
    return path.rstrip("/") if is_remote(path) else os.path.abspath(path)


def exists(path: str) -> bool:
    if not is_remote(path):
        return os.path.exists(path)
    return _info(path) is not None


def is_file(path: str) -> bool:
    if not is_remote(path):
        return os.path.isfile(path)
    return (_info(path) or {}).get("type") == "file"


def is_dir(path: str) -> bool:
    if not is_remote(path):
        return os.path.isdir(path)
    return (_info(path) or {}).get("type") == "directory"


def names(directory: str) -> list[str]:
    """Of what is in a directory, sorted; none where there is no directory."""
    return [name for name, _ in _entries(directory)]


def folders(directory: str) -> list[str]:
    """Names of the directories in a directory, sorted."""
    return [name for name, is_folder in _entries(directory) if is_folder]


def sizes(directory: str) -> dict[str, int]:
    """Bytes of the files in a directory of a bucket, and below it, by their paths."""
    with _asking(directory):
        found = _storage().find(directory, detail=True)
    start = len(directory.removeprefix(BUCKET)) + 1
    return {name[start:]: entry["size"] for name, entry in sorted(found.items())}


def here(path: str) -> str:
    """Where a file can be opened by what knows disks alone: the path, or of a copy.

    The copy of an object is made once, goes when this process ends, and is made anew
    when the object has been replaced.

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
    version = os.path.join(folder, str(info["generation"]))
    target = os.path.join(version, posixpath.basename(path))
    if not os.path.exists(target):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(version)
        fetch(path, target)
    return target


def fetch(path: str, target: str) -> None:
    """Copies an object to this machine, whole or not at all."""
    part = f"{target}.part"
    try:
        with _asking(path):
            _storage().get_file(path, part)
        os.replace(part, target)
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def send(source: str, path: str) -> None:
    """Writes a file of this machine as an object, which is replaced whole."""
    with _asking(path):
        _storage().put_file(source, path)


def move(source: str, target: str) -> None:
    """A directory to another place on the same disk or in buckets, where it replaces
    what was there."""
    if not is_remote(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(source, target)
        return
    remove(target)
    with _asking(source):
        storage = _storage()
        for name in storage.find(source):
            inside = name.removeprefix(source.removeprefix(BUCKET))
            storage.cp_file(name, target + inside)
    remove(source)


def remove(directory: str) -> None:
    """Removes a directory with all that is in it, if it is there."""
    if not is_remote(directory):
        shutil.rmtree(directory, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError), _asking(directory):
        _storage().rm(directory, recursive=True)


def clear() -> None:
    """Removes the copies of `here`, before an end that leaves no time for it."""
    if _copies.cache_info().currsize:
        shutil.rmtree(_copies(), ignore_errors=True)


@functools.cache
def _copies() -> str:
    """The directory of this process's copies of objects."""
    made = tempfile.mkdtemp(prefix="sws_jax_")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _entries(directory: str) -> list[tuple[str, bool]]:
    """Name of everything in a directory, and whether it is a directory itself."""
    if not is_remote(directory):
        if not os.path.isdir(directory):
            return []
        with os.scandir(directory) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries)
    with contextlib.suppress(FileNotFoundError), _asking(directory):
        found = _storage().ls(directory, detail=True)
        parts = [(entry["name"].rstrip("/"), entry["type"]) for entry in found]
        own = directory.removeprefix(BUCKET).rstrip("/")  # objects that mark a folder
        return sorted(
            (posixpath.basename(name), kind == "directory")
            for name, kind in parts
            if name != own
        )
    return []


def _info(path: str) -> dict[str, Any] | None:
    """What a bucket says of a path; None where there is nothing."""
    # (The library's own `exists` is false where it could not ask.)
    with contextlib.suppress(FileNotFoundError), _asking(path):
        return _storage().info(path)
    return None


@functools.cache
def _storage() -> Any:
    """gcsfs, remembering nothing of what it has seen."""
    try:
        import fsspec
        import gcsfs  # noqa: F401
        import google.cloud.storage  # noqa: F401
    except ImportError:
        raise UserError(
            f"a path that begins with {BUCKET} needs a package that is not installed: "
            f"pip install gcsfs"
        ) from None
    # Checkpoints are written through the same package, by way of another one that
    # would take TensorFlow, where it is installed.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # (It logs, as errors with their tracebacks, those that are told in one sentence.)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gcs")


@contextlib.contextmanager
def _asking(path: str) -> Iterator[None]:
    """What the libraries raise, in one sentence: of rights, or of the network."""
    try:
        yield
    except (UserError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        raise explained(path, error) from None


def explained(path: str, error: Exception) -> Exception:
    """An error of a storage library, in one sentence.

    Returns:
      `UserError` where rights are missing, else `Unreachable`.
    """
    if isinstance(error, OSError) and error.errno:  # of this machine's disk
        return error
    text = str(error)
    reason = (text.strip().splitlines() or [type(error).__name__])[-1][:160]
    code = getattr(error, "code", None)
    refused = code in (401, 403, "401", "403") or text.startswith("Forbidden")
    of_rights = type(error).__module__.startswith("google.auth") and not (
        getattr(error, "retryable", False) or type(error).__name__ == "TransportError"
    )
    if refused or of_rights:
        bucket = path.removeprefix(BUCKET).partition("/")[0]
        return UserError(
            f"{path} may not be read or written from here ({reason}): run gcloud auth "
            f"application-default login, or give this machine's service account the "
            f"role Storage Admin on {BUCKET}{bucket}"
        )
    return Unreachable(f"{path} cannot be reached ({reason})")
