"""Finds a direction of a generator's latents from texts or images, and measures and draws what it changes."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax import batches, images
from nada_jax.adaptation import prompts
from nada_jax.errors import UserError
from nada_jax.latents import directions, statistics
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction
from nada_jax.latents.inversion import encode
from nada_jax.latents.projection import Networks
from nada_jax.latents.statistics import StatisticsSettings
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.portraits.measures import judged
from nada_jax.portraits.settings import Source, Text
from nada_jax.runs.grids import Samples
from nada_jax.runs.workdir import Run
from nada_jax.settings import Count, NonNegative, Precision, Rule, Section, Seed, one_of
from nada_jax.weights import loading, native

MEMORY = "lower batch_size or samples.count, or set precision=bfloat16"  # for a lack of it
RESULTS = ("direction.safetensors", "metrics.jsonl", "samples/direction.png")
FOLDERS = "source_images", "target_images"  # fields that name them
ROWS = 6  # of the sheet
FEWEST = 16  # scores of fewer images would hardly show a direction


class EncoderWeights(Section, name="encoder"):
    """An encoder, for the latents of folders; `config.encoder`. "" scores samples by CLIP instead."""

    weights: str


class ClipModel(Section, name="clip"):
    """The CLIP by which the direction is found; `config.clip`."""

    model: str


@dataclasses.dataclass(frozen=True)
class Models:
    """What a direction is found with.

    Attributes:
      generator: whose latents it moves.
      clip: sees the images.
      aim: what the direction shall change, a unit direction in the space of this CLIP [d].
    """

    generator: Generator
    clip: Clip
    aim: jax.Array


def _by_samples(settings: "Settings", models: Models) -> tuple[Direction, dict[str, float]]:
    """The direction of W along which the scores of samples rise."""
    ws, scores = directions.score(
        models.generator,
        models.clip,
        models.aim,
        seed=settings.seed,
        samples=settings.find.samples,
        batch_size=settings.batch_size,
        report=batches.every_tenth("scored images"),
    )
    direction, correlation = directions.fit(ws, scores)
    return direction, {"correlation": correlation}


def _by_images(settings: "Settings", models: Models) -> tuple[Direction, dict[str, float]]:
    """The difference of the mean latents of two folders, or that of samples which CLIP scores by them."""
    if not settings.encoder.weights:
        return _by_samples(settings, models)
    encoder = loading.load_encoder(settings.encoder.weights, field="encoder.weights")
    networks, found = Networks(models.generator, encoder=encoder), {}
    for field in FOLDERS:
        given, size = getattr(settings.find, field), settings.batch_size
        stream = images.stream(given, models.generator.size, field=f"find.{field}", batch=size)
        found[field] = np.concatenate(
            [batches.apply(functools.partial(encode, networks), size, batch) for batch in stream]
        )
    direction = directions.between(*found.values())
    return direction, {field: float(len(ws)) for field, ws in found.items()}


def _by_statistics(settings: "Settings", models: Models) -> tuple[Direction, dict[str, float]]:
    """StyleCLIP's global direction."""
    found = statistics.load(
        models.generator,
        models.clip,
        settings.statistics,
        batch_size=settings.batch_size,
        report=batches.every_tenth("statistics, computed once: images"),
    )
    return found.toward(models.aim, settings.find.beta, field="find.beta")


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to find a direction.

    Attributes:
      find: settings, models -> the direction, and figures about it.
      folders: whether two folders, rather than two texts, say what it shall change.
    """

    find: Callable[["Settings", Models], tuple[Direction, dict[str, float]]]
    folders: bool = False


METHODS = {
    "texts": Method(_by_samples),
    "images": Method(_by_images, folders=True),
    "global": Method(_by_statistics),
}


class Find(Section, name="find"):
    """How the direction is found; `config.find`."""

    method: Annotated[str, one_of(METHODS)]
    samples: Annotated[int, Rule(lambda x: x >= FEWEST, f"a whole number from {FEWEST}")]
    source_images: str
    target_images: str
    beta: NonNegative

    def check(self) -> None:
        """Folders have to be given where they are read."""
        for field in FOLDERS:
            good = not METHODS[self.method].folders or getattr(self, field)
            self.need(bool(good), field, f"a folder, which find.method={self.method!r} reads")


class Settings(Section):
    """All of `configs/find_direction.py`."""

    task: str
    seed: Seed
    precision: Precision
    batch_size: Count
    generator: Source
    clip: ClipModel
    judge: str
    text: Text
    find: Find
    encoder: EncoderWeights
    statistics: StatisticsSettings
    strengths: Annotated[
        tuple[float, ...],
        Rule(lambda x: 0 < len(x) <= 64 and np.isfinite(x).all(), "numbers, such as (-4, 0, 4)"),
    ]
    samples: Samples


def run(config: ConfigDict, workdir: Path) -> int:
    """Finds a direction as configured; see `configs/find_direction.py`.

    Writes config.json, direction.safetensors, metrics.jsonl (one object for each strength) and samples/direction.png (a
    row for each latent, a column for each strength).

    Args:
      config: all of `configs/find_direction.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    with Run(config, workdir, results=RESULTS) as run:
        return find(run, settings)


def find(run: Run, settings: Settings) -> int:
    """Finds a direction, and writes into the workdir that the run holds; see `run`."""
    began = time.perf_counter()
    method, precision = METHODS[settings.find.method], settings.precision
    generator = loading.load_generator(settings.generator.weights, precision=precision)
    clip = loading.load_clip(settings.clip.model, precision=precision, field="clip.model")
    judge = clip
    if settings.judge:
        judge = loading.load_clip(settings.judge, precision=precision, field="judge")
    aims = [aim(settings, x) for x in (clip, judge)]
    direction, figures = method.find(settings, Models(generator, clip, aims[0]))
    rows, drawn = measure(settings, generator, direction, judge.without_texts(), aims[1])

    # Only now: wrong input, which loading and scoring may reveal, leaves no workdir behind.
    run.begin()
    facts = {"method": settings.find.method, "clip": settings.clip.model}
    # `source` and `target` of a file are texts, which an edit reads as such.
    facts |= {name: getattr(settings.find, name) for name in FOLDERS if method.folders}
    facts |= {} if method.folders else dataclasses.asdict(settings.text)
    write = functools.partial(native.save_model, direction, **facts)
    file = run.write("direction.safetensors", write)
    run.write_metrics([row | figures | {"seconds": time.perf_counter() - began} for row in rows])
    sheet = run.write_images("samples/direction.png", drawn, len(settings.strengths))
    said = [f"{name} {value:.3g}" for name, value in figures.items()]
    print(f"{direction.architecture.space}: {', '.join(said)}")
    for row in filter(lambda row: row["strength"], rows):  # 0 changes nothing
        print(
            f"strength {row['strength']:+g}: judged {row['judged']:+.4f}, nearer to the target in "
            f"{100 * row['nearer']:.0f} % of {settings.samples.count} images"
        )
    print(f"direction: {file}")
    strengths = ", ".join(f"{x:g}" for x in settings.strengths)
    print(f"image: {sheet} (from left to right: strengths {strengths})")
    return 0


def aim(settings: Settings, clip: Clip) -> jax.Array:
    """What the direction shall change, as a unit direction in the space of a CLIP [d].

    Raises:
      UserError: a text or a folder cannot be used, or the CLIP sees no difference between the two.
    """
    if not METHODS[settings.find.method].folders:
        return prompts.text_direction(clip, settings.text.source, settings.text.target)
    folders = {f"find.{field}": getattr(settings.find, field) for field in FOLDERS}
    means = [
        prompts.mean_features([clip], images.stream(folder, clip.image_size, field=field))[0]
        for field, folder in folders.items()
    ]
    names = tuple(f"the images of {field}={folder!r}" for field, folder in folders.items())
    return prompts.image_targets(clip, *means, names=names).direction


def measure(
    settings: Settings, generator: Generator, direction: Direction, judge: Clip, aim: jax.Array
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Moves fresh latents by each strength.

    Args:
      settings: says which latents and strengths.
      generator, direction: draw them.
      judge, aim: say how far images are moved.

    Returns:
      For each strength, a row with the mean change of the judge's score, `judged`, and the share of images whose score
      is higher than without the direction, `nearer`; and the images of the sheet.
    """
    key, samples = jax.random.key(settings.samples.seed), settings.samples
    ws = generator.truncate(draw_latents(generator, key, samples.count), samples.truncation)

    def moved(strength: float) -> dict[str, np.ndarray]:
        function = functools.partial(_moved, generator, judge, aim, direction, strength)
        return batches.apply(function, min(settings.batch_size, len(ws)), np.asarray(ws))

    still, rows, columns = moved(0.0)["scores"], [], []
    images.check_finite(still, "the features of the images of generator.weights")
    for strength in settings.strengths:
        found = moved(strength)
        if not all(np.isfinite(x).all() for x in found.values()):
            raise UserError(
                f"strengths has {strength:g}, whose images are not finite; expected numbers nearer to 0"
            )
        rows.append({"strength": float(strength)} | judged(still, found["scores"]))
        columns.append(found["images"][:ROWS])
    return rows, np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])


@jax.jit
def _moved(
    generator: Generator,
    judge: Clip,
    aim: jax.Array,
    direction: Direction,
    strength: jax.Array,
    ws: jax.Array,
) -> dict[str, jax.Array]:
    """Latents [b, l, w_dim] -> images of the moved ones, and their scores [b]."""
    drawn = directions.move(Codes(ws=ws), generator, [direction], [strength]).draw(generator)
    return {"images": drawn, "scores": judge.embed_images(drawn, antialias=True) @ aim}
