"""Adapts a generator to a target text: the main job, StyleGAN-NADA (Gal et al. 2022)."""

import functools
import json
import math
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from nada_jax import files, freezing, images, prompts, reporting, trees, weights
from nada_jax.checkpoints import Checkpoints
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator
from nada_jax.steps import Frozen, Recipe, TrainState, draw_latents, init_state, make_train_step

# Fields that a resumed run may change: they do not alter what a step computes.
FREE = {"steps", "checkpoint_every", "sample_every", "log_every", "resume", "overwrite", "samples"}
RESULTS = (
    "config.json",
    "metrics.jsonl",
    "loss.png",
    "generator.safetensors",
    "samples",
    "checkpoints",
)
COUNTS = (
    "steps", "batch_size", "checkpoint_every", "sample_every", "log_every",
    "freeze.iterations", "freeze.batch_size", "freeze.every", "samples.count",
)  # fmt: skip
INTERRUPTED = 128  # plus the number of the signal, as shells count


def run(config: ConfigDict, workdir: Path) -> int:
    """Adapts a generator as configured; see `configs/default.py`.

    Writes config.json, metrics.jsonl, samples/, checkpoints/, loss.png and generator.safetensors.

    Args:
      config: all of `configs/default.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0 when all is on disk, 130 or 143 when a signal ended the run after a checkpoint.

    Raises:
      UserError: wrong input, or a loss that is not finite.
    """
    check(config)
    refuse_other_runs(config, workdir)

    # -- models and texts -------------------------------------------------------------------------
    began = time.perf_counter()
    generator = weights.load_generator(config.generator.weights, precision=config.precision)
    optimizer = make_optimizer(config, generator)
    clips = tuple(weights.load_clip(m, precision=config.precision) for m in config.clip.models)
    texts = config.text.source, config.text.target
    targets = tuple(prompts.targets(clip, *texts, parts=config.loss.patch > 0) for clip in clips)
    frozen = Frozen(generator, clips, targets)
    train_step = jax.jit(make_train_step(make_recipe(config), optimizer), donate_argnums=0)
    if config.overwrite:
        delete_results(workdir)
    files.write_text(workdir / "config.json", config.to_json(indent=2) + "\n")

    # -- state, fresh or from the last checkpoint -------------------------------------------------
    run_key = jax.random.key(config.seed)
    state = init_state(generator, optimizer)
    checkpoints = Checkpoints(workdir / "checkpoints")
    if (last := checkpoints.latest()) is not None:
        saved = checkpoints.restore(last, {"state": state, "key": jax.random.key_data(run_key)})
        state, run_key = saved["state"], jax.random.wrap_key_data(saved["key"])
    step = int(state.step)
    if step > config.steps:
        raise UserError(f"steps is {config.steps}, but {workdir} holds a run of {step} steps")
    metrics_file = workdir / "metrics.jsonl"
    rows = [row for row in reporting.read_metrics(metrics_file) if row["step"] <= step]
    reporting.write_metrics(metrics_file, rows)

    # -- the loop ---------------------------------------------------------------------------------
    painter = Painter(config, generator, workdir)
    progress = reporting.Progress(config.steps, step, config.log_every)
    progress.say(
        f"{texts[0]!r} -> {texts[1]!r}: {generator.size} pixels, {trained_share(state)}; "
        f"models ready in {time.perf_counter() - began:.0f} s"
    )
    if step:
        progress.say(f"continuing at step {step} from {checkpoints.path(step)}")
    else:
        painter.paint(state, 0)
    pending, stopping = [], 0
    with Stop() as stop:
        while step < config.steps and not stopping:
            if not pending:
                clock = time.perf_counter()
            state, metrics = train_step(state, frozen, run_key)
            step += 1
            pending.append((step, metrics))
            stopping = stop.signal  # read once: it may come at any time
            log, check_point, sample = (
                step == config.steps or step % config[f"{name}_every"] == 0
                for name in ("log", "checkpoint", "sample")
            )
            if log or check_point or sample or stopping or step == 1:
                fresh = fetch(pending, clock)
                pending = []
                refuse_infinite(fresh, checkpoints)
                reporting.append_metrics(metrics_file, fresh)
                rows += fresh
                progress.advance(len(fresh), fresh[-1]["loss"], fresh[-1]["ms"])
            if check_point or stopping:
                checkpoints.save(step, {"state": state, "key": jax.random.key_data(run_key)})
            if sample:
                painter.paint(state, step)
    progress.close()
    checkpoints.close()

    # -- results ----------------------------------------------------------------------------------
    if stopping:
        print(f"stopped at step {step} with a checkpoint; the same command continues from there")
        return INTERRUPTED + stopping
    adapted = workdir / "generator.safetensors"
    reporting.plot_losses(rows, workdir / "loss.png", " -> ".join(texts))
    weights.save_generator(
        generator.replace(params=state.params),
        adapted,
        source=config.generator.weights,
        texts=json.dumps(texts),
    )
    print(f"adapted generator: {adapted}")
    print(f"picture: {painter.path(step)} (above: source, below: adapted)")
    return 0


