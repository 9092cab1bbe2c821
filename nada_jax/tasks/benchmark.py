"""Measures the training step over a grid of cells, and where its time goes."""

import functools
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
from ml_collections import ConfigDict

from nada_jax.adaptation.freezing.table import STRATEGIES
from nada_jax.adaptation.settings import Settings as Adaptation
from nada_jax.adaptation.state import init_state
from nada_jax.adaptation.step import make_train_step
from nada_jax.errors import UserError, is_out_of_memory
from nada_jax.performance import report, timing
from nada_jax.performance.parts import parts
from nada_jax.performance.report import Row
from nada_jax.performance.workloads import Workload
from nada_jax.runs.workdir import Run
from nada_jax.settings import LARGEST, PRECISIONS, Count, Rule, Section, Whole


def some_of(names: Any) -> Rule:
    """Tuples of a few words."""
    return Rule(lambda xs: set(xs) <= set(names), f"some of {', '.join(map(str, names))}")


# Infinity is no limit.
UNLIMITED = Rule(lambda x: x >= 0, "a number from 0")
RESULTS = "benchmark.json", "benchmark.md", "metrics.jsonl"
BATCHES = Rule(
    lambda xs: all(1 <= x <= LARGEST for x in xs), f"whole numbers from 1 to {LARGEST:,}"
)
MEMORY = "lower sizes or batch_sizes, or set low_memory=(True,)"  # the remedy for a lack of it


class Settings(Section):
    """All of `configs/benchmark.py`."""

    task: str
    adapt: Adaptation
    sizes: tuple[int, ...]
    clips: tuple[str, ...]
    batch_sizes: Annotated[tuple[int, ...], BATCHES]
    precisions: Annotated[tuple[str, ...], some_of(PRECISIONS)]
    strategies: Annotated[tuple[str, ...], some_of(STRATEGIES)]
    low_memory: tuple[bool, ...]
    cells: tuple[str, ...]
    k: Whole
    steps: Count
    warmup: Whole
    minutes: Annotated[float, UNLIMITED]
    breakdown: bool
    official: Any
    official_device: str


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
    settings = Settings.read(config)
    cells = grid(settings)
    with Run(config, workdir, results=RESULTS) as run:
        return benchmark(run, settings, cells)


def benchmark(run: Run, settings: Settings, cells: list[Workload]) -> int:
    """Measures, and writes into the workdir that the run holds; see `run`."""
    run.begin()
    run.write_metrics([])

    device = jax.local_devices()[0]
    found: Row = {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "official_device": settings.official_device,
        "ceilings": {},
        "cells": [],
        "not_run": [str(cell) for cell in cells],
    }
    write(found, run)
    deadline = time.perf_counter() + 60 * settings.minutes
    for number, cell in enumerate(cells, 1):
        if time.perf_counter() >= deadline:
            break
        print(f"{number}/{len(cells)}  {cell}: ", end="", flush=True)
        row = measure(cell, settings, found["ceilings"], deadline)
        found["cells"].append(row)
        del found["not_run"][0]
        run.append_metrics([row])
        write(found, run)
        print(report.in_short(row), flush=True)
    print("\n" + report.document(found))
    print(f"results: {run.path('benchmark.json')}, {run.path('benchmark.md')}")
    return 0


def grid(settings: Settings) -> list[Workload]:
    """The cells, without repetition, small images first; UserError where one cannot be."""
    fields = settings.sizes, settings.batch_sizes, settings.strategies, settings.clips
    chosen = list(itertools.product(*fields))
    for cell in settings.cells:
        if not (match := re.fullmatch(r"(\d+)/([1-9]\d*)/(\w+)/(.+)", cell)):
            raise UserError(
                f"cells has {cell!r}; expected SIZE/BATCH/STRATEGY/CLIPS, such as 256/4/none/b32+b16"
            )
        size, batch, strategy, clips = match.groups()
        settings.need(strategy in STRATEGIES, "cells", f"strategies out of {', '.join(STRATEGIES)}")
        chosen.append((int(size), int(batch), strategy, clips))
    cells = {}
    for precision, low in itertools.product(settings.precisions, settings.low_memory):
        for size, batch, strategy, clips in chosen:
            k = settings.k if STRATEGIES[strategy].candidates else 0
            names = tuple(clips.split("+"))
            cell = Workload(settings.adapt, size, names, batch, precision, strategy, k, low)
            _ = cell.labels  # refuses k, before any other cell is measured
            cells[str(cell)] = cell
    if not cells:
        raise UserError("there is no cell: one of sizes, clips, batch_sizes, ... is empty")
    return sorted(cells.values(), key=lambda cell: cell.size)


