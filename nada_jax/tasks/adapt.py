"""Adapts a generator to a target text: the main job, StyleGAN-NADA (Gal et al. 2022)."""

import functools
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nada_jax.adaptation import checks, steering
from nada_jax.adaptation.freezing import strategies as freezing
from nada_jax.adaptation.steering import Steering
from nada_jax.adaptation.step import Frozen, Recipe, init_state, make_train_step
from nada_jax.adaptation.watch import Watch
from nada_jax.devices import sharding
from nada_jax.errors import UserError
from nada_jax.models import style_delta
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator
from nada_jax.runs import reporting
from nada_jax.runs import workdir as runs
from nada_jax.runs.checkpoints import Checkpoints
from nada_jax.runs.grids import Painter
from nada_jax.weights import loading as weights
from nada_jax.weights.lineage import Lineage

# Fields that a resumed run may change: they do not alter what a step computes.
FREE = {
    "steps", "checkpoint_every", "sample_every", "log_every", "resume", "overwrite", "samples",
    "mesh", "distributed",
}  # fmt: skip
RESULTS = (
    "config.json",
    "metrics.jsonl",
    "loss.png",
    "layers.png",
    "generator.safetensors",
    "style_delta.safetensors",
    "samples",
    "checkpoints",
)
INTERRUPTED = 128  # plus the number of the signal, as shells count


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
    checks.check(config)

    # -- devices ----------------------------------------------------------------------------------
    sharding.connect(**config.distributed)
    sharding.require_same(config.to_dict() | {"distributed": None})
    batches = split_batches(config)
    mesh = sharding.make_mesh(**config.mesh, batches=batches)
    sharding.together(refuse_other_run, config, workdir)

    # -- models and texts -------------------------------------------------------------------------
    began = time.perf_counter()
    frozen, steer, watch = sharding.together(load, config)
    optimizer = make_optimizer(config, frozen.generator)
    recipe = make_recipe(config)
    train_step = make_train_step(recipe, optimizer, mesh)
    if config.overwrite:
        sharding.alone(delete_results, workdir)

    # -- state, fresh or from the last checkpoint -------------------------------------------------
    key = jax.random.key_data(jax.random.key(config.seed))
    saved = {"state": init_state(frozen.generator, optimizer, recipe, config.seed), "key": key}
    frozen, saved = sharding.place((frozen, saved), mesh)
    checkpoints = Checkpoints(workdir / "checkpoints")
    if (last := checkpoints.latest()) is not None:
        saved = checkpoints.restore(last, saved)
    state, run_key = saved["state"], jax.random.wrap_key_data(saved["key"])
    step = int(state.step)
    if step > config.steps:
        raise UserError(f"steps is {config.steps}, but {workdir} holds a run of {step} steps")
    sharding.alone(runs.write_config, config, workdir)
    metrics_file = workdir / "metrics.jsonl"
    rows = [row for row in reporting.read_metrics(metrics_file) if row["step"] <= step]
    sharding.alone(reporting.write_metrics, metrics_file, rows)

    # -- the loop ---------------------------------------------------------------------------------
    train_step = sharding.jit_step(train_step, state, mesh)
    generator = frozen.generator
    painter = Painter(config, generator, workdir, mesh)
    silent = jax.process_index() > 0
    progress = reporting.Progress(config.steps, step, config.log_every, silent)
    share = trained_share(make_labels(config, generator), state.params)
    progress.say(
        f"{' -> '.join(steering.aims(config))}: {generator.size} pixels, {share}; "
        f"models ready in {time.perf_counter() - began:.0f} s"
    )
    if idle := sharding.idle(mesh, batches):
        progress.say(idle)
    if step:
        progress.say(f"continuing at step {step} from {checkpoints.path(step)}")
    else:
        painter.paint(state, 0)
    pending, stopping, notes = [], 0, {}
    epoch = -1
    enough = watch.enough(rows[-1]) if watch and rows else ""
    with progress, checkpoints, runs.Stop() as stop:
        while step < config.steps and not stopping and not enough:
            if config.text.read_every and step // config.text.read_every != epoch:
                epoch = step // config.text.read_every
                frozen, source = reread(frozen, steer, epoch, mesh)
                notes = {"source_text": source}
                progress.say(f"source text from step {step + 1} on: {source!r}")
            if not pending:
                clock = time.perf_counter()
            state, metrics = train_step(state, frozen, run_key)
            step += 1
            pending.append((step, metrics, notes))
            log, checkpoint, sample = (
                step == config.steps or step % config[f"{name}_every"] == 0
                for name in ("log", "checkpoint", "sample")
            )
            watched = watch is not None and step % config.stop.every == 0
            look = log or checkpoint or sample or watched or step == 1
            stopping = stop.agreed(look)
            if look or stopping:
                fresh = fetch(pending, clock)
                pending = []
                good = [row for row in fresh if not infinite(row)]
                if watched and good == fresh:
                    fresh[-1] |= watch.look(state.result, mesh)
                    enough = watch.enough(fresh[-1])
                sharding.alone(reporting.append_metrics, metrics_file, good)
                if good != fresh:
                    refuse(fresh[len(good)], checkpoints)
                rows += fresh
                progress.advance(len(fresh), fresh[-1]["loss"], fresh[-1]["ms"])
            if checkpoint or stopping or enough:
                checkpoints.save(step, {"state": state, "key": jax.random.key_data(run_key)})
            if sample or enough:
                painter.paint(state, step)

    # -- results ----------------------------------------------------------------------------------
    if stopping:
        but = " with --config.overwrite=False" if config.overwrite else ""
        progress.say(
            f"stopped at step {step} with a checkpoint; the same command{but} continues there"
        )
        return INTERRUPTED + stopping
    if enough:
        progress.say(f"enough after step {step}: {enough}")
    source = sharding.whole(generator, mesh)
    adapted = source.replace(params=sharding.whole(state.result, mesh))
    for line in write_results(config, workdir, rows, source, adapted):
        progress.say(line)
    progress.say(f"picture: {painter.path(step)} (above: source, below: adapted)")
    return 0


