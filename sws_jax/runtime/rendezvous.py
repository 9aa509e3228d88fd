"""How the processes of a job find each other: by flags, or as their cluster says."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import socket
import time
from collections.abc import Sequence
from typing import NoReturn

from sws_jax import private
from sws_jax.errors import Stopped, UserError
from sws_jax.runtime import words

# For so long a process that ends waits for the others to end too.
_SHUTDOWN_SECONDS = 15
_SLICE_SECONDS = 1.0
_LINGER_SECONDS = 5.0
_LINE = 4096  # bytes of what a process sends of itself, at most


class NotComplete(Stopped):
    """Not all processes of a job are there, or they do not belong together."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A process among those of a job.

    Attributes:
      coordinator: HOST:PORT of process 0, where all meet.
      count: of processes.
      index: of this one.
      devices: on this host that are this process's; None takes all.
    """

    coordinator: str
    count: int
    index: int
    devices: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Start:
    """How a job's processes find each other; the defaults ask the cluster.

    Attributes:
      coordinator, num_processes, process_id: as in `Place`; all of them, or none.
      start_timeout: seconds that all have to come.
      lost_after: seconds without a sign of life after which a process counts as dead
        and all others end.
    """

    coordinator: str = ""
    num_processes: int = 0
    process_id: int = -1
    start_timeout: int = 300
    lost_after: int = 100

    def __post_init__(self):
        flags = (bool(self.coordinator), self.num_processes != 0, self.process_id != -1)
        if any(flags) and not all(flags):
            raise UserError(
                "a process among several is given --coordinator=HOST:PORT, "
                "--num_processes and --process_id, all three or none"
            )
        if all(flags):
            host, _, port = self.coordinator.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 2**16:
                raise UserError(
                    f"--coordinator is HOST:PORT of process 0, not {self.coordinator!r}"
                )
            if not 0 <= self.process_id < self.num_processes:
                raise UserError(
                    f"--process_id counts from 0 to --num_processes - 1, and is "
                    f"{self.process_id} of {self.num_processes}"
                )
        for name in ("start_timeout", "lost_after"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is at least 1 second")


def parse(argv: Sequence[str]) -> tuple[Start, list[str]]:
    """The flags about processes, and all other arguments.

    Raises:
      UserError: a flag that is incomplete or no number.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for field in dataclasses.fields(Start):
        flag_type = type(field.default)
        parser.add_argument(f"--{field.name}", type=flag_type, default=field.default)
    flags, others = parser.parse_known_args(list(argv))
    return Start(**vars(flags)), others


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        match = re.fullmatch(r"argument (\S+): invalid int value: (.*)", message)
        raise UserError(
            f"{match[1]} takes a whole number, and not {match[2]}" if match else message
        )


def start(flags: Start, job: str) -> None:
    """Joins the other processes, if there are any; before JAX looks for devices.

    Args:
      flags: that tell how the processes find each other.
      job: what this process is about to do; the same in all.

    Raises:
      NotComplete: processes are missing after `flags.start_timeout`, by number, or have
        another job.
    """
    place = placed(flags)
    if place is None:
        return
    meet(place, job, flags.start_timeout)
    import jax

    jax.distributed.initialize(
        place.coordinator,
        place.count,
        place.index,
        place.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=flags.start_timeout,
        heartbeat_timeout_seconds=flags.lost_after,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )


def placed(flags: Start) -> Place | None:
    """This process's place among others; None where it is alone.

    Raises:
      NotComplete: the cluster that started it does not say.
    """
    if flags.coordinator:
        place: Place | None = Place(
            flags.coordinator, flags.num_processes, flags.process_id
        )
    else:
        place = detected(flags.start_timeout)
    return place if place and place.count > 1 else None


def detected(timeout: int) -> Place | None:
    """This process's place in the cluster that started it, as JAX finds it.

    Args:
      timeout: seconds for the question.

    Raises:
      NotComplete: there is a cluster, and it does not say where its processes are.
    """
    try:
        coordinator, count, index, devices = private.detected_cluster(timeout)
    except (RuntimeError, ValueError, OSError, LookupError, TypeError) as error:
        raise NotComplete(
            f"this cluster does not say where its processes are ({error}): give "
            f"--coordinator, --num_processes and --process_id"
        ) from None
    if coordinator is None or count is None or index is None:
        return None
    return Place(coordinator, count, index, tuple(devices) if devices else None)


