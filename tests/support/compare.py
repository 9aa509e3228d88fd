"""Comparisons of trees of arrays."""

import jax
import numpy as np


def close(a, b, tolerance=1e-5):
    """Every leaf within `tolerance`, relative to the leaf's largest value."""

    def check(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        scale = max(np.abs(x).max(initial=0.0), 1e-6)
        np.testing.assert_allclose(y / scale, x / scale, rtol=0, atol=tolerance)

    jax.tree.map(check, a, b)


def equal(a, b):
    """Every leaf the same, bit for bit."""
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), a, b)
