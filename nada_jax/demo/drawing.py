"""Samples of seeds, of the source and of adapted generators, as arrays: one program for all generators of one shape."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from nada_jax import batches, images
from nada_jax.errors import UserError
from nada_jax.latents import seeds as seeds_of
from nada_jax.models.stylegan2 import Generator

BATCH = 8  # images at once, at most
Report = Callable[
    [float, str], None
]  # (share that is done, what is done now); what it raises ends the work


class Mixing(NamedTuple):
    """Style mixing: from `layer` on, counted from the coarsest, the latents are those of another seed."""

    seed: int
    layer: int


@jax.jit
def _latents(
    generator: Generator, truncation: float, seeds: jax.Array, other: jax.Array, layer: jax.Array
) -> jax.Array:
    ws = seeds_of.latents(generator, seeds, truncation)
    return generator.mix(ws, seeds_of.latents(generator, other, truncation), layer)


@jax.jit
def _draw(generator: Generator, ws: jax.Array) -> jax.Array:
    return generator.synthesize(ws)


def latents(
    generator: Generator, seeds: range, truncation: float, mixing: Mixing | None = None
) -> np.ndarray:
    """Latents ws [n, l, w_dim] of seeds, with layers of another seed where `mixing` says so."""
    # Without mixing every layer comes before the crossover.
    seed, layer = mixing or Mixing(0, generator.num_layers)
    numbers = np.arange(seeds.start, seeds.stop, dtype=np.uint32)
    return batches.apply(
        lambda rows: _latents(generator, truncation, rows, np.uint32([seed]), np.int32(layer)),
        BATCH,
        numbers,
    )


def draw(
    generators: Mapping[str, Generator], ws: np.ndarray, *, batch: int, report: Report
) -> dict[str, np.ndarray]:
    """Draws the same latents by several generators.

    Args:
      generators: by name; all of one architecture, so that one program serves all.
      ws: [n, l, w_dim].
      batch: images at once; the program is made once for each number.
      report: is called before the first and after each batch.

    Returns:
      Images uint8 [n, size, size, 3] by name.

    Raises:
      UserError: an image is not finite.
    """
    total, done, found = len(generators) * len(ws), 0, {}
    for name, generator in generators.items():
        parts = []
        for rows in batches.split(len(ws), batch):
            report(done / total, f"draws {name}")
            parts.append(np.asarray(_draw(generator, ws[rows])))
            done += len(rows)
        drawn = np.concatenate(parts)[: len(ws)]
        if not np.isfinite(drawn).all():
            raise UserError(
                f"the images of {name} are not finite; expected a moderate truncation, such as 0.7"
            )
        found[name] = images.to_uint8(drawn)
    return found