def measure(cell: Workload, settings: Settings, ceilings: Row, deadline: float) -> Row:
    """All figures of one cell, or those from before memory ran out.

    Args:
      ceilings: of the device, by precision in FLOP/s and "copy" in bytes/s; what is missing is added.
      deadline: as in `timing.milliseconds`; the breakdown is left out after it.

    Returns:
      The row of benchmark.json.
    """
    if cell.precision not in ceilings:
        ceilings[cell.precision] = timing.peak_flops(cell.precision)
    if "copy" not in ceilings:
        ceilings["copy"] = timing.bandwidth()
    clips = "+".join(cell.clips)
    row: Row = {"cell": str(cell), "clips": clips, "out_of_memory": False}
    fields = ("size", "batch_size", "precision", "strategy", "k", "low_memory")
    row |= {field: getattr(cell, field) for field in fields}
    try:
        for figures in step_figures(cell, settings, ceilings, deadline):
            row |= figures
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        row["out_of_memory"] = True
    name = f"{cell.size}/{cell.batch_size}/{cell.strategy}/{clips}"
    if name in settings.official and not cell.k:  # theirs chose all layers
        row["official_ms"] = settings.official[name]
        if "ms" in row:
            row["speedup"] = row["official_ms"] / row["ms"]
    return row


def step_figures(
    cell: Workload, settings: Settings, ceilings: Row, deadline: float
) -> Iterator[Row]:
    """Yields what is measured, piece by piece, so that an error loses only what comes after it."""
    former_peak = timing.device_peak() or 0
    state, frozen, key = cell.build()
    make = functools.partial(make_train_step, cell.settings, cell.optimizer)
    lowered, step, seconds = timing.compile_twice(make, state, frozen, key, donate_argnums=0)
    yield seconds
    costs = timing.costs(lowered, step)
    yield costs
    del lowered

    pace = {"steps": settings.steps, "warmup": settings.warmup, "deadline": deadline}
    times = timing.milliseconds(lambda state: step(state, frozen, key)[0], state, **pace)
    figures = timing.summary(times)
    yield figures | {"images_per_s": 1000 * cell.batch_size / figures["ms"]}
    # Devices report the peak since the process began, so a cell that stays below an earlier one's has no figure.
    peak = timing.device_peak()
    yield {"device_peak_bytes": peak if peak is not None and peak > former_peak else None}
    if None not in (costs["flops"], costs["bytes"]):
        floor, bound = timing.roofline(
            costs["flops"], costs["bytes"], ceilings[cell.precision], ceilings["copy"]
        )
        yield {"floor_ms": floor, "bound": bound, "roofline_share": floor / figures["ms"]}

    if settings.breakdown and time.perf_counter() < deadline:
        timed = {}
        # Made anew: the step took over the memory of the first one.
        state = init_state(frozen.generator, cell.optimizer, cell.settings)
        for name, call, carry in parts(cell, state, frozen, key):
            part = timing.summary(timing.milliseconds(call, carry, **pace))
            timed[name] = part | {"share": part["ms"] / figures["ms"]}
        yield {"parts": timed, "parts_ms": sum(part["ms"] for part in timed.values())}


def write(found: Row, run: Run) -> None:
    """Writes what was found so far."""
    run.write_json("benchmark.json", found)
    run.write_text("benchmark.md", report.document(found))
