"""Adapts a generator to a target text: the main job, StyleGAN-NADA (Gal et al. 2022)."""

import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nada_jax.adaptation.freezing.strategy import FROZEN
from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import Frozen, TrainState, init_state
from nada_jax.adaptation.steering import Steering, Text
from nada_jax.adaptation.step import make_train_step
from nada_jax.adaptation.terms import TERMS
from nada_jax.adaptation.watch import MEASUREMENTS, Watch
from nada_jax.devices import mesh as meshes
from nada_jax.devices import processes
from nada_jax.models.stylegan2 import Generator
from nada_jax.runs import plots
from nada_jax.runs.grids import SampleGrid
from nada_jax.runs.training import TrainingRun, every
from nada_jax.weights import loading, native
from nada_jax.weights.lineage import Lineage

# Fields that a resumed run may change: they do not alter what a step computes.
FREE = {
    "steps", "checkpoint_every", "sample_every", "log_every", "resume", "overwrite", "samples",
    "mesh", "distributed",
}  # fmt: skip
RESULTS = (
    "config.json", "metrics.jsonl", "loss.png", "layers.png", "generator.safetensors",
    "style_delta.safetensors", "samples", "checkpoints",
)  # fmt: skip


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
    run = TrainingRun(config, workdir, settings, free=FREE, results=RESULTS, intervals=intervals)

    # -- models and texts -------------------------------------------------------------------------
    began = time.perf_counter()
    frozen, steering, watch = processes.together(load, settings)
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

    # -- the loop ---------------------------------------------------------------------------------
    with run:
        grid = SampleGrid(settings.samples, source, run, mesh)
        run.say(
            f"{summary(settings, source, labels, state)}; models ready in {time.perf_counter() - began:.0f} s"
        )
        if idle := meshes.idle(mesh, settings.batches):
            run.say(idle)
        if run.step:
            run.say(f"continuing at step {run.step} from {run.checkpoints.path(run.step)}")
            if watch:
                run.finish(watch.reason(run.rows[-1]))
        else:
            grid.draw(state.adapted(source, freeze), 0)
        frozen = read_source(frozen, steering, settings.text, run, mesh)
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
            if every(step, settings.text.read_every):
                frozen = read_source(frozen, steering, settings.text, run, mesh)

    # -- results ----------------------------------------------------------------------------------
    if code := run.exit_code():
        return code
    source = meshes.whole(source, mesh)
    adapted = state.adapted(source, freeze)
    write_results(run, settings, source, source.replace(params=meshes.whole(adapted.params, mesh)))
    run.say(f"image: {run.path(grid.name(run.step))} (above: source, below: adapted)")
    return 0


def load(settings: Settings) -> tuple[Frozen, Steering, Watch | None]:
    """The models and their targets; what reads source texts; what may end the run early."""
    precision = settings.precision
    generator = loading.load_generator(settings.generator.weights, precision=precision)
    clips = [loading.load_clip(model, precision=precision) for model in settings.clip.models]
    parts = {"parts": bool(settings.loss.active("crops")), "seed": settings.seed}
    steering = Steering(settings.text, generator, clips, settings.clip.weights, **parts)
    targets = steering.targets(settings.text.source)
    networks = settings.load_networks()
    watch = None
    if settings.stop.every:
        judge, target = clips[0], targets[0].target
        if settings.stop.clip:
            judge = loading.load_clip(settings.stop.clip, precision=precision, field="stop.clip")
            own = Steering(settings.text, generator, [judge], [1.0], **parts)
            target = own.targets(settings.text.source)[0].target
        watch = Watch(settings.stop, generator, judge.without_texts(), target)
    # The text towers are half of a clip, and the step reads images alone.
    frozen = Frozen(generator, tuple(clip.without_texts() for clip in clips), targets, networks)
    return frozen, steering if settings.text.read_every else None, watch


def read_source(
    frozen: Frozen, steering: Steering | None, text: Text, run: TrainingRun, mesh: Mesh | None
) -> Frozen:
    """Chooses the source text anew by images of the source, and turns all directions to it, where `text` says so."""
    if not text.read_every or run.finished:
        return frozen
    source = steering.read(run.step // text.read_every)
    run.notes["source_text"] = source
    run.say(f"source text from step {run.step + 1} on: {source!r}")
    return frozen.replace(targets=meshes.place(steering.targets(source), mesh))


def summary(settings: Settings, source: Generator, labels: Any, state: TrainState) -> str:
    """What is adapted to what, and how many numbers train, for people."""
    sizes = jax.tree.map(lambda label, x: x.size * (label != FROZEN), labels, state.trained)
    trained = sum(jax.tree.leaves(sizes))
    whole = sum(x.size for x in jax.tree.leaves(source.params))
    title = " -> ".join(settings.text.described())
    return (
        f"{title}: {source.size} pixels, {trained:,} trained parameters, {whole:,} in the generator"
    )


def write_results(
    run: TrainingRun, settings: Settings, source: Generator, adapted: Generator
) -> None:
    """Writes plots and weights of a finished run; the generators are whole on every process."""
    text, freeze = settings.text, settings.freeze
    if run.rows:
        title = " -> ".join(text.described())
        drawn = {"title": title, "terms": list(TERMS), "held_out": list(MEASUREMENTS)}
        run.write("loss.png", lambda path: plots.plot_losses(run.rows, path, **drawn))
    if choices := [row for row in run.rows if "chosen" in row]:
        names = freeze.row.candidates(source.params)
        run.write("layers.png", lambda path: plots.plot_choice(choices, names, path))
    texts = (
        (run.rows or [{}])[-1].get("source_text", text.source),
        "" if text.target_images else text.target,
    )
    facts = Lineage(settings.generator.weights, texts, settings.clip.models).header()
    models = {"generator.safetensors": ("adapted generator", adapted)} | {
        name: (words, make(source, adapted)) for name, (words, make) in freeze.row.results.items()
    }
    for name, (words, model) in models.items():
        path = run.write(name, lambda path, model=model: native.save_model(model, path, **facts))
        run.say(f"{words}: {path}")