def write_results(
    config: ConfigDict,
    workdir: Path,
    rows: list[dict[str, Any]],
    source: Generator,
    adapted: Generator,
) -> Iterator[str]:
    """Writes plots and weights of a finished run.

    Args:
      rows: the metrics of its steps.
      source, adapted: the generators, whole on every process.

    Yields:
      A line for people on each of the weights, once they are on disk.
    """
    if rows:
        title = " -> ".join(steering.aims(config))
        sharding.alone(reporting.plot_losses, rows, workdir / "loss.png", title)
    if choices := [row for row in rows if "chosen" in row]:
        names = freezing.candidates(adapted.params, adapted.num_layers, config.freeze.strategy)
        sharding.alone(reporting.plot_choice, choices, names, workdir / "layers.png")
    text = (rows or [{}])[-1].get("source_text", config.text.source)
    texts = (text, "" if config.text.target_images else config.text.target)
    facts = Lineage(config.generator.weights, texts, config.clip.models).header()
    file = workdir / "generator.safetensors"
    sharding.alone(functools.partial(weights.save_generator, adapted, file, **facts))
    yield f"adapted generator: {file}"
    if config.freeze.strategy == "style_space":
        delta, file = style_delta.between(source, adapted), workdir / "style_delta.safetensors"
        sharding.alone(functools.partial(weights.save_model, delta, file, **facts))
        yield f"what was learnt, to be added to the source: {file}"


def split_batches(config: ConfigDict) -> dict[str, int]:
    """The batches that the devices share, by field."""
    batches = {"batch_size": config.batch_size}
    if config.freeze.strategy in freezing.ADAPTIVE:
        batches["freeze.batch_size"] = config.freeze.batch_size
    return batches


def load(config: ConfigDict) -> tuple[Frozen, Steering | None, Watch | None]:
    """The models and what is asked of them; what reads source texts, and what may end the run early."""
    generator = weights.load_generator(config.generator.weights, precision=config.precision)
    clips = tuple(weights.load_clip(m, precision=config.precision) for m in config.clip.models)
    steer = Steering(config, generator, clips)
    targets = steer.targets(config.text.source)
    face = vgg = None
    if config.loss.identity:
        face = weights.load_model(Irse50, config.identity.weights, field="identity.weights")
    if config.loss.lpips:
        vgg = weights.load_lpips(config.lpips.weights, field="lpips.weights")
    watch = None
    if config.stop.every:
        judge, asked = clips[0], targets[0]
        if config.stop.clip:
            judge = weights.load_clip(
                config.stop.clip, precision=config.precision, field="stop.clip"
            )
            (asked,) = Steering(config, generator, [judge]).targets(config.text.source)
        watch = Watch(config, generator, judge.without_texts(), asked.target)
    clips = tuple(clip.without_texts() for clip in clips)
    frozen = Frozen(generator, clips, targets, face, vgg)
    # The text towers, which are half of a clip, stay where texts are still read alone.
    return frozen, steer if config.text.read_every else None, watch


def reread(frozen: Frozen, steer: Steering, epoch: int, mesh: Mesh | None) -> tuple[Frozen, str]:
    """Reads the source text off the source's pictures, and turns all directions to it."""
    source = steer.read(epoch)
    return frozen.replace(targets=sharding.place(steer.targets(source), mesh)), source


