"""Eight CPU devices, array shapes checked against their annotations, and fixtures.

Functions that tests share are in `support`.
"""

import atexit
import gc
import importlib.util
import os
import shutil
import tempfile

import pytest

pytest.register_assert_rewrite("support")

from sws_jax import xla_flags  # noqa: E402

from support import compiler  # noqa: E402

_inherited = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = xla_flags.joined(_inherited, compiler.flags(8))
xla_flags.add()  # The processes that tests start inherit it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Workers, and the processes that tests start, share what one of them has compiled.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="sws_jax_compiled_")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from jaxtyping import install_import_hook  # noqa: E402

# The modules whose functions state the shapes of their arrays.
install_import_hook(
    [
        "sws_jax.methods.objectives",
        "sws_jax.data.augment",
        "sws_jax.models.vit",
    ],
    "beartype.beartype",
)

import beartype  # noqa: E402
from jaxtyping import jaxtyped  # noqa: E402

from sws_jax import pixels  # noqa: E402

# This function alone, as the class beside it takes lists, and makes tuples of them.
pixels.normalize = jaxtyped(pixels.normalize, typechecker=beartype.beartype)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import orbax.checkpoint as ocp  # noqa: E402

import sws_jax  # noqa: E402
from sws_jax import specs  # noqa: E402
from sws_jax.training import step  # noqa: E402

from support.networks import TINY, aux_spec  # noqa: E402

# Of an array that eight devices hold, Orbax lets each write an eighth, and compiles a
# program for every such part, which makes half of a run's compilations here. Arrays
# over a MiB, and those of jobs of several processes, are written as usual.
ocp.type_handlers.register_type_handler(
    jax.Array,
    ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20),
    override=True,
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps neighbours together, since they share the fixtures of their module; a
    worker without tests takes half of those that another has left."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Drops compiled programs of earlier modules before they take gigabytes."""
    yield
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if resident > 2**30:
        step._program.cache_clear()
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def net():
    """A ViT that has all its parts, each of them small."""
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
    """Skips a test where PyTorch and timm are not installed."""
    for name in ("torch", "timm"):  # Importing timm here would need a stand-in.
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.fixture
def teacher(tmp_path):
    """The file of a network of digits."""
    from support.digits import network_of

    path = tmp_path / "teacher.safetensors"
    sws_jax.save_network(str(path), network_of(specs.ViTSpec(depth=2, **TINY)))
    return path


@pytest.fixture(scope="module")
def storage():
    """The objects of a bucket, for this process and those that it starts."""
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs is not installed")
    from support import gcs

    with pytest.MonkeyPatch.context() as patch, gcs.running() as (address, objects):
        for name, value in gcs.environment(address).items():
            patch.setenv(name, value)
        yield objects
