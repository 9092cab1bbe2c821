"""Many devices and many processes: the mesh, how arrays lie on it, and how processes agree.

A step is one computation over all devices. Arguments lie on them as `place` puts them; within the step the
batch is split (`split_batch`) and weights are whole (`gather`). Every process runs the same program; what one
alone may do, or what may fail on one alone, goes through `alone` and `together`.
"""

import hashlib
import json
import math
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nada_jax.errors import UserError

# The batch is split over both axes; large arrays that stay are split over the second.
DATA, FSDP = "data", "fsdp"
LARGE = 2**16  # elements; splitting less saves no memory worth the message
AUTO = "auto"
PATIENCE = 120  # seconds that processes wait for each other to start
LONGEST = 1000  # bytes of a failure that the other processes are told


# -- processes ------------------------------------------------------------------------------------


def connect(coordinator: str, processes: int, process: int) -> None:
    """Joins the processes of one run, before anything touches a device; see `config.distributed`.

    Args:
      coordinator: host:port of process 0; "auto" asks Slurm, MPI, the TPU pod, ...; empty for one process, or
        for a TPU pod that names its hosts in the environment.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      UserError: the values do not fit together, or the processes do not meet within `PATIENCE`.
    """
    if coordinator not in ("", AUTO):
        _check_address(coordinator, processes, process)
        address = {"coordinator_address": coordinator, "num_processes": processes}
        _join(f"distributed.coordinator={coordinator!r}", **address, process_id=process)
    elif (processes, process) != (1, 0):
        raise UserError(
            f"distributed.processes is {processes} and distributed.process is {process}, but "
            f"distributed.coordinator is {coordinator!r}; expected host:port of process 0"
        )
    elif coordinator == AUTO or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        _join(f"distributed.coordinator={AUTO!r}")


def _check_address(coordinator: str, processes: int, process: int) -> None:
    port = int(match[1]) if (match := re.fullmatch(r"\S+:(\d{1,5})", coordinator)) else 0
    if not 0 < port < 2**16:
        raise UserError(
            f"distributed.coordinator is {coordinator!r}; expected host:port of process 0, or {AUTO!r}"
        )
    if processes < 2:
        raise UserError(
            f"distributed.processes is {processes}; expected at least 2 where "
            "distributed.coordinator is given"
        )
    if not 0 <= process < processes:
        raise UserError(
            f"distributed.process is {process}; expected 0..{processes - 1}, another one for each "
            "process"
        )
    if process == 0:
        try:
            socket.create_server(("", port)).close()  # JAX would end without a word
        except OSError as error:
            raise UserError(
                f"distributed.coordinator is {coordinator!r}, but process 0 cannot use port {port} "
                f"({error.strerror}); give another one to all processes"
            ) from error


def _join(what: str, **address: Any) -> None:
    # JAX's own watch for SIGTERM would swallow the signal while models load.
    jax.config.update("jax_enable_preemption_service", False)
    failures = []

    def initialize():
        try:
            # The process ends without a sentence when JAX's own timeout comes first.
            jax.distributed.initialize(**address, initialization_timeout=2 * PATIENCE)
        except Exception as error:  # of JAX, or of the cluster that it asks
            failures.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise UserError(
            f"{what}: the processes did not meet within {PATIENCE} s; expected each of them to be "
            "started, with its own number, and to reach process 0"
        )
    if failures:
        raise UserError(
            f"{what}: the processes cannot be joined ({failures[0]}); expected host:port of process 0, "
            f"or {AUTO!r} under Slurm, MPI or on a TPU pod"
        )


def require_same(settings: Mapping[str, Any]) -> None:
    """Makes sure that all processes were given the same settings; UserError on all if not."""
    if jax.process_count() == 1:
        return
    text = json.dumps(settings, sort_keys=True)
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    if others := np.flatnonzero((digests != digests[0]).any(axis=1)).tolist():
        raise UserError(
            f"process {others[0]} was started with another config than process 0; only "
            "distributed.process may differ"
        )


