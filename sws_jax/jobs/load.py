"""A network from whatever a user has: a weights file, a learngene, a run."""

from __future__ import annotations

import os

from sws_jax import arguments, trees
from sws_jax.errors import UserError
from sws_jax.methods import learngenes
from sws_jax.models import networks, weights
from sws_jax.models.networks import Network
from sws_jax.specs.base import DEPTH
from sws_jax.storage import files, paths
from sws_jax.storage.names import CHECKPOINTS, LEARNGENE_FILE, WEIGHTS
from sws_jax.training import checkpoints


@arguments.checked(
    path=arguments.path,
    depth=arguments.optional(DEPTH),
    step=arguments.optional(arguments.whole(0)),
)
def load(
    path: str, *, depth: int | None = None, step: int | None = None
) -> tuple[Network, str]:
    """Reads a network and says what it read.

    Args:
      path: a ``.safetensors`` file (of a network or a learngene), the directory of
        a run or of a job, or one checkpoint in a run's ``checkpoints``.
      depth: expands a learngene to it; default its Aux-Net's own.
      step: reads that checkpoint of a run, instead of its finished weights.

    Returns:
      The network, and a label for it.

    Raises:
      UserError: nothing usable is there, or an option that it does not take.
    """
    with files.errors_as_refusals(path):
        return _load(path, depth, step)


@arguments.checked(path=arguments.path)
def refusal(path: str) -> str:
    """Why a file of this project initialises nothing; empty where it does.

    Args:
      path: of a ``.safetensors`` with a description, of a network or a learngene. It is
        read whole.
    """
    try:
        if weights.describe(path).kind == "learngene":
            params = learngenes.load_learngene(path).params
        else:
            params = networks.load_network(path).params
    except UserError as error:
        return str(error)
    for name, leaf in trees.flatten(params).items():
        if why := trees.no_weights(name, leaf):
            return f"{path}: {name} {why}"
    return ""


def _load(path: str, depth: int | None, step: int | None) -> tuple[Network, str]:
    """The network of a file, or of the first kind of file that a directory holds."""
    if not paths.is_dir(path):
        return _file(path, depth, step)
    parent, name = os.path.split(path.rstrip("/"))
    if os.path.basename(parent) == CHECKPOINTS and name.isdigit():
        return _checkpoint(os.path.dirname(parent) or ".", int(name), depth)
    if step is not None:
        return _checkpoint(_only_run(path), step, depth)
    for name in (WEIGHTS, LEARNGENE_FILE):
        file = os.path.join(path, name)
        if paths.is_file(file):
            return _file(file, depth, None)
    if paths.is_dir(os.path.join(path, CHECKPOINTS)):
        return _checkpoint(path, None, depth)
    if (run := _only_run(path)) != path:
        return _load(run, depth, None)
    raise UserError(
        f"the directory {path} holds no {WEIGHTS}, no {LEARNGENE_FILE} and "
        f"no {CHECKPOINTS}{_advice(path)}"
    )


def _advice(path: str) -> str:
    """What to do with a folder of another program's weights; empty for any other."""
    from sws_jax.convert import folders

    try:
        folders.weights_in(path)
    except folders.Nothing:
        return ""
    except UserError as error:
        return f"; {error}"
    return (
        f": weights of other programs are converted first (python -m sws_jax convert "
        f"{path} OUT.safetensors)"
    )


def _only_run(path: str) -> str:
    """The directory of the run in that of a job of one run; any other as it is."""
    if paths.is_dir(os.path.join(path, CHECKPOINTS)):
        return path
    inside = [name for name in paths.folders(path) if _is_run(path, name)]
    if len(inside) > 1:
        more = " and more" if len(inside) > 3 else ""
        raise UserError(
            f"the directory {path} holds {len(inside)} runs "
            f"({', '.join(inside[:3])}{more}): name one"
        )
    return os.path.join(path, inside[0]) if inside else path


def _is_run(directory: str, name: str) -> bool:
    """Whether a folder of a work directory holds what a network can be read from."""
    run = os.path.join(directory, name)
    readable = (WEIGHTS, LEARNGENE_FILE, CHECKPOINTS)
    return any(paths.exists(os.path.join(run, file)) for file in readable)


def _file(path: str, depth: int | None, step: int | None) -> tuple[Network, str]:
    """The network of a file, or a descendant of the learngene in it."""
    if step is not None:
        raise UserError(f"{path} is one file: a step is chosen in a run's directory")
    if weights.describe(path).kind == "learngene":
        gene = learngenes.load_learngene(path)
        own = gene.description.spec.depth
        descendant = learngenes.expand(gene, depth=own if depth is None else depth)
        return descendant, f"{path} at depth {descendant.spec.depth}"
    if depth is not None:
        raise UserError(f"{path} has its depth: only a learngene is expanded")
    return networks.load_network(path), path


def _checkpoint(
    directory: str, step: int | None, depth: int | None
) -> tuple[Network, str]:
    """The network of a run's checkpoint; of the newest, where no step is named."""
    if depth is not None:
        raise UserError(f"{directory} has its depth: only a learngene is expanded")
    if not paths.is_dir(os.path.join(directory, CHECKPOINTS)):
        raise UserError(
            f"{directory} has no checkpoint of step {step}: it holds no {CHECKPOINTS}"
        )
    saved_step, params, description = checkpoints.load_params(
        directory, step, networks.abstract_params
    )
    network = Network(description.spec, params, description)
    return network, f"{directory} at step {saved_step}"
