"""The benchmark: what it writes, what it refuses, and what it does without memory or time."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import benchmark as configs
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture
from nada_jax.performance import report, timing, workloads
from nada_jax.performance.parts import PARTS
from nada_jax.runs import metrics
from nada_jax.tasks import benchmark
from nada_jax.tasks.benchmark import Settings

BUILD = workloads.Workload.build


def build(cell):
    """What `Workload.build` makes, but numbers drawn by numpy: JAX compiles a function for every shape."""
    random = np.random.default_rng(0)

    def fill(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.asarray(0.02 * random.standard_normal(x.shape), x.dtype)

    return jax.tree.map(fill, jax.eval_shape(functools.partial(BUILD, cell)))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A size and a clip that compile in seconds, and little time for the ceilings."""
    monkeypatch.setattr(workloads.Workload, "build", build)
    architecture = Architecture(channels=(4, 3), z_dim=5, w_dim=6, mapping_layers=1)
    monkeypatch.setitem(workloads.ARCHITECTURES, 8, architecture)
    monkeypatch.setitem(workloads.CLIPS, "tiny", workloads._vision(8, 4, 64, 1, 8))
    monkeypatch.setattr(timing, "CEILING_SECONDS", 0.1)


def config(**fields):
    result = configs.get_config()
    result.sizes, result.clips, result.batch_sizes, result.k = (8,), ("tiny",), (2,), 2
    result.steps, result.warmup, result.minutes = 3, 1, 60.0
    for field, value in fields.items():
        result[field] = value
    return result


