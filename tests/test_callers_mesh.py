"""Every computation of the package inside a mesh that the caller has set."""

import contextlib

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import sws_jax
from sws_jax import sharding
from sws_jax.data import load_dataset
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError
from sws_jax.jobs import train
from sws_jax.models import networks
from sws_jax.training import evaluation, step

from support.learngenes import GENE
from support.networks import TINY
from support.smallest import asked

KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}


def around(name):
    """A context that a caller may have entered."""
    devices = jax.devices()
    if name == "with mesh":  # how it was before jax.set_mesh
        return Mesh(np.array(devices).reshape(4, 2), ("data", "model"))
    if name == "half of the devices":
        kind, devices = AxisType.Explicit, devices[4:]
        return jax.set_mesh(jax.make_mesh((4,), ("x",), (kind,), devices=devices))
    if name == "our names":
        kinds = (AxisType.Explicit,) * 3
        return jax.set_mesh(jax.make_mesh((8, 1, 1), sharding.AXES, kinds))
    kinds = (KINDS[name],) * 2
    return jax.set_mesh(jax.make_mesh((4, 2), ("x", "y"), kinds))


ALL = ["auto", "explicit", "with mesh", "half of the devices", "our names"]

# JAX's own notice of the older way.
older = pytest.mark.filterwarnings("ignore:`with mesh.:DeprecationWarning")


@pytest.fixture(scope="module")
def net():
    return sws_jax.expand(GENE, depth=3)


def scored(net):
    return evaluation.evaluate(
        networks.Predictor(
            networks.Network(net.spec, net.params), GENE.description.normalization
        ),
        load_dataset("digits").val,
        Fit((8, 8)),
        normalization=GENE.description.normalization,
        global_batch_size=80,
        mesh=sharding.make_mesh(),
    )


def logits(net, images):
    own = net.spec.build().apply({"params": net.params}, images)
    normalization = GENE.description.normalization
    network = networks.Network(net.spec, net.params)
    predictor = networks.Predictor(network, normalization)
    return np.stack([own, predictor.logits(images, normalization)])


@older
@pytest.mark.parametrize(
    "name",
    [
        *ALL[:-1],
        # By default, test_evaluate has a mesh of our own names.
        pytest.param(ALL[-1], marks=pytest.mark.slow),
    ],
)
def test_expand_apply_and_logits(name, net, images):
    before = logits(net, images)
    networks._abstract_params.cache_clear()
    with around(name):
        again = sws_jax.expand(GENE, depth=3)
        inside = logits(again, images)
    for a, b in zip(
        jax.tree.leaves(net.params), jax.tree.leaves(again.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(before, inside)
    # No cache keeps anything of that mesh.
    shapes = networks.abstract_params(net.spec)
    assert all(leaf.sharding is None for leaf in jax.tree.leaves(shapes))


@older
@pytest.mark.parametrize("name", ALL)
def test_evaluate(name, net):
    before = scored(net)
    with around(name):
        assert scored(net) == before
        # The older way sets no mesh for this function.
        assert jax.sharding.get_mesh().empty == (name == "with mesh")


@pytest.mark.parametrize("place", ["mesh", "half", "device"])
def test_evaluate_takes_weights_that_the_caller_has_placed(place, net):
    devices = jax.devices()
    mesh = jax.make_mesh(
        (4 if place == "half" else 8,),
        ("x",),
        (AxisType.Explicit,),
        devices=devices[:4] if place == "half" else devices,
    )
    sharding_of_all = (
        devices[3] if place == "device" else NamedSharding(mesh, PartitionSpec())
    )
    placed = networks.Network(net.spec, jax.device_put(net.params, sharding_of_all))
    with jax.set_mesh(mesh) if place != "device" else contextlib.nullcontext():
        assert scored(placed) == scored(net)


def test_images_on_explicit_axes_are_refused_in_a_sentence(net):
    mesh = jax.make_mesh((8,), ("x",), (AxisType.Explicit,))
    images = np.zeros((8, 8, 8, 1), np.float32)
    with jax.set_mesh(mesh):
        placed = jax.device_put(images, NamedSharding(mesh, PartitionSpec("x")))
        for call in (logits, jax.jit(lambda _, x: logits_of(net, x))):
            with pytest.raises(UserError, match=r"explicit axes of a mesh \(x\)"):
                call(net if call is logits else 0, placed)
        whole = jax.device_put(images, NamedSharding(mesh, PartitionSpec()))
        inside = logits(net, whole)
    np.testing.assert_array_equal(inside, logits(net, images))


def logits_of(net, images):
    return net.spec.build().apply({"params": net.params}, images)


@pytest.mark.parametrize("name", ["explicit", "half of the devices"])
def test_a_step(name):
    from sws_jax import specs

    normalization = load_dataset("digits").normalization
    recipe = step.Recipe(specs.ViTSpec(depth=1, **TINY), normalization)
    mesh = sharding.make_mesh()

    def one():
        program = step.program(recipe, mesh, 8)
        params = networks.abstract_params(recipe.spec)
        params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), params)
        with sharding.alone():
            state = step.new_state(recipe, params)
            state = sharding.put(state, step.state_shardings(recipe, mesh))
        raw = {
            "image": np.zeros((8, 8, 8, 1), np.uint8),
            "label": np.arange(8, dtype=np.int32),
        }
        raw = sharding.to_global(mesh, 8, raw)
        key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))
        return program(state, key, raw, np.float32(0.1), None)[1]["loss"]

    before = float(one())
    step._program.cache_clear()
    with around(name):
        assert float(one()) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["explicit"])
def test_a_whole_run(name, tmp_path):
    from sws_jax.jobs.rows import runs

    results = {}
    for where in ("outside", name):
        config, workdir = asked(tmp_path / where)
        run = runs(config)[0].config
        with contextlib.nullcontext() if where == "outside" else around(name):
            results[where] = train.train(run, workdir)
    scores = [result["test"] for result in results.values()]
    assert scores[0] == scores[1]
