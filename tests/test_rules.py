"""Rules of a backend: the plain formulas' numbers, in values and in all derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sws_jax.models import rules
from sws_jax.specs import Compute

from support.compare import close
from support.networks import params_of

CPU = rules.TABLE["cpu", "float32"]
PLAIN = Compute(backend="plain")
# Rounding of float32, relative to the largest value.
ROUNDING = 2e-6
# More tokens than a layout by heads asks for, and fewer.
TOKENS = (36, 5)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def derivatives(function, x, dx):
    """Value, tangent, gradient of squares, and derivative of that, in one program."""

    def loss(x):
        return (function(x) ** 2).sum()

    @jax.jit
    def compute(x, dx):
        gradient = jax.grad(loss)
        return jax.jvp(function, (x,), (dx,)), jax.jvp(gradient, (x,), (dx,))

    return compute(x, dx)


def agree(rule, plain, x):
    dx = draw(*x.shape, seed=1)
    close(derivatives(plain, x, dx), derivatives(rule, x, dx), ROUNDING)
    mapped, expected = jax.vmap(rule)(x[None]), plain(x)[None]
    close(expected, mapped, ROUNDING)


def test_gelu():
    agree(CPU.gelu, rules.PLAIN.gelu, np.linspace(-9, 9, 501, dtype="f4"))


@pytest.mark.parametrize("tokens", TOKENS)
def test_attention(tokens):
    agree(CPU.attention, rules.PLAIN.attention, draw(2, tokens, 3, 2, 4))


@pytest.mark.parametrize(
    "kernel, axes", [((6, 3, 2, 4), 1), ((2, 3, 5), 2), ((6, 5), 1)]
)
def test_product(kernel, axes):
    inner, weights = kernel[:axes], draw(*kernel, seed=2)
    x = draw(2, 7, *inner)
    along = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))

    def with_kernel(product, x):
        return product(x, weights, (along, ((), ())), precision=None)

    agree(*(functools.partial(with_kernel, r.product) for r in (CPU, rules.PLAIN)), x)


def test_derivatives_by_a_kernel():
    x, weights = draw(2, 7, 6), draw(6, 3, 2, 4)

    def of_kernel(product, weights):
        return product(x, weights, (((2,), (0,)), ((), ())))

    agree(
        *(functools.partial(of_kernel, r.product) for r in (CPU, rules.PLAIN)), weights
    )


def test_the_table_is_asked_for_backend_and_dtype(monkeypatch):
    assert rules.of(Compute(backend="cpu")) is CPU
    assert rules.of(Compute("bfloat16", backend="cpu")) is rules.PLAIN
    assert rules.of(Compute(backend="gpu")) is rules.PLAIN
    assert rules.of(PLAIN) is rules.PLAIN
    assert rules.of(Compute()) is CPU  # the tests run on one
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert rules.of(Compute()) is rules.PLAIN


def gradient(spec, compute, params, images):
    """The gradient of squared logits, and the bytes of its program beside arguments."""
    module = spec.build(compute)

    def loss(params):
        return (module.apply({"params": params}, images) ** 2).sum()

    program = jax.jit(jax.grad(loss)).lower(params).compile()
    return program(params), program.memory_analysis().temp_size_in_bytes


def test_a_network_has_the_same_gradient_and_keeps_less(net):
    spec = net.replace(image_size=24, patch_size=4, depth=6)
    assert spec.tokens == 36
    params, images = params_of(spec), draw(4, 24, 24, spec.channels)
    ours, memory = gradient(spec, Compute(), params, images)
    plain, more = gradient(spec, PLAIN, params, images)
    close(plain, ours, 1e-4)
    assert memory < 0.7 * more


def test_forward_mode_goes_through_a_network(net):
    params, images = params_of(net), draw(2, *net.image_size, net.channels)

    def logits(compute, images):
        return net.build(compute).apply({"params": params}, images)

    tangents = [
        jax.jit(functools.partial(jax.jvp, functools.partial(logits, compute)))(
            (images,), (jnp.ones_like(images),)
        )
        for compute in (PLAIN, Compute())
    ]
    close(*tangents)
