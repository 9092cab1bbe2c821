"""Draws images from one generator, or from a source and an adapted one side by side."""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from nada_jax import images, trees
from nada_jax.errors import UserError
from nada_jax.latents.seeds import NOISES, draw
from nada_jax.models.stylegan2 import Generator
from nada_jax.runs.workdir import Run
from nada_jax.settings import SEEDS, Count, Precision, Section, Seed, Truncation, one_of
from nada_jax.weights import loading

MEMORY = "lower rows or columns, or set precision=bfloat16"  # the remedy for a lack of it
FIELDS = {"source": "source.weights", "adapted": "generator.weights"}  # that name the generators
PREFIXES = {"source": "source", "adapted": "seed"}  # row of the grid -> names of its single files


class Shifted(Section, name="generator"):
    """A generator, and style deltas that are added to it; `config.generator`."""

    weights: str
    deltas: tuple[str, ...]
    scales: tuple[float, ...]


class Source(Section, name="source"):
    """A second generator, drawn above the first; `config.source`. "" leaves it out."""

    weights: str


class Settings(Section):
    """All of `configs/sample.py`."""

    task: str
    precision: Precision
    generator: Shifted
    source: Source
    seed: Seed
    rows: Count
    columns: Count
    truncation: Truncation
    noise: Annotated[str, one_of(NOISES)]
    singles: bool

    def check(self) -> None:
        """There may not be more images than fit, and the last has a seed, too."""
        self.need(len(self.seeds) <= images.MOST, "rows", f"rows * columns up to {images.MOST:,}")
        expected = (
            f"at most {SEEDS.stop - 1:,} for the last of the {self.rows * self.columns:,} images "
            "(rows * columns), whose seeds count up"
        )
        self.need(self.seeds.stop <= SEEDS.stop, "seed", expected)

    @property
    def seeds(self) -> range:
        """That of each image."""
        # Python's own numbers: those of numpy would overflow.
        return range(int(self.seed), int(self.seed) + int(self.rows) * int(self.columns))


def run(config: ConfigDict, workdir: Path) -> int:
    """Draws a grid and single images as configured; see `configs/sample.py`.

    Writes config.json, metrics.jsonl, samples/grid.png and samples/seed_NNNN.png (source_NNNN.png beside it).

    Args:
      config: all of `configs/sample.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    with Run(config, workdir, results=written(trees.flatten(config.to_dict()))) as run:
        return sample(run, settings)


def sample(run: Run, settings: Settings) -> int:
    """Draws within the workdir that the run holds; see `run`."""
    earlier = drawn_before(run)
    generators = load(settings)
    began = time.perf_counter()
    columns = settings.columns
    seeds = settings.seeds
    drawn = {
        row: draw(generator, seeds, settings.truncation, settings.noise)
        for row, generator in generators.items()
    }
    for row, batch in drawn.items():
        images.check_finite(batch, f"the images of {FIELDS[row]}")

    # An earlier grid may have been larger; its files would pass for images of this one.
    run.delete(earlier)
    run.begin()  # only now: wrong input leaves no workdir behind
    rows = [
        batch[start : start + columns]
        for start in range(0, len(seeds), columns)
        for batch in drawn.values()
    ]
    grid = run.write_images("samples/grid.png", np.concatenate(rows), columns)
    count = len(rows) * columns
    run.write_metrics([{"images": count, "seconds": time.perf_counter() - began}])
    if settings.singles:
        for row, batch in drawn.items():
            for seed, image in zip(seeds, batch, strict=True):
                write = functools.partial(images.save, images.to_uint8(image))
                run.write(f"samples/{PREFIXES[row]}_{seed:04d}.png", write)
        print(f"single images: {run.path('samples')}, {count} files")
    print(f"image: {grid}" + (" (above: source, below: adapted)" if len(drawn) > 1 else ""))
    return 0


def drawn_before(run: Run) -> list[Path]:
    """The images of the run that stands in the workdir; UserError where its config cannot have drawn any."""
    try:
        return [run.path(name) for name in written(run.earlier)] if run.earlier else []
    except (KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{run.path('config.json')} is not the config of a run that draws images ({error}); give another --workdir"
        ) from error


def written(config: Mapping[str, Any]) -> list[str]:
    """Names of the images that a config, given by flat field, draws into the workdir."""
    names = ["samples/grid.png"]
    if config["singles"]:
        if config["rows"] * config["columns"] > images.MOST:
            raise OverflowError(f"more than {images.MOST:,} images")
        seeds = range(config["seed"], config["seed"] + config["rows"] * config["columns"])
        rows = PREFIXES if config["source.weights"] else ["adapted"]
        names += [f"samples/{PREFIXES[row]}_{seed:04d}.png" for row in rows for seed in seeds]
    return names


def load(settings: Settings) -> dict[str, Generator]:
    """Loads the generators by their rows, "source" above "adapted"; UserError if they do not belong together."""
    loaded = {}
    if settings.source.weights:
        loaded["source"] = loading.load_generator(
            settings.source.weights, precision=settings.precision, field="source.weights"
        )
    adapted = settings.generator
    loaded["adapted"] = loading.load_generator(
        adapted.weights,
        deltas=adapted.deltas,
        scales=adapted.scales,
        precision=settings.precision,
    )
    if len({generator.architecture for generator in loaded.values()}) > 1:
        raise UserError(
            f"generator.weights={adapted.weights!r} and source.weights="
            f"{settings.source.weights!r} differ in architecture; expected a generator and its source"
        )
    return loaded
