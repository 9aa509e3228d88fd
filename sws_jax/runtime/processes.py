"""Many processes as one program: what they agree on, and what is written once.

Every process runs the same code. What depends on files is decided by the first one,
for all (`decided`); what all hold a part of is gathered by all and written by the
first. With one process each function is trivial.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sws_jax.errors import Interrupted, Stopped, UserError
from sws_jax.runtime.rendezvous import numbers
from sws_jax.runtime.signals import Asked
from sws_jax.storage import lease, paths, refusals

T = TypeVar("T")

# Errors that one process meets for all others, subclasses first.
_SENT: dict[str, type[Exception]] = {
    "interrupted": Interrupted,
    "stopped": Stopped,
    "refused": UserError,
    "unreachable": refusals.Unreachable,
    "failed": OSError,
}
_PATH = re.compile(r"(?<![\w.])(/|gs://|file://)[^\s:]+")  # may contain any word
# Words in the runtime's errors about a process that has died.
_LOST = ("gloo", "nccl", "coordination service", "coordinationservice", "barrier")
_GRACE_SECONDS = 2.0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether there is no other process in this program."""
    return jax.process_count() == 1


def decided(function: Callable[[], T]) -> T:
    """What a function returns in the first process, in all of them.

    Files are looked at by one process: on a disk that hosts share, others may see an
    older state of it.

    Args:
      function: called in the first process; returns what JSON can hold.

    Raises:
      UserError, OSError: in all processes, where `function` raises one.
    """
    if jax.process_count() == 1:
        return function()
    outcome: dict[str, Any] = {}
    error: Exception | None = None
    if is_first():
        try:
            outcome = {"value": function()}
        except (UserError, OSError) as raised:
            error = raised
            kind = next(k for k, cls in _SENT.items() if isinstance(raised, cls))
            outcome = {kind: str(raised)}
    outcome = _sent(outcome)
    if error is not None:
        raise error
    for kind, cls in _SENT.items():
        if kind in outcome:
            raise cls(outcome[kind])
    return outcome["value"]


def _sent(value: dict[str, Any]) -> dict[str, Any]:
    """JSON from the first process to all, as bytes in a padded array."""
    text = json.dumps(value).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(_padded(length), np.uint8)
    if is_first():
        padded[:length] = np.frombuffer(text, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)
    return json.loads(received[:length].tobytes())


def _padded(length: int) -> int:
    """A power of two of at least `length`: few lengths make few programs."""
    return 1 << max(length - 1, 1).bit_length()


def everyone(number: int) -> list[int]:
    """A number of every process, in all of them."""
    if jax.process_count() == 1:
        return [number]
    numbers_of_all = multihost_utils.process_allgather(np.int32(number))
    return [int(n) for n in np.asarray(numbers_of_all).reshape(-1)]


def collected(value: Any) -> list[Any]:
    """A value of every process, in all of them, in the order of their numbers.

    Args:
      value: that JSON can hold.
    """
    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    lengths = everyone(len(text))
    padded = np.zeros(_padded(max(lengths)), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    parts = zip(rows.reshape(len(lengths), -1), lengths, strict=True)
    return [json.loads(row[:length].tobytes()) for row, length in parts]


def first_does(function: Callable[[], Any]) -> None:
    """Does something in the first process, while the others wait."""

    def silently() -> None:
        function()

    decided(silently)


def check_shared(path: str) -> None:
    """Refuses a work directory that only some processes see.

    Args:
      path: of something that the first process has just put there.

    Raises:
      UserError: naming those that do not see it.
    """

    def sees() -> bool:
        for _ in range(20):  # a disk on a network may show it late
            if paths.exists(path):
                return True
            time.sleep(0.25)
        return False

    blind = [n for n, seen in enumerate(everyone(sees())) if not seen]
    if blind:
        raise UserError(
            f"{numbers(blind)} of {jax.process_count()} cannot see "
            f"{os.path.dirname(path)}: put --workdir where all hosts see the same files"
        )


def stop_asked(asked: Asked) -> Callable[[], bool]:
    """A question that is true once a process was told to end.

    All processes ask it equally often, and it turns true in all of them at the same
    time of asking: JAX passes SIGTERM on, and agrees on the time. Where it offers
    notices of maintenance, these count too.

    Args:
      asked: the signals that this process gets.
    """
    asked.note()
    if jax.process_count() == 1:
        return lambda: bool(asked)
    times = itertools.count(1)
    passed_on = stopping = False

    def question() -> bool:
        nonlocal passed_on, stopping
        if asked and not passed_on:  # after Ctrl-C, as JAX listens to SIGTERM alone
            passed_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        # JAX says it once, and is asked again by a run that was about to end anyway.
        stopping = stopping or multihost_utils.reached_preemption_sync_point(
            next(times)
        )
        return stopping

    return question


def leave(code: int) -> None:
    """Ends this process at once, without waiting for the others.

    Does nothing for a process that is alone. An orderly end would wait for the others,
    which may wait for this one, and then abort.
    """
    if not jax.distributed.is_initialized():
        return
    if is_first():  # which the others still need, if they are ending too
        time.sleep(_GRACE_SECONDS)
    for child in multiprocessing.active_children():
        child.kill()
    lease.give_all()
    paths.clear()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process has died."""
    if not jax.distributed.is_initialized() or isinstance(error, OSError):
        return False
    text = _PATH.sub("", str(error)).lower()
    return any(word in text for word in _LOST)
