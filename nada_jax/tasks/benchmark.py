"""Measures the training step over a grid of cells, and where its time goes."""

import dataclasses
import functools
import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from nada_jax import files
from nada_jax.adaptation.freezing import strategies as freezing
from nada_jax.adaptation.step import make_train_step
from nada_jax.errors import UserError
from nada_jax.models.clip import PRECISIONS
from nada_jax.performance import timing as measuring
from nada_jax.performance.workloads import ARCHITECTURES, Workload
from nada_jax.runs import reporting
from nada_jax.runs import workdir as runs

Row = dict[str, Any]
GIBI, GIGA = 2**30, 1e9


def run(config: ConfigDict, workdir: Path) -> int:
    """Measures every cell; see `configs/benchmark.py`.

    Writes config.json, benchmark.json, benchmark.md and metrics.jsonl (one object a cell), after every cell.

    Args:
      config: all of `configs/benchmark.py`.
      workdir: where the results go; those of an earlier benchmark are replaced.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input.
    """
    check(config)
    cells = grid(config)
    runs.refuse_other(config, workdir, set(config) - {"task"}, "give another --workdir")
    runs.write_config(config, workdir)
    reporting.write_metrics(workdir / "metrics.jsonl", [])

    device = jax.local_devices()[0]
    found: Row = {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "official_device": config.official_device,
        "ceilings": {},
        "cells": [],
        "not_run": [str(cell) for cell in cells],
    }
    write(found, workdir)
    deadline = time.perf_counter() + 60 * config.minutes
    for number, cell in enumerate(cells, 1):
        if time.perf_counter() >= deadline:
            break
        print(f"{number}/{len(cells)}  {cell}: ", end="", flush=True)
        row = measure(cell, config, found["ceilings"], deadline)
        found["cells"].append(row)
        del found["not_run"][0]
        reporting.append_metrics(workdir / "metrics.jsonl", [row])
        write(found, workdir)
        print(told(row), flush=True)
    print("\n" + document(found))
    print(f"results: {workdir / 'benchmark.json'}, {workdir / 'benchmark.md'}")
    return 0


def check(config: ConfigDict) -> None:
    """Refuses values that no cell can work with; UserError names the field."""

    def need(good: bool, field: str, expected: str) -> None:
        if not good:
            raise UserError(f"{field} is {config[field]!r}; expected {expected}")

    def whole(values, least: int) -> bool:
        return all(type(value) is int and value >= least for value in values)

    need(whole([config.steps], 1), "steps", "at least 1")
    need(whole([config.warmup], 0), "warmup", "a whole number from 0")
    need(whole([config.k], 0), "k", "a number of latents, or 0 for all")
    need(whole(config.batch_sizes, 1), "batch_sizes", "whole numbers from 1")
    need(config.minutes >= 0, "minutes", "a number from 0")
    for field, known in (("precisions", PRECISIONS), ("strategies", freezing.STRATEGIES)):
        need(set(config[field]) <= set(known), field, f"some of {', '.join(known)}")
    need(set(config.low_memory) <= {False, True}, "low_memory", "False, True or both")
    need(all(isinstance(name, str) for name in config.clips), "clips", "names, such as b32+b16")


def grid(config: ConfigDict) -> list[Workload]:
    """The cells, without repetition, small pictures first; UserError where one cannot be."""
    fields = config.sizes, config.batch_sizes, config.strategies, config.clips
    chosen = list(itertools.product(*fields))
    for cell in config.cells:
        if not (match := re.fullmatch(r"(\d+)/([1-9]\d*)/(\w+)/(.+)", str(cell))):
            raise UserError(
                f"cells has {cell!r}; expected SIZE/BATCH/STRATEGY/CLIPS, such as 256/4/none/b32+b16"
            )
        size, batch, strategy, clips = match.groups()
        chosen.append((int(size), int(batch), strategy, clips))
    cells = {}
    for precision, low in itertools.product(config.precisions, config.low_memory):
        for size, batch, strategy, clips in chosen:
            k = config.k if strategy in ("late", *freezing.ADAPTIVE) else 0
            cell = Workload(size, tuple(clips.split("+")), batch, precision, strategy, k, low)
            layers = ARCHITECTURES[size].num_layers
            freezing.trained_layers(layers, strategy, k=k or layers)  # refuses what cannot be
            cells[cell] = None
    if not cells:
        raise UserError("there is no cell: one of sizes, clips, batch_sizes, ... is empty")
    return sorted(cells, key=lambda cell: cell.size)


