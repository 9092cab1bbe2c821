"""Adapts a generator to a target text: the main job, StyleGAN-NADA (Gal et al. 2022)."""

import time
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nada_jax.adaptation import models, results
from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import init_state
from nada_jax.adaptation.step import make_train_step
from nada_jax.devices import mesh as meshes
from nada_jax.devices import processes
from nada_jax.runs.grids import SampleGrid
from nada_jax.runs.training import TrainingRun, every

# Fields that a resumed run may change: they do not alter what a step computes.
FREE = {
    "steps", "checkpoint_every", "sample_every", "log_every", "resume", "overwrite", "samples",
    "mesh", "distributed",
}  # fmt: skip

# The remedy for a lack of memory.
MEMORY = (
    "lower batch_size, freeze.batch_size, samples.count or freeze.rank, give fewer clip.models, or set low_memory=True "
    "or precision=bfloat16; checkpoints are kept, and other settings need another --workdir, or --config.overwrite=True"
)


def run(config: ConfigDict, workdir: Path) -> int:
    """Adapts a generator as configured; see `configs/default.py`.

    Writes config.json, metrics.jsonl, samples/, checkpoints/, loss.png, generator.safetensors; layers.png where
    layers are chosen again and again, style_delta.safetensors where styles train. Where several processes run, all
    of them compute and write their part of checkpoints, and the first one writes and prints everything else.

    Args:
      config: all of `configs/default.py`.
      workdir: where the results go, on a file system that all processes share; a run that stands
        there is continued.

    Returns:
      The exit code: 0 when all is on disk, 130 or 143 when a signal ended the run after a checkpoint.

    Raises:
      UserError: wrong input, or a loss that is not finite.
    """
    settings = Settings.read(config)

    # -- devices ----------------------------------------------------------------------------------
    processes.connect(settings.distributed)
    processes.require_same(config.to_dict() | {"distributed": None})
    mesh = meshes.make_mesh(settings.mesh, settings.batches)
    intervals = settings.stop.every, settings.text.read_every
    with TrainingRun(
        config, workdir, settings, free=FREE, results=results.FILES, intervals=intervals
    ) as run:
        return train(run, settings, mesh)


def train(run: TrainingRun, settings: Settings, mesh: Mesh | None) -> int:
    """Adapts within the workdir that the run holds; see `run`."""
    # -- models and texts -------------------------------------------------------------------------
    began = time.perf_counter()
    frozen, steering, watch = processes.together(models.load, settings)
    source, freeze = frozen.generator, settings.freeze
    labels = freeze.row.labels(source.params, freeze)
    optimizer = settings.optimizer.make(labels)
    train_step = make_train_step(settings, optimizer, mesh)

    # -- state, fresh or from the last checkpoint -------------------------------------------------
    key = jax.random.key_data(jax.random.key(settings.seed))
    saved = {"state": init_state(source, optimizer, settings, settings.seed), "key": key}
    frozen, saved = meshes.place((frozen, saved), mesh)
    saved = run.begin_from(saved)
    state, key, source = saved["state"], saved["key"], frozen.generator
    train_step = meshes.jit_step(train_step, state, mesh)

    # -- before the first step --------------------------------------------------------------------
    run.say(results.summary(settings, source, labels, state))
    then = "all steps are done already" if run.finished else "the first step compiles"
    run.say(f"models ready in {time.perf_counter() - began:.0f} s; {then}")
    if idle := meshes.idle(mesh, settings.batches):
        run.say(idle)
    grid = SampleGrid(settings.samples, source, run, mesh)
    if run.step:
        run.say(f"continuing at step {run.step} from {run.checkpoints.path(run.step)}")
    else:
        grid.draw(state.adapted(source, freeze), 0)
    if watch and run.rows:
        run.finish(watch.reason(run.rows[-1]))
    if steering and not run.finished:
        frozen = models.read_source(frozen, steering, run, mesh)

    # -- the loop ---------------------------------------------------------------------------------
    with run.signals:
        for step in run.steps():
            state, metrics = train_step(state, frozen, jax.random.wrap_key_data(key))
            run.record(metrics)
            if watch and every(step, settings.stop.every):
                run.note(**watch.measure(state.adapted(source, freeze), mesh))
                run.finish(watch.reason(run.rows[-1]))
            if run.due(settings.checkpoint_every) or run.interrupted:
                run.save({"state": state, "key": key})
            if run.due(settings.sample_every):
                grid.draw(state.adapted(source, freeze), step)
            if every(step, settings.text.read_every) and not (run.finished or run.interrupted):
                frozen = models.read_source(frozen, steering, run, mesh)

    # -- results ----------------------------------------------------------------------------------
    if code := run.exit_code():
        return code
    source = meshes.whole(source, mesh)
    adapted = state.adapted(source, freeze)
    results.write(run, settings, source, source.replace(params=meshes.whole(adapted.params, mesh)))
    image = run.path(grid.name(run.step))
    if image.is_file():  # where it could not be written, a warning has said so
        run.say(f"image: {image} (above: source, below: adapted)")
    return 0
