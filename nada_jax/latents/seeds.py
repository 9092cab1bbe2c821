"""Latents and images of seeds: a seed is one image, in whatever company it is drawn."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from nada_jax import batches
from nada_jax.models.stylegan2 import Generator

BATCH = 8  # images drawn at once; bounds the memory whatever their number

Noise = Callable[[Generator, jax.Array, jax.Array], jax.Array]


def _fixed(kind: str) -> Noise:
    """The same noise in every image."""
    return lambda generator, ws, keys: generator.synthesize(ws, kind)


def _random(generator: Generator, ws: jax.Array, keys: jax.Array) -> jax.Array:
    """Noise by the seed of each image; one by one, as a key gives the noise of a whole batch."""

    def single(w: jax.Array, key: jax.Array) -> jax.Array:
        # Another key than that of the latent, or noise and latent would be the same numbers.
        return generator.synthesize(w[None], jax.random.fold_in(key, 1))[0]

    return jax.vmap(single)(ws, keys)


# Kind of noise -> (generator, latents [b, w_dim], keys of the seeds [b]) -> images.
NOISES = {"const": _fixed("const"), "none": _fixed("none"), "random": _random}


@jax.jit
def latents(generator: Generator, seeds: jax.Array, truncation: float) -> jax.Array:
    """w [n, w_dim] of seeds [n], uint32; see `Generator.truncate`."""
    # A key for each seed, rather than one for the batch: images must not depend on their neighbours.
    keys = jax.vmap(jax.random.key)(seeds)
    z = jax.vmap(lambda key: jax.random.normal(key, (generator.architecture.z_dim,)))(keys)
    return generator.truncate(generator.map(z), truncation)


@functools.partial(jax.jit, static_argnames="noise")
def _draw(generator: Generator, truncation: float, seeds: jax.Array, *, noise: str) -> jax.Array:
    keys = jax.vmap(jax.random.key)(seeds)
    return NOISES[noise](generator, latents(generator, seeds, truncation), keys)


def draw(generator: Generator, seeds: range, truncation: float, noise: str) -> np.ndarray:
    """Draws one image a seed; a seed gives the same image in any grid.

    Args:
      generator: draws.
      seeds: n of them, in 0..2^32 - 1.
      truncation: see `Generator.truncate`.
      noise: a row of `NOISES`.

    Returns:
      Images [n, size, size, 3], float32.
    """
    # Unsigned: seeds have 32 bits, and JAX's signed numbers 31.
    numbers = np.arange(seeds.start, seeds.stop, seeds.step, np.uint32)
    return batches.apply(
        functools.partial(_draw, generator, truncation, noise=noise), BATCH, numbers
    )
