"""What this host lends to a process: cores, memory and accelerators.

A container, a job of Slurm or a service of systemd may have less than its host, by the
limits of its control group and of those around it: the smallest counts. Linux shows
them as files, in the tree of version 2 or in the trees of version 1.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterator

_GROUPS = "/sys/fs/cgroup"  # where the trees are mounted
_OWN = "/proc/self/cgroup"  # this process's place in each of them
_MEMORY = "/proc/meminfo"
_PLACE = re.compile(r"^\d+:([^:]*):(.*)$", re.MULTILINE)  # 4:cpu,cpuacct:/a, or 0::/a


def cores() -> int:
    """The number of cores that this process may use, by its affinity and its quota.

    A quota of one and a half cores counts as two, and of less than one as one.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(min([count, *map(math.ceil, _quotas())]), 1)


def memory() -> int | None:
    """Bytes of the host, or as many as its container may take.

    None on a system that does not say (Windows).
    """
    if not hasattr(os, "sysconf"):
        return None
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [
        limit
        for folder in _folders("memory")
        for name in ("memory.max", "memory.limit_in_bytes")  # versions 2 and 1
        for limit in _numbers(folder, name)[:1]
    ]
    return int(min([whole, *limits]))


def available() -> int | None:
    """Bytes that are free for new processes; None on a system that does not say.

    Of a container's limit that which its processes have not taken; what they read from
    disks, and the system keeps as long as nobody needs it, counts as free.
    """
    match = re.search(r"^MemAvailable:\s*(\d+) kB", _text(_MEMORY), re.MULTILINE)
    if match is None:
        return memory()
    free = [int(match[1]) * 1024]
    for folder in _folders("memory"):
        limits = _numbers(folder, "memory.max") or _numbers(
            folder, "memory.limit_in_bytes"
        )
        used = _numbers(folder, "memory.current") or _numbers(
            folder, "memory.usage_in_bytes"
        )
        if limits and used:
            statistics = _text(os.path.join(folder, "memory.stat"))
            # Version 1 tells its own and, as the total, that of all groups inside.
            kept = re.findall(r"^(?:total_)?inactive_file (\d+)", statistics, re.M)
            free.append(int(limits[0] - used[0]) + max(map(int, kept), default=0))
    return max(min(free), 0)


def hardware() -> str:
    """What computes here, for tables of results."""
    import jax  # which those that ask for cores and memory alone need not load

    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"{cores()} CPU cores ({platform.machine()})"
    return f"{jax.device_count()} x {device.device_kind}"


def _quotas() -> Iterator[float]:
    """Quotas of time, in cores, of each control group that has one."""
    for folder in _folders("cpu"):
        pair = _numbers(folder, "cpu.max")  # version 2: "150000 100000"
        pair = pair or [
            number
            for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            for number in _numbers(folder, name)
        ]
        if len(pair) == 2 and min(pair) > 0:  # a quota of -1 is none
            yield pair[0] / pair[1]


def _folders(controller: str) -> Iterator[str]:
    """The folders of this process's control group for cpu or memory and of its parents,
    the innermost first."""
    # A container sees its own group as the top of each tree. Then its path does not
    # exist, and the tops are all there is.
    places = [("", ""), (controller, ""), *_PLACE.findall(_text(_OWN))]
    for controllers, place in places:
        if controllers and controller not in controllers.split(","):
            continue
        top = os.path.join(_GROUPS, controller) if controllers else _GROUPS
        place = os.path.normpath("/" + place).strip("/")
        while place:
            yield os.path.join(top, place)
            place = os.path.dirname(place)
        yield top


def _numbers(folder: str, name: str) -> list[float]:
    """The numbers in a file; none where it is not there, or says "max"."""
    try:
        return [float(word) for word in _text(os.path.join(folder, name)).split()]
    except ValueError:
        return []


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, ValueError):
        return ""
