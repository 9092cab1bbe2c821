"""Trains a latent diffusion model on images with captions; see `nada_jax.diffusion.training`."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nada_jax import batches, images
from nada_jax.adaptation.freezing.optimizer import Optimizer
from nada_jax.adaptation.freezing.strategy import ALWAYS
from nada_jax.diffusion import captions, sampling, training
from nada_jax.diffusion.captions import Captioned
from nada_jax.diffusion.settings import Sampling, Scale
from nada_jax.diffusion.training import Autoencoder, State, Unet
from nada_jax.models import diffusion
from nada_jax.models.diffusion import Diffusion
from nada_jax.runs import plots
from nada_jax.runs.training import Schedule, TrainingRun
from nada_jax.settings import SEEDS, Count, NonNegative, Precision, Rule, Section, Seed
from nada_jax.weights import diffusers, finding, loading

# Fields that a resumed run may change: they do not alter what a step computes.
FREE = {
    "steps", "checkpoint_every", "sample_every", "log_every", "resume", "overwrite", "samples",
}  # fmt: skip
# Patterns of all that a run writes beside config.json; `overwrite` deletes these and nothing else.
FILES = (
    "metrics.jsonl", "loss.png", "samples/step_[0-9]*.png", "checkpoints/[0-9]*", "model/model_index.json",
    "model/*/*.json", "model/*/*.safetensors", "model/*/merges.txt",
)  # fmt: skip
ENCODED = 64  # images at once, for their latents
TEXTS = Rule(lambda x: len(x) > 0 and all(text.strip() for text in x), "a list of prompts")
STEPS = Rule(lambda x: 1 <= x < 1000, "a whole number in 1..999: the model knows 1,000 times")
SIDE = Rule(lambda x: 8 <= x <= 1024, "a number of pixels in 8..1024")


class Samples(Section, name="samples"):
    """The sample grids; `config.samples`."""

    prompts: Annotated[tuple[str, ...], TEXTS]
    steps: Annotated[int, STEPS]
    scale: Scale
    seed: Seed

    @property
    def sampling(self) -> Sampling:
        """How they are drawn."""
        return Sampling(method="ddim", steps=self.steps, scale=self.scale, eta=0.0, size=0)


class Settings(Schedule):
    """All of `configs/train_diffusion.py`."""

    task: str
    seed: Seed
    data: str
    size: Annotated[int, SIDE]
    mirror: bool
    precision: Precision
    batch_size: Count
    ema: NonNegative
    clip: str
    vae: Autoencoder
    unet: Unet
    optimizer: Optimizer
    samples: Samples

    def check(self) -> None:
        """The VAE is trained first, and latents can be halved as often as both networks do."""
        good = self.vae.steps < self.steps
        self.vae.need(good, "steps", f"fewer than the {self.steps} of the whole run")
        halvings = len(self.vae.widths) + len(self.unet.widths) - 2
        self.need(self.size % 2**halvings == 0, "size", f"a multiple of {2**halvings} pixels")


def run(config: ConfigDict, workdir: Path) -> int:
    """Trains a diffusion model as configured; see `configs/train_diffusion.py`.

    Writes config.json, metrics.jsonl, samples/, checkpoints/, loss.png and model/. It uses one device.

    Args:
      config: all of `configs/train_diffusion.py`.
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
    # -- data and networks ------------------------------------------------------------------------
    began = time.perf_counter()
    tokenizer = finding.find_clip(settings.clip, "clip")  # not a file, which has none
    data = captions.read(settings.data, settings.size, field="data")
    root = jax.random.key(settings.seed)
    model = make_model(settings, root)
    ids = [model.tokenize(texts) for texts in data.captions]
    optimizers = {
        "vae": dataclasses.replace(
            settings.optimizer, lr=settings.vae.lr, decay=settings.vae.steps
        ).make(labels(model.params["vae"])),
        "unet": settings.optimizer.make(labels(model.params["unet"])),
    }

    # -- state, fresh or from the last checkpoint -------------------------------------------------
    states = {name: training.begin(model.params[name], x) for name, x in optimizers.items()}
    saved = run.begin_from({"step": jnp.int32(0), **states})
    states = {name: saved[name] for name in states}
    vae_step = jax.jit(
        training.vae_step(settings.vae, optimizers["vae"], settings.ema), donate_argnums=0
    )
    unet_step = jax.jit(
        training.unet_step(settings.unet, optimizers["unet"], settings.ema), donate_argnums=0
    )

    # -- before the first step --------------------------------------------------------------------
    counts = {
        name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in model.params.items()
    }
    run.say(
        f"{len(data.images):,} images of {settings.size} pixels; parameters: "
        + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    )
    run.say(f"ready in {time.perf_counter() - began:.0f} s; the first step compiles")
    if run.step:
        run.say(f"continuing at step {run.step} from {run.checkpoints.path(run.step)}")
    blank = model.tokenize([""])
    moments = None  # of the latents, once the VAE is trained

    # -- the loop ---------------------------------------------------------------------------------
    with run.signals:
        for step in run.steps():
            key, random = (
                jax.random.fold_in(root, step),
                np.random.default_rng((settings.seed, step)),
            )
            if step <= settings.vae.steps:
                rows = random.integers(len(data.images), size=settings.vae.batch_size)
                pixels = data.images[rows]
                if settings.mirror and random.random() < 0.5:
                    pixels = pixels[:, :, ::-1]
                states["vae"], metrics = vae_step(states["vae"], model, pixels, key)
            else:
                if moments is None:
                    model, moments = with_latents(run, model, states["vae"], data, settings)
                rows = random.integers(len(moments[0]), size=settings.batch_size)
                chosen = [ids[row % len(ids)] for row in rows]
                texts = np.stack([x[random.integers(len(x))] for x in chosen])
                batch = tuple(x[rows] for x in moments)
                states["unet"], metrics = unet_step(states["unet"], model, batch, texts, blank, key)
            run.record(metrics)
            if run.due(settings.sample_every):
                draw(run, settings, result(model, states), data)
            if run.due(settings.checkpoint_every) or run.interrupted:
                run.save({"step": jnp.int32(step), **states})

    # -- results ----------------------------------------------------------------------------------
    if code := run.exit_code():
        return code
    if moments is None:  # all steps had been done before
        model, moments = with_latents(run, model, states["vae"], data, settings)
    write(run, settings, result(model, states), tokenizer)
    return 0


