"""Latents of an image in an adapted domain."""

import jax

from nada_jax.latents.codes import Codes
from nada_jax.models.blending import interpolate, restyle, transfer
from nada_jax.models.stylegan2 import Generator


@jax.jit
def draw(
    codes: Codes, source: Generator, tuned: Generator, adapted: Generator, strength: jax.Array
) -> jax.Array:
    """Images [b, size, size, 3] of latents in a domain; the source is its own tuned one where there is none."""
    generator = interpolate(tuned, transfer(adapted, source, tuned), strength)
    if codes.styles is not None:
        codes = codes.replace(styles=restyle(codes.styles, tuned, generator))
    return codes.draw(generator)