def meet(place: Place, job: str, timeout: int) -> None:
    """Waits until all processes are there, with the same job.

    JAX's own start would wait too, and then abort without saying for whom.
    """
    if place.index == 0:
        _receive(place, job, time.monotonic() + timeout)
    else:
        _report(place, job, time.monotonic() + timeout)


def _receive(place: Place, job: str, deadline: float) -> None:
    """Process 0: the others call one by one, and all are answered at once."""
    port = int(place.coordinator.rpartition(":")[2])
    callers: dict[int, socket.socket] = {}
    refused: list[socket.socket] = []
    refusal = ""
    with contextlib.ExitStack() as opened:
        try:
            server = opened.enter_context(_server(port))
        except OSError as error:
            raise NotComplete(
                f"process 0 cannot listen at port {port} ({error.strerror}): give "
                f"another --coordinator"
            ) from None
        server.settimeout(_SLICE_SECONDS)
        while time.monotonic() < deadline:
            if len(callers) + len(refused) >= place.count - 1:
                break
            # Callers that send anything else, such as port scanners, are ignored.
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                caller = opened.enter_context(server.accept()[0])
                caller.settimeout(5.0)
                message = json.loads(_line(caller))
                index, count = int(message["index"]), int(message["count"])
                # A process that was started again calls again.
                is_duplicate = index in callers and _is_open(callers[index])
                same_job = message["job"] == job
                contradiction = _contradiction(
                    place, index, count, same_job, is_duplicate
                )
                if contradiction and not refusal:
                    # Processes that call a little later are answered too.
                    refusal = contradiction
                    deadline = min(deadline, time.monotonic() + _LINGER_SECONDS)
                if contradiction:
                    refused.append(caller)
                else:
                    callers[index] = caller
            callers = {n: c for n, c in callers.items() if _is_open(c)}
        missing = sorted(set(range(1, place.count)) - set(callers))
        if missing and not refusal:
            refusal = (
                f"{numbers(missing)} of {place.count} did not come to "
                f"{place.coordinator} in time (--start_timeout)"
            )
        for caller in (*callers.values(), *refused):
            with contextlib.suppress(OSError):
                caller.sendall(json.dumps({"wrong": refusal}).encode() + b"\n")
                caller.recv(1)  # they close first, so that the port is free again
    if refusal:
        raise NotComplete(refusal)


def _is_open(caller: socket.socket) -> bool:
    """Whether the process that called still waits for its answer."""
    caller.setblocking(False)
    try:
        return caller.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        caller.settimeout(5.0)


def _contradiction(
    place: Place, index: int, count: int, same_job: bool, is_duplicate: bool
) -> str:
    """Why a process that called is not one of this job; empty if it is."""
    if count != place.count:
        return f"process {index} expects {count} processes, and process 0 {place.count}"
    if is_duplicate or not 0 < index < count:
        return f"two processes say that they are process {index} of {count}"
    if not same_job:
        return (
            f"process {index} was started with another config or other versions than "
            f"process 0: start all with the same command"
        )
    return ""


def _report(place: Place, job: str, deadline: float) -> None:
    """Every other process: sends its number and job, and waits for the answer."""
    host, _, port = place.coordinator.rpartition(":")
    address = host.strip("[]"), int(port)
    while True:
        try:
            with socket.create_connection(address, timeout=5.0) as call:
                message = {"index": place.index, "count": place.count, "job": job}
                call.sendall(json.dumps(message).encode() + b"\n")
                # Process 0 may wait as long as this one before it answers.
                call.settimeout(max(deadline - time.monotonic(), 0.0) + 10.0)
                refusal = json.loads(_line(call))["wrong"]
                break
        except (OSError, ValueError, TypeError, KeyError) as error:
            if time.monotonic() > deadline:
                raise NotComplete(
                    f"process {place.index} of {place.count} cannot reach process 0 at "
                    f"{place.coordinator} ({error}) in time (--start_timeout)"
                ) from None
            time.sleep(0.2)
    if refusal:
        raise NotComplete(refusal)


def _server(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
    return socket.create_server(("", port), backlog=1024)


def _line(stream: socket.socket) -> bytes:
    with stream.makefile("rb") as file:
        return file.readline(_LINE)


def numbers(processes: Sequence[int]) -> str:
    """``process 3``, ``processes 1, 2 and 3``, and at most eight of them."""
    names = [str(n) for n in processes]
    if len(names) == 1:
        return f"process {names[0]}"
    if len(names) > 8:
        names = [*names[:7], f"{len(names) - 7} more"]
    return f"processes {words.joined(names)}"
