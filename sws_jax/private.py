"""Private parts of JAX and orbax that the project uses, and why none public would do.

They stand here alone, so that a new version of either is checked in one place. Nothing
is imported before it is needed: the first module of a program may import this one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any


def backends_are_initialized() -> bool:
    """Whether JAX has read XLA_FLAGS; it is not imported for the question.

    JAX has no public form of it: `jax.devices` and its like start the backends.
    """
    bridge = sys.modules.get("jax._src.xla_bridge")
    is_initialized = getattr(bridge, "backends_are_initialized", None)
    return bool(is_initialized and is_initialized())


def detected_cluster(
    timeout: int,
) -> tuple[str | None, int | None, int | None, Sequence[int] | None]:
    """What the cluster that started this process says of it.

    `jax.distributed.initialize`, the public form, connects at once: it would wait for
    ever on a host that is alone, and abort without naming the process that is missing.

    Args:
      timeout: seconds to wait for the cluster's answer.

    Returns:
      The coordinator as HOST:PORT, the number of processes, this one's number, and the
      devices on this host that are its own; each None where no cluster says it.

    Raises:
      RuntimeError, ValueError, OSError, LookupError, TypeError: what a cluster says of
        itself cannot be read.
    """
    from jax._src import clusters

    return clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, timeout
    )


class KeepsFailure:
    """Mixed into `orbax.checkpoint.CheckpointManager`: what ended a write here.

    Its public `wait_until_finished` raises that only when it has waited for the other
    processes, which wait for the write.

    Attributes:
      failure: of this process; None as long as there is none.
    """

    failure: Exception | None = None

    def _wait_for_checkpointers(self) -> None:
        try:
            super()._wait_for_checkpointers()  # type: ignore[misc]
        except Exception as error:
            self.failure = error
            raise


def join_writers(seconds: float) -> None:
    """Waits for each of orbax's threads: one has failed, and others still write.

    Orbax hands none of them out, and its own waiting ends with the first error; so does
    the `join` of its threads, which raises what ended them.
    """
    for thread in threading.enumerate():
        if is_writer(thread):
            threading.Thread.join(thread, seconds)


def is_writer(thread: Any) -> bool:
    return type(thread).__module__.startswith("orbax.")
