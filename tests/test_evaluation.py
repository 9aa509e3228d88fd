"""Evaluation counts every image once, whatever the batch and the scores."""

import jax
import numpy as np
import pytest

from sws_jax import sharding
from sws_jax.data.base import Arrays
from sws_jax.data.transforms import Fit
from sws_jax.models.networks import Network, Predictor
from sws_jax.pixels import Normalization
from sws_jax.training import evaluation

from support.networks import logits_of, params_of

GREY = Normalization((0.3,), (0.4,))


@pytest.fixture
def images_of(net):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (37, 8, 8, 1), dtype=np.uint8)
    return Arrays(images, random.integers(0, 10, 37).astype(np.int32))


def by_hand(net, params, split):
    x = (split.images / 255.0 - 0.3) / 0.4
    logits = np.asarray(logits_of(net, params, x.astype(np.float32)))
    order = np.argsort(-logits, axis=1)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return {
        "top1": (order[:, 0] == split.labels).mean(),
        "top5": (order[:, :5] == split.labels[:, None]).any(1).mean(),
        "loss": -log_p[np.arange(37), split.labels].mean(),
        "count": 37,
        "skipped": 0,
    }


@pytest.mark.parametrize("size", [8, 16, 40, 64])
def test_every_image_counts_once_whatever_the_batch(size, net, images_of):
    params = params_of(net)
    scores = evaluation.evaluate(
        Predictor(Network(net, params), GREY),
        images_of,
        Fit((8, 8)),
        normalization=GREY,
        global_batch_size=size,
        mesh=sharding.make_mesh(),
    )
    expected = by_hand(net, params, images_of)
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, rel=1e-5), name


def test_fewer_than_five_classes_and_nan(net, images_of):
    small = net.replace(num_classes=3)
    params = params_of(small)
    split = Arrays(images_of.images, images_of.labels % 3)
    arguments = dict(normalization=GREY, global_batch_size=8, mesh=sharding.make_mesh())
    scores = evaluation.evaluate(
        Predictor(Network(small, params), GREY), split, Fit((8, 8)), **arguments
    )
    assert scores["top5"] == 1.0
    params["head"]["bias"] = np.full(3, np.nan, np.float32)
    scores = evaluation.evaluate(
        Predictor(Network(small, params), GREY), split, Fit((8, 8)), **arguments
    )
    assert (scores["top1"], scores["top5"]) == (0.0, 0.0)


def test_a_network_that_prefers_no_class_is_at_chance(net, images_of):
    """Of equal scores the earlier class comes first, as in ``argmax``."""
    params = params_of(net)
    params["head"] = jax.tree.map(np.zeros_like, params["head"])
    arguments = dict(normalization=GREY, global_batch_size=8, mesh=sharding.make_mesh())
    scores = evaluation.evaluate(
        Predictor(Network(net, params), GREY), images_of, Fit((8, 8)), **arguments
    )
    expected = [(images_of.labels < most).mean() for most in (1, 5)]
    assert (scores["top1"], scores["top5"]) == pytest.approx(expected)


@pytest.mark.parametrize("backend, ahead", [("cpu", 0), ("gpu", 8)])
def test_few_batches_are_under_way(backend, ahead, net, images_of, monkeypatch):
    """As many as in training: more would fill a device's memory with images."""
    events = []

    def start(predictor, batch):
        events.append("start")
        return {name: 1.0 for name in ("count", "loss", "top1", "top5")}

    def wait(sums):
        events.append(("wait", sums["count"]))  # batches until that one

    monkeypatch.setattr(evaluation, "compiled", lambda *_: start)
    monkeypatch.setattr(sharding.jax, "default_backend", lambda: backend)
    monkeypatch.setattr(sharding.jax, "block_until_ready", wait)
    mesh_of_one = sharding.make_mesh(jax.devices()[:1])
    predictor = Predictor(Network(net, params_of(net)), GREY)
    arguments = dict(normalization=GREY, global_batch_size=3, mesh=mesh_of_one)
    evaluation.evaluate(predictor, images_of, Fit((8, 8)), **arguments)
    batches, expected = 13, []
    for number in range(1, batches + 1):
        expected.append("start")
        if number > ahead:
            expected.append(("wait", number - ahead))
    assert events == expected