def check(config: ConfigDict) -> None:
    """Refuses values that no run can work with; UserError names the field."""

    values = trees.flatten(config.to_dict())

    def need(good: bool, field: str, expected: str) -> None:
        if not good:
            raise UserError(f"{field} is {values.get(field)!r}; expected {expected}")

    for field in COUNTS:
        need(values[field] >= 1, field, "at least 1")
    for term, factor in config.loss.items():
        need(math.isfinite(factor) and factor >= 0, f"loss.{term}", "a number from 0")
    need(0 < config.loss.patch_fraction <= 1, "loss.patch_fraction", "a share above 0, up to 1")
    if not any(factor for term, factor in config.loss.items() if term != "patch_fraction"):
        raise UserError("every loss.* is 0; expected a term above 0, such as loss.directional=1")
    need(len(config.clip.models) > 0, "clip.models", "at least one")
    same = len(config.clip.weights) == len(config.clip.models)
    need(same, "clip.weights", f"one number for each of the {len(config.clip.models)} clip.models")
    need(config.clip.zoom >= 1, "clip.zoom", "at least 1")
    need(config.optimizer.lr > 0, "optimizer.lr", "a number above 0")
    betas = config.optimizer.betas
    need(len(betas) == 2 and all(0 <= b < 1 for b in betas), "optimizer.betas", "two in 0..1")
    noises = ("independent", "shared", "const", "none")
    need(config.generator.noise in noises, "generator.noise", f"one of {', '.join(noises)}")
    need(0 <= config.generator.mixing <= 1, "generator.mixing", "a share in 0..1")
    prompts.check(**{f"text.{field}": config.text[field] for field in ("source", "target")})


def make_recipe(config: ConfigDict) -> Recipe:
    """The static choices of the training step."""
    return Recipe(
        batch_size=config.batch_size,
        clip_weights=tuple(config.clip.weights),
        **config.loss,
        antialias=config.clip.antialias,
        zoom=config.clip.zoom,
        mixing=config.generator.mixing,
        noise=config.generator.noise,
        adaptive=config.freeze.strategy == "adaptive",
        k=config.freeze.k,
        iterations=config.freeze.iterations,
        selection_batch=config.freeze.batch_size,
        every=config.freeze.every,
    )


def make_labels(config: ConfigDict, generator: Generator) -> Any:
    """The label of every parameter: "frozen", or which optimiser trains it."""
    freeze = config.freeze
    trained = freezing.trained_layers(
        generator.num_layers, freeze.strategy, phase=freeze.phase, k=freeze.k, parity=freeze.map
    )
    return freezing.labels(generator.params, trained)


