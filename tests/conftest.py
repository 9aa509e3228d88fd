"""Eight CPU devices, and array shapes checked against their annotations."""

import atexit
import importlib.util
import os
import shutil
import tempfile

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Tests compile much and compute little.
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# What one process has compiled, no other needs to: of the workers, and those that tests
# start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="sws_jax_compiled_")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from jaxtyping import install_import_hook  # noqa: E402

# The modules whose functions state the shapes of their arrays.
install_import_hook(
    ["sws_jax.losses", "sws_jax.data.augment", "sws_jax.models.vit"],
    "beartype.beartype",
)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from sws_jax import networks, specs, trees  # noqa: E402

TINY = dict(
    width=16,
    heads=2,
    patch_size=4,
    image_size=8,
    channels=1,
    num_classes=10,
    weight_init="fan_in",
    pos_embed_std=0.5,
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbours stay together, since they share what their module makes once; who is
    done takes half of what another has left."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture
def net():
    """A ViT that is small in everything but its number of parts."""
    return specs.ViTSpec(depth=4, drop_path=0.3, **TINY)


@pytest.fixture
def aux():
    """An Aux-Net of three stages, one of them applied once."""
    return aux_spec((1, 2, 2))


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)


@pytest.fixture
def with_timm():
    """For tests beside PyTorch and timm, where they are installed."""
    for name in ("torch", "timm"):  # timm itself imports with a stand-in alone
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def aux_spec(stages, **changes):
    net = specs.ViTSpec(depth=sum(stages), **{**TINY, "drop_path": 0.3, **changes})
    return specs.AuxViTSpec(net, stages)


def params_of(spec, seed=0):
    """Numpy parameters with no zeros, so that every leaf matters."""
    random = np.random.default_rng(seed)

    def draw(name, leaf):
        kernel = name.endswith(("kernel", "embed", "token"))
        spread = 0.25 if kernel else 0.1
        values = random.normal(scale=spread, size=leaf.shape)
        return (values + name.endswith("scale")).astype(leaf.dtype)

    return trees.map_with_name(draw, networks.abstract_params(spec))


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


def everything(split):
    """``image`` and ``label`` of all images, stacked, as arrays in a file."""
    images, labels = zip(*(split.read(i) for i in range(len(split))), strict=True)
    return {"image": np.stack(images), "label": np.asarray(labels, np.int32)}