def measure(cell: Workload, config: ConfigDict, ceilings: Row, deadline: float) -> Row:
    """Everything about one cell, or what there was until memory ran out.

    Args:
      ceilings: of the device, by precision in FLOP/s and "copy" in bytes/s; what is missing is added.
      deadline: as in `measuring.milliseconds`; the breakdown is left out after it.

    Returns:
      The row of benchmark.json.
    """
    if cell.precision not in ceilings:
        ceilings[cell.precision] = measuring.peak_flops(cell.precision)
    if "copy" not in ceilings:
        ceilings["copy"] = measuring.bandwidth()
    clips = "+".join(cell.clips)
    row: Row = {"cell": str(cell)} | dataclasses.asdict(cell)
    row |= {"clips": clips, "out_of_memory": False}
    try:
        for figures in step_figures(cell, config, ceilings, deadline):
            row |= figures
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not measuring.is_out_of_memory(error):
            raise
        row["out_of_memory"] = True
    name = f"{cell.size}/{cell.batch_size}/{cell.strategy}/{clips}"
    if name in config.official and not cell.k:  # theirs chose all layers
        row["official_ms"] = config.official[name]
        if "ms" in row:
            row["speedup"] = row["official_ms"] / row["ms"]
    return row


def step_figures(
    cell: Workload, config: ConfigDict, ceilings: Row, deadline: float
) -> Iterator[Row]:
    """Yields what is measured, piece by piece, so that an error loses only what comes after it."""
    former_peak = measuring.device_peak() or 0
    state, frozen, key = cell.build()
    make = functools.partial(make_train_step, cell.recipe, cell.optimizer)
    lowered, step, seconds = measuring.compile_twice(make, state, frozen, key, donate_argnums=0)
    yield seconds
    costs = measuring.costs(lowered, step)
    yield costs
    del lowered

    pace = {"steps": config.steps, "warmup": config.warmup, "deadline": deadline}
    times = measuring.milliseconds(lambda state: step(state, frozen, key)[0], state, **pace)
    figures = measuring.summary(times)
    yield figures | {"images_per_s": 1000 * cell.batch_size / figures["ms"]}
    # The device tells its peak of all times, so a cell that stays below an earlier one's has no figure.
    peak = measuring.device_peak()
    yield {"device_peak_bytes": peak if peak is not None and peak > former_peak else None}
    if None not in (costs["flops"], costs["bytes"]):
        floor, bound = measuring.roofline(
            costs["flops"], costs["bytes"], ceilings[cell.precision], ceilings["copy"]
        )
        yield {"floor_ms": floor, "bound": bound, "roofline_share": floor / figures["ms"]}

    if config.breakdown and time.perf_counter() < deadline:
        parts = {}
        for name, call, carry in measuring.step_parts(cell, frozen, key):
            part = measuring.summary(measuring.milliseconds(call, carry, **pace))
            parts[name] = part | {"share": part["ms"] / figures["ms"]}
        yield {"parts": parts, "parts_ms": sum(part["ms"] for part in parts.values())}


def told(row: Row) -> str:
    """A row in a few words."""
    if row["out_of_memory"]:
        return "out of memory"
    compiled = f"compiled in {row['compile_cold_s']:.1f} s"
    return f"{row['ms']:.1f} ms/step, {row['images_per_s']:.1f} images/s, {compiled}"


def write(found: Row, workdir: Path) -> None:
    """Writes what was found so far."""
    files.write_text(workdir / "benchmark.json", json.dumps(found, indent=2) + "\n")
    files.write_text(workdir / "benchmark.md", document(found))


