"""Batch normalisation as a trained network applies it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sws_jax import xla_flags

xla_flags.warn()


class BatchNorm(nn.Module):
    """Batch normalisation in evaluation: its statistics are parameters like others.

    Teachers are not trained here. ``(x - mean) / sqrt(var + eps) * scale + bias`` over
    the last axis, in float32, given back in the dtype of x.
    """

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x):  # [..., c] -> [..., c]
        shape = (x.shape[-1],)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale: Any = self.param("scale", ones, shape)
        bias: Any = self.param("bias", zeros, shape)
        mean: Any = self.param("mean", zeros, shape)
        var: Any = self.param("var", ones, shape)
        y = (x.astype(jnp.float32) - mean) * (jax.lax.rsqrt(var + self.eps) * scale)
        return (y + bias).astype(x.dtype)
