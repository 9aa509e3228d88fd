"""Expanding a learngene, against copying the bytes of the result.

A descendant owns its arrays, so that nothing can be faster than a copy of them. B/16,
12 blocks from five genes: once as numpy arrays on the host, as a learngene is loaded;
once with jax arrays, as they come; and once inside of `jax.jit`.

How to read it: `expand_ms` and `copy_ms` are timed in turns, and `ratio` is the median
of the ratios of neighbours. The aim is a ratio within 3.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import sws_jax
from benchmarks import measure, step
from benchmarks.measure import MIB, Row, Settings
from sws_jax import specs, trees
from sws_jax.methods.base import Learngene

AIM = 3.0


def run(settings: Settings) -> list[Row]:
    size = "nano" if settings.quick else "base"
    gene, depth = learngene(f"aux_vit_{size}_patch16_3-3-4-3-3"), 12
    device = jax.device_put(gene, jax.devices()[0])

    def expand(source: Learngene) -> trees.Tree:
        return sws_jax.expand(source, depth=depth).params

    jitted, jitted_copy = jax.jit(expand), jax.jit(_copy)
    on_host = expand(gene)
    on_device = jax.device_put(on_host, jax.devices()[0])
    pairs: dict[str, tuple[Callable, Callable]] = {
        "numpy": (
            lambda: expand(gene),
            lambda: jax.tree.map(np.copy, on_host),
        ),
        "jax": (
            lambda: jax.block_until_ready(expand(device)),
            lambda: jax.block_until_ready(_copy(on_device)),
        ),
        "jax, jitted": (
            lambda: jax.block_until_ready(jitted(device)),
            lambda: jax.block_until_ready(jitted_copy(on_device)),
        ),
    }
    rows = []
    repeats = 3 if settings.quick else 15
    for leaves, (ours, copy) in pairs.items():
        about: Row = {"network": f"vit_{size}_patch16_L{depth}", "leaves": leaves}
        about["mib"] = measure.short(trees.count(on_host) * 4 / MIB)
        figures = functools.partial(_compare, ours, copy, repeats)
        rows.append(measure.measured("expansion", about, figures))
    return rows


def _compare(ours: Callable, copy: Callable, repeats: int) -> Row:
    ours(), copy()  # compiles
    times = measure.in_turns({"expand": ours, "copy": copy}, repeats)
    pairs = zip(times["expand"], times["copy"], strict=True)
    return {
        "expand_ms": measure.figure([1e3 * s for s in times["expand"]]),
        "copy_ms": measure.figure([1e3 * s for s in times["copy"]]),
        "ratio": measure.short(statistics.median(a / b for a, b in pairs)),
        "aim": f"within {AIM:g}",
    }


def learngene(name: str) -> Learngene:
    """Of an untrained Aux-Net: how fast it expands does not depend on its values."""
    spec = specs.named(name)
    assert isinstance(spec, specs.AuxViTSpec)
    description = sws_jax.Description(
        kind="aux_net",
        net=spec.net,
        stages=spec.stages,
        method="sws",
        normalization=step.IMAGENET,
    )
    return sws_jax.extract(sws_jax.Network(spec, step.weights(spec), description))


def _copy(tree: trees.Tree) -> trees.Tree:
    return jax.tree.map(jnp.copy, tree)
