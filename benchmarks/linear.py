"""A linear classifier on pixels: what any network must beat clearly to mean something.

    python -m benchmarks.linear DATA [--image-size 32]

Multinomial logistic regression on the normalised pixels of the same training images
that a run with the default `data.val_fraction` sees, its penalty chosen on the same
validation images, scored once on the test images.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import numpy as np

from sws_jax.data import load_dataset
from sws_jax.data.base import Dataset, Split
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError

# Inverse penalties, for pixels in units of their standard deviation.
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_ITERATIONS = 300


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.linear",
        description="Accuracy of logistic regression on the pixels of a dataset.",
    )
    parser.add_argument("data", help="as in a config's dataset=")
    parser.add_argument("--image-size", type=int, help="default: the source's own")
    args = parser.parse_args()
    try:
        data = load_dataset(args.data, image_size=args.image_size)
    except UserError as error:
        print(f"benchmarks.linear: {error}", file=sys.stderr)
        return 2
    strength, val, test, converged = score(data)
    print(
        f"{data.name}: logistic regression on pixels, {len(data.train):,} training "
        f"images, C={strength:g}: validation top-1 {val:.1%}, test top-1 {test:.1%}"
    )
    if strength in (STRENGTHS[0], STRENGTHS[-1]):
        print("the penalty is at the end of its range: another may be better")
    if not converged:
        print(f"the fit was stopped after {_ITERATIONS} iterations")
    return 0


def score(data: Dataset) -> tuple[float, float, float, bool]:
    """The chosen inverse penalty, top-1 on validation and test, and convergence."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    parts = {name: pixels(data, data.split(name)) for name in ("train", "val", "test")}
    best = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is reported
            model.fit(*parts["train"])
        val = model.score(*parts["val"])
        if best is None or val > best[1]:
            best = (strength, val, model)
    assert best is not None
    strength, val, model = best
    converged = bool(model.n_iter_.max() < _ITERATIONS)
    return strength, val, model.score(*parts["test"]), converged


def pixels(data: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Images as rows [n, height x width x channels], float32, and labels [n]."""
    fit = Fit(data.image_shape[:2])
    rows = [split.read(index) for index in range(len(split))]
    images = np.stack([fit(image) for image, _ in rows])
    mean, std = np.asarray(data.normalization.mean), data.normalization.std
    x = ((images / 255.0 - mean) / std).astype(np.float32)
    return x.reshape(len(x), -1), np.asarray([label for _, label in rows])


if __name__ == "__main__":
    sys.exit(main())
