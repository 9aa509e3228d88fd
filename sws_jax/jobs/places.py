"""Where the files are that a run starts from, and their digests."""

from __future__ import annotations

import functools
import hashlib
import os

from sws_jax.errors import UserError
from sws_jax.methods.objectives import Loss
from sws_jax.storage import paths, runs
from sws_jax.storage.names import LEARNGENE

RUN = "run:"


def resolve(path: str, workdir: str) -> str:
    """``run:NAME`` as the directory of that run; any other path as it is."""
    if path.startswith(RUN):
        return os.path.join(workdir, path.removeprefix(RUN))
    return path


def inputs(config, workdir: str) -> dict[str, str]:
    """A digest of every weights file that a run starts from, by field."""
    files = {
        "init.learngene": learngene_file(config, workdir),
        "init.network": _weights_if_any(config.init.network, workdir),
        "teacher.path": _weights_if_any(teacher_path(config), workdir),
    }
    return {
        field: _digest(path, paths.version(path))
        for field, path in files.items()
        if path and paths.is_file(path)
    }


@functools.lru_cache(maxsize=64)
def _digest(path: str, version: tuple[int, ...]) -> str:
    """Of a file's bytes, which are read once for all the runs that start from it."""
    with open(paths.here(path), "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _weights_if_any(path: str, workdir: str) -> str:
    """The weights file of a path; empty where it is gone, as a finished run allows."""
    try:
        return runs.weights_file(resolve(path, workdir)) if path else ""
    except UserError:
        return ""


def learngene_file(config, workdir: str) -> str:
    """The learngene of `init`, which may name a run's directory."""
    path = resolve(config.init.learngene, workdir)
    return os.path.join(path, LEARNGENE) if paths.is_dir(path) else path


def network_file(config, workdir: str) -> str:
    """The network of `init`, which may name a run's directory."""
    path = resolve(config.init.network, workdir)
    return runs.weights_file(path) if path else path


def initial_file(config, workdir: str) -> str:
    """The weights file that a run starts from; empty where it starts from a seed."""
    if config.init.learngene:
        return learngene_file(config, workdir)
    return network_file(config, workdir)


def initial_file_is_outside(config) -> bool:
    """Whether a run starts from a file that is no earlier run's of its job."""
    path = config.init.learngene or config.init.network
    return bool(path) and not path.startswith(RUN)


def teacher_path(config) -> str:
    """The path of a run's teacher, as the config has it; empty without distillation."""
    return config.teacher.path if Loss(**config.loss).needs_teacher else ""
