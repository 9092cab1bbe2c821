"""Losses between features of faces."""

import jax
import jax.numpy as jnp


def identity(source: jax.Array, features: jax.Array) -> jax.Array:
    """Identity loss, Richardson et al. 2021 (arXiv 2008.00951): 1 - <features, source>.

    Args:
      source, features: unit face features [b, d], as `Irse50.embed_images` returns them.

    Returns:
      Loss per image [b], in [0, 2]; 0 where the faces are equal.
    """
    return 1 - jnp.sum(source * features, axis=-1)
