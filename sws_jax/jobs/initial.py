"""The parameters of a run's network before its first step.

They come from a learngene, a network or a seed. `sws_jax.jobs.start` answers which
network it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from sws_jax import trees
from sws_jax.data import Dataset
from sws_jax.errors import UserError
from sws_jax.jobs import places
from sws_jax.jobs.start import Answer, Images, Origin, answer, find_origin
from sws_jax.methods import learngenes, surgery
from sws_jax.models import networks, profiles, vit
from sws_jax.runtime import host, words
from sws_jax.runtime.progress import say
from sws_jax.specs import Spec, ViTSpec


def start(
    config,
    data: Dataset,
    workdir: str,
    tell: Callable[[str], None] = say,
    *,
    differs: Callable[[str], None] | None = None,
) -> networks.Network:
    """The network of a run before its first step, from learngene, file or seed.

    Weights are float32, whatever a file holds.

    Args:
      config: of the run.
      data: what it trains on.
      workdir: where ``run:NAME`` paths are found.
      tell: takes a line on what is not taken over from a file.
      differs: as in `sws_jax.jobs.start.answer`.

    Raises:
      UserError: the config contradicts itself, the data or the file it names.
    """
    path, images = places.initial_file(config, workdir), Images.of(data)
    described = find_origin(config, workdir)
    if described is not None:  # before the file is read, which may be small
        expected = answer(config, images, described, differs=lambda line: None)
        check_memory(expected.spec)
    if config.init.learngene and not config.init.network:
        gene = learngenes.load_learngene(path)
        origin = Origin(path, gene.description)
        answered = answer(config, images, origin, tell, differs=differs)
        params = _expanded(config, path, gene, answered)
    elif config.init.network and not config.init.learngene:
        network = networks.load_network(path)
        assert network.description is not None  # of a file
        origin = Origin(path, network.description)
        answered = answer(config, images, origin, tell, differs=differs)
        params = _continued(config, path, network, answered)
    else:
        answered = answer(config, images, None, tell)
        check_memory(answered.spec)
        params = vit.init_params(answered.spec.build(), jax.random.key(config.seed))
    return networks.Network(answered.spec, params, answered.about)


def _expanded(config, path: str, gene: learngenes.Learngene, answered: Answer):
    """The parameters of a descendant."""
    net = answered.spec.net
    descendant = learngenes.expand(
        dataclasses.replace(gene, params=_float32(path, gene.params)),
        plan=answered.about.plan,
        num_classes=None if answered.keeps_head else net.num_classes,
        image_size=net.image_size,
        seed=config.seed,
    )
    assert descendant.spec.net.replace(drop_path=net.drop_path) == net
    return _reordered(dict(descendant.params), answered.order)


def _continued(config, path: str, network: networks.Network, answered: Answer):
    """The parameters of a network for other images or classes."""
    assert network.description is not None
    net, params = answered.spec.net, dict(_float32(path, network.params))
    params["pos_embed"] = surgery.resize_pos_embed(
        params["pos_embed"],
        network.description.vit,
        net,
        antialias=profiles.find(config.profile).antialias,
    )
    if not answered.keeps_head:
        like = params["norm"]["scale"]
        params["head"] = surgery.fresh_head(net, config.seed, like=like)
    return _reordered(params, answered.order)


def _reordered(params: trees.Tree, order: tuple[int, ...]) -> trees.Tree:
    """With the outputs of the head in another order; as they are, where none is named.

    Args:
      params: of a network.
      order: as of `sws_jax.data.classes.Match`.
    """
    if not order:
        return params
    indices = np.asarray(order)
    head = {name: leaf[..., indices] for name, leaf in params["head"].items()}
    return {**params, "head": head}


def _float32(path: str, params: trees.Tree) -> trees.Tree:
    """The weights of a file for a run to start from.

    Raises:
      UserError: some of them are not numbers.
    """
    weights = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    for name, leaf in trees.flatten(weights).items():
        if not np.isfinite(leaf).all():
            raise UserError(
                f"{path} holds values in {name} that are not numbers: no run can start "
                f"from it; train it again"
            )
    return weights


def check_memory(spec: Spec) -> None:
    """Refuses a network whose weights this host cannot hold, where they are made.

    JAX may wait for ever for an array on a CPU for which there was no memory.
    """
    count = trees.count(networks.abstract_params(spec))
    lent = host.memory()
    if lent is not None and 4 * count > lent:
        raise UserError(
            f"{spec.name} has {count:,} parameters, {words.gib(4 * count, 0)}, and "
            f"this host lends {words.gib(lent, 0)} of memory: take a smaller model"
        )


def ema_start(config, spec: Spec) -> trees.Tree | None:
    """Where the moving average of the weights starts, if not from the weights."""
    if not config.ema or config.ema_start == "weights":
        return None
    bias = config.model.patch_bias_init
    fresh = spec.replace(patch_bias_init=bias).build()
    params = vit.init_params(fresh, jax.random.key(config.seed))
    if (config.init.learngene or config.init.network) and "head" in params:
        # A head that is not inherited is the same in both.
        like = params["norm"]["scale"]
        assert isinstance(spec.net, ViTSpec)
        params["head"] = surgery.fresh_head(spec.net, config.seed, like=like)
    return params
