"""The real command in a process of its own: a run on digits that takes seconds."""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np

import sws_jax
from sws_jax import xla_flags
from sws_jax.data import load_dataset
from sws_jax.methods import learngenes
from sws_jax.storage import documents, paths
from sws_jax.storage.names import CHECKPOINTS, LEARNGENE_FILE, LOCK, RESULT, WEIGHTS
from sws_jax.training import checksums, metrics

from support import compiler

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = 1257  # digits to train on
BATCH = 64
MAIN = (sys.executable, "-m", "sws_jax.main")

CONFIG = """
from sws_jax.jobs import recipes


def get_config(arg=None):
    print("config read", flush=True)
    config = recipes.job("single", name="run")
    recipes.small(config)
    config.model.update(depth=2, width=16, heads=2)
    epoch = 64 / 1257  # one step
    config.schedule.update(total_epochs=10 * epoch, warmup_epochs=0.0, rate=1e-3)
    config.checkpoint.every_epochs = 2 * epoch
    config.evaluation.update(batch_size=128, every_epochs=2 * epoch)
    config.ema = 0.9
    config.log_steps = 3
    return config
"""


def steps(number):
    """So many steps, as the epochs that a config takes."""
    return number * BATCH / IMAGES


def environment(cache=None, devices=1):
    """So many devices, compiled quickly, and with a cache no program twice."""
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": xla_flags.merged(compiler.flags(devices)),
        **(compiled if cache else {}),
    }


def arrays():
    """Digits as arrays of one's own, as `sws_jax.data.npz` reads them."""
    data = load_dataset("digits")
    everything = data.train.split.split
    return dict(
        train_images=everything.images[data.train.split.indices],
        train_labels=everything.labels[data.train.split.indices],
        test_images=everything.images[data.test.indices],
        test_labels=everything.labels[data.test.indices],
        class_names=np.asarray(data.class_names),
    )


@dataclasses.dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def __post_init__(self):
        assert "Traceback" not in self.err, self.err

    def refusal(self):
        """The one sentence with which a command ended."""
        lines = [line for line in self.err.splitlines() if line.startswith("sws_jax: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclasses.dataclass(frozen=True)
class Job:
    """Commands on one config; `folder` holds it, its data and what was compiled."""

    folder: pathlib.Path

    @classmethod
    def make(cls, folder):
        (folder / "config.py").write_text(CONFIG)
        job = cls(folder)
        np.savez(job.data, **arrays())
        return job

    @property
    def data(self):
        return self.folder / "digits.npz"

    def command(self, workdir, *overrides):
        return [
            *MAIN,
            f"--config={self.folder / 'config.py'}",
            f"--workdir={workdir}",
            f"--config.data.source={self.data}",
            *(f"--config.{override}" for override in overrides),
        ]

    def start(self, workdir, *overrides, before=(), **kwargs):
        """The command, begun; `before` are words in front of it."""
        return self.launch([*before, *self.command(workdir, *overrides)], **kwargs)

    def launch(self, command, **kwargs):
        return subprocess.Popen(
            command,
            env=environment(self.folder / "compiled"),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **kwargs,
        )

    def run(self, workdir, *overrides, **kwargs):
        return ended(self.start(workdir, *overrides, **kwargs))


def ended(process, seconds=120):
    """How a process ends; one that hangs is killed, and fails the test."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Done(process.returncode, out, err)


def until(process, *words):
    """Reads what a process prints until a line holds one of the words."""
    with watched(process):
        for line in process.stdout:
            if any(word in line for word in words):
                return line
    raise AssertionError(f"it ended without {words}: {process.communicate()[1]}")


@contextlib.contextmanager
def watched(process, seconds=120):
    """Kills a process that takes longer than the block may."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def complete(workdir, name="run"):
    """Steps of the checkpoints that are whole, by their names alone."""
    folder = pathlib.Path(workdir) / name / CHECKPOINTS
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in inside if path.name.isdigit())


def unfinished(workdir):
    """What should not be left behind: half a checkpoint, half a file, a lock."""
    names = [path.name for path in pathlib.Path(workdir).rglob("*")]
    return [n for n in names if "tmp" in n or n.startswith(".") or n == LOCK]


# Columns of the log that no two runs have alike.
_TIMED = ("images_per_second", "input_wait")


def outcome(workdir, name="run"):
    """What two runs must have alike, bit for bit."""
    directory = os.path.join(workdir, name)
    result = documents.read_json(os.path.join(directory, RESULT))
    gene = os.path.join(directory, LEARNGENE_FILE)
    if paths.exists(gene):
        params = learngenes.load_learngene(gene).params
    else:
        path = os.path.join(directory, WEIGHTS)
        params = sws_jax.load_network(path).params
    rows = metrics.read(directory)
    return {
        "weights": checksums.of(params),
        "test": result["test"],
        "val": result["val_top1"],
        "rows": [{k: v for k, v in r.items() if k not in _TIMED} for r in rows],
    }
