"""The messages between devices in a training step, and its memory, for meshes of any size; nothing is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from ml_collections import ConfigDict

from nada_jax import tables
from nada_jax.adaptation.freezing.table import STRATEGIES
from nada_jax.adaptation.settings import Settings as Adaptation
from nada_jax.performance import messages, timing
from nada_jax.performance.messages import Links
from nada_jax.performance.workloads import Workload
from nada_jax.runs.workdir import Run
from nada_jax.settings import Count, Precision, Rule, Whole, one_of

MEMORY = "lower size or batch_size, or set low_memory=True"  # the remedy for a lack of it
DEVICES = Rule(lambda ns: ns and all(1 <= n <= 4096 for n in ns), "numbers in 1..4096")
RESULTS = "scaling.json", "scaling.md", "metrics.jsonl"


class Settings(Links):
    """All of `configs/scaling.py`."""

    task: str
    adapt: Adaptation
    devices: Annotated[tuple[int, ...], DEVICES]
    tpu: str
    fsdp: Count
    size: Count
    clips: tuple[str, ...]
    batch_size: Count
    precision: Precision
    strategy: Annotated[str, one_of(STRATEGIES)]
    k: Whole
    low_memory: bool

    def check(self) -> None:
        """Meshes have to be rectangles."""
        powers = all(n & (n - 1) == 0 for n in self.devices)
        self.need(powers or not self.tpu, "devices", "powers of 2 where tpu is given")
        divides = all(n % self.fsdp == 0 for n in self.devices)
        self.need(divides, "fsdp", "at least 1, and a divisor of each of the devices")


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
    settings = Settings.read(config)
    fields = ("size", "clips", "batch_size", "precision", "strategy", "k", "low_memory")
    workload = Workload(settings.adapt, *(getattr(settings, field) for field in fields))
    # Before anything asks JAX for its devices, as a run does.
    pretended = messages.pretend(settings.devices, settings.tpu)
    with Run(config, workdir, results=RESULTS) as run:
        return scale(run, settings, workload, pretended)


def scale(run: Run, settings: Settings, workload: Workload, pretended: Sequence[Any]) -> int:
    """Compiles, and writes into the workdir that the run holds; see `run`.

    Args:
      pretended: the devices of each mesh.
    """
    run.begin()
    rows: list[dict[str, Any]] = []
    for devices in pretended:
        lowered, program = messages.compiled_step(workload, devices, settings.fsdp)
        found = messages.collectives(program.as_text())
        row = messages.predicted(len(devices), workload.batch_size, found, settings)
        memory = timing.costs(lowered, program)["memory_bytes"]
        rows.append(row | {"memory GiB": round(memory / 2**30, 2)})
        print(in_short(rows[-1]), flush=True)
        run.write_metrics(rows)
    run.write_json("scaling.json", rows)
    cells = [{head: str(value) for head, value in row.items()} for row in rows]
    path = run.write_text("scaling.md", tables.markdown(cells) + "\n")
    print(f"table: {path}")
    return 0


def in_short(row: dict[str, Any]) -> str:
    """A row as a line."""
    return (
        f"{row['devices']} devices: {row['messages']} messages, {row['received MB']} MB received by each, "
        f"efficiency {row['efficiency']:.1%}, {row['memory GiB']} GiB in each"
    )
