"""Perceptual distance between features of a network."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

EPS = 1e-10  # of the reference implementation


def lpips(
    a: Sequence[jax.Array], b: Sequence[jax.Array], weights: Sequence[jax.Array]
) -> jax.Array:
    """Learned perceptual distance, Zhang et al. 2018 (arXiv 1801.03924), eq. 1.

    Args:
      a, b: the features of two images at each chosen layer, [b, h, w, c]; the sizes differ by layer.
      weights: weight of each channel of a layer, [c].

    Returns:
      Sum over layers of the spatial mean of the weighted squared difference between features of unit
      length, per image [b]; 0 where the images are equal.
    """
    return distance(a, [unit(y) for y in b], weights)


def distance(
    a: Sequence[jax.Array], target: Sequence[jax.Array], weights: Sequence[jax.Array]
) -> jax.Array:
    """As `lpips`, with `target` of unit length already: for many images that are compared with one."""
    total = jnp.zeros(())
    for x, y, weight in zip(a, target, weights, strict=True):
        total += jnp.mean((unit(x) - y) ** 2 @ weight, axis=(1, 2))
    return total


def unit(x: jax.Array) -> jax.Array:
    """Scales x [..., c] to length 1; 0 stays 0."""
    length2 = jnp.sum(x**2, axis=-1, keepdims=True)
    # After a ReLU all channels of a pixel may be 0, where the gradient of a square root is infinite.
    return x / (jnp.sqrt(jnp.where(length2 > 0, length2, 1)) + EPS)
