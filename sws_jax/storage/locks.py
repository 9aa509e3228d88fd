"""Locks: one process at a time in a directory, on disks and in buckets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

from sws_jax.errors import UserError
from sws_jax.storage import files, lease, paths

try:
    import fcntl
except ImportError:  # Windows, where weights can be read and written all the same
    fcntl = None  # type: ignore[assignment]

_ATTEMPTS = 100


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
        with lease.held(path) as mine:
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
        return lease.is_held(path)
    if not os.path.exists(path):
        return False
    _check_locks(path)
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def _check_locks(path: str) -> None:
    """Refuses to go on where a second job could not be kept out."""
    if fcntl is None:
        raise UserError(
            f"{path} cannot be locked, as this system has no fcntl (Windows has none), "
            f"and unlocked a second job could write into the same directory: use "
            f"Linux, macOS or WSL; expanding a learngene works here"
        )


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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file that was opened here.
            if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except BlockingIOError:
            file.close()
            return None
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
