"""Formulas of a block as one kind of device computes them fastest.

A network is the same on every device, and so are its numbers but for rounding. How XLA
is asked for them is not: what is a copy on one device is free on another. `of` looks up
the rules of a backend in `TABLE`; where there are none, the plain formulas stand, which
leave everything to XLA. Derivatives are written as `jax.custom_jvp`, so that forward
mode, second derivatives and `jax.vmap` work as with the plain formulas.

`docs/performance.md` says what each rule gave, and what was tried and gave nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from sws_jax import xla_flags
from sws_jax.specs import Compute

xla_flags.warn()

# Of a block's arrays those that can be kept, marked with `jax.ad_checkpoint`.
NAMES = ("qkv", "attention")
# Fewer tokens than these are not worth laying out by heads (forward and backward, two
# cores with AVX-512: at 4 tokens 0.67 ms against 0.30, at 16 tokens 1.9 against 1.5, at
# 64 tokens 10.2 against 12.0, at 197 tokens 20.5 against 25.2).
_FEW_TOKENS = 32


@dataclasses.dataclass(frozen=True)
class Rules:
    """How the parts of a block are computed.

    Attributes:
      gelu: of x, by the error function; any shape.
      attention: from q, k and v in one array [b, n, 3, h, k] to what the heads read,
        [b, n, h, k].
      product: `jax.lax.dot_general` of an input, over its last axes, and a kernel, over
        its first.
      kept: of `NAMES`, what a block keeps for the backward pass, which computes the
        rest again; None keeps what the derivatives ask for.
    """

    gelu: Callable[[jax.Array], jax.Array]
    attention: Callable[[jax.Array], jax.Array]
    product: Callable[..., jax.Array]
    kept: tuple[str, ...] | None = None


def of(compute: Compute) -> Rules:
    """The rules of a backend for a dtype.

    Args:
      compute: whose `backend` is asked for, "default" for the one that JAX runs on.
    """
    backend = compute.backend
    if backend == "default":
        backend = jax.default_backend()
    return TABLE.get((backend, compute.dtype), PLAIN)


def remembered(block, compute: Compute, checkpoint, *, always: bool = False):
    """A block that keeps for its backward pass what its `Compute` and the rules say.

    Args:
      block: a function, or a module's class.
      compute: how it is run.
      checkpoint: `jax.checkpoint`, or `nn.remat` for a class.
      always: make a checkpoint of it even where it keeps everything.
    """
    kept = () if compute.remat else of(compute).kept
    if kept is not None:
        policy = jax.checkpoint_policies.save_only_these_names(*kept)
    elif always:
        policy = jax.checkpoint_policies.everything_saveable
    else:
        return block
    return checkpoint(block, prevent_cse=False, policy=policy)


def attention(qkv: jax.Array) -> jax.Array:
    """Softmax attention of every head, the heads between tokens and features.

    Args:
      qkv: [b, n, 3, h, k].

    Returns:
      [b, n, h, k].
    """
    q, k, v = (qkv[:, :, i] for i in range(3))
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


def attention_by_heads(qkv: jax.Array) -> jax.Array:
    """`attention`, with the tokens of a head side by side in memory.

    The products of a head are then products of matrices as they lie there. One copy
    brings q, k and v to this order; taken apart by `jax.lax.split`, their gradients
    are joined by one copy too, where slices would add three padded arrays.
    """
    size = qkv.shape[-1]
    if qkv.shape[1] < _FEW_TOKENS:
        return attention(qkv)
    by_heads = qkv.transpose(2, 0, 3, 1, 4)  # [3, b, h, n, k]
    q, k, v = (part[0] for part in jax.lax.split(by_heads, (1, 1, 1)))
    scores = jnp.einsum("bhqk,bhtk->bhqt", q * size**-0.5, k)
    read = jnp.einsum("bhqt,bhtk->bhqk", jax.nn.softmax(scores), v)
    return read.transpose(0, 2, 1, 3)


@jax.custom_jvp
def gelu_once(x: jax.Array) -> jax.Array:
    """Exact GELU whose derivative is computed beside it, and kept.

    The derivative shares the error function with the value; a backward pass that is
    left to itself computes it again.

    Reference:
      Gaussian Error Linear Units, 1606.08415.
    """
    return x * _normal_cdf(x)


@gelu_once.defjvp
def _gelu_once_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    cdf = _normal_cdf(x)
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return x * cdf, dx * (cdf + x * density)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


def flat_product(x, kernel, dimension_numbers, **options):
    """`jax.lax.dot_general` as a product of two matrices.

    XLA's own order of the axes of a product with more of them costs copies in the
    backward pass.

    Args:
      x: [..., a], where a may be several axes.
      kernel: [a, ...].
      dimension_numbers: that say so.
      **options: of `jax.lax.dot_general`.
    """
    (axes, _), _ = dimension_numbers
    inner = math.prod(kernel.shape[: len(axes)])
    rows, columns = x.shape[: x.ndim - len(axes)], kernel.shape[len(axes) :]
    flat = jax.lax.dot_general(
        x.reshape(-1, inner),
        kernel.reshape(inner, -1),
        (((1,), (0,)), ((), ())),
        **options,
    )
    return flat.reshape(*rows, *columns)


PLAIN = Rules(
    gelu=functools.partial(nn.gelu, approximate=False),
    attention=attention,
    product=jax.lax.dot_general,
)

# (backend, dtype) -> its rules.
TABLE = {
    ("cpu", "float32"): Rules(gelu_once, attention_by_heads, flat_product, NAMES),
}
