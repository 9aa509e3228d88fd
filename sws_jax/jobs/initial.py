"""The parameters of a run's network before its first step.

They come from a learngene, a network or a seed. `sws_jax.jobs.start` answers which
network it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sws_jax import pixels, trees
from sws_jax.data import Dataset, pipeline
from sws_jax.data.pipeline import Reading
from sws_jax.errors import UserError
from sws_jax.jobs import phases, places, trained
from sws_jax.jobs.places import Images, Origin, find_origin
from sws_jax.jobs.start import Answer, answer, expansion
from sws_jax.methods import learngenes, surgery
from sws_jax.methods.base import Learngene, Made
from sws_jax.models import networks, profiles, vit, weights
from sws_jax.runtime import host, words
from sws_jax.runtime.progress import say
from sws_jax.specs import Spec, Trained


def initial_network(
    config,
    data: Dataset,
    workdir: str,
    tell: Callable[[str], None] = say,
    *,
    on_difference: Callable[[str], None] | None = None,
) -> networks.Network:
    """The network of a run before its first step, from a learngene, file or seed.

    Weights are float32, whatever a file holds.

    Args:
      config: of the run.
      data: what it trains on.
      workdir: where ``run:NAME`` paths are found.
      tell: takes a line on what is not taken over from a file.
      on_difference: as in `sws_jax.jobs.start.answer`.

    Raises:
      UserError: the config contradicts itself, the data or the file it names.
    """
    path, images = places.initial_file(config, workdir), Images.of(data)
    origin = find_origin(config, workdir)
    if origin is not None:  # Before the file is read: the run's network may be larger.
        expected = answer(config, images, origin, on_difference=lambda line: None)
        check_memory(expected.spec)
    if config.init.learngene and not config.init.network:
        gene = learngenes.load_learngene(path)
        origin = Origin(path, gene.description)
        result = answer(config, images, origin, tell, on_difference=on_difference)
        params = _expanded(config, path, gene, result)
    elif config.init.network and not config.init.learngene:
        network = networks.load_network(path)
        assert network.description is not None  # of a file
        origin = Origin(path, network.description)
        result = answer(config, images, origin, tell, on_difference=on_difference)
        params = _continued(config, path, network, result)
    else:
        result = answer(config, images, None, tell)
        check_memory(result.spec)
        params = _computed(config, data, workdir, result.spec)
        if params is None:
            params = vit.init_params(result.spec.build(), jax.random.key(config.seed))
    return networks.Network(result.spec, params, result.about)


def _computed(config, data: Dataset, workdir: str, spec: Trained) -> trees.Tree | None:
    """The parameters that a phase's `Made` start computes; None for another start.

    Args:
      config: of the run.
      data: what it trains on.
      workdir: where the runs of earlier phases are.
      spec: of its network.

    Raises:
      UserError: they are not those of the phase's network, or not finite.
    """
    phase = phases.find(config, Images.of(data).input_and_head)
    if phase is None or not isinstance(phase.start, Made):
        return None
    start, who = phase.start, f"the start of phase {phase.name}"
    before = trained.load(config, workdir, start.after)
    images = None
    if start.images:
        fit = places.fit(config, data)
        reading = Reading(unreadable=config.data.unreadable)
        rows = pipeline.some_images(data.train, fit, start.images, reading=reading)
        images = pixels.normalize(jnp.asarray(rows), data.normalization)
    params = trees.to_host(start.make(before, images))
    weights.check(who, networks.abstract_params(spec), params)
    return _float32(who, params)


def _expanded(config, path: str, gene: Learngene, result: Answer):
    """The parameters of a descendant."""
    spec = result.spec
    descendant = learngenes.expand(
        dataclasses.replace(gene, params=_float32(path, gene.params)),
        **expansion(config),
        num_classes=None if result.keeps_head else spec.num_classes,
        image_size=spec.image_size,
        seed=config.seed,
    )
    assert descendant.spec.replace(drop_path=spec.tail.drop_path) == spec
    return _reordered(dict(descendant.params), result.order)


def _continued(config, path: str, network: networks.Network, result: Answer):
    """The parameters of a network for other images or classes."""
    spec, params = result.spec, dict(_float32(path, network.params))
    assert isinstance(network.spec, Trained)  # `answer` refuses others.
    params["pos_embed"] = surgery.resize_pos_embed(
        params["pos_embed"],
        network.spec.stem,
        spec.stem,
        antialias=profiles.find(config.profile).antialias,
    )
    if not result.keeps_head:
        like = params["norm"]["scale"]
        params["head"] = surgery.fresh_head(spec.tail, config.seed, like=like)
    return _reordered(params, result.order)


def _reordered(params: trees.Tree, order: tuple[int, ...]) -> trees.Tree:
    """The parameters with the head's outputs reordered; unchanged for an empty order.

    Args:
      params: of a network.
      order: as of `sws_jax.data.classes.Match`.
    """
    if not order:
        return params
    indices = np.asarray(order)
    head = {name: leaf[..., indices] for name, leaf in params["head"].items()}
    return {**params, "head": head}


def _float32(origin: str, params: trees.Tree) -> trees.Tree:
    """Weights in float32, for a run to start from.

    Args:
      origin: where they come from, for the message: a path, say.
      params: of any dtype.

    Raises:
      UserError: some of them are not finite.
    """
    converted = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    for name, leaf in trees.flatten(converted).items():
        if not np.isfinite(leaf).all():
            raise UserError(
                f"{origin} holds values in {name} that are not numbers: no run can "
                f"start from it; train it again"
            )
    return converted


def check_memory(spec: Spec) -> None:
    """Refuses a network whose weights do not fit into this host's memory.

    JAX may wait for ever for an array on a CPU for which there was no memory.

    Raises:
      UserError: naming both sizes.
    """
    count = trees.count(networks.abstract_params(spec))
    memory = host.memory()
    if memory is not None and 4 * count > memory:
        raise UserError(
            f"{spec.name} has {count:,} parameters, {words.gib(4 * count, 0)}, and "
            f"this host lends {words.gib(memory, 0)} of memory: take a smaller model"
        )


def ema_start(config, spec: Trained) -> trees.Tree | None:
    """Where the moving average of the weights starts, if not from the weights."""
    if not config.ema or config.ema_start == "weights":
        return None
    bias = config.model.patch_bias_init
    fresh = spec.replace(patch_bias_init=bias).build()
    params = vit.init_params(fresh, jax.random.key(config.seed))
    if (config.init.learngene or config.init.network) and "head" in params:
        # A head that is not inherited is the same in both.
        like = params["norm"]["scale"]
        params["head"] = surgery.fresh_head(spec.tail, config.seed, like=like)
    return params