def make_optimizer(
    config: ConfigDict, generator: Generator
) -> optax.GradientTransformationExtraArgs:
    """Adam on the layers that the strategy trains."""
    inner = functools.partial(optax.adam, config.optimizer.lr, *config.optimizer.betas)
    return freezing.optimizer(inner, make_labels(config, generator))


def trained_share(state: TrainState) -> str:
    """How much of the generator may train, for people."""
    held = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim) // 2
    total = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return f"{held:,} of {total:,} parameters may train"


def refuse_other_runs(config: ConfigDict, workdir: Path) -> None:
    """Makes sure that what stands in the workdir is this run, and may be continued.

    Raises:
      UserError: it is another run, or `resume` is False.
    """
    file = workdir / "config.json"
    if config.overwrite or not file.exists():
        return
    if not config.resume:
        raise UserError(
            f"resume is False, but {workdir} holds a run already; give another --workdir, or "
            "--config.overwrite=True to delete that run"
        )
    try:
        theirs = trees.flatten(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); give another --workdir") from error
    ours = trees.flatten(json.loads(config.to_json()))
    differ = [
        f"{field} was {theirs.get(field)!r} and is {ours.get(field)!r}"
        for field in sorted(ours.keys() | theirs.keys())
        if field.split(".")[0] not in FREE and ours.get(field) != theirs.get(field)
    ]
    if differ:
        raise UserError(
            f"{workdir} holds a run with other settings ({'; '.join(differ)}); give another "
            "--workdir, or --config.overwrite=True to delete that run"
        )


def delete_results(workdir: Path) -> None:
    """Deletes what a run writes, and nothing else that may stand in the workdir."""
    for name in RESULTS:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class Painter:
    """Draws the source row over the adapted row, from latents fixed over the run."""

    def __init__(self, config: ConfigDict, generator: Generator, workdir: Path):
        samples = config.samples
        key = jax.random.key(samples.seed)
        ws = draw_latents(generator, key, samples.count)
        self.ws = generator.truncate(ws, samples.truncation)
        self.generator, self.directory = generator, workdir / "samples"
        self.draw = jax.jit(lambda generator, ws: generator.synthesize(ws))
        self.source = np.asarray(self.draw(generator, self.ws))

    def path(self, step: int) -> Path:
        """Where the grid of a step stands."""
        return self.directory / f"step_{step:06d}.png"

    def paint(self, state: TrainState, step: int) -> None:
        """Writes the grid of a step."""
        adapted = np.asarray(self.draw(self.generator.replace(params=state.params), self.ws))
        sheet = images.grid(np.concatenate([self.source, adapted]), columns=len(adapted))
        images.save(sheet, self.path(step), images.enlargement(self.generator.size))


class Stop:
    """Within the block, the first Ctrl-C or SIGTERM only asks the loop to end; a second one ends it."""

    def __init__(self):
        self.signal = 0
        self._former = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _ask(self, number, _):
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number


def fetch(pending: list[tuple[int, Any]], clock: float) -> list[dict[str, Any]]:
    """Waits for the metrics of several steps and makes plain numbers of them."""
    values = jax.device_get([metrics for _, metrics in pending])
    ms = (time.perf_counter() - clock) * 1000 / len(pending)
    return [
        {"step": step} | {name: float(value) for name, value in row.items()} | {"ms": round(ms, 2)}
        for (step, _), row in zip(pending, values, strict=True)
    ]


def refuse_infinite(rows: list[dict[str, Any]], checkpoints: Checkpoints) -> None:
    """Ends the run at a loss that is not finite; UserError names the step and what is left."""
    for row in rows:
        if not math.isfinite(row["loss"]):
            last = checkpoints.latest()
            left = "there is none yet" if last is None else str(checkpoints.path(last))
            raise UserError(
                f"the loss is {row['loss']} at step {row['step']}; last good checkpoint: {left}. "
                "A smaller optimizer.lr, or precision=float32, may help"
            )
