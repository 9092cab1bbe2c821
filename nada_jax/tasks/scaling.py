"""What devices tell each other in a training step and keep in memory, read from programs for meshes of any size.

Nothing runs: the step is compiled ahead of time, for CPUs or TPUs that only the compiler sees.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from ml_collections import ConfigDict

from nada_jax import files
from nada_jax.adaptation.step import make_train_step
from nada_jax.devices import sharding
from nada_jax.errors import UserError
from nada_jax.performance import timing as measuring
from nada_jax.performance.workloads import Workload
from nada_jax.runs import reporting
from nada_jax.runs import workdir as runs

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Without these libtpu asks for the cloud machine that it is not on, and complains.
OFFLINE_TPU = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip


def run(config: ConfigDict, workdir: Path) -> int:
    """Makes the table as configured; see `configs/scaling.py`.

    Writes config.json, scaling.json, scaling.md and metrics.jsonl, a row for each number of devices.

    Args:
      config: all of `configs/scaling.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    counts = check(config)
    runs.refuse_other(config, workdir, set(config) - {"task"}, "give another --workdir")
    workload = Workload(
        config.size,
        tuple(config.clips),
        config.batch_size,
        config.precision,
        config.strategy,
        config.k,
        config.low_memory,
    )
    pretended = pretend(counts, config.tpu)
    runs.write_config(config, workdir)
    rows: list[dict[str, Any]] = []
    for devices in pretended:
        lowered, program = compiled_step(workload, devices, config.fsdp)
        messages = collectives(program.as_text())
        row = predicted(len(devices), workload.batch_size, messages, config)
        memory = measuring.costs(lowered, program)["memory_bytes"]
        rows.append(row | {"memory GiB": round(memory / 2**30, 2)})
        print(told(rows[-1]), flush=True)
        reporting.write_metrics(workdir / "metrics.jsonl", rows)
    files.write_text(workdir / "scaling.json", json.dumps(rows, indent=1) + "\n")
    cells = [{head: str(value) for head, value in row.items()} for row in rows]
    files.write_text(workdir / "scaling.md", reporting.table(cells) + "\n")
    print(f"table: {workdir / 'scaling.md'}")
    return 0


def check(config: ConfigDict) -> tuple[int, ...]:
    """The numbers of devices; UserError where a field is wrong."""
    devices = tuple(config.devices)
    for field, good, expected in (
        (
            "devices",
            devices and all(type(n) is int and 1 <= n <= 4096 for n in devices),
            "numbers in 1..4096",
        ),
        (
            "devices",
            not config.tpu or all(type(n) is int and n & (n - 1) == 0 for n in devices),
            "powers of 2 where tpu is given",
        ),
        ("batch_size", config.batch_size >= 1, "at least 1"),
        (
            "fsdp",
            config.fsdp >= 1 and all(n % config.fsdp == 0 for n in devices if type(n) is int),
            "at least 1, and a divisor of each of the devices",
        ),
        ("step_ms", config.step_ms > 0, "above 0"),
        ("gigabytes_per_second", config.gigabytes_per_second > 0, "above 0"),
        ("microseconds", config.microseconds >= 0, "at least 0"),
    ):
        if not good:
            raise UserError(f"{field} is {config[field]!r}; expected {expected}")
    return devices


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
    count, recipe = len(devices), workload.recipe
    recipe = dataclasses.replace(
        recipe, batch_size=recipe.batch_size * count, selection_batch=recipe.selection_batch * count
    )
    mesh = sharding.mesh_of(devices, fsdp)
    state, frozen, key = sharding.described(jax.eval_shape(workload.build), mesh)
    step = make_train_step(recipe, workload.optimizer, mesh)
    with jax.default_device(devices[0]):
        lowered = sharding.jit_step(step, state, mesh).lower(state, frozen, key)
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
    devices: int, batch_size: int, messages: list[tuple[str, int, int]], config: Mapping[str, Any]
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
        seconds += moved / (config["gigabytes_per_second"] * 1e9)
        seconds += passes * (group - 1) * config["microseconds"] * 1e-6
    ms = config["step_ms"] + 1000 * seconds
    others = sum(megabytes[name] for name in COLLECTIVES[3:])
    return {
        "devices": devices,
        "batch": batch_size * devices,
        "messages": len(messages),
        **{f"{name} MB": round(megabytes[name], 3) for name in COLLECTIVES[:3]},
        "others MB": round(others, 3),
        "received MB": round(received / 1e6, 3),
        "ms": round(ms, 2),
        "efficiency": round(config["step_ms"] / ms, 4),
    }


def told(row: Mapping[str, Any]) -> str:
    """A row as a line."""
    return (
        f"{row['devices']} devices: {row['messages']} messages, {row['received MB']} MB received by each, "
        f"efficiency {row['efficiency']:.1%}, {row['memory GiB']} GiB in each"
    )
