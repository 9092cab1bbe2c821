"""The mesh of devices, and how arrays lie on it."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The batch is split over both axes; large arrays that stay are split over the second.
DATA, FSDP = "data", "fsdp"


def split_batch(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Within jit: splits the first axis over all devices. Without a mesh, x as it is."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec((DATA, FSDP))))


def gather(tree: Any, mesh: Mesh | None) -> Any:
    """Within jit: brings every array of a tree whole to every device. Without a mesh, tree as it is."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))
