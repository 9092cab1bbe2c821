"""Style and content of images, as distances between features of a network.

A style is described by statistics of features over all positions. Each kind is a row of `KINDS`: its sums add up over
parts of an image, so that an image may be looked at in tiles, and become statistics that are compared.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Statistics = dict[str, jax.Array]  # each [b, ...]

# Below the variances of features that are not constant, which are about 1 to 1e4 in units of pixel values; with it the
# gradient of a square root is finite where features are constant.
EPS = 1e-4
# Of float32 in the eigenvalues of a matrix of some hundred channels, relative to the largest.
ROUNDING = 1e-6


def content(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean squared difference of features, Gatys et al. 2016, eq. 1, but for its factor.

    Args:
      x, y: features [b, h, w, c].

    Returns:
      Loss per image [b].
    """
    return jnp.mean((x - y) ** 2, axis=(1, 2, 3))


def total_variation(images: jax.Array, wrap: bool = False) -> jax.Array:
    """Mean squared difference of neighbouring pixels, downwards and to the right (Mahendran & Vedaldi 2015, eq. 4).

    Args:
      images: [b, h, w, 3]; may be one pixel high or wide.
      wrap: pixels at a border are neighbours of those at the opposite one.

    Returns:
      Loss per image [b].
    """
    if wrap:
        squares = sum((images - jnp.roll(images, 1, axis)) ** 2 for axis in (1, 2))
        return jnp.mean(jnp.sum(squares, axis=3), axis=(1, 2))
    pixels = images.shape[1] * images.shape[2]
    down = jnp.sum((images[:, 1:] - images[:, :-1]) ** 2, axis=(1, 2, 3))
    right = jnp.sum((images[:, :, 1:] - images[:, :, :-1]) ** 2, axis=(1, 2, 3))
    return (down + right) / pixels


def first_sums(x: jax.Array, weights: jax.Array) -> Statistics:
    """Sums of features and of their squares over positions.

    Args:
      x: features [b, h, w, c].
      weights: of positions, [b or 1, h, w].

    Returns:
      "weight" [b], "sum" [b, c], "squares" [b, c].
    """
    weights = jnp.broadcast_to(weights, x.shape[:3])
    weighted = x * weights[..., None]
    return {
        "weight": jnp.sum(weights, axis=(1, 2)),
        "sum": jnp.sum(weighted, axis=(1, 2)),
        "squares": jnp.sum(weighted * x, axis=(1, 2)),
    }


def second_sums(x: jax.Array, weights: jax.Array) -> Statistics:
    """As `first_sums`, with "products" [b, c, c] of all pairs of channels in place of squares."""
    b, h, w, c = x.shape
    weights = jnp.broadcast_to(weights, x.shape[:3]).reshape(b, h * w)
    x = x.reshape(b, h * w, c)
    weighted = x * weights[..., None]
    return {
        "weight": jnp.sum(weights, axis=1),
        "sum": jnp.sum(weighted, axis=1),
        "products": jnp.einsum("bpi,bpj->bij", weighted, x),
    }


def _per_position(sums: Statistics) -> Statistics:
    """Sums over the total weight; 0 where there is none, as in a region that no position belongs to."""
    weight = sums["weight"]
    scale = jnp.where(weight > 0, 1 / jnp.where(weight > 0, weight, 1), 0)
    return {
        name: x * scale.reshape(-1, *[1] * (x.ndim - 1))
        for name, x in sums.items()
        if name != "weight"
    }


def gram(sums: Statistics) -> Statistics:
    """Gram matrix, Gatys et al. 2016, eq. 3, over positions and channels, as in neural-style.

    Args:
      sums: those of `second_sums`.

    Returns:
      "gram" [b, c, c].
    """
    products = _per_position(sums)["products"]
    return {"gram": products / products.shape[-1]}


def gram_distance(x: Statistics, y: Statistics) -> jax.Array:
    """Mean squared difference of Gram matrices [b]; Gatys et al. 2016, eq. 4, is a quarter of it."""
    return jnp.mean((x["gram"] - y["gram"]) ** 2, axis=(1, 2))


def mean_variance(sums: Statistics) -> Statistics:
    """Mean and standard deviation of each channel.

    Args:
      sums: those of `first_sums`.

    Returns:
      "mean", "deviation" [b, c].
    """
    found = _per_position(sums)
    variance = jnp.maximum(found["squares"] - found["sum"] ** 2, 0)  # rounding may make it negative
    return {"mean": found["sum"], "deviation": jnp.sqrt(variance + EPS)}


