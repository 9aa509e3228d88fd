"""The first steps of a job's networks, for programs that compare where they run.

An Aux-Net that is distilled from the ancestor and a descendant that learns from labels,
both from their seeds, with all that is random in a step: stochastic depth, mixup,
cutmix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from sws_jax import sharding, trees
from sws_jax.data import pipeline
from sws_jax.jobs import build, commandline, initial
from sws_jax.jobs.rows import runs
from sws_jax.models import vit
from sws_jax.models.networks import Network, Predictor
from sws_jax.training import step
from sws_jax.training.roles import ANCESTOR, AUX


class Batches:
    """The first batches of an endless stream, as often as they are asked for."""

    def __init__(self, stream: Iterator[dict]):
        self._stream, self._seen = stream, list[dict]()

    def first(self, count: int) -> list[dict]:
        while len(self._seen) < count:
            rows = next(self._stream)
            rows.pop("skipped")
            self._seen.append(rows)
        return self._seen[:count]


@dataclasses.dataclass(frozen=True)
class Job:
    """A run before its first step.

    Attributes:
      recipe: of a step.
      network: whose params are on the host.
      teacher: likewise; None without one.
      batches: that it trains on.
    """

    recipe: step.Recipe
    network: Network
    teacher: Predictor | None
    batches: Batches

    def trained(self, mesh: Mesh, steps: int) -> tuple[list[float], dict]:
        """The losses of so many steps on a mesh, and the params after them, by name."""
        recipe, teacher = self.recipe, self.teacher
        if teacher is not None:
            known = teacher.network
            its = step.network_shardings(known.spec, mesh)
            placed = dataclasses.replace(known, params=sharding.put(known.params, its))
            teacher = dataclasses.replace(teacher, network=placed)
        shardings = step.state_shardings(recipe, mesh)
        new = jax.jit(
            lambda params: step.new_state(recipe, params), out_shardings=shardings
        )
        state = new(sharding.put(self.network.params, shardings.params))
        key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))
        run_step = step.compiled_step(recipe, mesh)
        losses = []
        for rows in self.batches.first(steps):
            raw = sharding.to_global(mesh, len(rows["label"]), rows)
            state, numbers = run_step(state, key, raw, np.float32(1e-3), teacher)
            losses.append(float(numbers["loss"]))
        return losses, trees.flatten(trees.to_host(state.params))


def jobs(config: str, descendant: str) -> Iterator[Job]:
    """The Aux-Net of a job, and one of its descendants.

    Args:
      config: path of a chain's config.
      descendant: name of a run of it.
    """
    rows = {r.name: r for r in runs(commandline.load(config))}
    data = build.dataset(rows[ANCESTOR].config)
    for name in (AUX, descendant):
        config_of = rows[name].config.copy_and_resolve_references()
        config_of.init.learngene = ""
        config_of.model.drop_path = 0.1
        config_of.augment.update(mixup=0.8, cutmix=1.0, mix_group=0)
        network = initial.initial_network(config_of, data, "")
        recipe = build.recipe(config_of, network.spec, data.normalization)
        teacher = None
        if recipe.loss.needs_teacher:
            spec = initial.initial_network(rows[ANCESTOR].config, data, "").spec
            params = trees.to_host(vit.init_params(spec.build(), jax.random.key(1)))
            teacher = Predictor(Network(spec, params), data.normalization)
        batches = pipeline.train_batches(
            data.train,
            build.transform(config_of),
            seed=config_of.seed,
            global_batch_size=config_of.global_batch_size,
            size=data.image_shape[:2],
        )
        yield Job(recipe, network, teacher, Batches(batches))
