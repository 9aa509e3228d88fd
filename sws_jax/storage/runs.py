"""Finds the weights that a path stands for: a file, a run, or a job of one run."""

from __future__ import annotations

import os

from sws_jax import arguments
from sws_jax.errors import UserError
from sws_jax.storage import paths
from sws_jax.storage.names import CHECKPOINTS, INPUTS, METRICS, RESULT, WEIGHTS

# What runs have in their directories, and folders of other programs do not.
_OF_RUNS = (WEIGHTS, CHECKPOINTS, INPUTS, METRICS, RESULT)


@arguments.checked(path=arguments.path)
def weights_file(path: str) -> str:
    """The weights that a path stands for: a file, a run, or a job of one run.

    Raises:
      UserError: a directory without them, or with those of several runs.
    """
    if not paths.is_dir(path):
        return path
    candidates = [os.path.join(path, WEIGHTS)]
    if not paths.is_file(candidates[0]):
        runs = [name for name in paths.folders(path) if not name.startswith(".")]
        inside = [os.path.join(path, name, WEIGHTS) for name in runs]
        candidates = [file for file in inside if paths.exists(file)]
    if len(candidates) != 1:
        raise UserError(
            f"the directory {path} holds no {WEIGHTS}"
            + (
                f" of its own and {len(candidates)} runs that do: name one"
                if candidates
                else f": {_why_none(path)}"
            )
        )
    return candidates[0]


@arguments.checked(path=arguments.path)
def is_run(path: str) -> bool:
    """Whether a directory is a run's or a job's, finished or not."""
    below = (os.path.join(path, name) for name in paths.folders(path))
    files = [os.path.join(at, name) for at in (path, *below) for name in _OF_RUNS]
    return any(map(paths.exists, files))


def _why_none(path: str) -> str:
    """Why a directory holds no weights."""
    if is_run(path):
        return "the run has not finished, or is an Aux-Net's"
    if not paths.names(path):
        return "nothing is in it"
    return (
        f"it is no run's, and weights of other programs are converted first (python -m "
        f"sws_jax convert {path} OUT.safetensors)"
    )
