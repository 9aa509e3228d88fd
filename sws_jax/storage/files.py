"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import Any

from sws_jax import arguments
from sws_jax.errors import Interrupted, Stopped, UserError
from sws_jax.storage import paths, unfinished
from sws_jax.storage.refusals import Unreachable

# What stands at a path and is no file that could be read to its end.
_ODD = {
    stat.S_IFDIR: "Is a directory",
    stat.S_IFIFO: "it is a pipe, and no file",
    stat.S_IFSOCK: "it is a socket, and no file",
    stat.S_IFCHR: "it is a device, and no file",
    stat.S_IFBLK: "it is a device, and no file",
}
_LONGEST = 255  # bytes in a name, for the systems in use
_TEMPORARY = re.compile(r"\..+\.sws-[0-9a-f]{8}(\.[\w-]+)?")


class Unwritable(Stopped):
    """A file cannot be written: the disk is full, or the directory read-only."""

    def __init__(self, path: str, error: BaseException):
        self.reason: str = (
            error.reason if isinstance(error, Unwritable) else reason(error)
        )
        super().__init__(f"{path} cannot be written ({self.reason})")


class Unsent(Unwritable, Interrupted):
    """A file cannot be written into a bucket, for now."""


def reason(error: BaseException) -> str:
    """The system's own words for an error, which libraries put in a long message."""
    within = re.search(r"([^:]+) [\[(]os[_ ]error", str(error))
    words = within[1].strip() if within else getattr(error, "strerror", None)
    return str(words or error or type(error).__name__)


@contextlib.contextmanager
def errors_as_refusals(path: str = "") -> Iterator[None]:
    """Turns an OSError raised while `path` is read into a UserError.

    For what a user asks for directly: functions of files, and the commands around
    them. Training leaves such errors to its own end, which has exit codes for them.

    Args:
      path: as the user gave it; default the one that the error names.

    Raises:
      UserError: in place of an OSError. That of a bucket which may answer another time
        stays as it is.
    """
    arguments.check_nul(path)
    try:
        yield
    except Unreachable:
        raise
    except OSError as error:
        name = path or error.filename
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        what = f"{name} cannot be read" if name else "the system refuses this"
        raise UserError(f"{what} ({reason(error)})") from None


def check_readable(path: str) -> None:
    """Refuses what is no file of this machine that can be read, without waiting.

    Raises:
      UserError: it is missing, may not be read, or is a directory, a pipe, a device.
    """
    with errors_as_refusals(path):
        if odd := _ODD.get(stat.S_IFMT(os.stat(path).st_mode)):
            raise UserError(f"{path} cannot be read ({odd})")
        with open(path, "rb") as file:
            file.read(1)


def check_writable(path: str) -> None:
    """Refuses a path of this machine at which no file can be put.

    Raises:
      Unwritable: a directory, a pipe, a socket or a device is there.
      UserError: it is no path.
    """
    arguments.check_nul(path)
    try:
        odd = _ODD.get(stat.S_IFMT(os.stat(path).st_mode))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unwritable(path, error) from None
    if odd:
        raise Unwritable(path, OSError(odd))


@contextlib.contextmanager
def making(directory: str, path: str) -> Iterator[str]:
    """A directory that is there while `path` is written in it; if that fails, it is
    removed again, where it was made for this.

    Raises:
      Unwritable: naming `path`, whatever could not be written on the way.
    """
    new_directories = missing(directory)
    try:
        os.makedirs(directory, exist_ok=True)
        yield directory
    except (OSError, Unwritable) as error:
        with contextlib.suppress(OSError):
            for empty in new_directories:
                os.rmdir(empty)
        raise Unwritable(path, error) from None


def missing(directory: str) -> list[str]:
    """The missing directories among a directory and its parents, innermost first."""
    if os.path.isdir(directory):
        return []
    return [directory, *missing(os.path.dirname(directory))]


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Gives a temporary path that becomes `path` if the block ends well.

    Raises:
      Unwritable: the block, or the replacing, ended in an error of the system.
    """
    if paths.is_remote(path):
        with _sending(path) as temporary:
            yield temporary
        return
    check_writable(path)
    directory = os.path.dirname(os.path.abspath(path))
    base, end = os.path.splitext(os.path.basename(path))
    # Random, since hosts that share a directory have processes of the same number.
    end = f".sws-{secrets.token_hex(4)}{end}"
    # No longer than a name may be, though the name itself is as long.
    base = os.fsdecode(
        os.fsencode(base)[: max(_LONGEST - 1 - len(os.fsencode(end)), 1)]
    )
    temporary = os.path.join(directory, f".{base}{end}")
    unfinished.paths.add(temporary)
    try:
        with making(directory, path):
            try:
                yield temporary
                with open(temporary, "rb+") as file:  # Windows syncs what is written
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:  # before `making` removes the directories
                with contextlib.suppress(OSError):
                    os.remove(temporary)
    finally:
        unfinished.paths.discard(temporary)


@contextlib.contextmanager
def _sending(path: str) -> Iterator[str]:
    """`replacing` of an object: a bucket has it whole, once it was sent."""
    try:
        with tempfile.TemporaryDirectory(prefix="sws_jax_") as folder:
            temporary = os.path.join(folder, os.path.basename(path))
            yield temporary
            paths.send(temporary, path)
    except Unreachable as error:
        raise Unsent(path, error) from None
    except OSError as error:
        raise Unwritable(path, error) from None


def free_space(path: str) -> tuple[str, int]:
    """The nearest folder that exists on the way to a path of this machine, and the
    bytes that are free on its disk."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder, shutil.disk_usage(folder).free


def sweep(directory: str) -> None:
    """Removes what `replacing` left in a directory when its process was killed.

    Only for a directory that no other process writes into. Into a bucket, where files
    appear whole, nothing of the kind is written.
    """
    if paths.is_remote(directory):
        return
    for name in paths.names(directory):
        path = os.path.join(directory, name)
        if _TEMPORARY.fullmatch(name) and paths.is_file(path):
            paths.remove(path)


def write_text(path: str, text: str) -> None:
    """Writes UTF-8 with Unix's line ends, whatever the system's own are."""
    with replacing(path) as temporary:
        data = text.encode(errors="backslashreplace")  # for names that are not UTF-8
        with open(temporary, "wb") as file:
            file.write(data)


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
