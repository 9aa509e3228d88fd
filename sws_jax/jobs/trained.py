"""What the phases of a method have left: their networks, and parameters beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import ml_collections

from sws_jax import trees
from sws_jax.errors import UserError
from sws_jax.jobs import phases, places
from sws_jax.methods.base import ANCESTOR, Trained
from sws_jax.models import networks, weights
from sws_jax.models.networks import Network
from sws_jax.storage import paths, runs
from sws_jax.storage.names import OWN


def load(
    config: ml_collections.ConfigDict, workdir: str, names: Iterable[str]
) -> dict[str, Trained]:
    """The networks of earlier phases, by the names of these.

    Args:
      config: of the run that needs them.
      workdir: where their runs are.
      names: of the phases; `ANCESTOR` is the network that the config's teacher names.

    Returns:
      ``{name: Trained}``, of numpy arrays.

    Raises:
      UserError: a phase has left no network.
    """
    return {name: _load(path) for name, path in files(config, workdir, names).items()}


def files(
    config: ml_collections.ConfigDict, workdir: str, names: Iterable[str]
) -> dict[str, str]:
    """The weights files of earlier phases, by the names of these.

    Args:
      config, workdir, names: as in `load`.

    Raises:
      UserError: as `load`.
    """
    weights_files = {}
    for name in names:
        path = phases.path_of(config, name)
        if not path:
            raise UserError(
                f"{config.name} needs the {ANCESTOR}: give its weights file or run "
                f"directory as phase.ancestor"
            )
        weights_files[name] = runs.weights_file(places.resolve(path, workdir))
    return weights_files


def _load(path: str) -> Trained:
    """The network of a weights file, with what lies beside it."""
    return Trained(networks.load_network(path), _own(path))


def _own(path: str) -> trees.Tree:
    """The objective's own parameters beside a weights file; {} for none."""
    beside = os.path.join(os.path.dirname(path), OWN)
    return weights.load(beside)[0] if paths.is_file(beside) else {}


def save_own(directory: str, network: Network, own: trees.Tree) -> None:
    """Writes an objective's own parameters into a run's directory, if it has any."""
    if own:
        assert network.description is not None
        weights.save(os.path.join(directory, OWN), own, network.description)