def document(found: Row) -> str:
    """benchmark.md: two tables, and how to read them."""
    ceilings, rows = found["ceilings"], found["cells"]
    text = [f"# Training step on {found['device']} ({found['platform']}), JAX {found['jax']}"]
    if rows:
        rates = [
            f"{name} products {ceilings[name] / GIGA:,.0f} GFLOP/s"
            for name in PRECISIONS
            if name in ceilings
        ]
        text.append(
            f"Ceilings, measured: {', '.join(rates)}; copies {ceilings['copy'] / GIGA:,.0f} GB/s."
        )
        text.append(reporting.table([step_columns(row) for row in rows]))
    if any("parts" in row for row in rows):
        text.append(reporting.table([part_columns(row) for row in rows if "parts" in row]))
    if rows:
        text.append("\n".join(f"- {note}" for note in notes(found)))
    if found["not_run"]:
        text.append(f"Not run, for lack of time: {'; '.join(found['not_run'])}.")
    return "\n\n".join(text) + "\n"


def step_columns(row: Row) -> dict[str, str]:
    """A line of the first table; blank where there is no figure."""

    def number(field: str, digits: int = 1, unit: float = 1) -> str:
        value = row.get(field)
        return "" if value is None else f"{value / unit:,.{digits}f}"

    share = row.get("roofline_share")
    columns = {
        "cell": row["cell"],
        "ms": "out of memory" if row["out_of_memory"] else number("ms"),
        "min": number("ms_min"),
        "spread": number("ms_spread"),
        "images/s": number("images_per_s"),
        "of roofline": "" if share is None else f"{share:.0%} {row['bound']}",
        "GFLOP": number("flops", 0, GIGA),
        "GB": number("bytes", 1, GIGA),
        "GiB held": number("memory_bytes", 2, GIBI),
        "device peak": number("device_peak_bytes", 2, GIBI),
        "trace s": number("trace_s"),
        "lower s": number("lower_s"),
        "compile s": number("compile_cold_s"),
        "cached s": number("compile_cached_s"),
    }
    if "official_ms" in row:
        columns |= {"official ms": number("official_ms", 0), "speed-up": number("speedup")}
    return columns


def part_columns(row: Row) -> dict[str, str]:
    """A line of the second table."""
    shown = {
        name: f"{part['ms']:,.1f} ({part['share']:.0%})" for name, part in row["parts"].items()
    }
    parts = {name: shown.get(name, "") for name in measuring.PARTS}
    whole = {"sum": f"{row['parts_ms']:,.1f}", "step": f"{row['ms']:,.1f}"}
    return {"parts, ms (of step)": row["cell"]} | parts | whole


def notes(found: Row) -> list[str]:
    """How to read the tables."""
    rows = found["cells"]
    lines = [
        "ms: median of the steps, each waited for; spread: their 90th less their 10th percentile",
        "of roofline: the least time that FLOPs or bytes take at the ceilings, whichever is longer, over ms; "
        "XLA counts bytes that caches serve, too",
        "GiB held: arguments, outputs and temporaries of the compiled step, by XLA's analysis",
        "compile s: nothing cached; cached s: from JAX's persistent cache",
    ]
    # A count that fell in optimisation: products went into library calls, which XLA cannot look into.
    if any(
        (row.get("flops_compiled") or 0) < 0.9 * (row.get("flops_lowered") or 0) for row in rows
    ):
        lines[1] += ", and none of library calls such as cuDNN's, which these steps make"
    if any(row.get("device_peak_bytes") for row in rows):
        lines.append(
            "device peak, GiB: of the process so far, compiling included; blank if not new"
        )
    if any("parts" in row for row in rows):
        lines.append("trainable: forward and backward; parts are compiled apart and may share work")
    if any("official_ms" in row for row in rows):
        theirs, ours = found["official_device"], found["device"]
        lines.append(
            f"official ms: the official PyTorch code on one {theirs}, from its table, not measured here; same "
            f"card? {'yes' if theirs == ours else f'no, this is {ours}'}"
        )
    return lines
