"""The spaces in which latents are optimised: W, W+ and StyleSpace."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nada_jax.models.stylegan2 import Generator
from nada_jax.models.stylegan2_networks import Styles

Variables = Any  # a tree of arrays [b, ...]


class Space(NamedTuple):
    """A way to write down what a generator draws from.

    Attributes:
      start: (generator, ws [b, l, w_dim]) -> the variables of this space.
      styles: (generator, variables, ws) -> all styles; `ws`, from which the variables started, gives
        those that the space leaves alone.
      what: in words.
    """

    start: Callable[[Generator, jax.Array], Variables]
    styles: Callable[[Generator, Variables, jax.Array], Styles]
    what: str


def _convolutions(generator: Generator, ws: jax.Array) -> Styles:
    return {name: s for name, s in generator.styles(ws).items() if name.startswith("conv")}


SPACES = {
    "w": Space(
        # The mean, where layers differ: the one latent that is nearest to all of them.
        lambda generator, ws: jnp.mean(ws, axis=1),
        lambda generator, w, ws: generator.styles(w),
        "one latent for all layers",
    ),
    "w+": Space(
        lambda generator, ws: ws,
        lambda generator, moved, ws: generator.styles(moved),
        "a latent for each layer",
    ),
    "style": Space(
        lambda generator, ws: generator.styles(ws),
        lambda generator, styles, ws: styles,
        "the style of each layer (Wu et al. 2021)",
    ),
    "conv_style": Space(
        _convolutions,
        lambda generator, styles, ws: generator.styles(ws) | styles,
        "the style of each convolution, without the layers to RGB, as in StyleCLIP",
    ),
}


def distance(variables: Variables, start: Variables) -> jax.Array:
    """Sum of squared differences, per image [b]: the L2 term of StyleCLIP, Patashnik et al. 2021, eq. 1."""
    return sum(
        jnp.sum((x - y).reshape(len(x), -1) ** 2, axis=1)
        for x, y in zip(jax.tree.leaves(variables), jax.tree.leaves(start), strict=True)
    )
