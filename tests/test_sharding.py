"""The mesh, and where it puts what."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sws_jax import sharding, specs, trees
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.training import step

from support.networks import TINY, aux_spec


@pytest.mark.parametrize(
    "sizes, shape",
    [
        ({}, (8, 1, 1)),
        (dict(fsdp=2), (4, 2, 1)),
        (dict(data=1, fsdp=-1, tensor=2), (1, 4, 2)),
        (dict(data=2, fsdp=2, tensor=2), (2, 2, 2)),
    ],
)
def test_sizes_of_a_mesh(sizes, shape):
    mesh = sharding.make_mesh(sizes=sizes)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert sharding.shard_count(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize(
    "sizes, words",
    [
        (dict(fsdp=3), "data -1 x fsdp 3 x tensor 1 does not fit 8 devices"),
        (dict(data=1), "does not fit 8 devices"),
        (dict(data=0, fsdp=-1), "at least 1, and one may be -1"),
        (dict(fsdp=-1), "one may be -1 for the rest"),
    ],
)
def test_impossible_meshes_are_refused(sizes, words):
    with pytest.raises(UserError, match=words):
        sharding.make_mesh(sizes=sizes)


def test_where_parameters_live():
    """Width over fsdp, heads and hidden units over tensor, by name."""
    mesh = sharding.make_mesh(sizes=dict(data=2, fsdp=2, tensor=2))
    places = trees.flatten(step.network_shardings(aux_spec((1, 2)), mesh))
    expected = {
        "stage_0/attn/qkv/kernel": ("fsdp", None, "tensor", None),
        "stage_0/attn/proj/kernel": ("tensor", None, "fsdp"),
        "stage_1/mlp/fc1/kernel": ("fsdp", "tensor"),
        "stage_1/mlp/fc2/kernel": ("tensor", "fsdp"),
        "stage_1/norm1/scale": ("fsdp",),
        "pos_embed": (None, None, "fsdp"),
        "head/kernel": ("fsdp", None),
    }
    for name, axes in expected.items():
        assert places[name].spec == PartitionSpec(*axes), name
    boxed = networks.abstract_params(aux_spec((1, 2)), boxed=True)
    assert sharding.undivided(boxed, mesh) == []


@pytest.mark.parametrize("axis", ["fsdp", "tensor"])
def test_whether_the_mesh_of_a_program_splits_weights(axis):
    assert not sharding.splits_weights()
    for size in (1, 2):
        with sharding.constrained(sharding.make_mesh(jax.devices()[:4], {axis: size})):
            assert sharding.splits_weights() == (size > 1)


def test_what_does_not_divide_is_replicated_and_said():
    """Three heads over two devices."""
    spec = specs.ViTSpec(**{**TINY, "width": 24, "heads": 3, "depth": 1})
    mesh = sharding.make_mesh(sizes=dict(data=4, tensor=2))
    boxed = networks.abstract_params(spec, boxed=True)
    assert sharding.undivided(boxed, mesh) == ["3 heads over tensor 2"]
    places = trees.flatten(sharding.tree_shardings(boxed, mesh))
    kernel = places["blocks/attn/qkv/kernel"].spec
    assert kernel == PartitionSpec(None, "fsdp", None, None, None)
    assert places["blocks/mlp/fc1/kernel"].spec[-1] == "tensor"


@pytest.mark.parametrize("name", ["levit_128s", "regnety_002"])
def test_teachers_of_other_families_are_split_too(name):
    spec = {**specs.LEVITS, **specs.REGNETS}[name]
    mesh = sharding.make_mesh(sizes=dict(data=1, fsdp=4, tensor=2))
    places = step.network_shardings(spec, mesh)
    shapes = networks.abstract_params(spec)
    sizes = jax.tree.map(
        lambda leaf, place: np.prod(place.shard_shape(leaf.shape)), shapes, places
    )
    assert sum(jax.tree.leaves(sizes)) < 0.6 * trees.count(shapes)
