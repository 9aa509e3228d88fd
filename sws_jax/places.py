"""Where the files are that a run starts from, and by what they are known again."""

from __future__ import annotations

import hashlib
import os

from sws_jax import paths, teacher
from sws_jax.losses import Loss

LEARNGENE = "learngene.safetensors"
RUN = "run:"


def resolve(path: str, workdir: str) -> str:
    """``run:NAME`` as the directory of that run; any other path as it is."""
    if path.startswith(RUN):
        return os.path.join(workdir, path.removeprefix(RUN))
    return path


def inputs(config, workdir: str) -> dict[str, str]:
    """A digest of every weights file that a run starts from, by field."""
    named = {
        "init.learngene": learngene_file(config, workdir),
        "init.network": network_file(config, workdir),
        "teacher.path": "",
    }
    if config.teacher.path and Loss(**config.loss).needs_teacher:
        named["teacher.path"] = teacher.weights_file(
            resolve(config.teacher.path, workdir)
        )
    found = {}
    for field, path in named.items():
        if path and paths.is_file(path):
            with open(paths.here(path), "rb") as file:
                found[field] = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    return found


def learngene_file(config, workdir: str) -> str:
    path = resolve(config.init.learngene, workdir)
    return os.path.join(path, LEARNGENE) if paths.is_dir(path) else path


def initial_file(config, workdir: str) -> str:
    """The weights file that a run starts from; empty where it starts from a seed."""
    named = config.init.learngene
    return learngene_file(config, workdir) if named else network_file(config, workdir)


def network_file(config, workdir: str) -> str:
    path = resolve(config.init.network, workdir)
    return teacher.weights_file(path) if path else path
