"""The mesh, and the one table that maps logical axes to it.

Networks name the axes of their parameters (`embed`, `mlp`, `heads`, ...) and know
nothing of devices. Here every parameter is replicated and the batch is split over
all devices: data parallelism. Another layout is another table.
"""

from __future__ import annotations

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sws_jax import trees
from sws_jax.errors import UserError

AXES = ("data",)

# Logical axis -> mesh axis (None: replicated).
RULES = (
    ("batch", "data"),
    ("layers", None),
    ("tokens", None),
    ("channels", None),
    ("embed", None),
    ("qkv", None),
    ("heads", None),
    ("head", None),
    ("mlp", None),
    ("classes", None),
)


def make_mesh(devices=None) -> Mesh:
    """All devices, or the given ones, along the data axis.

    `Mesh` gives automatic axes, which is what logical rules and `jax.jit` with
    shardings want; `jax.make_mesh` would give explicit ones.
    """
    return Mesh(np.asarray(devices or jax.devices()), AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Splits axis number `axis`, the batch, over the mesh."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, dict(RULES)["batch"]))


def shard_count(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return mesh.shape[dict(RULES)["batch"]]


def check_batch(name: str, size: int, mesh: Mesh, parts: int = 1) -> None:
    """Refuses a batch that does not divide over the devices."""
    devices = shard_count(mesh)
    if parts < 1:
        raise UserError(f"accum_steps must be at least 1, and is {parts}")
    if size < 1 or size % (devices * parts):
        micro = f" in {parts} accumulated parts" if parts > 1 else ""
        raise UserError(
            f"{name} {size} does not divide over {devices} devices{micro}; take a "
            f"multiple of {devices * parts}"
        )


def tree_shardings(boxed_params: trees.Tree, mesh: Mesh) -> trees.Tree:
    """Sharding of every parameter, from the logical axes in its box."""
    specs = nn.get_partition_spec(boxed_params)
    return nn.logical_to_mesh_sharding(specs, mesh, RULES)


def to_global(mesh: Mesh, tree: trees.Tree) -> trees.Tree:
    """Rows of this process as rows of global arrays, split over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(sharding, rows), tree
    )
