"""What this host lends to a process."""

from __future__ import annotations

import os

_CGROUPS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def memory() -> int:
    """Bytes: of the host, or as many as its container may take."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUPS:
        try:
            with open(path) as file:
                found = min(found, int(file.read()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return found
