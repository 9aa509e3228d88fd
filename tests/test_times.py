"""What a step takes, before it is run: bytes moved, rates, and their sum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax import sharding
from sws_jax.estimate import flops, moves, rates, times
from sws_jax.estimate.rates import Rates
from sws_jax.specs import Compute

from support.steps import AUX, BATCH, PLAIN, recipe_of

X = jnp.zeros((8, 16))  # 512 bytes
SIZE = X.nbytes


def moved(function, *arguments):
    return moves.moved(jax.make_jaxpr(function)(*arguments).jaxpr)


def summed_rows(x):
    return jnp.sum(x, axis=1, keepdims=True)


def doubled(carry, row):
    return carry + row, row * 2


@pytest.mark.parametrize(
    "function, expected",
    [
        (lambda x: jnp.exp(x) * 2 + 1, 2 * SIZE),  # one read and one write
        (lambda x: x.reshape(16, 8), 0),  # the same numbers in the same places
        (lambda x: jnp.exp(x).reshape(16, 8), 2 * SIZE),
        (lambda x: x.T, 2 * SIZE),
        (lambda x: x @ x.T, 2 * SIZE + 2 * SIZE + 8 * 8 * 4),  # x, and x.T written
        (lambda x: x / summed_rows(x), SIZE + 32 + SIZE + 32 + SIZE),
        (jax.jit(lambda x: jnp.exp(x)), 2 * SIZE),  # a call is written out
        (lambda x: jax.lax.cond(True, jnp.exp, lambda x: x, x), 2 * SIZE),
    ],
)
def test_bytes_that_are_moved(function, expected):
    assert moved(function, X) == expected


def test_a_loop_moves_what_its_body_does_each_time():
    """Eight rows are copied out of their stack; what is added is written in place."""

    def loop(x):
        return jax.lax.scan(doubled, x[0] * 0, x)

    body = 3 * 64 + 2 * 64  # carry + row, row * 2
    start = SIZE + 64  # x[0] * 0
    assert moved(loop, X) == 8 * body + 2 * SIZE + start


def test_a_longer_step_moves_more_and_computes_more(monkeypatch):
    """Of twice the images; what is measured here stands in for a quiet machine."""
    monkeypatch.setattr(rates, "measured", lambda dtype: Rates(1e9, 1e8))
    monkeypatch.setattr(rates, "fresh_seconds", lambda size: size / 1e6)
    mesh = sharding.make_mesh(jax.devices()[:1])
    recipe = recipe_of(AUX, augment=PLAIN)
    one, two = (times.of_step(recipe, mesh, n, temporary=n) for n in (BATCH, 2 * BATCH))
    assert one.flops == BATCH * flops.step_flops(AUX, Compute(backend="cpu"))
    assert two.flops == 2 * one.flops
    assert one.moved < two.moved < 2 * one.moved  # weights are moved once
    assert one.fresh == BATCH / 1e6
    whole = one.flops / 1e9 + one.moved / 1e8 + one.fresh
    assert one.seconds == pytest.approx(whole)
    # Two devices share the work, but each gets temporary memory of its own.
    shared = times.of_step(
        recipe, sharding.make_mesh(jax.devices()[:2]), BATCH, temporary=BATCH
    )
    assert shared == dataclasses.replace(one, flops=one.flops / 2, moved=one.moved / 2)


def test_rates_are_measured_once_in_a_process(monkeypatch):
    """On arrays as small as they can be: what is measured is not tested."""
    monkeypatch.setitem(rates._SIDES, "cpu", 8)
    monkeypatch.setitem(rates._ROWS, "cpu", 8)
    monkeypatch.setattr(rates, "_ENOUGH_SECONDS", 0.0)
    rates.measured.cache_clear()
    try:
        first = rates.measured()
        assert first.products > 0 and first.memory > 0
        assert rates.measured() is first
    finally:
        rates.measured.cache_clear()  # of others, who measure in earnest


def test_fresh_memory_takes_as_long_as_there_is_much_of_it(monkeypatch):
    filled = []

    def timed(fill, value):
        filled.append(np.asarray(fill(value)).nbytes)
        return 0.5

    monkeypatch.setattr(rates, "_seconds", timed)
    monkeypatch.setattr(rates, "_MOST_FRESH", 2**10)
    assert rates.fresh_seconds(2**9) == 0.5
    assert rates.fresh_seconds(2**12) == 2.0  # of which a quarter is filled
    assert filled == [2**9, 2**10]
    assert rates.fresh_seconds(0) == 0.0