def make_recipe(config: ConfigDict) -> Recipe:
    """The static choices of the training step."""
    return Recipe(
        batch_size=config.batch_size,
        clip_weights=tuple(config.clip.weights),
        **config.loss,
        balancing=config.balancing.mode,
        balancing_lr=config.balancing.lr,
        antialias=config.clip.antialias,
        zoom=config.clip.zoom,
        rotate=config.clip.rotate,
        shift=config.clip.shift,
        background=config.clip.background,
        mixing=config.generator.mixing,
        noise=config.generator.noise,
        strategy=config.freeze.strategy,
        k=config.freeze.k,
        measure=config.freeze.measure,
        rank=config.freeze.rank,
        iterations=config.freeze.iterations,
        selection_batch=config.freeze.batch_size,
        every=config.freeze.every,
        ema=config.ema,
        low_memory=config.low_memory,
    )


def make_labels(config: ConfigDict, generator: Generator) -> Any:
    """The label of every parameter: "frozen", or which optimiser trains it."""
    freeze = config.freeze
    choice = {"phase": freeze.phase, "k": freeze.k, "parity": freeze.parity}
    return freezing.labels(generator.params, generator.num_layers, freeze.strategy, **choice)


def make_optimizer(
    config: ConfigDict, generator: Generator
) -> optax.GradientTransformationExtraArgs:
    """Adam on the layers that the strategy trains."""
    fields = config.optimizer
    inner = functools.partial(optax.adam, fields.lr, *fields.betas)
    schedule = make_schedule(fields.warmup, fields.decay)
    return freezing.optimizer(inner, make_labels(config, generator), fields.clip, schedule)


def make_schedule(warmup: int, decay: int) -> optax.Schedule | None:
    """What updates are multiplied by, step by step: a straight rise to 1, then a cosine down to 0."""
    if not (warmup or decay):
        return None
    rise = optax.linear_schedule(1 / (warmup + 1), 1, warmup) if warmup else lambda step: 1.0
    fall = optax.cosine_decay_schedule(1, decay) if decay else lambda step: 1.0
    return optax.join_schedules([rise, fall], [warmup])


def trained_share(labels: Any, params: Any) -> str:
    """How much of the generator may train, for people."""
    sizes = jax.tree.map(lambda leaf: leaf.size, params)
    trained = jax.tree.map(lambda label, n: n * (label != freezing.FROZEN), labels, sizes)
    shares = [sum(jax.tree.leaves(tree)) for tree in (trained, sizes)]
    return "{:,} of {:,} parameters may train".format(*shares)


def refuse_other_run(config: ConfigDict, workdir: Path) -> None:
    """Makes sure that what stands in the workdir is this run, and may be continued.

    Raises:
      UserError: it is another run, or `resume` is False.
    """
    if config.overwrite:
        return
    remedy = "give another --workdir, or --config.overwrite=True to delete that run"
    if not config.resume and runs.read_config(workdir) is not None:
        raise UserError(f"resume is False, but {workdir} holds a run already; {remedy}")
    runs.refuse_other(config, workdir, FREE, remedy)


def delete_results(workdir: Path) -> None:
    """Deletes what a run writes, and nothing else that may stand in the workdir."""
    for name in RESULTS:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def fetch(pending: list[tuple[int, Any, Any]], clock: float) -> list[dict[str, Any]]:
    """Waits for the metrics of several steps and makes plain numbers of them; notes stay as they are."""
    values = jax.device_get([metrics for _, metrics, _ in pending])
    ms = (time.perf_counter() - clock) * 1000 / len(pending)
    return [
        {"step": step}
        | {name: plain(value) for name, value in row.items()}
        | notes
        | {"ms": round(ms, 2)}
        for (step, _, notes), row in zip(pending, values, strict=True)
    ]


def plain(value: np.ndarray) -> float | list[int]:
    """A scalar as a number, a choice as the indices that it names."""
    return np.flatnonzero(value).tolist() if value.ndim else float(value)


def infinite(row: dict[str, Any]) -> str | None:
    """The name of what is not finite in the metrics of a step, or None."""
    return next((name for name in ("loss", "norm") if not math.isfinite(row[name])), None)


def refuse(row: dict[str, Any], checkpoints: Checkpoints) -> NoReturn:
    """Ends the run at a step that is not finite; UserError names the step and what is left."""
    last, name = checkpoints.latest(), infinite(row)
    left = "there is none yet" if last is None else str(checkpoints.path(last))
    what = {"loss": "loss", "norm": "norm of the parameters"}[name]
    raise UserError(
        f"the {what} is {row[name]} at step {row['step']}; last good checkpoint: {left}; a smaller "
        "optimizer.lr, or precision=float32, may help"
    )