def lines_with(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_every_cell_is_measured_written_and_shown(tmp_path, capsys):
    (tmp_path / "config.json").write_text(config().to_json())
    (tmp_path / "metrics.jsonl").write_text("of an earlier run\n")
    former = jax.config.jax_compilation_cache_dir
    settings = {"strategies": ("adaptive",), "k": 0, "official_device": "NVIDIA H200"}
    official = {"8/2/adaptive/tiny": 5.0}
    assert benchmark.run(config(official=official, **settings), tmp_path) == 0
    assert jax.config.jax_compilation_cache_dir == former

    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["device"] == jax.devices()[0].device_kind and found["not_run"] == []
    assert found["ceilings"].keys() == {"float32", "copy"} and min(found["ceilings"].values()) > 0
    (row,) = found["cells"]
    assert [row] == metrics.read(tmp_path / "metrics.jsonl")
    assert row["cell"] == "8 px, batch 2, tiny, float32, adaptive"
    assert row["steps"] == 3 and not row["out_of_memory"]
    assert 0 < row["ms_min"] <= row["ms"] and row["ms_p10"] <= row["ms"] <= row["ms_p90"]
    assert row["ms_spread"] == pytest.approx(row["ms_p90"] - row["ms_p10"])
    assert row["images_per_s"] == pytest.approx(2000 / row["ms"])
    for field in ("trace_s", "lower_s", "compile_cold_s", "compile_cached_s", "memory_bytes"):
        assert row[field] > 0, field
    assert row["flops"] == max(row["flops_compiled"], row["flops_lowered"]) > 0
    floors = {
        "compute": 1000 * row["flops"] / found["ceilings"]["float32"],
        "memory": 1000 * row["bytes"] / found["ceilings"]["copy"],
    }
    assert row["floor_ms"] == max(floors.values()) == floors[row["bound"]]
    assert row["roofline_share"] == pytest.approx(row["floor_ms"] / row["ms"])
    assert row["parts"].keys() == set(PARTS)
    assert row["parts_ms"] == pytest.approx(sum(part["ms"] for part in row["parts"].values()))
    for part in row["parts"].values():
        assert 0 < part["ms_min"] <= part["ms"]
        assert part["share"] == pytest.approx(part["ms"] / row["ms"])
    assert row["speedup"] == pytest.approx(5 / row["ms"])

    text = (tmp_path / "benchmark.md").read_text()
    assert text in capsys.readouterr().out
    assert len(lines_with(text, f"| {row['cell']} ")) == 2  # the step, and its parts
    assert f"same card? no, this is {found['device']}" in text
    assert json.loads((tmp_path / "config.json").read_text())["task"] == "benchmark"


def test_without_memory_a_cell_is_a_row_that_says_so(tmp_path, monkeypatch, capsys):
    def step(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(workloads.Workload, "build", lambda cell: (0, 0, 0))
    monkeypatch.setattr(timing, "peak_flops", lambda precision: 1e9)
    monkeypatch.setattr(timing, "bandwidth", lambda: 1e9)
    monkeypatch.setattr(
        timing, "compile_twice", lambda *_, **__: (0, step, {"compile_cold_s": 1.5})
    )
    monkeypatch.setattr(timing, "costs", lambda *_: {"flops": None})
    assert benchmark.run(config(strategies=("none", "late")), tmp_path) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())["cells"]
    assert [row["out_of_memory"] for row in rows] == [True, True]
    assert rows[0]["compile_cold_s"] == 1.5 and "ms" not in rows[0] and "parts" not in rows[0]
    shown = lines_with((tmp_path / "benchmark.md").read_text(), "| 8 px")
    assert len(shown) == 2 and all("| out of memory " in line for line in shown)
    assert "float32, none: out of memory" in capsys.readouterr().out


def test_any_other_error_of_the_device_ends_the_run_with_earlier_cells_on_disk(
    tmp_path, monkeypatch
):
    def measure(cell, *_):
        if cell.strategy == "adaptive":
            raise jax.errors.JaxRuntimeError("INTERNAL: it is broken")
        return {"cell": str(cell), "out_of_memory": True}

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(report, "document", lambda found: "")
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        benchmark.run(config(), tmp_path)
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert [len(found["cells"]), len(found["not_run"])] == [1, 1]
    assert len(metrics.read(tmp_path / "metrics.jsonl")) == 1


def test_without_time_the_cells_are_listed_as_not_run(tmp_path, capsys):
    assert benchmark.run(config(minutes=0.0), tmp_path) == 0
    names = ["8 px, batch 2, tiny, float32, none", "8 px, batch 2, tiny, float32, adaptive 2"]
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["cells"] == [] and found["not_run"] == names
    line = f"Not run, for lack of time: {'; '.join(names)}."
    assert line in (tmp_path / "benchmark.md").read_text() and line in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_deadline_cuts_the_timing_short_after_one_step():
    assert len(timing.milliseconds(lambda carry: carry, steps=9, warmup=2, deadline=0)) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": (64, 65)}, "size is 65; expected one of 64, 256, 512, 1024"),
        ({"clips": ("b32+b33",)}, "clip is 'b33'; expected one of avatar-p8, "),
        ({"precisions": ("half",)}, "precisions is .*; expected some of float32, bfloat16"),
        ({"strategies": ("late", "never")}, "strategies is .*; expected some of none, phase, "),
        ({"batch_sizes": (0,)}, "batch_sizes is .*; expected whole numbers from 1"),
        ({"low_memory": (2,)}, "low_memory is .*; expected a tuple, each element True or False"),
        ({"steps": 0}, "steps is 0; expected a whole number from 1"),
        ({"warmup": -1}, "warmup is -1"),
        ({"minutes": -1.0}, "minutes is -1.0"),
        ({"k": 7}, "freeze.k is 7; expected 1..4, the latents of this generator"),
        ({"cells": ("1024-2",)}, "cells has '1024-2'; expected SIZE/BATCH/STRATEGY/CLIPS"),
        (
            {"cells": ("64/2/never/b32",)},
            "cells is .*never.*; expected strategies out of none, phase, late, adaptive",
        ),
        ({"sizes": ()}, "there is no cell"),
    ],
)
def test_what_no_cell_can_work_with_is_refused(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        benchmark.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_tasks_workdir_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"task": "adapt"}')
    with pytest.raises(UserError, match="task was 'adapt' and is 'benchmark'"):
        benchmark.run(config(), tmp_path)
    assert not (tmp_path / "benchmark.json").exists()


def test_variants_hold_the_cells_that_they_promise():
    assert len(benchmark.grid(Settings.read(configs.get_config("full")))) == 4 * 2 * 3 * 2 * 3
    cells = benchmark.grid(Settings.read(configs.get_config("h200")))
    assert len(cells) == 2 * len(configs.OFFICIAL)
    assert {cell.k for cell in cells} == {0}
