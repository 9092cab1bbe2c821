"""The messages between devices in a training step, read from programs that are compiled for meshes of any size.

Nothing runs: the step is compiled ahead of time, for CPUs or TPUs that only the compiler sees.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from nada_jax.adaptation.step import make_train_step
from nada_jax.devices import mesh as meshes
from nada_jax.errors import UserError
from nada_jax.performance.workloads import Workload
from nada_jax.settings import NonNegative, Positive, Section

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
# The messages do not depend on how well the arithmetic is compiled.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Without these libtpu asks for the cloud machine that it is not on, and complains.
OFFLINE_TPU = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip


class Links(Section):
    """What a prediction assumes of the devices; the fields stand at the top of `configs/scaling.py`."""

    step_ms: Positive
    gigabytes_per_second: Positive
    microseconds: NonNegative


def pretend(counts: Sequence[int], tpu: str) -> list[list[jax.Device]]:
    """Devices that only the compiler sees.

    Args:
      counts: how many, for each program.
      tpu: the generation of TPUs that form a rectangle, such as "v5e"; empty for CPUs.

    Raises:
      UserError: this process has used JAX before, or there is no compiler for such TPUs.
    """
    try:
        jax.config.update("jax_num_cpu_devices", 1 if tpu else max(counts))
        jax.config.update("jax_platforms", "cpu")  # devices of this machine have nothing to do
    except RuntimeError as error:
        raise UserError(
            f"this process has used JAX before ({error}); expected a fresh one"
        ) from error
    if not tpu:
        return [jax.devices()[:count] for count in counts]
    for name, value in OFFLINE_TPU.items():
        os.environ.setdefault(name, value)
    pretended = []
    for count in counts:
        rows = 2 ** ((count.bit_length() - 1) // 2)
        name = f"{tpu}:{rows}x{count // rows}"
        try:
            topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
        except RuntimeError as error:
            raise UserError(
                f"tpu is {tpu!r}, but nothing compiles for {name} here ({error}); expected v5e or v6e, "
                "and `pip install libtpu`"
            ) from error
        pretended.append(list(topology.devices))
    return pretended


def compiled_step(
    workload: Workload, devices: Sequence[jax.Device], fsdp: int = 1
) -> tuple[jax.stages.Lowered, jax.stages.Compiled]:
    """Compiles the training step for devices; the batch grows with them.

    Args:
      workload: `batch_size` is that of one device, as are 8 latents of the layer choice.
      devices: from `pretend`.
      fsdp: of them, along the second axis of the mesh.
    """
    count, settings = len(devices), workload.settings
    freeze = settings.freeze
    settings = dataclasses.replace(
        settings,
        batch_size=settings.batch_size * count,
        freeze=dataclasses.replace(freeze, batch_size=freeze.batch_size * count),
    )
    mesh = meshes.mesh_of(devices, fsdp)
    state, frozen, key = meshes.abstract(jax.eval_shape(workload.build), mesh)
    step = make_train_step(settings, workload.optimizer, mesh)
    with jax.default_device(devices[0]):
        lowered = meshes.jit_step(step, state, mesh).lower(state, frozen, key)
    quickly = QUICKLY if devices[0].platform == "cpu" else None
    return lowered, lowered.compile(compiler_options=quickly)


def collectives(program: str) -> list[tuple[str, int, int]]:
    """The collective operations of an optimised program.

    Args:
      program: HLO text.

    Returns:
      (operation, bytes of its result, devices of a group) for each.

    Raises:
      RuntimeError: one stands in a loop, where it would have to be counted by the trips.
    """
    loops = set(re.findall(r"body=%?([\w.\-]+)", program))
    found, computation = [], ""
    # HLO text has one instruction a line, and the name of a computation before its instructions.
    for line in program.splitlines():
        if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            computation = opened[1]
        match = re.search(rf" = (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(", line)
        if match is None:
            continue
        if computation in loops:
            raise RuntimeError(f"{match[2]} within the loop {computation}")
        found.append((match[2], _bytes(match[1]), _group(line)))
    return found


def _bytes(shape: str) -> int:
    """Bytes of an HLO shape such as f32[3,4]{1,0} or a tuple of them."""
    total = 0
    for kind, sides in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shape):
        bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind) or 32)
        total += int(np.prod([int(n) for n in sides.split(",") if n], dtype=np.int64)) * bits // 8
    return total


def _group(line: str) -> int:
    """Devices that take part in one group of a collective operation."""
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    return 0


def predicted(
    devices: int, batch_size: int, messages: list[tuple[str, int, int]], links: Links
) -> dict[str, Any]:
    """What the messages would cost if nothing hid them: rings at the configured rate and latency.

    An all-reduce of n bytes among g devices moves 2 (g - 1) / g n bytes over each link in 2 (g - 1) hops, an
    all-gather or reduce-scatter half of that (Patarasuk and Yuan 2009).
    """
    megabytes = dict.fromkeys(COLLECTIVES, 0.0)
    received = seconds = 0.0
    for operation, size, group in messages:
        group = group or devices
        if operation == "reduce-scatter":
            size *= group  # its result is one part
        megabytes[operation] += size / 1e6
        passes = 2 if operation == "all-reduce" else 1
        moved = passes * (group - 1) / group * size
        received += moved
        seconds += moved / (links.gigabytes_per_second * 1e9)
        seconds += passes * (group - 1) * links.microseconds * 1e-6
    ms = links.step_ms + 1000 * seconds
    others = sum(megabytes[name] for name in COLLECTIVES[3:])
    return {
        "devices": devices,
        "batch": batch_size * devices,
        "messages": len(messages),
        **{f"{name} MB": round(megabytes[name], 3) for name in COLLECTIVES[:3]},
        "others MB": round(others, 3),
        "received MB": round(received / 1e6, 3),
        "ms": round(ms, 2),
        "efficiency": round(links.step_ms / ms, 4),
    }
