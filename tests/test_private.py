"""Private parts of JAX and orbax are where this project looks for them, and do what it
expects."""

import importlib
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import orbax.checkpoint as ocp
import pytest

from sws_jax import private

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import house  # noqa: E402

STARTED = """
import sys
from sws_jax import private
seen = [private.backends_are_initialized(), "jax" in sys.modules]
import jax
seen.append(private.backends_are_initialized())
jax.devices()
seen.append(private.backends_are_initialized())
print(*seen)
"""


def test_whether_jax_has_read_its_flags():
    done = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "False", "False", "True"], done.stderr


def test_no_cluster_has_started_this_process(monkeypatch):
    """What clusters say is in test_rendezvous."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    assert private.detected_cluster(1) == (None, None, None, None)


def test_what_ended_a_write_is_kept_though_others_wait(tmp_path, monkeypatch):
    class Manager(private.KeepsFailure, ocp.CheckpointManager):
        pass

    def fail(manager):
        raise OSError("full")

    monkeypatch.setattr(ocp.CheckpointManager, "_wait_for_checkpointers", fail)
    manager = Manager(str(tmp_path))
    assert manager.failure is None
    manager.save(1, args=ocp.args.StandardSave({"a": np.zeros(2)}))
    with pytest.raises(OSError, match="full"):
        manager.wait_until_finished()
    assert str(manager.failure) == "full"
    monkeypatch.undo()
    manager.close()


@pytest.mark.parametrize(
    "module, name",
    [
        ("orbax.checkpoint.checkpoint_manager", "_FinalizeThread"),
        ("orbax.checkpoint._src.futures.future", "_SignalingThread"),
    ],
)
def test_threads_that_write_are_known_and_waited_for(module, name, monkeypatch):
    kind = getattr(importlib.import_module(module), name)
    assert issubclass(kind, threading.Thread)
    writer = kind.__new__(kind)
    assert private.is_writer(writer)
    assert not private.is_writer(threading.current_thread())
    joined = []
    monkeypatch.setattr(
        threading, "enumerate", lambda: [threading.current_thread(), writer]
    )
    monkeypatch.setattr(
        threading.Thread, "join", lambda thread, seconds: joined.append(thread)
    )
    private.join_writers(1.0)
    assert joined == [writer]


def test_no_other_module_uses_private_parts_of_libraries():
    modules = house.read(ROOT).values()
    assert [m.name for m in modules if house.private_doors(m)] == ["private"]
