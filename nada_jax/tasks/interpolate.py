"""Draws moving images: of latents and weights that go from stop to stop."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from nada_jax import batches, images, videos
from nada_jax.adaptation import prompts
from nada_jax.errors import UserError
from nada_jax.latents import codes as latent_files
from nada_jax.latents import statistics
from nada_jax.latents.directions import Direction
from nada_jax.latents.statistics import StatisticsSettings
from nada_jax.models.stylegan2 import Generator
from nada_jax.motion import drawing, scenes
from nada_jax.motion.scenes import Identity, Scene
from nada_jax.motion.settings import FINITE, Motion, Video
from nada_jax.portraits.settings import Source
from nada_jax.portraits.subjects import read_tuned, tuned_file
from nada_jax.runs.items import listing
from nada_jax.runs.progress import Progress
from nada_jax.runs.workdir import Run
from nada_jax.settings import (
    SEEDS,
    Count,
    NonNegative,
    Precision,
    Rule,
    Section,
    Truncation,
    need,
)
from nada_jax.weights import domains, loading

MEMORY = "lower batch_size or video.side, or set precision=bfloat16"  # for a lack of it
# Format -> name of the result.
RESULTS = {
    name: f"video{row.suffix}" if row.suffix else name for name, row in videos.FORMATS.items()
}
STILLS = "samples/frames.png"
STILL_SIDE = 512  # pixels of a frame in the contact sheet at most
STILL_COLUMNS = 4
MOST_TILES = 64  # identities or domains: every tile is held for a batch of frames


class ClipModel(Section, name="clip"):
    """The CLIP that reads the text of an edit; `config.clip`."""

    model: str


class Edit(Section, name="edit"):
    """What an edit changes, and how far; `config.edit`."""

    direction: str
    text: str
    source: str
    beta: NonNegative
    strengths: Annotated[tuple[float, ...], FINITE]


class Settings(Section):
    """All of `configs/interpolate.py`."""

    task: str
    precision: Precision
    batch_size: Count
    generator: Source
    generators: tuple[str, ...]
    seeds: Annotated[
        tuple[int, ...],
        Rule(lambda x: all(int(y) in SEEDS for y in x), "whole numbers in 0..2^32 - 1"),
    ]
    latents: str
    truncation: Truncation
    motion: Motion
    edit: Edit
    clip: ClipModel
    statistics: StatisticsSettings
    video: Video

    def check(self) -> None:
        """Each kind has what it shows."""
        kind = self.motion.kind
        self.need(bool(self.seeds) or bool(self.latents), "seeds", "at least one, or latents")
        if kind == "walk":
            self.need(
                not self.generators,
                "generators",
                "() with motion.kind='walk'; 'grid' draws by several",
            )
        if kind in ("grid", "domains"):
            self.need(
                bool(self.generators), "generators", f"adapted generators with motion.kind={kind!r}"
            )
        if kind in ("walk", "grid"):
            many = bool(self.latents) or len(self.seeds) > 1
            self.need(many, "seeds", "at least two, from one to the next")
        else:
            self.motion.need(self.motion.space == "w", "space", f"'w' with motion.kind={kind!r}")
        if self.latents:
            self.motion.need(self.motion.space == "w", "space", "'w' with latents, which are no z")
        if kind == "edit":
            good = bool(self.edit.text.strip()) != bool(self.edit.direction)
            self.edit.need(
                good, "text", "a text or edit.direction, one of both, with motion.kind='edit'"
            )
        for field in ("seeds", "generators"):
            good = len(getattr(self, field)) <= MOST_TILES
            self.need(good or kind == "walk", field, f"at most {MOST_TILES} of them")


def run(config: ConfigDict, workdir: Path) -> int:
    """Draws a moving image as configured; see `configs/interpolate.py`.

    Writes config.json, metrics.jsonl, video.mp4 (or video.gif, or frames/*.png) and samples/frames.png.

    Args:
      config: all of `configs/interpolate.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    results = [name if "." in name else f"{name}/*.png" for name in RESULTS.values()]
    with Run(config, workdir, results=[*results, STILLS]) as run:
        return interpolate(run, settings)


def interpolate(run: Run, settings: Settings) -> int:
    """Draws within the workdir that the run holds; see `run`."""
    began, video = time.perf_counter(), settings.video
    generator = loading.load_generator(settings.generator.weights, precision=settings.precision)
    scene = KINDS[settings.motion.kind](settings, generator)
    drawing.check(scene, settings.motion, video)
    file = run.path(RESULTS[video.format])
    with Progress(0, 0, every=30) as progress:
        last = time.perf_counter()

        def report(done: int, total: int) -> None:
            nonlocal last
            now, steps = time.perf_counter(), done - progress.step
            progress.expect(total)
            progress.advance(steps, None, 1000 * (now - last) / steps)
            last = now

        run.check()
        stills = drawing.write(
            file, scene, settings.motion, video, batch=settings.batch_size, report=report
        )
        count = progress.step
    # Only now: wrong input and interruption leave what an earlier run has drawn.
    kept = {file} if file.is_file() else set(file.iterdir())
    run.delete(path for path in run.written() if path not in kept)
    run.begin()
    sheet = run.write_images(STILLS, images.from_uint8(shrunk(stills)), STILL_COLUMNS)
    run.write_metrics([{"frames": count, "seconds": time.perf_counter() - began}])
    size = "x".join(map(str, stills.shape[2:0:-1]))
    print(f"video: {file} ({count} frames of {size} pixels, {count / video.fps:.1f} s)")
    print(f"image: {sheet} (some of its frames)")
    return 0


def shrunk(frames: np.ndarray) -> np.ndarray:
    """Frames [n, h, w, 3] for the contact sheet, reduced by a whole factor to STILL_SIDE at most."""
    factor = -(-max(frames.shape[1:3]) // STILL_SIDE)
    return np.stack([np.asarray(Image.fromarray(frame).reduce(factor)) for frame in frames])


# -- Scenes --------------------------------------------------------------------------------------------


def identities(settings: Settings, generator: Generator) -> list[Identity]:
    """Who is shown: seeds, or latents of files, with the generators that inversions have tuned for them.

    Raises:
      UserError: a file cannot be read, or there are too many.
    """
    if not settings.latents:
        return [scenes.identity(generator, seed, settings.truncation) for seed in settings.seeds]
    found = []
    for item in listing(settings.latents, "latents", latent_files.ENDINGS):
        codes = latent_files.read(item.path, generator, "latents")
        file = tuned_file(item) if len(codes) == 1 else None
        tuned = file and read_tuned(file, generator)
        found += [Identity(codes[i : i + 1], tuned) for i in range(len(codes))]
        need(len(found) <= MOST_TILES, "latents", settings.latents, f"at most {MOST_TILES} of them")
    return found


def adapted(settings: Settings, generator: Generator) -> dict[str, Generator]:
    """The domains by name."""
    found = domains.load(settings.generators, generator, settings.generator.weights)
    return {name: one for name, (one, _) in found.items()}


def walk(settings: Settings, generator: Generator) -> Scene:
    """From one identity to the next."""
    if settings.motion.space == "z":
        return scenes.spherical_walk(generator, settings.seeds, settings.truncation)
    return scenes.walk(generator, identities(settings, generator))


def grid(settings: Settings, generator: Generator) -> Scene:
    """A walk in several domains at once."""
    source = {scenes.SOURCE: generator} if settings.motion.source else {}
    return scenes.side_by_side(
        walk(settings, generator), generator, source | adapted(settings, generator)
    )


def through(settings: Settings, generator: Generator) -> Scene:
    """Through the domains."""
    who = identities(settings, generator)
    return scenes.through_domains(generator, adapted(settings, generator), who)


def edit(settings: Settings, generator: Generator) -> Scene:
    """Along a direction."""
    given = settings.edit
    if given.direction:
        direction = loading.load_model(Direction, given.direction, field="edit.direction")
    else:
        clip = loading.load_clip(
            settings.clip.model, precision=settings.precision, field="clip.model"
        )
        aim = prompts.text_direction(
            clip, given.source, given.text, fields=("edit.source", "edit.text")
        )
        direction, _ = statistics.load(
            generator,
            clip,
            settings.statistics,
            batch_size=settings.batch_size,
            report=batches.every_tenth("statistics, computed once: images"),
        ).toward(aim, given.beta, field="edit.beta")
    drawn_by = adapted(settings, generator)
    who = identities(settings, generator)
    # Of an edit in several domains each tile is a domain: it is that of the first identity.
    who = who[:1] if drawn_by else who
    try:
        direction.check(generator)
    except UserError as error:
        raise UserError(f"edit.direction={given.direction!r}: {error}") from error
    return scenes.along(generator, direction, given.strengths, who, drawn_by)


KINDS: Mapping[str, Callable[[Settings, Generator], Scene]] = {
    "walk": walk,
    "domains": through,
    "grid": grid,
    "edit": edit,
}