def mean_variance_distance(x: Statistics, y: Statistics) -> jax.Array:
    """Squared differences of means and of deviations, over channels; Li et al. 2017 (arXiv 1701.01036), eq. 12.

    Args:
      x, y: those of `mean_variance`.

    Returns:
      Loss per image [b].
    """
    return sum(jnp.mean((x[name] - y[name]) ** 2, axis=1) for name in ("mean", "deviation"))


def gaussian(sums: Statistics) -> Statistics:
    """Mean and covariance of features.

    Args:
      sums: those of `second_sums`.

    Returns:
      "mean" [b, c], "covariance" [b, c, c].
    """
    found = _per_position(sums)
    mean = found["sum"]
    return {"mean": mean, "covariance": found["products"] - mean[:, :, None] * mean[:, None, :]}


def wasserstein(x: Statistics, y: Statistics) -> jax.Array:
    """Squared Wasserstein-2 distance of two Gaussians over the number of channels, Dowson & Landau 1982.

    |m - n|^2 + tr(C + D - 2 (D^1/2 C D^1/2)^1/2).

    Args:
      x, y: those of `gaussian`; y is the target, of which no gradient is taken through its root.

    Returns:
      Loss per image [b], not negative but for rounding.
    """
    root = jax.lax.stop_gradient(_root(y["covariance"]))
    c, d = x["covariance"], y["covariance"]
    traces = jnp.trace(c, axis1=1, axis2=2) + jnp.trace(d, axis1=1, axis2=2)
    product = root @ c @ root
    cross = trace_of_root((product + product.swapaxes(1, 2)) / 2)
    means = jnp.sum((x["mean"] - y["mean"]) ** 2, axis=1)
    return (means + traces - 2 * cross) / c.shape[-1]


def _root(matrices: jax.Array) -> jax.Array:
    """Square roots of symmetric matrices [b, c, c]; eigenvalues below 0 count as 0."""
    values, vectors = jnp.linalg.eigh(matrices)
    return jnp.einsum("bik,bk,bjk->bij", vectors, jnp.sqrt(jnp.maximum(values, 0)), vectors)


@jax.custom_vjp
def trace_of_root(matrices: jax.Array) -> jax.Array:
    """Trace of the square root of symmetric matrices [b, c, c] -> [b]; those of rounding count as 0.

    Its gradient, half of the inverse root, needs no gradient of eigenvectors, which is infinite where eigenvalues are
    equal.
    """
    return _forward(matrices)[0]


def _forward(matrices: jax.Array) -> tuple[jax.Array, Any]:
    values, vectors = jnp.linalg.eigh(matrices)
    # Eigenvalues below are rounding: there are fewer positions than channels, or constant features.
    least = jnp.maximum(ROUNDING * jnp.max(values, axis=-1, keepdims=True), 0)
    values = jnp.where(values > least, values, 0)
    return jnp.sum(jnp.sqrt(values), axis=-1), (values, vectors)


def _backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array]:
    values, vectors = saved
    inverse = jnp.where(values > 0, jax.lax.rsqrt(jnp.where(values > 0, values, 1)), 0)
    matrices = jnp.einsum("bik,bk,bjk->bij", vectors, inverse, vectors)
    return (0.5 * gradient[:, None, None] * matrices,)


trace_of_root.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to describe and compare styles.

    Attributes:
      sums: (features [b, h, w, c], weights of positions [b or 1, h, w]) -> sums, which add up over parts of an image.
      statistics: sums -> statistics, a row for each image.
      distance: (statistics, those of the target) -> loss per image [b].
      what: the kind in words.
    """

    sums: Callable[[jax.Array, jax.Array], Statistics]
    statistics: Callable[[Statistics], Statistics]
    distance: Callable[[Statistics, Statistics], jax.Array]
    what: str


KINDS = {
    "gram": Kind(second_sums, gram, gram_distance, "Gram matrices"),
    "mean_variance": Kind(
        first_sums, mean_variance, mean_variance_distance, "means and deviations of channels"
    ),
    "wasserstein": Kind(
        second_sums, gaussian, wasserstein, "Wasserstein-2 distance of feature Gaussians"
    ),
}
