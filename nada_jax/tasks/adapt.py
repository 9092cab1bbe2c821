"""Adapts a generator to a target text: the main job, StyleGAN-NADA (Gal et al. 2022)."""

import functools
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nada_jax import (
    balancing,
    freezing,
    images,
    prompts,
    reporting,
    runs,
    sharding,
    steering,
    trees,
    weights,
)
from nada_jax.checkpoints import Checkpoints
from nada_jax.errors import UserError
from nada_jax.losses import views
from nada_jax.models import style_delta
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator
from nada_jax.steering import Steering
from nada_jax.steps import Frozen, Recipe, TrainState, draw_latents, init_state, make_train_step
from nada_jax.stopping import Watch

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
COUNTS = (
    "steps", "batch_size", "checkpoint_every", "sample_every", "log_every",
    "freeze.iterations", "freeze.batch_size", "freeze.every", "freeze.rank", "samples.count", "mesh.fsdp",
)  # fmt: skip
INTERRUPTED = 128  # plus the number of the signal, as shells count


def run(config: ConfigDict, workdir: Path) -> int:
    """Adapts a generator as configured; see `configs/default.py`.

    Writes config.json, metrics.jsonl, samples/, checkpoints/, loss.png, generator.safetensors; layers.png where
    layers are chosen again and again, style_delta.safetensors where styles train. Where several processes run, all of them compute and write
    their part of checkpoints, and the first one writes and prints everything else.

    Args:
      config: all of `configs/default.py`.
      workdir: where the results go, on a file system that all processes share; a run that stands
        there is continued.

    Returns:
      The exit code: 0 when all is on disk, 130 or 143 when a signal ended the run after a checkpoint.

    Raises:
      UserError: wrong input, or a loss that is not finite.
    """
    check(config)

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
    told = " -> ".join(steering.aims(config))
    progress.say(
        f"{told}: {generator.size} pixels, {share}; "
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
    adapted = workdir / "generator.safetensors"
    if rows:
        sharding.alone(reporting.plot_losses, rows, workdir / "loss.png", told)
    if choices := [row for row in rows if "chosen" in row]:
        names = freezing.candidates(generator.params, generator.num_layers, recipe.strategy)
        sharding.alone(reporting.plot_choice, choices, names, workdir / "layers.png")
    facts = {"source": config.generator.weights, "clips": json.dumps(list(config.clip.models))}
    if not config.text.target_images:
        source = (rows or [{}])[-1].get("source_text", config.text.source)
        facts["texts"] = json.dumps([source, config.text.target])
    source = sharding.whole(generator, mesh)
    generator = source.replace(params=sharding.whole(state.result, mesh))
    sharding.alone(functools.partial(weights.save_generator, generator, adapted, **facts))
    progress.say(f"adapted generator: {adapted}")
    if config.freeze.strategy == "style_space":
        delta, file = style_delta.between(source, generator), workdir / "style_delta.safetensors"
        sharding.alone(functools.partial(weights.save_model, delta, file, **facts))
        progress.say(f"what was learnt, to be added to the source: {file}")
    progress.say(f"picture: {painter.path(step)} (above: source, below: adapted)")
    return 0


def check(config: ConfigDict) -> None:
    """Refuses values that no run can work with; UserError names the field."""

    values = trees.flatten(config.to_dict())

    def need(good: bool, field: str, expected: str) -> None:
        if not good:
            raise UserError(f"{field} is {values.get(field)!r}; expected {expected}")

    for field in COUNTS:
        need(values[field] >= 1, field, "at least 1")

    def numbers(values) -> bool:
        return all(isinstance(v, int | float) and math.isfinite(v) and v >= 0 for v in values)

    need(0 <= config.seed < 2**63, "seed", "a whole number in 0..2^63 - 1")
    need(0 <= config.samples.seed < 2**63, "samples.seed", "a whole number in 0..2^63 - 1")
    need(math.isfinite(config.samples.truncation), "samples.truncation", "a number")
    for term, factor in config.loss.items():
        need(numbers([factor]), f"loss.{term}", "a number from 0")
    need(0 < config.loss.patch_fraction <= 1, "loss.patch_fraction", "a share above 0, up to 1")
    if not any(factor for term, factor in config.loss.items() if term != "patch_fraction"):
        raise UserError("every loss.* is 0; expected a term above 0, such as loss.directional=1")
    modes = ", ".join(balancing.MODES)
    need(config.balancing.mode in balancing.MODES, "balancing.mode", f"one of {modes}")
    need(numbers([config.balancing.lr]) and config.balancing.lr > 0, "balancing.lr", "above 0")
    models, factors = config.clip.models, config.clip.weights
    need(models and all(isinstance(m, str) for m in models), "clip.models", "at least one name")
    good = len(factors) == len(models) and numbers(factors) and sum(factors) > 0
    need(good, "clip.weights", f"one number from 0 for each of the {len(models)} clip.models")
    need(numbers([config.clip.zoom]) and config.clip.zoom >= 1, "clip.zoom", "a number from 1")
    need(numbers([config.clip.rotate]), "clip.rotate", "degrees from 0")
    need(numbers([config.clip.shift]), "clip.shift", "a share of a side from 0")
    known = views.BACKGROUNDS
    need(config.clip.background in known, "clip.background", f"one of {', '.join(known)}")
    for field, what in (("lpips", "a VGG-16 with the layers of LPIPS"), ("identity", "an irse50")):
        given = config[field].weights or not config.loss[field]
        need(given, f"{field}.weights", f"{what}, which loss.{field} needs")
    need(config.stop.every >= 0, "stop.every", "steps from 0")
    for field in ("diversity", "similarity"):
        need(numbers([config.stop[field]]), f"stop.{field}", "a number from 0")
        used = config.stop.every or not config.stop[field]
        need(used, f"stop.{field}", "0 as long as stop.every is 0")
    need(numbers([config.optimizer.lr]) and config.optimizer.lr > 0, "optimizer.lr", "above 0")
    need(numbers([config.ema]), "ema", "a number from 0")
    for field in ("clip", "warmup", "decay"):
        need(numbers([config.optimizer[field]]), f"optimizer.{field}", "a number from 0")
    betas = config.optimizer.betas
    good = numbers(betas) and len(betas) == 2 and max(betas) < 1
    need(good, "optimizer.betas", "two numbers from 0, below 1")
    for field, known in (("parity", freezing.PARITIES), ("measure", freezing.MEASURES)):
        need(config.freeze[field] in known, f"freeze.{field}", f"one of {', '.join(known)}")
    noises = ("independent", "shared", "const", "none")
    need(config.generator.noise in noises, "generator.noise", f"one of {', '.join(noises)}")
    need(0 <= config.generator.mixing <= 1, "generator.mixing", "a share in 0..1")
    need(config.mesh.data >= 0, "mesh.data", "a number from 0")
    check_text(config.text)


def check_text(text: ConfigDict) -> None:
    """Refuses texts and pictures that do not go together; UserError names the field."""
    prompts.check(**{f"text.{field}": text[field] for field in ("source", "target")})
    factors = text.weights
    good = all(isinstance(f, int | float) and math.isfinite(f) for f in factors)
    if len(factors) != len(text.others) or not good:
        raise UserError(
            f"text.weights is {factors!r}; expected a number for each of the {len(text.others)} text.others"
        )
    if not all(isinstance(other, str) and other.strip() for other in text.others):
        raise UserError(f"text.others is {text.others!r}; expected texts, such as ('robot',)")
    if text.source in text.others:
        raise UserError(f"text.others holds text.source, {text.source!r}; expected other texts")
    if text.source_images and not text.target_images:
        raise UserError(
            f"text.source_images is {text.source_images!r}, but text.target_images is empty; expected both, "
            "for CLIP's features of pictures and of texts are not to be subtracted"
        )
    if text.read_every < 0:
        raise UserError(f"text.read_every is {text.read_every}; expected steps, or 0 for never")
    if text.read_every and text.target_images:
        raise UserError(
            "text.read_every goes with a target text; with text.target_images no source text is used"
        )


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
    clips = tuple(clip.without_texts() for clip in clips)
    frozen = Frozen(generator, clips, targets, face, vgg)
    watch = Watch(config, generator) if config.stop.every else None
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


class Painter:
    """Draws the source row over the adapted row, from latents fixed over the run."""

    def __init__(
        self, config: ConfigDict, generator: Generator, workdir: Path, mesh: Mesh | None = None
    ):
        samples = config.samples

        def latents(generator):
            ws = draw_latents(generator, jax.random.key(samples.seed), samples.count)
            return generator.truncate(ws, samples.truncation)

        self.generator, self.mesh, self.directory = generator, mesh, workdir / "samples"
        self.ws = jax.jit(latents)(sharding.whole(generator, mesh))
        self.draw = jax.jit(lambda generator, ws: generator.synthesize(ws))
        self.source = self.pictures(generator)

    def pictures(self, generator: Generator) -> np.ndarray:
        """The row of a generator, [n, h, w, 3]."""
        return np.asarray(self.draw(sharding.whole(generator, self.mesh), self.ws))

    def path(self, step: int) -> Path:
        """Where the grid of a step stands."""
        return self.directory / f"step_{step:06d}.png"

    def paint(self, state: TrainState, step: int) -> None:
        """Writes the grid of a step."""
        adapted = self.pictures(self.generator.replace(params=state.result))
        sheet = images.grid(np.concatenate([self.source, adapted]), columns=len(adapted))
        enlarge = images.enlargement(self.generator.size)
        sharding.alone(images.save, sheet, self.path(step), enlarge)


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