def together(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function on every process; where it fails on one, it fails on all.

    Args:
      function: what is called with `args`; it runs nothing that the processes compute together.

    Returns:
      What the function returns on this process.

    Raises:
      UserError or OSError: of this process, or a UserError that tells what another one raised.
    """
    if jax.process_count() == 1:
        return function(*args)
    result = failure = None
    try:
        result = function(*args)
    except (UserError, OSError) as error:
        failure = error
    text = np.zeros(LONGEST, np.uint8)
    if failure is not None:
        told = (str(failure) or type(failure).__name__).encode()[:LONGEST]
        text[: len(told)] = np.frombuffer(told, np.uint8)
    texts = multihost_utils.process_allgather(text)
    if failure is not None:
        raise failure
    for process, text in enumerate(texts):
        if text.any():
            told = bytes(text[text > 0]).decode(errors="ignore")
            raise UserError(f"process {process}: {told}")
    return result


def alone(function: Callable[..., Any], *args: Any) -> None:
    """Calls a function on process 0, while the others wait; where it fails, it fails on all."""
    together(function if jax.process_index() == 0 else lambda *_: None, *args)


def largest(value: int) -> int:
    """The largest of the values that the processes give."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


# -- the mesh -------------------------------------------------------------------------------------


def make_mesh(data: int, fsdp: int, batches: Mapping[str, int]) -> Mesh | None:
    """The devices that work, by `config.mesh`.

    Args:
      data: devices along the axis "data"; 0: as many as there are and as divide the batches.
      fsdp: devices along the axis "fsdp".
      batches: what is split over all of them, by the name of its field.

    Returns:
      The mesh, or None where one device does all.

    Raises:
      UserError: there are not so many devices, they cannot share a batch evenly, or some of a
        process would stay idle.
    """
    devices, processes = jax.device_count(), jax.process_count()
    if processes > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"these {devices} devices belong to {processes} hosts; give "
            f"distributed.coordinator={AUTO!r}, and start the program on each host"
        )
    common = math.gcd(*batches.values())
    fields = " and ".join(f"{field} {size}" for field, size in batches.items())
    if data == 0:
        fitting = (d for d in range(devices // fsdp, 0, -1) if common % (d * fsdp) == 0)
        data = next(fitting, 1)
    count = data * fsdp
    shape = f"mesh.data * mesh.fsdp is {data} * {fsdp}"
    if count > devices:
        raise UserError(f"{shape}, but there are {devices} devices; expected at most as many")
    if common % count:
        raise UserError(f"{shape}; expected a number that divides {fields}")
    if processes > 1 and count < devices:
        raise UserError(
            f"{shape}, but {processes} processes must use all of their {devices} devices; expected "
            f"{' and '.join(batches)} to be multiples of {devices}, and mesh.data to be 0"
        )
    if count == 1:
        return None
    return mesh_of(jax.devices()[:count], fsdp)


def mesh_of(devices: Sequence[jax.Device], fsdp: int = 1) -> Mesh:
    """Lays devices out, so many of them along the axis "fsdp"."""
    axes = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((len(devices) // fsdp, fsdp), (DATA, FSDP), axes, devices=devices)


def idle(mesh: Mesh | None, batches: Mapping[str, int]) -> str:
    """A line that says how many devices have nothing to do, and what would change it; may be empty."""
    used, devices = 1 if mesh is None else mesh.size, jax.device_count()
    if used == devices:
        return ""
    fields = " and ".join(f"{field} {size}" for field, size in batches.items())
    return f"uses {used} of {devices} devices: {fields}; multiples of {devices} could use all"


# -- arrays ---------------------------------------------------------------------------------------


def place(tree: Any, mesh: Mesh | None) -> Any:
    """Puts arrays that every process holds on the mesh, each device getting its part alone.

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
        host = np.asarray(leaf)
        return jax.make_array_from_callback(
            host.shape, _sharding(host.shape, mesh), host.__getitem__
        )

    return jax.tree.map(put, tree)


def described(tree: Any, mesh: Mesh | None) -> Any:
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
        shardings = jax.tree.map(lambda x: x.sharding, state), NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=shardings)


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
