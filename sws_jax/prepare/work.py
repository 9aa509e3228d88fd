"""Runs a function on many items, in this process or in several."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import Any

from sws_jax.data.base import Unreadable
from sws_jax.errors import Stopped, UserError
from sws_jax.prepare import forms
from sws_jax.prepare.forms import Form, GivenUp, How, Shard, ShardRecord
from sws_jax.runtime import signals

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Called with an item, and with a function that says whether to give up.
Function = Callable[[Any, Callable[[], bool]], Any]


class Make:
    """Writes a shard of a form."""

    def __init__(self, form: Form, directory: str, unreadable: str):
        self._form, self._directory, self._unreadable = form, directory, unreadable

    def __call__(self, shard: Shard, stopped: Callable[[], bool]) -> ShardRecord:
        how = How(self._unreadable, stopped)
        return self._form.make(self._directory, shard, how)


class Verify:
    """Verifies a file or rows of one: what is wrong with it, or an empty string."""

    def __init__(self, directory: str):
        self._directory = directory

    def __call__(
        self, named: tuple[str, ShardRecord], stopped: Callable[[], bool]
    ) -> str:
        name, entry = named
        if stopped():
            raise GivenUp
        path = os.path.join(self._directory, name.partition("[")[0])
        try:
            present = forms.checked(path, entry)
        except FileNotFoundError:
            return "it is missing"
        except (OSError, ValueError, EOFError) as error:
            return f"it cannot be read ({error})"
        if present["bytes"] != entry["bytes"]:
            return f"it has {present['bytes']:,} bytes of {entry['bytes']:,}"
        return "" if present["digest"] == entry["digest"] else "its digest differs"


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Starts processes with SIGTERM and SIGINT blocked; signals that arrive are raised
    afterwards.

    The processes inherit the mask of signals, so that they do not end with this one,
    which then gives them up itself.
    """
    signals_received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals_received.append(number)

    handlers = {number: signal.signal(number, note) for number in _END_SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if signals_received:
            signal.raise_signal(signals_received[0])


def run(
    function: Function, items: Sequence[Any], workers: int
) -> Generator[tuple[Any, Any], None, None]:
    """Pairs of an item and the function's result, as they are finished.

    Where one fails, the others are given up, and their half written files removed.

    Args:
      function: pickled, where there are several workers.
      items: see `Function`.
      workers: number of processes; with 1, this process does it all.

    Raises:
      UserError: of the first item that failed.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        for item in items:
            yield item, function(item, bool)
        return
    # They are forked from a server that has loaded all modules, and has no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tensorflow_datasets"])
    stop = context.Event()
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, _begin, (function, stop)
    ) as pool:
        try:
            with signals_deferred():
                futures = {pool.submit(_one, item): item for item in items}
            for future in concurrent.futures.as_completed(futures):
                result, error_name, message = future.result()
                if error_name:
                    raise _ERRORS[error_name](message)
                yield futures[future], result
        except BrokenProcessPool:
            raise Stopped(
                "a process that prepares images ended unexpectedly, perhaps for want "
                "of memory: the same command goes on, and fewer --workers need less"
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


# Errors by name, as an exception would lose its type on the way from another process.
_ERRORS: dict[str, type[UserError]] = {
    "Unreadable": Unreadable,
    "Stopped": Stopped,
    "UserError": UserError,
}
_function: Function
_stopped: Callable[[], bool]
_busy = _terminated = False


def _begin(function: Function, stop: Any) -> None:
    """Called first in a new process."""
    global _function, _stopped
    _function, _stopped = function, lambda: _terminated or stop.is_set()
    signals.serve_parent()
    signal.signal(signal.SIGTERM, _terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)


def _terminate(number: int, frame: FrameType | None) -> None:
    """At SIGTERM, which may be sent to all processes: ends this one after its item.

    The item is given up, and what is half written removed.
    """
    global _terminated
    _terminated = True
    if not _busy:
        os._exit(1)


def _one(item: Any) -> tuple[Any, str, str]:
    """The function's result for an item, in a process of its own; see `_result`."""
    global _busy
    _busy = True
    try:
        return _result(item)
    finally:
        _busy = False
        if _terminated:
            os._exit(1)


def _result(item: Any) -> tuple[Any, str, str]:
    """The function's result, or the name of its error and the message."""
    try:
        return _function(item, _stopped), "", ""
    except GivenUp:
        return None, "Stopped", "given up"
    except Unreadable as error:
        return None, "Unreadable", str(error)
    except Stopped as error:
        return None, "Stopped", str(error)
    except (UserError, OSError) as error:
        return None, "UserError", str(error)
