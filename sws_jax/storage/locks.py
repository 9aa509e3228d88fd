"""Locks: one process at a time in a directory, on disks and in buckets."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterator
from typing import IO, Any

from sws_jax.errors import UserError
from sws_jax.storage import files, lease, paths

_ATTEMPTS = 100
_LOOKS, _LOOK_SECONDS = 5, 0.02
_WINDOWS = os.name == "nt"


@contextlib.contextmanager
def claimed(path: str, *, remedy: str = "take another --workdir") -> Iterator[bool]:
    """Whether this process alone holds the lock file `path`, while the block lasts.

    The operating system frees the lock of a process that has died; in a bucket time
    does (`sws_jax.storage.lease`). Afterwards the file is gone, and so are directories
    made for it if nothing was put there.

    Args:
      path: of a file that need not be there.
      remedy: where there can be none, for the message.

    Raises:
      UserError: there can be no file, or the system has no such locks.
    """
    if paths.is_remote(path):
        with lease.claimed(path) as mine:
            yield mine
        return
    _check_locks(path)
    new_directories = files.missing(os.path.dirname(os.path.abspath(path)))
    file = _locked(path, remedy)
    try:
        yield file is not None
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                if _WINDOWS:  # where no open file is removed
                    file.close()
                os.remove(path)
                for directory in new_directories:
                    os.rmdir(directory)
            file.close()


def is_claimed(path: str) -> bool:
    """Whether some process holds the lock file `path`; nothing is changed.

    Raises:
      UserError: there is such a file, and the system has no such locks.
    """
    if paths.is_remote(path):
        return lease.is_claimed(path)
    if not os.path.exists(path):
        return False
    _check_locks(path)
    try:
        # Disks of a network lock only what may be written.
        with open(path, "r+" if os.access(path, os.W_OK) else "r") as file:
            # Another process that only looks, too, holds it for an instant.
            for _ in range(_LOOKS):
                if _lock(file):
                    return False
                time.sleep(_LOOK_SECONDS)
            return True
    except FileNotFoundError:
        return False


def _check_locks(path: str) -> None:
    """Refuses to go on where a second job could not be kept out."""
    if not (_filelock().has_fcntl or _WINDOWS):
        raise UserError(
            f"{path} cannot be locked, as this system has no fcntl, and unlocked a "
            f"second job could write into the same directory: use Linux, macOS or WSL; "
            f"expanding a learngene works here"
        )


def _filelock() -> Any:
    """The library, which takes long to load, and warns where there are no locks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "only soft file lock is available")
        import filelock
    return filelock


def _lock(file: IO[str]) -> bool:
    """Locks an open file until it is closed; false where another process holds it.

    The file's own descriptor is locked, since a `FileLock` would leave its file behind,
    and might take a mark in it for a lock, which stays when its process is killed.
    """
    return _filelock().lock_descriptor(file.fileno(), blocking=False)


def _locked(path: str, remedy: str) -> IO[str] | None:
    """The lock file, open and locked, or None where another process holds it."""
    for attempt in range(_ATTEMPTS):
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            file = open(path, "a")
        except OSError as error:
            # Its last holder may just have removed the directory; but some directories
            # can never be made.
            gone = isinstance(error, FileNotFoundError)
            if gone and attempt + 1 < _ATTEMPTS:
                continue
            raise UserError(
                f"{path} cannot be written ({error.strerror}): {remedy}"
            ) from None
        try:
            if not _lock(file):
                file.close()
                return None
            # Whoever held it before may have removed the file that was opened here.
            if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        except OSError as error:  # a network's disk that knows no locks
            file.close()
            raise UserError(
                f"{path} cannot be locked ({error.strerror}): {remedy}, on a disk that "
                f"has locks"
            ) from None
        file.close()
    return None  # others take it and free it, faster than it can be had
