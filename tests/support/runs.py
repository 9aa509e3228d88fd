"""Runs on digits that take seconds, in the test's own process."""

import functools

import jax
import numpy as np

from sws_jax.data import pipeline
from sws_jax.estimate import sizing
from sws_jax.jobs import recipes
from sws_jax.models import vit
from sws_jax.training import evaluation, step

IMAGES = 1257  # digits to train on


def epochs(steps, batch=64):
    """So many steps, as the epochs that a config takes."""
    return steps * batch / IMAGES


def tiny(steps=10, save_every=5, name="run", **groups):
    """A run on digits that takes seconds, through the fields of every config."""
    config = recipes.run()
    recipes.small(config)
    config.name = name
    config.model.update(depth=2, width=16, heads=2)
    config.schedule.update(total_epochs=epochs(steps), warmup_epochs=0.0, rate=1e-3)
    config.checkpoint.every_epochs = epochs(save_every)
    config.evaluation.update(batch_size=128, every_epochs=epochs(save_every))
    config.ema = 0.9
    for group, fields in groups.items():
        config[group].update(fields)
    return config


def begin_with_zeros(patch):
    """Networks start from zeros, for which nothing is compiled."""
    init_params = vit.init_params

    def zeros(module, key, **fields):
        make = functools.partial(init_params, module, **fields)
        shapes = jax.eval_shape(make, key)
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)

    patch.setattr(vit, "init_params", zeros)


class Script:
    """Runs whose steps and scores are made up, so that nothing is compiled for them.

    A step adds 1 to the biases of the head, and 10 to those of its average: by them a
    test knows whose weights are scored.

    Args:
      patch: of the test.
      losses: of each step, from the first; the rest is 1.
      top1: from the bias of the scored weights to their accuracy.
    """

    def __init__(self, patch, losses=(), top1=lambda bias: 0.5):
        self.losses, self.top1 = losses, top1
        self.rates, self.keys = [], []  # of the steps
        self.read = None  # what was asked of the pipeline
        self.fits = []  # through which images were scored
        read = pipeline.train_batches

        def batches(*args, **settings):
            self.read = settings
            return read(*args, **settings)

        patch.setattr(pipeline, "train_batches", batches)
        begin_with_zeros(patch)
        patch.setattr(step, "program", lambda *_: self._step)
        patch.setattr(sizing, "sheet", lambda *_, **__: "nothing is compiled")
        patch.setattr(evaluation, "evaluate", self._score)

    def _step(self, state, key, raw, rate, teacher):
        self.rates.append(float(rate))
        self.keys.append(jax.random.key_data(key).tolist())
        done = int(state.step)
        loss = self.losses[done] if done < len(self.losses) else 1.0
        metrics = {"loss": loss, "grad_norm": 1.0}
        if isinstance(loss, tuple):
            metrics = {"loss": loss[0], "grad_norm": loss[1]}
        return self._moved(state), metrics

    def _moved(self, state):
        def more(params, by):
            head = params["head"]
            bias = jax.device_put(np.asarray(head["bias"]) + by, head["bias"].sharding)
            return {**params, "head": {**head, "bias": bias}}

        return state.replace(
            step=jax.device_put(np.asarray(state.step) + 1, state.step.sharding),
            params=more(state.params, np.float32(1)),
            ema=None if state.ema is None else more(state.ema, np.float32(10)),
        )

    def _score(self, predictor, split, fit, **settings):
        self.fits.append(fit)
        bias = float(predictor.network.params["head"]["bias"][0])
        score = {"top1": self.top1(bias), "top5": 1.0, "loss": bias}
        return {**score, "count": float(len(split)), "skipped": 0.0}
