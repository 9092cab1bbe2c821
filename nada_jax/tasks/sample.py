"""Draws pictures from one generator, or from a source and an adapted one side by side."""

import functools
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.evaluation import features as looking
from nada_jax.models.stylegan2 import Generator
from nada_jax.runs import reporting
from nada_jax.runs import workdir as runs
from nada_jax.weights import loading as weights

BATCH = 8  # pictures drawn at once; bounds the memory whatever the grid


def run(config: ConfigDict, workdir: Path) -> int:
    """Draws a grid and single pictures as configured; see `configs/sample.py`.

    Writes config.json, metrics.jsonl, samples/grid.png and samples/seed_NNNN.png (source_NNNN.png beside it).

    Args:
      config: all of `configs/sample.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    for field in ("rows", "columns"):
        if config[field] < 1:
            raise UserError(f"{field} is {config[field]}; expected at least 1")
    if config.noise not in ("const", "none", "random"):
        raise UserError(f"noise is {config.noise!r}; expected const, none or random")
    if not 0 <= config.seed < 2**31:
        raise UserError(f"seed is {config.seed}; expected a whole number in 0..2^31 - 1")
    if not math.isfinite(config.truncation):
        raise UserError(f"truncation is {config.truncation}; expected a number such as 0.7")
    runs.refuse_other(config, workdir, set(config) - {"task"}, "give another --workdir")
    fields = {"adapted": "generator"}
    if config.source.weights:
        fields = {"source": "source"} | fields
    generators = {
        row: weights.load_generator(
            **config[field], precision=config.precision, field=f"{field}.weights"
        )
        for row, field in fields.items()
    }
    architectures = {generator.architecture for generator in generators.values()}
    if len(architectures) > 1:
        raise UserError(
            f"generator.weights={config.generator.weights!r} and source.weights="
            f"{config.source.weights!r} differ in architecture; expected a generator and its source"
        )
    began = time.perf_counter()
    seeds = range(config.seed, config.seed + config.rows * config.columns)
    pictures = {row: draw(g, seeds, config) for row, g in generators.items()}

    runs.write_config(config, workdir)
    directory = workdir / "samples"
    for earlier in [*directory.glob("seed_*.png"), *directory.glob("source_*.png")]:
        earlier.unlink()
    size = generators["adapted"].size
    rows = [
        batch[start : start + config.columns]
        for start in range(0, len(seeds), config.columns)
        for batch in pictures.values()
    ]
    grid = directory / "grid.png"
    sheet = images.grid(np.concatenate(rows), config.columns)
    images.save(sheet, grid, images.enlargement(size))
    row = {"pictures": len(rows) * config.columns, "seconds": time.perf_counter() - began}
    reporting.write_metrics(workdir / "metrics.jsonl", [row])
    if config.singles:
        prefix = {"source": "source", "adapted": "seed"}
        for row, batch in pictures.items():
            for seed, picture in zip(seeds, batch, strict=True):
                images.save(images.to_uint8(picture), directory / f"{prefix[row]}_{seed:04d}.png")
        print(f"single pictures: {directory}, {len(rows) * config.columns} files")
    print(f"picture: {grid}" + (" (above: source, below: adapted)" if len(pictures) > 1 else ""))
    return 0


def draw(generator: Generator, seeds: range, config: ConfigDict) -> np.ndarray:
    """Draws one picture a seed, [n, size, size, 3]; a seed gives the same picture in any grid."""

    @jax.jit
    def synthesize(generator: Generator, seeds: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.key)(seeds)
        z = jax.vmap(lambda key: jax.random.normal(key, (generator.architecture.z_dim,)))(keys)
        ws = generator.truncate(generator.map(z), config.truncation)
        if config.noise != "random":
            return generator.synthesize(ws, config.noise)
        noise_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        single = lambda w, key: generator.synthesize(w[None], key)[0]  # noqa: E731
        return jax.vmap(single)(ws, noise_keys)

    of_seeds = functools.partial(synthesize, generator)
    return looking.batched(of_seeds, BATCH, jnp.asarray(list(seeds))).astype(np.float32)
