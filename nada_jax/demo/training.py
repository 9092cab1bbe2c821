"""Adaptations that visitors start: each a process of `main.py` in the folder of its job.

A process of its own, so that its sentences are those of the command line, it can be ended at any time, and nothing of it
stays in the server's memory.
"""

import collections
import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from nada_jax.adaptation.settings import Settings
from nada_jax.demo.job import Job
from nada_jax.errors import UserError
from nada_jax.runs import metrics, plots
from nada_jax.weights.domains import PREFIX

ROOT = Path(__file__).parents[2]  # where main.py and configs/ stand
OWN = "default"  # the recipe of those who bring their own texts
PAUSE = 0.3  # seconds between looks at the run
GRACE = 20.0  # seconds that it has to end after SIGTERM; the end of the server waits longer
NICE = 5  # of its priority: the page goes on
GRIDS = 8  # pictures of a run, beside the last
REFUSED = 2  # exit code after wrong input


class Seen(NamedTuple):
    """What a run has to show: its last grid of samples and its loss as PNG, and in the end its generator."""

    grid: Path | None = None
    loss: Path | None = None
    generator: Path | None = None


def recipe(name: str, variant: str) -> tuple[Path, ConfigDict]:
    """The file and the fields of a recipe that ships.

    Args:
      name: `OWN`, or such as "sketch".
      variant: of it, "" or "ffhq".

    Raises:
      UserError: this is no checkout with main.py and configs/.
    """
    module = name if name == OWN else PREFIX + name
    file = ROOT / "configs" / f"{module}.py"
    if not file.is_file() or not (ROOT / "main.py").is_file():
        raise UserError(
            f"{file} is missing; adapting needs a checkout with main.py and configs/ beside the package"
        )
    return file, importlib.import_module(f"configs.{module}").get_config(variant)


def check(name: str, variant: str, fields: Mapping[str, Any]) -> None:
    """Refuses at once what the run would refuse after its start; UserError."""
    _, config = recipe(name, variant)
    config.update_from_flattened_dict(dict(fields))
    Settings.read(config)


def train(job: Job, name: str, variant: str, fields: Mapping[str, Any]) -> Seen:
    """Runs an adaptation within a job.

    Args:
      job: whose folder gets generator, samples and plots.
      name, variant: see `recipe`.
      fields: of the config, flat, beside those of the recipe.

    Raises:
      Cancelled: the job is to end; the run was ended.
      UserError: what the run refused, in its words.
    """
    file, config = recipe(name, variant)
    steps = int(fields.get("steps", config.steps))
    workdir = job.directory / "run"
    fields = dict(fields) | {
        "sample_every": max(steps // GRIDS, 1),
        "checkpoint_every": max(steps, 1),  # nothing is resumed here
        "log_every": max(min(steps // 50, 10), 1),
        "samples.count": 6,  # columns that can be told apart on a phone
    }
    command = [sys.executable, str(ROOT / "main.py")]
    command.append(f"--config={file}{variant and ':' + variant}")
    command.append(f"--workdir={workdir}")
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    said: collections.deque[str] = collections.deque(maxlen=50)
    job.report(0.0, "starts; the first step takes a while")
    try:
        with _started(command, said) as process:
            while process.poll() is None:
                _look(job, workdir, steps)
                job.wait(PAUSE)
        if process.returncode == REFUSED:
            errors = [line for line in said if line.startswith("error: ")]
            sentence = errors[-1].removeprefix("error: ") if errors else "the run was refused"
            raise UserError(sentence)
        if process.returncode:
            tail = "\n".join(said)
            raise RuntimeError(f"the run ended with exit code {process.returncode}:\n{tail}")
        seen = _look(job, workdir, steps, last=True)
        own = job.directory / f"{_slug(job.title)}.safetensors"
        (workdir / "generator.safetensors").rename(own)
        return seen._replace(generator=own)
    finally:
        shutil.rmtree(workdir / "checkpoints", ignore_errors=True)


@contextlib.contextmanager
def _started(command: list[str], said: collections.deque[str]):
    """A process in a group of its own, that ends with the block; its last lines are in `said`."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C in the terminal is for the server, which ends the run in its own way
    )
    with contextlib.suppress(OSError, AttributeError):  # Windows has none
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(GRACE)
        process.stdout.close()


def _look(job: Job, workdir: Path, steps: int, last: bool = False) -> Seen:
    """Reports how far the run is, and what there is to show."""
    rows = metrics.read(workdir / "metrics.jsonl", "step", "loss")
    step = rows[-1]["step"] if rows else 0
    before = job.partial or Seen()
    grids = sorted((workdir / "samples").glob("step_*.png"))
    seen = before
    if grids and (last or grids[-1] != before.grid):
        loss = before.loss
        if len(rows) > 1:
            loss = workdir / f"loss_{step:06d}.png"  # another name, or browsers show the old one
            plots.plot_losses(rows, loss, job.title, terms=())
        seen = Seen(grids[-1], loss)
    ms = f", loss {rows[-1]['loss']:.3f}" if rows else ""
    note = f"step {step} of {steps}{ms}" if rows else "starts; the first step takes a while"
    if last:
        return seen
    if (note, seen) != (job.note, before):
        job.report(step / max(steps, 1), note, seen)
    return seen


def _slug(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^\w-]+", "_", title).strip("_")[:40] or "adapted"
