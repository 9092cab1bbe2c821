"""What devices tell each other in a training step, read from the compiled program for meshes of any size.

Nothing runs: the step is compiled ahead of time for devices that only the compiler sees.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax import files, reporting, runs, sharding
from nada_jax.errors import UserError
from nada_jax.steps import make_train_step
from nada_jax.workloads import Workload

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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
    devices = check(config)
    runs.refuse_other(config, workdir, set(config) - {"task"}, "give another --workdir")
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(devices))
    except RuntimeError as error:
        raise UserError(
            f"this process has used JAX before ({error}); expected a fresh one"
        ) from error
    workload = Workload(
        config.size,
        tuple(config.clips),
        config.batch_size,
        config.precision,
        config.strategy,
        config.k,
    )
    runs.write_config(config, workdir)
    rows: list[dict[str, Any]] = []
    for count in devices:
        messages = collectives(compiled_step(workload, count, config.fsdp).as_text())
        rows.append(predicted(count, workload.batch_size, messages, config))
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


def compiled_step(workload: Workload, devices: int, fsdp: int = 1) -> jax.stages.Compiled:
    """Compiles the training step for the first devices there are; the batch grows with them.

    Args:
      workload: `batch_size` is that of one device, as are 8 latents of the layer choice.
      devices: how many.
      fsdp: of them, along the second axis of the mesh.
    """
    batch = workload.batch_size * devices
    recipe = dataclasses.replace(
        workload.recipe, batch_size=batch, selection_batch=workload.recipe.selection_batch * devices
    )
    mesh = sharding.make_mesh(devices // fsdp, fsdp, {"batch_size": batch})
    state, frozen, key = sharding.described(jax.eval_shape(workload.build), mesh)
    step = make_train_step(recipe, workload.optimizer, mesh)
    lowered = sharding.jit_step(step, state, mesh).lower(state, frozen, key)
    return lowered.compile(compiler_options=QUICKLY)


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
        f"efficiency {row['efficiency']:.1%}"
    )
