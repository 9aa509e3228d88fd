"""Accuracy that counts every image exactly once."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sws_jax import arguments, pixels, sharding
from sws_jax.data import pipeline
from sws_jax.data.base import SPLIT, Split
from sws_jax.data.pipeline import IN_THREAD, Reading
from sws_jax.data.transforms import Fit
from sws_jax.models.networks import PREDICTOR, Predictor
from sws_jax.pixels import NORMALIZATION, Normalization
from sws_jax.specs.base import COUNT


@functools.lru_cache(maxsize=64)
def compiled(normalization: Normalization, mesh: Mesh):
    """The jitted ``(predictor, batch) -> sums``; the sums are replicated."""
    function = functools.partial(_sums, normalization=normalization, mesh=mesh)
    return jax.jit(function, out_shardings=sharding.replicated(mesh))


def _sums(
    predictor: Predictor, batch: dict, *, normalization: Normalization, mesh: Mesh
) -> dict:
    """Weighted sums over a batch: images, cross entropy, top-1 and top-5 hits."""
    images = pixels.normalize(batch["image"], normalization)
    with sharding.constrained(mesh):
        logits = predictor.logits(images, normalization).astype(jnp.float32)
    label, weight = batch["label"][:, None], batch["weight"]
    log_p = jax.nn.log_softmax(logits)
    loss = -jnp.take_along_axis(log_p, label, axis=1)[:, 0]
    # Scores that are NaN rank nothing: an image is a hit only where its score is a
    # number.
    score = jnp.take_along_axis(logits, label, axis=1)
    above = (logits > score).sum(axis=1)
    ties_before = (logits == score) & (jnp.arange(logits.shape[1]) < label)
    rank = above + ties_before.sum(axis=1)
    finite = jnp.isfinite(score[:, 0])
    return {
        "count": weight.sum(),
        "loss": (loss * weight).sum(),
        "top1": (((rank < 1) & finite) * weight).sum(),
        "top5": (((rank < 5) & finite) * weight).sum(),
    }


@arguments.checked(
    predictor=PREDICTOR,
    split=SPLIT,
    fit=arguments.of(Fit, called="a Fit"),
    normalization=NORMALIZATION,
    global_batch_size=COUNT,
    mesh=arguments.of(Mesh, called="a Mesh (sws_jax.sharding.make_mesh)"),
    reading=arguments.of(Reading, called="a Reading"),
)
@sharding.alone()
def evaluate(
    predictor: Predictor,
    split: Split,
    fit: Fit,
    *,
    normalization: Normalization,
    global_batch_size: int,
    mesh: Mesh,
    reading: Reading = IN_THREAD,
) -> dict[str, float]:
    """Top-1, top-5 and cross entropy of a frozen network on a split.

    Args:
      predictor: what is evaluated.
      split: every image of it counts once, whatever the batch size.
      fit: from its images to those that the network takes.
      normalization: of the data; the predictor maps it to its own.
      global_batch_size: divides over the devices of `mesh`.
      mesh: to evaluate on.
      reading: how images are read; those that are skipped are not counted.

    Returns:
      ``top1`` and ``top5`` in 0..1, ``loss`` as a mean over images; their ``count``,
      and how many were ``skipped`` besides.

    Raises:
      Unreadable: an image cannot be decoded, and `reading` says stop.
    """
    sharding.check_batch("a batch of", global_batch_size, mesh)
    predictor = sharding.brought(predictor, mesh)
    sums_of = compiled(normalization, mesh)
    totals: list[dict[str, jax.Array]] = []  # after each batch
    for batch in pipeline.eval_batches(
        split,
        fit,
        global_batch_size=global_batch_size,
        rows=sharding.own_rows(mesh, global_batch_size),
        reading=reading,
    ):
        sums = sums_of(predictor, sharding.to_global(mesh, global_batch_size, batch))
        totals.append(jax.tree.map(jnp.add, totals[-1], sums) if totals else sums)
        sharding.hold_back(totals)
    last = {name: float(total) for name, total in totals[-1].items()}
    count = last.pop("count")  # above 0, since a split is never empty
    scores = {name: total / count for name, total in last.items()}
    return {**scores, "count": count, "skipped": len(split) - count}
