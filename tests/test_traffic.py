"""What devices send each other in a compiled step: what belongs there, and no more."""

import dataclasses

import jax
import pytest

from sws_jax import sharding, specs, trees
from sws_jax.data.augment import Augment
from sws_jax.estimate.traffic import collectives
from sws_jax.methods.objectives import Loss
from sws_jax.models import networks
from sws_jax.models.networks import Network, Predictor
from sws_jax.specs.regnet import RegNetSpec
from sws_jax.training import step

from support.networks import TINY
from support.steps import AUX, GREY, PLAIN, recipe_of, teacher_of

ROWS = 7  # images of a device: no axis of a parameter is a multiple of it
DEPTH = 5
DES = specs.ViTSpec(depth=DEPTH, drop_path=0.3, **TINY)
SLOW = pytest.mark.slow


def traffic(spec, sizes, teacher=None, **changes):
    """All collectives of a step, and those whose arrays hold images."""
    mesh = sharding.make_mesh(sizes=dict(zip(sharding.AXES, sizes, strict=True)))
    if teacher is not None:
        net = teacher.network.spec
        params = jax.tree.map(
            step.with_sharding,
            networks.abstract_params(net),
            step.network_shardings(net, mesh),
        )
        teacher = dataclasses.replace(teacher, network=Network(net, params))
    loss = Loss("soft" if teacher else "none")
    recipe = recipe_of(spec, loss=loss, **{"augment": PLAIN, **changes})
    size = ROWS * sharding.shard_count(mesh) * recipe.accum_steps
    operations = collectives(step.program(recipe, mesh, size, teacher).as_text())
    assert all(one.counted for one in operations)
    return operations, [
        one for one in operations if any(map(holds_images, shapes(one)))
    ]


def holds_images(shape):
    return any(n % ROWS == 0 for n in shape)


def shapes(one):
    return [shape for _, shape in one.arrays]


def kinds(operations):
    return {one.kind for one in operations}


def neighbours(one):
    """The group of the first device."""
    return next(group for group in map(sorted, one.groups) if 0 in group)


def axes(shape):
    """In order of length: a compiler may transpose them, or leave out ones."""
    return tuple(sorted(n for n in shape if n > 1))


def seen(spec, tensor):
    """Axes of the weights as a block and the rest use them: whole but for tensor."""
    mesh = sharding.make_mesh(sizes=dict(tensor=tensor))
    leaves = trees.flatten(networks.abstract_params(spec))
    places = trees.flatten(step.network_shardings(spec, mesh))
    blocks, rest = {}, {}
    for name, leaf in leaves.items():
        shape = places[name].shard_shape(leaf.shape)
        if name.startswith("blocks/"):
            blocks[name] = axes(shape[1:])
        else:
            rest[name] = axes(shape)
    return blocks, rest


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2])
def test_data_parallelism_sums_gradients_and_nothing_else(parts):
    """Once for each layer and part; more than that is loss and counts, if anything."""
    mixed = Augment(erase=0.5, mixup=0.8, cutmix=1.0, mix_group=ROWS)
    operations, images = traffic(AUX, (8, 1, 1), accum_steps=parts, augment=mixed)
    assert kinds(operations) == {"all-reduce"}
    assert not images
    summed = sum(one.bytes * one.times for one in operations)
    assert summed >= 4 * trees.count(networks.abstract_params(AUX))
    assert summed <= 1.1 * parts * 4 * trees.count(networks.abstract_params(AUX.net))


@pytest.mark.parametrize("sizes", [(8, 1, 1), pytest.param((2, 4, 1), marks=SLOW)])
def test_a_teacher_of_grouped_convolutions_sees_its_own_images(sizes):
    """The compiler, left alone, computes them for the whole batch on every device."""
    spec = RegNetSpec(
        widths=(8, 24), depths=(1, 1), group_width=12, stem_width=4,
        image_size=8, channels=1, num_classes=10,
    )  # fmt: skip
    teacher = Predictor(Network(spec, None), GREY)
    _, images = traffic(DES.replace(depth=1), sizes, teacher)
    assert not images


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 2, 2),
        pytest.param((1, 8, 1), marks=SLOW),
        pytest.param((2, 4, 1), marks=SLOW),
        pytest.param((4, 1, 2), marks=SLOW),
    ],
    ids=str,
)
def test_each_axis_of_the_mesh_carries_what_is_its_own(sizes):
    """Weights over fsdp, a layer at a time; sums of activations over tensor."""
    _, fsdp, tensor = sizes
    along_fsdp, along_tensor = (
        list(range(0, fsdp * tensor, tensor)),
        list(range(tensor)),
    )
    operations, images = traffic(DES, sizes, teacher_of())
    blocks, rest = seen(DES, tensor)
    gathers = [one for one in operations if one.kind == "all-gather"]
    sums = [one for one in operations if one.kind in ("all-reduce", "reduce-scatter")]
    moves = [one for one in operations if one not in gathers + sums]

    # Images stay where they are, but for sums of products with split weights.
    for one in images:
        assert one.kind == "all-reduce" and one.loops and tensor > 1
        assert neighbours(one) == along_tensor
    assert bool(images) == (tensor > 1)

    # Weights are whole for as long as their layer is used, and never all layers.
    assert bool(gathers) == (fsdp > 1)
    for one in gathers:
        assert neighbours(one) == along_fsdp, one
        (shape,) = shapes(one)
        assert axes(shape) in (blocks if one.loops else rest).values(), one
    if fsdp > 1:
        mine = [one for one in gathers if one.times == DEPTH]
        assert {axes(shape) for one in mine for shape in shapes(one)} >= {
            shape for name, shape in blocks.items() if name.endswith("kernel")
        }

    # Gradients are summed; where both split weights, some change places once summed.
    summed = sum(one.bytes * one.times for one in sums if one not in images)
    weights = networks.abstract_params(DES)
    once = 4 * trees.count(weights) / tensor
    assert once <= summed < 2 * once
    assert not moves or (fsdp > 1 and tensor > 1)
    largest = max(leaf.size for leaf in jax.tree.leaves(weights)) / DEPTH
    for one in moves:
        assert one.kind == "collective-permute" and not one.loops, one
        assert one.bytes <= 4 * largest / fsdp, one
