"""Trains an encoder for a generator on the generator's own images; see `nada_jax.latents.encoder_training`."""

import functools
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax import batches, images
from nada_jax.adaptation.freezing.optimizer import Optimizer
from nada_jax.adaptation.freezing.strategy import ALWAYS, FROZEN
from nada_jax.devices import mesh as meshes
from nada_jax.latents import encoder_training as training
from nada_jax.latents.encoder_training import Frozen
from nada_jax.models.encoder import Encoder
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.runs import plots
from nada_jax.runs.grids import Samples
from nada_jax.runs.training import Schedule, TrainingRun
from nada_jax.settings import Count, Seed
from nada_jax.weights import loading, native

# Fields that a resumed run may change: they do not alter what a step computes.
FREE = {
    "steps", "checkpoint_every", "sample_every", "log_every", "resume", "overwrite", "samples",
    "held_out",
}  # fmt: skip
# Patterns of all that a run writes beside config.json; `overwrite` deletes these and nothing else.
FILES = (
    "metrics.jsonl", "loss.png", "encoder.safetensors", "samples/step_[0-9]*.png", "checkpoints/[0-9]*",
)  # fmt: skip
MEMORY = "lower batch_size or samples.count"  # the remedy for a lack of it
TERMS = ("latent", "l2", "lpips", "delta")
MEASURED = ("held_out_mse", "held_out_lpips")


class Settings(training.StepSettings, Schedule):
    """All of `configs/train_encoder.py`."""

    task: str
    seed: Seed
    optimizer: Optimizer
    samples: Samples
    held_out: Count


def run(config: ConfigDict, workdir: Path) -> int:
    """Trains an encoder as configured; see `configs/train_encoder.py`.

    Writes config.json, metrics.jsonl, samples/, checkpoints/, loss.png, encoder.safetensors. It uses one device.

    Args:
      config: all of `configs/train_encoder.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0 when all is on disk, 130 or 143 when a signal ended the run after a checkpoint.

    Raises:
      UserError: wrong input, or a loss that is not finite.
    """
    settings = Settings.read(config)
    with TrainingRun(config, workdir, settings, free=FREE, results=FILES) as run:
        return train(run, settings)


def train(run: TrainingRun, settings: Settings) -> int:
    """Trains within the workdir that the run holds; see `run`."""
    # -- models -----------------------------------------------------------------------------------
    began = time.perf_counter()
    generator = loading.load_generator(settings.generator.weights)
    architecture = settings.encoder.architecture(generator)
    vgg = None
    if settings.loss.lpips:
        vgg = loading.load_lpips(settings.lpips.weights, field="lpips.weights")
    root = jax.random.key(settings.seed)
    frozen = meshes.place(jax.jit(training.freeze)(generator, vgg, root), None)

    # -- state, fresh or from the last checkpoint -------------------------------------------------
    encoder = training.init_encoder(architecture, generator, root)
    labels = jax.tree.map(lambda x: ALWAYS if x else FROZEN, training.trains(encoder.params))
    optimizer = settings.optimizer.make(labels)
    state = training.init_state(encoder, optimizer, settings)
    saved = meshes.place({"state": state, "key": jax.random.key_data(root)}, None)
    saved = run.begin_from(saved)
    state, key = saved["state"], saved["key"]
    train_step = jax.jit(training.make_train_step(settings, optimizer), donate_argnums=0)

    # -- before the first step --------------------------------------------------------------------
    count = sum(x.size for x in jax.tree.leaves(encoder.params))
    size = architecture.image_size
    run.say(
        f"encoder of {count:,} parameters: {size} x {size} pixels -> {generator.num_layers} latents of "
        f"{generator.architecture.w_dim}, for {settings.generator.weights}"
    )
    then = "all steps are done already" if run.finished else "the first step compiles"
    run.say(f"models ready in {time.perf_counter() - began:.0f} s; {then}")
    drawn = held_out(settings, generator)
    if run.step:
        run.say(f"continuing at step {run.step} from {run.checkpoints.path(run.step)}")

    # -- the loop ---------------------------------------------------------------------------------
    with run.signals:
        for _ in run.steps():
            state, metrics = train_step(state, frozen, jax.random.wrap_key_data(key))
            run.record(metrics)
            if run.due(settings.sample_every):
                run.note(**measure(run, settings, state.result, frozen, drawn))
            if run.due(settings.checkpoint_every) or run.interrupted:
                run.save({"state": state, "key": key})

    # -- results ----------------------------------------------------------------------------------
    if code := run.exit_code():
        return code
    write(run, settings, state.result)
    return 0


def held_out(settings: Settings, generator: Generator) -> np.ndarray:
    """Images on which no step trains, [n, h, w, 3]."""
    samples = settings.samples
    # The keys of steps are folded from that of `seed`, and no seed leads to them.
    count = max(settings.held_out, samples.count)
    ws = jax.jit(draw_latents, static_argnums=2)(generator, jax.random.key(samples.seed), count)
    synthesize = functools.partial(jax.jit(Generator.synthesize), generator)
    ws = np.asarray(generator.truncate(ws, samples.truncation))
    return batches.apply(synthesize, min(count, settings.batch_size), ws)


def measure(
    run: TrainingRun, settings: Settings, encoder: Encoder, frozen: Frozen, drawn: np.ndarray
) -> dict[str, float]:
    """Draws the grid of this step, and gives the means of `MEASURED` over the held-out images."""
    reconstruct = functools.partial(_reconstruct, encoder, frozen.generator, frozen.vgg)
    again, figures = batches.apply(reconstruct, min(len(drawn), settings.batch_size), drawn)
    columns = settings.samples.count
    rows = np.concatenate([drawn[:columns], again[:columns]])
    run.draw(grid(run.step), functools.partial(images.save_grid, rows, columns))
    means = {name: float(np.mean(x[: settings.held_out])) for name, x in figures.items()}
    return {f"held_out_{name}": mean for name, mean in means.items()}


_reconstruct = jax.jit(training.reconstruct)


def grid(step: int) -> str:
    """The grid of a step, within the workdir."""
    return f"samples/step_{step:06d}.png"


def write(run: TrainingRun, settings: Settings, encoder: Encoder) -> None:
    """Writes the encoder and the plot of a finished run, and says how good it is."""
    source = settings.generator.weights
    path = run.write(
        "encoder.safetensors",
        # Half the size; what an encoder finds changes by less than a thousandth.
        lambda path: native.save_model(encoder, path, half=True, source=source),
    )
    run.say(f"encoder: {path}")
    if not run.rows:
        return
    title = f"an encoder for {source}"
    # Without loss.lpips there is no network for it.
    measured = [name for name in MEASURED if any(name in row for row in run.rows)]
    drawn = {"title": title, "terms": TERMS, "held_out": measured}
    run.draw("loss.png", lambda path: plots.plot_losses(run.rows, path, **drawn))
    found = ", ".join(
        f"{name.removeprefix('held_out_')} {run.rows[-1][name]:.4f}"
        for name in MEASURED
        if name in run.rows[-1]
    )
    run.say(f"{settings.held_out} held-out images, drawn again: {found} (images in [-1, 1])")
    image = run.path(grid(run.step))
    if image.is_file():  # where it could not be written, a warning has said so
        run.say(
            f"image: {image} (above: held-out images, below: drawn from what the encoder finds)"
        )
