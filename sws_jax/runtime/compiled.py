"""Compiled programs, kept on disk, so that a machine compiles each once.

JAX has such a cache and leaves it off. Commands switch it on; importing the package
does not, and what the user has set of it, by variables or in `jax.config`, comes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import stat
import sys
import zlib

from sws_jax import xla_flags
from sws_jax.runtime import words

VARIABLE = "SWS_JAX_COMPILATION_CACHE"
_OFF = ("off", "0", "false", "no", "none")
# Seconds of compiling from which on a program is kept. JAX's own limit is 1 s; of the
# 33 programs of configs/smoke.py, 21 take longer than this one, and 12 than that.
_MIN_SECONDS = 0.05
_MAX_BYTES = 2 * 2**30  # of all versions and machines; beyond it the oldest half goes
_DIRECTORY = "jax_compilation_cache_dir"
_SETTINGS: dict[str, float | str] = {
    "jax_persistent_cache_min_compile_time_secs": _MIN_SECONDS,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_SWITCH = "JAX_ENABLE_COMPILATION_CACHE"
# The variables that decide what is kept, and where, besides `XDG_CACHE_HOME`.
VARIABLES = (VARIABLE, _SWITCH, _DIRECTORY.upper(), *map(str.upper, _SETTINGS))
# Flags of XLA for files that are written when a program is compiled.
_WRITES = "--xla_dump_"
_AUTOTUNED = "--xla_gpu_per_fusion_autotune_cache_dir"
_CPU = re.compile(
    r"^(vendor_id|cpu family|model|flags|CPU implementer|CPU architecture|CPU part|"
    r"Features)\s*:(.*)$",
    re.MULTILINE,
)
_ENTRY = "-cache"  # the end of a program's name
_CHECKED = "checked"  # written when all programs before it were found whole
_ZLIB, _ZSTANDARD = b"\x78", b"\x28\xb5\x2f\xfd"  # how a program's file begins
_CPU_INFO = "/proc/cpuinfo"


def keep() -> str:
    """Keeps what JAX compiles from here on, and takes what was kept.

    Called before the first program is compiled; processes that this one starts do the
    same. Nothing is changed where the user has set JAX's cache, or `VARIABLE` to off.

    Returns:
      A line that says so; empty where nothing was changed.
    """
    if _is_off() or _is_set_by_user():
        return ""
    root = _root()
    if root is None:
        return ""
    folder = os.path.join(root, _name())
    if not _is_own(folder):
        return f"compiled programs are not kept, as {folder} cannot be used"
    _shrink(root)
    _mend(folder)
    settings = {_DIRECTORY: folder, **_SETTINGS}
    if _AUTOTUNED in os.environ.get("XLA_FLAGS", ""):
        # JAX would set that flag to a folder in its cache.
        settings["jax_persistent_cache_enable_xla_caches"] = "none"
    jax = sys.modules.get("jax")
    for name, value in settings.items():
        # JAX takes variables when it is imported, and children inherit them.
        variable = name.upper()
        if variable in os.environ:
            continue
        os.environ[variable] = str(value)
        if jax is not None:
            jax.config.update(name, value)
    count = len(_entries(folder))
    return (
        f"compiled programs are kept in {folder}, which has "
        f"{words.many(count, 'program')} ({VARIABLE}=off: not kept)"
    )


def _is_off() -> bool:
    """Whether programs are not to be kept."""
    dumps = _WRITES in os.environ.get("XLA_FLAGS", "")
    return dumps or os.environ.get(VARIABLE, "").strip().lower() in _OFF


def _is_set_by_user() -> bool:
    """Whether the user, or the process that started this one, has set JAX's cache."""
    if {_DIRECTORY.upper(), _SWITCH} & os.environ.keys():
        return True
    jax = sys.modules.get("jax")
    if jax is None:
        return False
    config = jax.config
    return bool(
        config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache
    )


def _root() -> str | None:
    """The folder of all versions and machines; None for a user without a home."""
    # A relative path there is to be ignored, by the rules of the variable.
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser(os.path.join("~", ".cache"))
    if not os.path.isabs(base):
        return None
    return os.path.join(base, "sws_jax", "compiled")


def _name() -> str:
    """The name of the folder for this jaxlib on this kind of machine.

    JAX tells apart versions, devices, flags and options, and takes all CPUs for one
    device: a program for another one may use instructions that this one has not.
    """
    machine = platform.machine()
    parts = [platform.system(), machine, *_cpu()]
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()
    return f"jaxlib-{xla_flags.jaxlib() or 'none'}-{machine}-{digest}"


def _cpu() -> list[str]:
    """What a compiler may know of this CPU; of a system that does not say, its name."""
    try:
        with open(_CPU_INFO) as file:
            found = sorted(set(_CPU.findall(file.read())))
    except (OSError, ValueError):
        found = []
    if not found:
        return [platform.processor(), platform.node()]
    # The order of features is of no meaning.
    return [f"{name} {' '.join(sorted(text.split()))}" for name, text in found]


def _is_own(folder: str) -> bool:
    """Makes a folder; whether this user, and nobody else, writes there.

    What is read from it is run.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        about = os.stat(folder)
        if hasattr(os, "getuid"):
            others = stat.S_IWGRP | stat.S_IWOTH
            if about.st_uid != os.getuid() or about.st_mode & others:
                return False
        return os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        return False


def _entries(folder: str) -> list[str]:
    """The paths of the programs in a folder."""
    names = os.listdir(folder)
    return [os.path.join(folder, name) for name in names if name.endswith(_ENTRY)]


def _mend(folder: str) -> None:
    """Removes new programs that are not whole, as a full disk leaves them.

    JAX compiles in their place, each time anew, and writes over none. One that another
    process is writing may go too, and is compiled once more.
    """
    stamp = os.path.join(folder, _CHECKED)
    with contextlib.suppress(OSError):
        since = os.stat(stamp).st_mtime if os.path.exists(stamp) else 0.0
        new = [path for path in _entries(folder) if os.stat(path).st_mtime >= since]
        with open(stamp, "w"):
            os.utime(stamp)
        for path in new:
            with open(path, "rb") as file:
                is_whole = _is_whole(file.read())
            if not is_whole:
                os.remove(path)


def _is_whole(entry: bytes) -> bool:
    """Whether a file of JAX's cache can be decompressed, where Python can tell."""
    if entry.startswith(_ZSTANDARD):
        return True
    try:
        return entry.startswith(_ZLIB) and bool(zlib.decompress(entry))
    except zlib.error:
        return False


def _shrink(root: str) -> None:
    """Removes the oldest files, where all together have become too large.

    JAX's own limit needs a lock, and stops keeping programs where a process was killed
    between two of its files.
    """
    kept = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # another process removes it
                about = os.stat(path)
                kept.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in kept)
    if total <= _MAX_BYTES:
        return
    for _, size, path in sorted(kept):
        if total <= _MAX_BYTES // 2:
            break
        with contextlib.suppress(OSError):
            os.remove(path)
        total -= size
