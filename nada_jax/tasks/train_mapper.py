"""Trains a mapper of StyleCLIP for a text."""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.adaptation import prompts
from nada_jax.adaptation.freezing.optimizer import Optimizer
from nada_jax.latents import mappers
from nada_jax.latents.mappers import MapperContext, MapperState
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.mapper import LEVELS, Mapper, MapperArchitecture
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.portraits.measures import judged
from nada_jax.portraits.settings import Clips, Identity, Source, Text
from nada_jax.runs import plots
from nada_jax.runs.grids import Samples
from nada_jax.runs.training import Schedule, TrainingRun
from nada_jax.settings import Count, NonNegative, Precision, Section, Seed, Truncation
from nada_jax.weights import loading, native

MEMORY = "lower batch_size or samples.count, or set precision=bfloat16"  # for a lack of it
FREE = {
    "steps", "checkpoint_every", "sample_every", "log_every", "resume", "overwrite", "samples", "judge",
}  # fmt: skip
RESULTS = (
    "metrics.jsonl", "loss.png", "mapper.safetensors", "samples/step_[0-9]*.png", "checkpoints/[0-9]*",
)  # fmt: skip
TERMS = ("clip", "l2", "identity")
TRAINED = -1  # label of what trains in every step


class MapperSettings(Section, name="mapper"):
    """The mapper, and what it trains on; `config.mapper`."""

    levels: tuple[str, ...]
    layers: Count
    truncation: Truncation

    def check(self) -> None:
        """Levels are those of the published mappers, or one for all latents."""
        names = set(self.levels)
        good = names and names <= set(LEVELS) and len(names) == len(self.levels)
        good = good and ("all" not in names or len(names) == 1)
        self.need(good, "levels", "some of coarse, medium and fine, or ('all',)")


class Loss(Section, name="loss"):
    """The factor of each term; `config.loss`."""

    clip: NonNegative
    l2: NonNegative
    identity: NonNegative


class Settings(Schedule):
    """All of `configs/train_mapper.py`."""

    task: str
    seed: Seed
    batch_size: Count
    precision: Precision
    generator: Source
    clip: Clips
    judge: str
    text: Text
    identity: Identity
    mapper: MapperSettings
    loss: Loss
    optimizer: Optimizer
    samples: Samples

    def check(self) -> None:
        """The network of the identity loss goes with its factor."""
        if self.loss.identity:
            self.identity.need(
                bool(self.identity.weights), "weights", "an irse50 file, which loss.identity needs"
            )


def run(config: ConfigDict, workdir: Path) -> int:
    """Trains a mapper as configured; see `configs/train_mapper.py`.

    Writes config.json, metrics.jsonl, samples/, checkpoints/, loss.png and mapper.safetensors.

    Args:
      config: all of `configs/train_mapper.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0 when all is on disk, 130 or 143 when a signal ended the run after a checkpoint.

    Raises:
      UserError: wrong input, or a loss that is not finite.
    """
    settings = Settings.read(config)
    with TrainingRun(config, workdir, settings, free=FREE, results=RESULTS) as run:
        return train(run, settings)


