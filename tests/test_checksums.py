"""The same digits, whoever adds them up; what was saved with them must be checked."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sws_jax import sharding, xla_flags
from sws_jax.training import checksums

from support.children import ROOT
from support.jobs import free_port

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def noise(shape, dtype="float32"):
    """Any bits, those of NaN and of denormal numbers too."""
    dtype = jax.numpy.dtype(dtype)
    raw = np.random.default_rng(0).bytes(int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


@pytest.fixture
def by_devices(monkeypatch):
    """Has devices sum all that they can, and counts their programs."""
    started, start = [], checksums._start
    monkeypatch.setattr(checksums, "_DEVICES_FROM", 0)
    monkeypatch.setattr(checksums, "_LEAST_ADDED", 1)
    monkeypatch.setattr(
        checksums, "_start", lambda *args: started.append(args) or start(*args)
    )
    return started


def test_the_digits_are_those_of_every_version():
    """In checkpoints on disk; and the same numbers elsewhere have others."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tree = {
        "a": values,
        "b": values[::-1].copy(),
        "c": values.astype(np.float64),
        "d": {"bool": np.array([True, False]), "scalar": np.int32(-7)},
        "empty": np.zeros((0, 3), np.float32),
    }
    assert checksums.of(tree) == {
        "a": "float32[2,3] 5c0ebfb50fa00000",
        "b": "float32[2,3] 20738b1325a00000",
        "c": "float64[2,3] 89f4000000000000",
        "d/bool": "bool[2] ab169eb805b8c71d",
        "d/scalar": "int32[] 581a7014d7f28e35",
        "empty": "float32[0,3] 0000000000000000",
    }


@pytest.mark.parametrize("dtype", checksums._DTYPES_OF_DEVICES)
def test_devices_find_what_numpy_finds(dtype, by_devices):
    array = noise((3, 5, 7, 11), dtype)
    assert checksums.of({"a": jax.device_put(array)}) == checksums.of({"a": array})
    assert len(by_devices) == 1


@pytest.mark.parametrize(
    "shape, places",
    [
        ((), ()),
        ((70_001, 3), ()),  # more rows than are added up at once
        ((16, 6, 10), ("data",)),
        ((6, 10, 16), (None, None, ("tensor", "data", "fsdp"))),
        ((4, 40_000), ("tensor", ("fsdp", "data"))),
        ((2, 3, 8, 1, 4), ("fsdp", None, ("tensor", "data"))),
    ],
)
def test_parts_of_an_array_make_up_the_whole(shape, places, by_devices):
    array, mesh = noise(shape), sharding.make_mesh(sizes=MESH)
    parts = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*places)))
    assert checksums.of({"a": parts}) == checksums.of({"a": array})
    assert len(by_devices) == 1


@pytest.mark.parametrize("places", [(), ("data",), (None, ("tensor", "fsdp"))])
def test_copies_count_once(places):
    """Of a small array, which numpy sums: one copy of each part that devices hold."""
    array, mesh = noise((4, 8)), sharding.make_mesh(sizes=MESH)
    parts = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*places)))
    assert len(parts.addressable_shards) == 8
    assert checksums.of({"a": parts}) == checksums.of({"a": array})


@pytest.mark.parametrize(
    "array",
    [
        noise((70_000,)),  # nothing could be added up on the way
        noise((2, 70_000)),
        np.ones((16, 16), bool),
        np.ones((16, 16), np.int8),
    ],
)
def test_what_devices_do_not_sum_numpy_does(array, monkeypatch):
    monkeypatch.setattr(checksums, "_DEVICES_FROM", 0)
    monkeypatch.setattr(checksums, "_start", None)
    assert checksums.of({"a": jax.device_put(array)}) == checksums.of({"a": array})


def test_a_large_array_does_not_hold_up_the_thread_that_asks(monkeypatch):
    """And for a small one nothing is compiled, which would take longer."""
    monkeypatch.setattr(checksums, "_sum", None)
    checksums.of({"a": jax.numpy.ones((512, 513))})  # 1 MiB
    monkeypatch.undo()
    monkeypatch.setattr(checksums, "_start", None)
    checksums.of({"a": jax.numpy.ones((511, 512))})


PART = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from sws_jax import sharding; from sws_jax.training import checksums

index, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"localhost:{port}", 2, index)
mesh = sharding.make_mesh(sizes={"data": 2, "fsdp": 2})
values = np.random.default_rng(0).normal(size=(64, 5000)).astype(np.float32)
small = values[:4, :7]
places = {"a": (), "b": ("fsdp",), "c": (("fsdp", "data"),), "d": ("data",)}
host = {"whole": small}
host |= {n: small if n == "d" else values for n in places}

def part(name):
    place = NamedSharding(mesh, PartitionSpec(*places[name]))
    array = host[name]
    return jax.make_array_from_callback(array.shape, place, lambda i: array[i])

tree = {"whole": small} | {name: part(name) for name in places}
assert [checksums._is_for_devices(tree[name]) for name in "abcd"] == [1, 1, 1, 0]
assert not any(tree[name].is_fully_addressable for name in "abcd")
assert checksums.of(tree) == checksums.of(host)
"""


@pytest.mark.slow
def test_no_process_holds_all_of_it():
    """By devices and by numpy, and beside what every process holds whole."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": xla_flags.merged("--xla_force_host_platform_device_count=2"),
    }
    port = str(free_port())
    parts = [
        subprocess.Popen(
            [sys.executable, "-c", PART, str(index), port],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for part in parts:
        _, error = part.communicate(timeout=120)
        assert part.returncode == 0, error
