"""Reads the JSON documents of a run's directory, and checks what they hold."""

from __future__ import annotations

import os
from typing import Any

from sws_jax.data import fingerprint
from sws_jax.jobs import differences
from sws_jax.storage import documents, paths
from sws_jax.storage.names import INPUTS

# Keys of INPUTS: the fingerprint of the data, and how the run began.
DATA, BEGUN = "data", "begun"
# Each document's keys and types, as far as it is read; see `documents.misfit`.
_SCORE = {"epochs": float, "top1": float, "top5": float, "loss": float, "count": float}
_RESULT_HOLDS = {
    **dict.fromkeys(("name", "network", "method", "profile", "dataset"), str),
    **dict.fromkeys(("depth", "seed", "params", "stored_params"), int),
    **dict.fromkeys(("epochs", "layer_epochs", "val_top1", "seconds"), float),
    "hardware": str,
    "versions": {"jax?": str},
    "plan": [(int, list)],  # genes, or segments
    "test": [_SCORE, ...],
    "role?": str,
    "stages?": [int],
    "dtypes?": [{"dtype": str, "from_step": int}],
    "unreadable?": int,
    "unreadable_from?": (int, type(None)),
    # What older software did not keep.
    **dict.fromkeys(("flops?", "flops_net?"), (int, type(None))),
    **dict.fromkeys(("config_hash?", "version?"), str),
}
_BEGUN_HOLDS = {
    "older": bool,
    "later": [frozenset(differences.LATER)],
    **dict.fromkeys(differences.CHANGEABLE, str),
}
_INPUTS_HOLDS = {f"{DATA}?": fingerprint.HOLDS, f"{BEGUN}?": _BEGUN_HOLDS}


def read_result(path: str) -> dict[str, Any]:
    """The result of a finished run, with all that a report takes from it.

    Args:
      path: of a ``result.json`` that is there.

    Raises:
      UserError: something is missing in it, or of another type.
    """
    return documents.read_json(path, holds=_RESULT_HOLDS)


def read_inputs(directory: str) -> dict[str, Any]:
    """What a run or a job started from; empty where it was not written."""
    path = os.path.join(directory, INPUTS)
    return documents.read_json(path, holds=_INPUTS_HOLDS) if paths.exists(path) else {}


def read_config(path: str) -> dict[str, Any]:
    """A written config. Its groups are checked to be groups; fields are compared."""
    groups = [k for k, v in differences.defaults().items() if isinstance(v, dict)]
    return documents.read_json(path, holds={f"{name}?": {} for name in groups})
