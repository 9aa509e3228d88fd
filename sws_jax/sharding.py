"""The mesh, and the one table that maps logical axes to it.

Networks name the axes of their parameters (`embed`, `mlp`, `heads`, ...) and know
nothing of devices. The mesh has three axes: batches are split over ``data`` and
``fsdp``; parameters, and all that follows them, are split over ``fsdp`` along their
width and over ``tensor`` along heads and hidden units. Another layout is another table.

Flax turns logical axes into shardings too (`nn.logical_to_mesh_sharding`). This module
does it itself, as it replicates an axis whose size the mesh does not divide, and tells
of it (`undivided`), where JAX refuses the whole array.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sws_jax import trees
from sws_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# Logical axis -> mesh axis (None: replicated).
RULES = {
    "batch": BATCH,
    "layers": None,
    "tokens": None,
    "channels": None,
    "embed": "fsdp",
    "qkv": None,
    "heads": "tensor",
    "head": None,
    "mlp": "tensor",
    "classes": None,
    # An axis of activations, whole on every device that has the image.
    "features": None,
    # An axis of what is drawn for many images at once, the same on every device.
    "groups": None,
}

# Programs that an accelerator has waiting besides the one that it runs.
_WAITING = 8

# The mesh that a program is being traced for; the modules of networks do not know it.
_traced_for: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar(
    "mesh", default=None
)


def make_mesh(
    devices: Sequence[jax.Device] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Mesh:
    """The devices as a mesh.

    `Mesh` gives automatic axes, which is what logical rules and `jax.jit` with
    shardings want; `jax.make_mesh` would give explicit ones.

    Args:
      devices: default all of them, in all processes.
      sizes: of the axes, default 1; one of them may be -1, "the rest". Without sizes,
        all devices lie along ``data``.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = list(devices or jax.devices())
    size_of = {"data": -1, **(sizes or {})}
    shape = [size_of.get(axis, 1) for axis in AXES]
    text = " x ".join(f"{axis} {n}" for axis, n in zip(AXES, shape, strict=True))
    if any(n < 1 and n != -1 for n in shape) or shape.count(-1) > 1:
        raise UserError(
            f"sizes of a mesh are at least 1, and one may be -1 for the rest; they are "
            f"{text}"
        )
    known = math.prod(n for n in shape if n != -1)
    shape = [len(devices) // known if n == -1 else n for n in shape]
    if math.prod(shape) != len(devices):
        raise UserError(
            f"a mesh of {text} does not fit {len(devices)} devices: its sizes must "
            f"multiply to as many"
        )
    # Neighbours on a TPU's network become neighbours on the last axes.
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Splits axis number `axis`, the batch, over the mesh."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH))


def shard_count(mesh: Mesh) -> int:
    """The number of parts into which a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within it, or within a function that it decorates, no mesh is set.

    A caller may have set one with `jax.set_mesh`. Our programs name the mesh that they
    run on, and arrays of one mesh cannot be used while another one with explicit axes
    is set. Afterwards the caller's mesh is set again.
    """
    if jax.sharding.get_abstract_mesh().empty:
        yield
        return
    with jax.set_mesh(Mesh(np.empty((), object), ())):
        yield


def brought(tree: trees.Tree, mesh: Mesh) -> trees.Tree:
    """A tree in which arrays on other devices or meshes are copied to this mesh, whole.

    All other leaves stay as they are.

    Raises:
      UserError: an array on another mesh is not whole in this process.
    """
    everywhere, devices = replicated(mesh), set(mesh.devices.flat)

    def bring(leaf):
        if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
            return leaf
        sharding = leaf.sharding
        is_on_mesh = sharding.device_set == devices or not leaf.committed
        if is_on_mesh and not _explicit(sharding):
            return leaf
        if not leaf.is_fully_addressable:
            raise UserError(
                "weights lie on a mesh of several processes that is not the one they "
                "are to be used on: bring them to this mesh, or to numpy, first"
            )
        return jax.device_put(np.asarray(leaf), everywhere)

    return jax.tree.map(bring, tree)


def refuse_explicit(name: str, tree: trees.Tree) -> None:
    """Refuses arrays split over explicit axes of a mesh, which networks do not support.

    Args:
      name: of what is in the tree, for the message.
      tree: arrays, traced or not.

    Raises:
      UserError: naming the axes.
    """
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(jax.typeof(leaf), "sharding", None)
        if not isinstance(sharding, NamedSharding) or not _explicit(sharding):
            continue
        axes = [axis for axis in sharding.spec if axis is not None]
        if axes:
            raise UserError(
                f"{name} are split over explicit axes of a mesh ({axes[0]}), and "
                f"networks take automatic ones: jax.make_mesh(..., axis_types=(jax."
                f"sharding.AxisType.Auto, ...))"
            )


def _explicit(sharding: jax.sharding.Sharding) -> bool:
    """Whether a mesh has an axis that JAX tracks in the types of arrays."""
    axis_types = sharding.mesh.axis_types if isinstance(sharding, NamedSharding) else ()
    return AxisType.Explicit in axis_types


@contextlib.contextmanager
def constrained(mesh: Mesh) -> Iterator[None]:
    """Within it, `constrain` places the activations of the program that is traced."""
    token = _traced_for.set(mesh)
    try:
        yield
    finally:
        _traced_for.reset(token)


def constrain(x: jax.Array, *names: str) -> jax.Array:
    """An activation, split as the table says; unchanged outside of `constrained`."""
    mesh = _traced_for.get()
    if mesh is None:
        return x
    return _constrain(mesh, x, [RULES[name] for name in names])


def _constrain(mesh: Mesh, x: jax.Array, axes) -> jax.Array:
    spec = PartitionSpec(*axes)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def splits_weights() -> bool:
    """Whether the mesh that a program is traced for splits parameters."""
    mesh = _traced_for.get()
    return mesh is not None and any(mesh.shape[axis] > 1 for axis in ("fsdp", "tensor"))


def matmul(*names: str | None):
    """`jax.lax.dot_general` that gathers a kernel over ``fsdp`` before it is used.

    Left to itself, the compiler may instead move the kernel to other devices and sum
    activations. The kernel's gradient is split as the kernel is.

    Args:
      *names: of the kernel's axes.
    """

    def product(x, kernel, *args, **kwargs):
        mesh = _traced_for.get()
        if mesh is not None:
            kernel = _gathered(mesh, names, kernel)
        return jax.lax.dot_general(x, kernel, *args, **kwargs)

    return product


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gathered(mesh: Mesh, names, kernel):
    axes = [
        _fitting(n, size, mesh) for n, size in zip(names, kernel.shape, strict=True)
    ]
    return _constrain(mesh, kernel, [None if a == "fsdp" else a for a in axes])


def _gathered_back(mesh: Mesh, names, _, gradient):
    axes = [
        _fitting(n, size, mesh) for n, size in zip(names, gradient.shape, strict=True)
    ]
    return (_constrain(mesh, gradient, axes),)


_gathered.defvjp(
    lambda mesh, names, x: (_gathered(mesh, names, x), None), _gathered_back
)


def by_image(function, weights: trees.Tree, images: jax.Array) -> jax.Array:
    """``function(weights, images)``, every device with all weights for its images.

    For frozen networks: left to itself, the compiler gathers the batch on every
    device where it cannot split an operation, as in a grouped convolution. Outside of
    `constrained` the function is called as it is.

    Args:
      function: whose result for an image depends on that image alone.
      weights: gathered where they are used.
      images: [batch, ...].
    """
    mesh = _traced_for.get()
    if mesh is None:
        return function(weights, images)
    split = PartitionSpec(BATCH)
    specs = (PartitionSpec(), split)
    own = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split)
    return own(weights, images)