def train(run: TrainingRun, settings: Settings) -> int:
    """Trains within the workdir that the run holds; see `run`."""
    # -- models and texts -------------------------------------------------------------------------
    began, text = time.perf_counter(), settings.text
    context, judge = load(settings)
    generator = context.generator
    chosen = settings.mapper
    latents = range(generator.num_layers)
    chosen.need(
        any(latents[LEVELS[level]] for level in chosen.levels),
        "levels",
        f"a level of the generator's {len(latents)} latents: coarse is 0 to 3, medium 4 to 7, fine the others",
    )
    architecture = MapperArchitecture(chosen.levels, generator.architecture.w_dim, chosen.layers)
    key = jax.random.key(settings.seed)
    first = jax.random.fold_in(key, 2**31)  # beyond the numbers of steps
    params = mappers.init_params(architecture, generator.num_layers, first)
    optimizer = settings.optimizer.make(jax.tree.map(lambda _: TRAINED, params))
    step = mappers.make_step(
        architecture,
        optimizer,
        batch_size=settings.batch_size,
        truncation=chosen.truncation,
        factors={name: getattr(settings.loss, name) for name in TERMS},
    )

    # -- state, fresh or from the last checkpoint -------------------------------------------------
    state = MapperState(jnp.int32(0), params, optimizer.init(params))
    state = run.begin_from({"state": state})["state"]
    samples = Grid(run, settings, generator, judge)
    then = "all steps are done already" if run.finished else "the first step compiles"
    run.say(f"{text.target!r}: models ready in {time.perf_counter() - began:.0f} s; {then}")

    # -- the loop ---------------------------------------------------------------------------------
    with run.signals:
        for number in run.steps():
            state, metrics = step(state, context, key)
            run.record(metrics)
            if run.due(settings.sample_every):
                run.note(**samples.draw(Mapper(state.params, architecture), number))
            if run.due(settings.checkpoint_every) or run.interrupted:
                run.save({"state": state})

    # -- results ----------------------------------------------------------------------------------
    if code := run.exit_code():
        return code
    mapper = Mapper(state.params, architecture)
    facts = {"text": text.target, "generator": settings.generator.weights}
    path = run.write("mapper.safetensors", lambda path: native.save_model(mapper, path, **facts))
    run.say(f"mapper: {path}")
    if run.rows:
        drawn = {"title": text.target, "terms": TERMS, "held_out": ("judged", "nearer")}
        run.draw("loss.png", lambda path: plots.plot_losses(run.rows, path, **drawn))
        last = run.rows[-1]
        run.say(
            f"judged: {last['judged']:+.4f}, nearer to the text in {100 * last['nearer']:.0f} % of "
            f"{settings.samples.count} images"
        )
    return 0


def load(settings: Settings) -> tuple[MapperContext, tuple[Clip, jax.Array]]:
    """Loads what the step reads; and the judge, with the direction from source to target text in its space [d].

    Raises:
      UserError: a model or text cannot be used.
    """
    precision, text = settings.precision, settings.text
    generator = loading.load_generator(settings.generator.weights, precision=precision)
    clips = [loading.load_clip(name, precision=precision) for name in settings.clip.models]
    judge = clips[0]
    if settings.judge:
        judge = loading.load_clip(settings.judge, precision=precision, field="judge")
    direction = prompts.text_direction(judge, text.source, text.target)
    network = None
    if settings.loss.identity:
        network = loading.load_model(Irse50, settings.identity.weights, field="identity.weights")
    context = MapperContext(
        generator=generator,
        clips=tuple(clip.without_texts() for clip in clips),
        weights=jnp.asarray(settings.clip.weights, jnp.float32),
        texts=tuple(clip.embed_texts([text.target])[0] for clip in clips),
        identity=network,
    )
    return context, (judge.without_texts(), direction)


class Grid:
    """Draws the source row over the edited row, from latents fixed over the run, and measures the edit.

    Args:
      run: writes the grids.
      settings: of the latents.
      generator: draws.
      judge: a CLIP, and the direction of the text in its space.
    """

    def __init__(
        self,
        run: TrainingRun,
        settings: Settings,
        generator: Generator,
        judge: tuple[Clip, jax.Array],
    ):
        samples = settings.samples
        ws = draw_latents(generator, jax.random.key(samples.seed), samples.count)
        self.run, self.inputs = run, (generator, *judge)
        self.ws = generator.truncate(ws, samples.truncation)
        self.source, self.before = jax.device_get(_judge(*self.inputs, self.ws))

    def draw(self, mapper: Mapper, step: int) -> dict[str, float]:
        """Writes the grid of a step.

        Returns:
          The mean change of the judge's score, `judged`, and the share of images whose score has risen, `nearer`.
        """
        edited, after = jax.device_get(_judge(*self.inputs, mapper.edit(self.ws)))
        rows = np.concatenate([self.source, edited])
        write = functools.partial(images.save_grid, rows, len(self.ws))
        self.run.draw(f"samples/step_{step:06d}.png", write)
        return judged(self.before, after)


@jax.jit
def _judge(
    generator: Generator, judge: Clip, direction: jax.Array, ws: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Latents -> their images, and the cosines of their features with a direction [b]."""
    drawn = generator.synthesize(ws)
    return drawn, judge.embed_images(drawn, antialias=True) @ direction
