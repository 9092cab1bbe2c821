"""Losses between images."""

import jax
import jax.numpy as jnp


def l2(source: jax.Array, adapted: jax.Array) -> jax.Array:
    """Mean squared difference.

    Args:
      source, adapted: images [b, h, w, 3].

    Returns:
      Loss per image [b].
    """
    return jnp.mean((adapted - source) ** 2, axis=(1, 2, 3))
