"""Files that appear whole or not at all."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

import numpy as np

from sws_jax import arguments
from sws_jax.errors import Interrupted, Stopped, UserError
from sws_jax.storage import contents, lease, paths, unfinished

try:
    import fcntl
except ImportError:  # Windows, where weights can be read and written all the same
    fcntl = None  # type: ignore[assignment]

_LOCK_ATTEMPTS = 100
# What the format calls the numbers of numpy and ml_dtypes.
_SAFETENSORS = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
# What a value of JSON is called.
_KINDS = {
    bool: "truth value",
    dict: "object",
    float: "number",
    int: "whole number",
    list: "list",
    str: "text",
    type(None): "null",
}
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
            error.reason if isinstance(error, Unwritable) else _reason(error)
        )
        super().__init__(f"{path} cannot be written ({self.reason})")


class Unsent(Unwritable, Interrupted):
    """A file cannot be written into a bucket, for now."""


def _reason(error: BaseException) -> str:
    """The system's own word for it; libraries bury it in a long message."""
    buried = re.search(r"([^:]+) [\[(]os[_ ]error", str(error))
    reason = buried[1].strip() if buried else getattr(error, "strerror", None)
    return str(reason or error or type(error).__name__)


@contextlib.contextmanager
def told(path: str = "") -> Iterator[None]:
    """What the operating system refuses while `path` is read, as one sentence.

    For what a user asks for directly: functions of files, and the commands around
    them. (Training leaves such errors to its own end, which has exit codes for them.)

    Args:
      path: as the user gave it; default the one that the error names.

    Raises:
      UserError: in place of an OSError. That of a bucket which may answer another time
        stays as it is.
    """
    arguments.check_nul(path)
    try:
        yield
    except paths.Unreachable:
        raise
    except OSError as error:
        named = path or error.filename
        if isinstance(named, bytes):
            named = os.fsdecode(named)
        what = f"{named} cannot be read" if named else "the system refuses this"
        raise UserError(f"{what} ({_reason(error)})") from None


def check_readable(path: str) -> None:
    """Refuses what is no file of this machine that can be read, without waiting.

    Raises:
      UserError: it is missing, may not be read, or is a directory, a pipe, a device.
    """
    with told(path):
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
    """A directory that is there while `path` is written in it; if that fails, it goes
    again, where it was made for this.

    Raises:
      Unwritable: naming `path`, whatever could not be written on the way.
    """
    made = _missing(directory)
    try:
        os.makedirs(directory, exist_ok=True)
        yield directory
    except (OSError, Unwritable) as error:
        with contextlib.suppress(OSError):
            for empty in made:
                os.rmdir(empty)
        raise Unwritable(path, error) from None


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
    # (No longer than a name may be, though the name itself is as long.)
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
            finally:  # before directories that were made for it
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
    except paths.Unreachable as error:
        raise Unsent(path, error) from None
    except OSError as error:
        raise Unwritable(path, error) from None