def labels(params: object) -> object:
    """A tree like the parameters, which says that all of them train."""
    return jax.tree.map(lambda _: ALWAYS, params)


def make_model(settings: Settings, key: jax.Array) -> Diffusion:
    """A model with random weights, but for the text encoder."""
    clip = loading.load_clip(settings.clip, field="clip")
    text = clip.module.config.text_config.to_dict()
    config = diffusion.canonical(
        training.describe(settings.vae, settings.unet, settings.size, text)
    )
    params = diffusion.init(config, key)
    params |= {"text_encoder": {"text_model": clip.params["text_model"]}}
    return Diffusion(
        params, config, clip.tokenizer, clip.tokenizer.end, "diffusion", settings.precision
    )


def result(model: Diffusion, states: dict[str, State]) -> Diffusion:
    """The model with the averages of its parameters."""
    return model.replace(params=model.params | {name: x.ema for name, x in states.items()})


def with_latents(
    run: TrainingRun, model: Diffusion, vae: State, data: Captioned, settings: Settings
) -> tuple[Diffusion, tuple[np.ndarray, np.ndarray]]:
    """The model with its VAE and the scaling factor, and mean and log-variance of the latents of all images."""
    model = model.replace(params=model.params | {"vae": vae.ema})
    began = time.perf_counter()
    moments = batches.apply(functools.partial(_moments, model), ENCODED, data.images)
    if settings.mirror:
        mirrored = data.images[:, :, ::-1]
        more = batches.apply(functools.partial(_moments, model), ENCODED, mirrored)
        moments = tuple(np.concatenate(both) for both in zip(moments, more, strict=True))
    configs = model.configs
    configs["vae"]["scaling_factor"] = training.scaling(moments)
    run.say(f"latents of all images in {time.perf_counter() - began:.0f} s; now the UNet")
    return model.replace(config=diffusion.canonical(configs)), moments


@jax.jit
def _moments(model: Diffusion, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model.moments(pixels.astype(jnp.float32) / 127.5 - 1)


def draw(run: TrainingRun, settings: Settings, model: Diffusion, data: Captioned) -> None:
    """Draws the grid of this step: images and their reconstructions, or images of the prompts."""
    samples = settings.samples
    if run.step <= settings.vae.steps:
        pixels = images.from_uint8(data.images[: len(samples.prompts)])
        again = np.asarray(_reconstruct(model, pixels))
        rows = np.concatenate([pixels, again])
    else:
        drawing = sampling.prepare(
            model, samples.sampling, None, samples.prompts, chunk=samples.steps
        )
        seeds = [(samples.seed + i) % len(SEEDS) for i in range(len(samples.prompts))]
        state, _ = drawing.advance(drawing.start(seeds), 0)
        rows = np.asarray(drawing.decode(state.carry.x))
    write = functools.partial(images.save_grid, rows, len(samples.prompts))
    run.draw(grid(run.step), write)


@jax.jit
def _reconstruct(model: Diffusion, pixels: jax.Array) -> jax.Array:
    return model.decode(model.encode(pixels))


def grid(step: int) -> str:
    """The grid of a step, within the workdir."""
    return f"samples/step_{step:06d}.png"


def write(run: TrainingRun, settings: Settings, model: Diffusion, tokenizer: Path) -> None:
    """Writes the model and the plot of a finished run."""
    directory = run.path("model")
    run.check()
    directory.mkdir(exist_ok=True)
    diffusers.write(model, directory, tokenizer)
    run.say(f"model: {directory}")
    if run.rows:
        title = f"a diffusion model of {settings.size} pixels"
        drawn = {"title": title, "terms": ("l1", "kl", "mse"), "held_out": []}
        run.draw("loss.png", lambda path: plots.plot_losses(run.rows, path, **drawn))
    image = run.path(grid(run.step))
    if image.is_file():  # where it could not be written, a warning has said so
        run.say(f"image: {image} ({', '.join(settings.samples.prompts)})")
