"""Runs of a few steps without a config: a task of any recipe, and its training."""

import jax
import numpy as np

from sws_jax import sharding
from sws_jax.data import Dataset
from sws_jax.data.base import Arrays
from sws_jax.data.pipeline import IN_THREAD
from sws_jax.data.transforms import Fit, Transform
from sws_jax.models.networks import Network
from sws_jax.training.history import Begun
from sws_jax.training.loop import Training
from sws_jax.training.optim import Schedule
from sws_jax.training.task import Task

from support.learngenes import DIGITS, describe
from support.networks import params_of
from support.steps import BATCH, GREY, placed


class Killed(Exception):
    """A run ends without a word."""


def images(count, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return Arrays(pixels, random.integers(0, 10, count).astype(np.int32))


DATA = Dataset(
    "noise", images(32, 0), images(BATCH, 1), images(BATCH, 2), DIGITS, (8, 8, 1), GREY
)


def task_of(directory, recipe, steps=6, teacher=None, **changes):
    """So many steps on one device; a checkpoint and a line after every second."""
    about = describe(recipe.spec)
    mesh = sharding.make_mesh(jax.devices()[:1])
    fields = dict(
        name="run",
        role="aux",
        directory=str(directory),
        seed=3,
        mesh=mesh,
        data=DATA,
        transform=Transform(),
        fit=Fit((8, 8)),
        reading=IN_THREAD,
        repeats=1,
        global_batch_size=BATCH,
        score_batch_size=BATCH,
        epochs=steps * BATCH / 32,
        epoch_images=32,
        schedule=Schedule(0.01, steps),
        score_every=steps,
        save_every=2,
        log_every=2,
        milestones={},
        keep_last=2,
        save_last=True,
        select_best=False,
        network=Network(recipe.spec, params_of(recipe.spec), about),
        make_ema=lambda: None,
        recipe=recipe,
        teacher=None if teacher is None else placed(teacher, mesh),
        about=about,
        stored=0,
        first_lines=(),
        lines=(),
    )
    return Task(**{**fields, **changes})


def begin(task, killed_at=None, hooks=()):
    """The training of a task, with its own hooks; `killed_at` ends it after a step."""

    def should_stop():
        if training.done == killed_at:
            raise Killed
        return False

    training = Training(task, should_stop, Begun("float32", "stop"))
    training.hooks[:0] = hooks
    return training


def train(task, **settings):
    """Trains a task to its end, or until it is killed; the training."""
    training = begin(task, **settings)
    training.open()
    try:
        training.steps()
    except Killed:
        pass
    finally:
        training.close(all_ended_alike=True)
    return training
