"""Cores and memory, by files such as Linux shows to a container."""

import os

import pytest

from sws_jax.runtime import host

WHOLE = 8 * 2**30


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Makes a host of 8 cores and 8 GiB that shows these files and no others."""
    monkeypatch.setattr(host, "_GROUPS", str(tmp_path / "fs"))
    monkeypatch.setattr(host, "_OWN", str(tmp_path / "own"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": WHOLE // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)

    def show(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return show


# Version 1 has a tree for each controller, and says 2^63 less a page for no limit.
NONE_1 = 2**63 - 4096
V1 = "4:memory:/pod/mine\n3:cpu,cpuacct:/pod/mine\n2:cpuset:/\n0::/\n"


FREE = "MemTotal: 9 kB\nMemAvailable:   4 kB\n"


@pytest.mark.parametrize(
    "meminfo, own, files, bytes_",
    [
        (FREE, "0::/\n", {}, 4096),
        ("", "0::/\n", {}, WHOLE),  # a system that does not say
        ("", "0::/\n", {"memory.max": 3000}, 3000),
        (FREE, "0::/\n", {"memory.max": "max", "memory.current": 9}, 4096),
        (FREE, "0::/a\n", {"a/memory.max": 3000, "a/memory.current": 1000}, 2000),
        (FREE, "0::/\n", {"memory.max": 3000, "memory.current": 9000}, 0),
        (
            FREE,
            "0::/\n",
            {
                "memory.max": 3000,
                "memory.current": 2500,
                "memory.stat": "anon 9\ninactive_file 700\nactive_file 50",
            },
            1200,
        ),
        (
            FREE,
            "4:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": 3000,
                "memory/a/memory.usage_in_bytes": 2900,
                "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 200",
            },
            300,
        ),
    ],
)
def test_memory_that_is_free(meminfo, own, files, bytes_, shown, tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text(meminfo)
    monkeypatch.setattr(host, "_MEMORY", str(tmp_path / "meminfo"))
    shown(own, **files)
    assert host.available() == bytes_


@pytest.mark.parametrize(
    "own, files, bytes_",
    [
        ("0::/\n", {}, WHOLE),
        ("0::/\n", {"memory.max": "max"}, WHOLE),
        ("0::/\n", {"memory.max": 3000}, 3000),
        ("0::/\n", {"memory.max": 2**40}, WHOLE),
        ("0::/\n", {"memory.max": "", "memory.limit_in_bytes": "?"}, WHOLE),
        # Its own group, and those around it: the smallest counts.
        ("0::/a/b\n", {"a/b/memory.max": 3000, "a/memory.max": 2000}, 2000),
        ("0::/a/b\n", {"a/b/memory.max": 1000, "a/memory.max": "max"}, 1000),
        ("0::/a/b\n", {"c/memory.max": 1000, "memory.max": 4000}, 4000),
        # A place outside of what the container sees, and none at all.
        ("0::/../x\n", {"memory.max": 5000}, 5000),
        ("", {"memory.max": 5000}, 5000),
        ("nonsense\n", {"memory/memory.limit_in_bytes": 6000}, 6000),
        (V1, {"memory/pod/mine/memory.limit_in_bytes": NONE_1}, WHOLE),
        (V1, {"memory/pod/memory.limit_in_bytes": 7000}, 7000),
        (V1, {"cpu/pod/memory.limit_in_bytes": 7000}, WHOLE),
    ],
)
def test_memory(own, files, bytes_, shown):
    shown(own, **files)
    assert host.memory() == bytes_


@pytest.mark.parametrize(
    "own, files, cores",
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "90000 30000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, 8),
        (V1, {"cpu/cpu.cfs_quota_us": 250000, "cpu/cpu.cfs_period_us": 100000}, 3),
        (V1, {"cpu/pod/cpu.cfs_quota_us": 100000}, 8),
    ],
)
def test_cores(own, files, cores, shown):
    shown(own, **files)
    assert host.cores() == cores


def test_tables_name_the_cores_that_computed(monkeypatch):
    monkeypatch.setattr(host, "cores", lambda: 3)
    assert host.hardware().startswith("3 CPU cores (")


def test_where_the_system_says_little(shown, monkeypatch):
    """macOS knows no affinity, and Windows no memory."""
    shown("0::/\n")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert host.cores() == 64
    monkeypatch.delattr(os, "sysconf")
    assert host.memory() is None