def check_batch(name: str, size: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Refuses a batch that does not divide over the devices.

    Args:
      name: of the batch's size, for messages.
      size: images of the global batch.
      mesh: over which it is split.
      micro_batches: into which each device divides its part.

    Raises:
      UserError: naming the smallest multiple that divides.
    """
    devices = shard_count(mesh)
    if micro_batches < 1:
        raise UserError(f"accum_steps must be at least 1, and is {micro_batches}")
    if size < 1 or size % (devices * micro_batches):
        accumulated = ""
        if micro_batches > 1:
            accumulated = f" in {micro_batches} accumulated parts"
        raise UserError(
            f"{name} {size} does not divide over {devices} devices{accumulated}; "
            f"take a multiple of {devices * micro_batches}"
        )


def tree_shardings(boxed_params: trees.Tree, mesh: Mesh) -> trees.Tree:
    """Sharding of every parameter, from the logical axes in its box.

    An axis that the mesh does not divide is replicated (see `undivided`).
    """

    def leaf_sharding(leaf) -> NamedSharding:
        names = _logical(leaf)
        axes = [
            _fitting(name, n, mesh) for name, n in zip(names, _shape(leaf), strict=True)
        ]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(leaf_sharding, boxed_params, is_leaf=_is_boxed)


def undivided(boxed_params: trees.Tree, mesh: Mesh) -> list[str]:
    """The axes that a mesh cannot split, in words: ``3 heads over tensor 2``."""
    undivided_axes = []
    for leaf in jax.tree.leaves(boxed_params, is_leaf=_is_boxed):
        for name, n in zip(_logical(leaf), _shape(leaf), strict=True):
            axis = RULES[name] if name else None
            if axis and not _fitting(name, n, mesh):
                undivided_axes.append(f"{n} {name} over {axis} {mesh.shape[axis]}")
    return list(dict.fromkeys(undivided_axes))


def _is_boxed(leaf) -> bool:
    return isinstance(leaf, nn.Partitioned)


def _logical(leaf) -> tuple:
    """Names of the axes of a parameter; without a box, its last is a width."""
    if _is_boxed(leaf):
        return leaf.names
    return (*[None] * (len(leaf.shape) - 1), "embed")[: len(leaf.shape)]


def _shape(leaf) -> tuple[int, ...]:
    return (leaf.value if _is_boxed(leaf) else leaf).shape


def _fitting(name: str | None, size: int, mesh: Mesh) -> str | None:
    """The mesh axis of a logical axis, if it divides the size."""
    axis = RULES[name] if name else None
    return axis if isinstance(axis, str) and size % mesh.shape[axis] == 0 else None


@functools.lru_cache(maxsize=16)  # asked for every batch
def own_rows(mesh: Mesh, size: int) -> np.ndarray:
    """Rows of a batch of `size` that devices of this process hold, in order.

    Processes that share images over ``tensor`` hold the same rows.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((size,))
    rows = [np.arange(size)[index] for index in indices.values()]
    own = np.unique(np.concatenate(rows))
    own.flags.writeable = False
    return own


def is_first_of_rows(mesh: Mesh) -> bool:
    """Whether this is the first of the processes that hold its rows."""
    first = mesh.devices.take(0, axis=AXES.index("tensor"))
    mine = jax.process_index()
    return any(device.process_index == mine for device in first.flat)


def to_global(mesh: Mesh, size: int, tree: trees.Tree) -> trees.Tree:
    """The rows of this process as rows of global arrays, split over the mesh.

    Args:
      mesh: to split over.
      size: of the whole batch.
      tree: arrays whose first axis is `own_rows`.
    """
    sharding, own = batch_sharding(mesh), own_rows(mesh, size)

    def to_shards(rows):
        def rows_of_shard(index):
            positions = np.arange(size)[index[0]]
            return rows[np.searchsorted(own, positions)]

        shape = (size, *rows.shape[1:])
        return jax.make_array_from_callback(shape, sharding, rows_of_shard)

    return jax.tree.map(to_shards, tree)


def hold_back(started: Sequence) -> None:
    """Waits until few programs are waiting to be run.

    Called after each program that a loop starts. A few keep a device busy, and the
    batches of more would fill its memory. Devices that share a host's threads can
    starve each other's collectives when many programs wait.

    Args:
      started: results of the programs that the loop has started, the newest last.
    """
    waiting = 0 if jax.default_backend() == "cpu" else _WAITING
    if len(started) > waiting:
        jax.block_until_ready(started[-1 - waiting])


def put(tree: trees.Tree, shardings: trees.Tree) -> trees.Tree:
    """Copies of all leaves with their shardings, safe to donate.

    Args:
      tree: the same in all processes.
      shardings: a sharding for each leaf.
    """

    def copy(leaf, leaf_sharding):
        if leaf_sharding.is_fully_addressable:
            return jax.device_put(leaf, leaf_sharding)
        return jax.make_array_from_callback(
            leaf.shape, leaf_sharding, lambda i: leaf[i]
        )

    return jax.tree.map(copy, trees.to_host(tree), shardings)
