"""The mesh of devices, and how arrays lie on it.

A step is one computation over all devices. Its arguments lie on them as `place` puts them; within the step the
batch is split (`split_batch`) and weights are whole (`gather`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nada_jax.devices.processes import AUTO
from nada_jax.errors import UserError
from nada_jax.settings import Count, Section, Whole

# The batch is split over both axes; large arrays that stay are split over the second.
DATA, FSDP = "data", "fsdp"
LARGE = 2**16  # elements; splitting less saves no memory worth the message


class MeshShape(Section, name="mesh"):
    """Devices of a run; `config.mesh`."""

    data: Whole
    fsdp: Count


def make_mesh(shape: MeshShape, batches: Mapping[str, int]) -> Mesh | None:
    """Lays out the devices that compute.

    Args:
      shape: devices along each axis; `data` 0 takes as many as there are and as divide the batches.
      batches: what is split over all of them, by the name of its field.

    Returns:
      The mesh, or None where one device does all.

    Raises:
      UserError: there are not so many devices, they cannot share a batch evenly, or some of a
        process would stay idle.
    """
    data, fsdp = shape.data, shape.fsdp
    devices, processes = jax.device_count(), jax.process_count()
    if processes > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"these {devices} devices belong to {processes} hosts; give "
            f"distributed.coordinator={AUTO!r}, and start the program on each host"
        )
    # Each device takes an equal part of every batch.
    common = math.gcd(*batches.values())
    fields = " and ".join(f"{field} {size}" for field, size in batches.items())
    if data == 0:
        fitting = (d for d in range(devices // fsdp, 0, -1) if common % (d * fsdp) == 0)
        data = next(fitting, 1)
    count = data * fsdp
    described = f"mesh.data * mesh.fsdp is {data} * {fsdp}"
    if count > devices:
        raise UserError(f"{described}, but there are {devices} devices; expected at most as many")
    if common % count:
        raise UserError(f"{described}; expected a number that divides {fields}")
    if processes > 1 and count < devices:
        raise UserError(
            f"{described}, but {processes} processes must use all of their {devices} devices; expected "
            f"{' and '.join(batches)} to be multiples of {devices}, and mesh.data to be 0"
        )
    if count == 1:
        return None
    return mesh_of(jax.devices()[:count], fsdp)


def mesh_of(devices: Sequence[jax.Device], fsdp: int = 1) -> Mesh:
    """Lays out devices, `fsdp` of them along the second axis."""
    # XLA places what the step computes; only its arguments and the batch are placed by hand.
    axes = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((len(devices) // fsdp, fsdp), (DATA, FSDP), axes, devices=devices)


def idle(mesh: Mesh | None, batches: Mapping[str, int]) -> str:
    """A line that says how many devices have nothing to do, and what would change it; may be empty."""
    used, devices = 1 if mesh is None else mesh.size, jax.device_count()
    if used == devices:
        return ""
    fields = " and ".join(f"{field} {size}" for field, size in batches.items())
    return f"uses {used} of {devices} devices: {fields}; multiples of {devices} could use all"


def place(tree: Any, mesh: Mesh | None) -> Any:
    """Puts arrays that every process holds on the mesh, each device getting its own part only.

    Args:
      tree: of arrays, the same on every process.

    Returns:
      The tree as arrays of all processes: large ones split over "fsdp" along their longest axis that can
      be, the others whole on every device. Without a mesh they stay where they are.
    """
    if mesh is None:
        # Bound to their device, as what is read from a checkpoint: both compile to the same step.
        return jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding), tree)

    def put(leaf):
        # From the host: an array on one device cannot be sent to devices of other processes.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(
            host.shape, _sharding(host.shape, mesh), host.__getitem__
        )

    return jax.tree.map(put, tree)


def abstract(tree: Any, mesh: Mesh | None) -> Any:
    """Shapes of arrays -> shapes that lie as `place` would put the arrays; for compiling ahead of time."""
    if mesh is None:
        return tree

    def describe(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_sharding(leaf.shape, mesh))

    return jax.tree.map(describe, tree)


def _sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    fsdp = mesh.shape[FSDP]
    axes = [axis for axis, side in enumerate(shape) if side % fsdp == 0]
    if fsdp == 1 or not axes or math.prod(shape) < LARGE:
        return NamedSharding(mesh, PartitionSpec())
    # The longest axis gives the parts with the least padding on TPUs.
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, FSDP))


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """Brings every array of a placed tree whole to every device, and so to every process."""
    if mesh is None:
        return tree
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)


def jit_step(step: Callable[..., Any], state: Any, mesh: Mesh | None) -> Callable[..., Any]:
    """Compiles step(state, ...) -> (state, metrics), which takes the state's memory over.

    Args:
      state: a placed state; those that the step returns lie as it does.
    """
    shardings = None
    if mesh is not None:
        # Stated, because XLA could lay the new state out otherwise, and the next step would compile anew.
        shardings = jax.tree.map(lambda x: x.sharding, state), NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=shardings)


def spread(x: jax.Array, mesh: Mesh | None, axis: int = 0) -> jax.Array:
    """Outside of jit: splits one axis over all devices. Without a mesh, x as it is."""
    if mesh is None:
        return x
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*[None] * axis, (DATA, FSDP))))


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
