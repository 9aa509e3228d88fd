"""A lock in a bucket: an object that its holder writes again and again.

Nobody tells a bucket that a process has died, so a lock that was not written for
`STALE_SECONDS` is free for whoever comes next. Every change is made on the condition
that the object is still the one that was seen (generations of Google Cloud Storage):
of several that take it, one succeeds.

What this cannot guarantee: a holder that is stopped for longer than that (its machine
suspended, the network gone) wakes up to find that another has taken over, and what it
writes until its next look, `FRESH_SECONDS` at most, still goes to the directory of
both. It then ends as if it had been preempted. And clocks that are wrong by more than
the difference of the two make a living holder look dead; those of cloud machines are
right to within milliseconds.
"""

from __future__ import annotations

import _thread
import contextlib
import datetime
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from sws_jax.errors import UserError
from sws_jax.storage import paths, refusals

FRESH_SECONDS = 20.0
STALE_SECONDS = 120.0
_TRIES = 5
_own: list[_Lease] = []  # that this process holds
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed(path: str) -> Iterator[bool]:
    """Whether this process alone holds the lock `path`, while the block lasts.

    Args:
      path: of an object, which is gone afterwards.

    Raises:
      UserError: there can be no such object.
    """
    lease = _Lease(path)
    if not lease.take():
        yield False
        return
    keeper = threading.Thread(target=lease.keep, daemon=True)
    keeper.start()
    _own.append(lease)
    try:
        yield True
    finally:
        _own.remove(lease)
        lease.ended.set()
        keeper.join()
        lease.give()


def is_claimed(path: str) -> bool:
    """Whether some process holds the lock `path`; nothing is written."""
    current = _Lease(path).current()
    return current is not None and _age(current) < STALE_SECONDS


def _age(blob: Any) -> float:
    """Seconds since an object was written."""
    now = datetime.datetime.now(datetime.UTC)
    return (now - blob.updated).total_seconds()


def give_all() -> None:
    """Gives back what this process holds, before an end that leaves its blocks open."""
    for lease in _own:
        lease.ended.set()
        lease.give()


class _Lease:
    """An object that says which process holds a lock; used by one thread at a time."""

    def __init__(self, path: str):
        paths.exists(path)  # refuses where packages or rights are missing
        start = f"{refusals.GOOGLE}://"
        if not path.startswith(start):
            raise UserError(
                f"{path} cannot be locked: of all storages but disks, only {start} "
                f"has locks here: take another --workdir"
            )
        from google.cloud import storage

        self._path = path
        self._owner = secrets.token_hex(8)
        bucket, _, name = path.removeprefix(start).partition("/")
        with self._asking():
            self._object = storage.Client(project="-").bucket(bucket).blob(name)
        self._generation = 0
        self.ended = threading.Event()

    def take(self) -> bool:
        """Takes the lock; false where another process holds it."""
        for _ in range(_TRIES):  # others take and release it at the same time
            if self._write(0):
                return True
            current = self.current()
            if current is None:
                continue
            if _age(current) < STALE_SECONDS:
                return False
            if self._write(current.generation):
                return True
        return False

    def keep(self) -> None:
        """Writes the object again and again, until the lease ends or another process
        has it."""
        last = time.monotonic()
        while not self.ended.wait(FRESH_SECONDS):
            try:
                if not self._write(self._generation):
                    break
                last = time.monotonic()
            except Exception:  # noqa: BLE001  the network may come back in time
                if time.monotonic() - last > STALE_SECONDS - FRESH_SECONDS:
                    break
        if not self.ended.is_set():
            _log.warning("another job may have taken %s: this one ends", self._path)
            # As a notice of preemption would; it has no effect where none is expected.
            _thread.interrupt_main(signal.SIGTERM)

    def give(self) -> None:
        """Removes the object, unless it is another's."""
        from google.api_core import exceptions

        gone = (exceptions.PreconditionFailed, exceptions.NotFound)
        with contextlib.suppress(*gone, OSError, UserError), self._asking(*gone):
            self._object.delete(if_generation_match=self._generation)

    def _write(self, generation: int) -> bool:
        """Writes the object, if it still is of that generation.

        Args:
          generation: of the object that is replaced; 0 where there must be none.

        Returns:
          Whether it was written.
        """
        from google.api_core import exceptions

        holder = {"host": socket.gethostname(), "process": os.getpid()}
        self._object.metadata = {"owner": self._owner}
        try:
            with self._asking(exceptions.PreconditionFailed, exceptions.NotFound):
                self._object.upload_from_string(
                    json.dumps(holder), if_generation_match=generation
                )
        except exceptions.NotFound:
            bucket = refusals.bucket(self._path)
            raise UserError(
                f"there is no bucket {bucket}: take another --workdir, or make it "
                f"(gcloud storage buckets create {bucket})"
            ) from None
        except exceptions.PreconditionFailed:
            # A write that the library repeated may have succeeded the first time.
            current = self.current()
            if current is None or (current.metadata or {}).get("owner") != self._owner:
                return False
            self._generation = current.generation
            return True
        self._generation = self._object.generation
        return True

    def current(self) -> Any:
        """The object as it is now; None where there is none."""
        with self._asking():
            return self._object.bucket.get_blob(self._object.name)

    @contextlib.contextmanager
    def _asking(self, *passed: type[Exception]) -> Iterator[None]:
        """Explains the errors of requests to the bucket, but for those of `passed`."""
        try:
            yield
        except Exception as error:
            if isinstance(error, (*passed, UserError)):
                raise
            raise refusals.explained(self._path, error) from None
