"""Being asked to end: by a launcher (SIGTERM), or by a person (Ctrl-C, SIGINT)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from sws_jax.runtime.entry import EXIT_INTERRUPTED

EXIT_AGAIN = 75
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Asked:
    """The signals to end that this process has got; true once there is one.

    Until `note`, a signal ends the process at once: there is nothing to save. After
    it, a signal is only noted, but a second Ctrl-C ends the process as usual.
    It listens within its ``with`` block.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._noting = False

    def __enter__(self) -> Asked:
        self._before = {n: signal.signal(n, self._handle) for n in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def note(self) -> None:
        """From now on signals are noted."""
        self._noting = True

    def __bool__(self) -> bool:
        return bool(self._numbers)

    @property
    def first(self) -> int | None:
        """The signal that came first; None as long as there is none."""
        return self._numbers[0] if self._numbers else None

    @property
    def exit_code(self) -> int:
        """The exit code of a process that saved and stopped, by its first signal."""
        by_hand = self._numbers[:1] == [signal.SIGINT]
        return EXIT_INTERRUPTED if by_hand else EXIT_AGAIN

    def _handle(self, number: int, frame: object) -> None:
        self._numbers.append(number)
        if not self._noting:
            os.write(2, b"sws_jax: stopped before it began\n")
            os._exit(self.exit_code)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.write(2, b"\nsws_jax: saves and stops (Ctrl-C again: at once)\n")


def serve_parent() -> None:
    """Ends a worker together with the process that it works for."""
    # Ctrl-C reaches it too, and is for that process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # it may be killed, without time to end its workers
        os._exit(1)
