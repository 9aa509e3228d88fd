"""What orbax raises where checkpoints fail, and what it then leaves behind."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import traceback
from collections.abc import Iterator

from sws_jax.errors import UserError
from sws_jax.runtime import processes, words
from sws_jax.storage import paths, refusals

_UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of what orbax is writing
_COMMITTED = "commit_success.txt"  # in a bucket, in what it has written


class BrokenCheckpoint(Exception):
    """A checkpoint is not as it was written."""


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Raises `BrokenCheckpoint` for whatever storage raises over damaged bytes.

    Where one process cannot read its part, the checkpoint is broken for all.
    """
    broken: BrokenCheckpoint | None = None
    try:
        yield
    except (UserError, MemoryError):
        raise
    except BrokenCheckpoint as error:
        broken = error
    except Exception as error:  # groups of errors among them
        if processes.is_loss(error):
            raise
        text = words.brief(error)
        broken = BrokenCheckpoint(f"{type(error).__name__}: {text}")
        forget(error)
    failures = processes.everyone(broken is not None)
    if any(failures):
        first = failures.index(True)
        raise broken or BrokenCheckpoint(f"as process {first} found")


def forget(error: BaseException) -> None:
    """Drops an error with the unfinished reads of orbax that it refers to.

    If they were collected later, perhaps at exit, each would print a traceback.
    """
    traceback.clear_frames(error.__traceback__)
    for part in getattr(error, "exceptions", ()):
        traceback.clear_frames(part.__traceback__)
    error.__traceback__ = error.__context__ = error.__cause__ = None
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def is_refused(error: BaseException) -> bool:
    """Whether a bucket has refused to be written to, which it will do again."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_refused, error.exceptions))
    # All errors of tensorstore are of one type: their words say which they are.
    code = re.search(r"\b(PERMISSION_DENIED|UNAUTHENTICATED)\b", str(error))
    rights = refusals.verdict(error) is refusals.Cause.RIGHTS
    inner = error.__cause__
    return rights or code is not None or bool(inner and is_refused(inner))


def remove_unfinished(folder: str) -> None:
    """Removes what failed writes have left in a folder of checkpoints."""
    for name in paths.folders(folder):
        path = os.path.join(folder, name)
        if _is_unfinished(path):
            paths.remove(path)


def _is_unfinished(path: str) -> bool:
    """Whether orbax has begun to write a checkpoint there, and not finished."""
    if paths.is_remote(path):  # nothing is renamed there, and an object marks the end
        return not paths.exists(os.path.join(path, _COMMITTED))
    return _UNFINISHED in path