def room(path: str) -> tuple[str, int]:
    """The nearest folder that is there, of a path on this machine, and the bytes that
    are free in it."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder, shutil.disk_usage(folder).free


def sweep(directory: str) -> None:
    """Removes what `replacing` left in a directory when its process was killed.

    Only for a directory that no other process writes into.
    """
    if paths.is_remote(directory):  # where nothing is left
        return
    for found in list(os.scandir(directory)):
        if _TEMPORARY.fullmatch(found.name) and found.is_file():
            os.remove(found.path)


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
    made = _missing(os.path.dirname(os.path.abspath(path)))
    file = _locked(path, remedy)
    try:
        yield file is not None
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                os.remove(path)
                for directory in made:
                    os.rmdir(directory)
            file.close()


def _check_locks(path: str) -> None:
    """Refuses to go on where a second job could not be kept out."""
    if fcntl is None:
        raise UserError(
            f"{path} cannot be locked, as this system has no fcntl (Windows has none), "
            f"and unlocked a second job could write into the same directory: use "
            f"Linux, macOS or WSL; expanding a learngene works here"
        )


def _missing(directory: str) -> list[str]:
    """Those of a directory and its parents that do not exist, the innermost first."""
    if os.path.isdir(directory):
        return []
    return [directory, *_missing(os.path.dirname(directory))]


def _locked(path: str, remedy: str) -> IO[str] | None:
    """The lock file, open and locked, or None where another holds it."""
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            file = open(path, "a")
        except OSError as error:
            # Its last holder may just have removed the directory; but some there
            # can never be.
            gone = isinstance(error, FileNotFoundError)
            if gone and attempt + 1 < _LOCK_ATTEMPTS:
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


def write_tensors(
    path: str, flat: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes one ``.safetensors`` file, whole or not at all.

    Equal content is equal bytes, whatever the order of the names. (The library writes
    the metadata of each file in another order.)

    Raises:
      Unwritable: the disk is full, or the directory read-only; or an array holds no
        numbers that such files have.

    Reference:
      https://github.com/huggingface/safetensors#format
    """
    for name, array in flat.items():
        if array.dtype.name not in _SAFETENSORS:
            odd = ValueError(f"{name} holds {array.dtype}")
            raise Unwritable(path, odd)
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
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:  # one at a time, row by row, the lowest byte first
            array = flat[name].astype(flat[name].dtype.newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write_text(path: str, text: str) -> None:
    """In UTF-8 with Unix's line ends, whatever the system's own are."""
    with replacing(path) as temporary:
        data = text.encode(errors="backslashreplace")  # names that are not UTF-8
        with open(temporary, "wb") as file:
            file.write(data)


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(
    path: str,
    *,
    holds: Any = {},  # noqa: B006  never changed
    remedy: str = "restore it, or remove its directory",
) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
      path: of a file that is there.
      holds: what must be in it, as in `misfit`.
      remedy: against damage, for the message.

    Raises:
      UserError: it holds something else.
    """
    if contents.is_pointer(path):
        raise UserError(
            f"{path} is a pointer of Git LFS, and the file itself was not fetched: run "
            f"git lfs pull"
        )
    try:
        # (Some editors put a mark before UTF-8.)
        with open(paths.here(path), encoding="utf-8-sig") as file:
            found = json.load(file, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is damaged (it is not UTF-8 from byte {error.start} on): {remedy}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object: {remedy}")
    if wrong := misfit(found, holds):
        raise UserError(f"{path} is damaged ({wrong}): {remedy}")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON that says nothing twice and differently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if value != found[name]:
                raise ValueError(f"{name} stands in it twice, with different values")
    return found


def misfit(value: Any, wanted: Any, name: str = "it") -> str:
    """The first thing that a value of JSON lacks or has of another type, in words.

    Args:
      value: as JSON gives it.
      wanted: a type (``float`` takes whole numbers too), or several in a tuple; a set
        of values; ``[WANTED]`` for a list, ``[WANTED, ...]`` for one that is not
        empty; ``{NAME: WANTED}`` for an object with those names, where ``NAME?`` may
        be absent, and others may be there.
      name: of the value.

    Returns:
      Nothing where it is all as wanted.
    """
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            return f"{name} is no object"
        for key, inner in wanted.items():
            plain_key = key.removesuffix("?")
            inside = plain_key if name == "it" else f"{name}.{plain_key}"
            if plain_key not in value:
                if plain_key == key:
                    return f"{inside} is missing"
            elif wrong := misfit(value[plain_key], inner, inside):
                return wrong
        return ""
    if isinstance(wanted, list):
        if not isinstance(value, list) or (wanted[1:] and not value):
            return f"{name} is no list" + (" of at least one" if wanted[1:] else "")
        parts = (misfit(v, wanted[0], f"{name}[{n}]") for n, v in enumerate(value))
        return next(filter(None, parts), "")
    if isinstance(wanted, frozenset):
        return "" if isinstance(value, str) and value in wanted else f"odd {name}"
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    if type(value) in kinds or (float in kinds and type(value) is int):
        return ""
    words = " or ".join(_KINDS[kind] for kind in kinds)
    return f"{name} is {json.dumps(value)[:40]} and no {words}"


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
        reason = " ".join(_reason(error).split()) or type(error).__name__
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
        read = np.lib.format.read_array_header_1_0
        if major > 1:
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects")
        held = member.file_size - file.tell()
    if math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"{member.filename} is not as large as its header says")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def plain(value: Any) -> Any:
    """A config as JSON gives it back: tuples as lists."""
    return json.loads(json.dumps(value))


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts: all of `new`, and of `old` what `new` does not say."""
    both = {**old, **new}
    for key in old.keys() & new.keys():
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            both[key] = merged(old[key], new[key])
    return both


def differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two nested dicts differ."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [prefix]
    names = []
    for key in sorted(set(old) | set(new)):
        name = f"{prefix}.{key}" if prefix else key
        if key in old and key in new:
            names += differing(old[key], new[key], name)
        else:
            names.append(name)
    return names
