"""Style and content of images, as distances between features of a network.

A style is described by statistics of features over all positions. Each kind is a row of `KINDS`: its sums add up over
parts of an image, so that an image may be looked at in tiles, and become statistics that are compared.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nada_jax.losses.roots import multiply, roots, trace_of_root

Statistics = dict[str, jax.Array]  # each [b, ...]

# Below the variances of features that are not constant, which are about 1 to 1e4 in units of pixel values; with it the
# gradient of a square root is finite where features are constant.
EPS = 1e-4


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
    return {
        "weight": jnp.sum(weights, axis=1),
        "sum": jnp.sum(x * weights[..., None], axis=1),
        "products": _products(x, weights),
    }


@jax.custom_vjp
def _products(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Sums over positions p of products of channels: x [b, p, c], weights [b, p] -> [b, c, c]."""
    return jnp.einsum("bpi,bpj->bij", x * weights[..., None], x)


def _products_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    # JAX would take one product for each of the two x, and both channels first.
    x, weights = saved
    y = jnp.einsum("bpi,bij->bpj", x, gradient + gradient.swapaxes(1, 2))
    return y * weights[..., None], 0.5 * jnp.sum(x * y, axis=2)


_products.defvjp(lambda x, weights: (_products(x, weights), (x, weights)), _products_backward)


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


def with_root(x: Statistics) -> Statistics:
    """What a target needs, computed once: those of `gaussian`, and of the covariance D

    "root", D^1/2 [b, c, c], and "scale" [b], tr(D) over what `trace_of_root` gives for D^2. By this factor, which is 1
    but for directions that hardly vary, a Gaussian is at no distance from itself.
    """
    covariance = x["covariance"]
    root, _ = roots(covariance)
    trace, own = (
        jnp.trace(covariance, axis1=1, axis2=2),
        trace_of_root(multiply(covariance, covariance)),
    )
    return x | {"root": root, "scale": jnp.where(own > 0, trace / jnp.where(own > 0, own, 1), 1)}


def wasserstein(x: Statistics, y: Statistics) -> jax.Array:
    """Squared Wasserstein-2 distance of two Gaussians over the number of channels, Dowson & Landau 1982.

    |m - n|^2 + tr(C + D - 2 (D^1/2 C D^1/2)^1/2).

    Args:
      x, y: those of `gaussian`; y, the target, `with_root`.

    Returns:
      Loss per image [b], not negative but for rounding.
    """
    c, d, root = x["covariance"], y["covariance"], y["root"]
    traces = jnp.trace(c, axis1=1, axis2=2) + jnp.trace(d, axis1=1, axis2=2)
    product = multiply(multiply(root, c), root)
    cross = y["scale"] * trace_of_root((product + product.swapaxes(1, 2)) / 2)
    means = jnp.sum((x["mean"] - y["mean"]) ** 2, axis=1)
    return (means + traces - 2 * cross) / c.shape[-1]


def variety(x: Statistics) -> jax.Array:
    """In how many directions features vary: the participation ratio of their covariance, tr(C)^2 / tr(C^2).

    Args:
      x: those of `gaussian`.

    Returns:
      [b], from 1 (all features lie on a line) to the number of channels; 0 where they are constant.
    """
    covariance = x["covariance"]
    squares = jnp.sum(covariance**2, axis=(1, 2))
    trace = jnp.trace(covariance, axis1=1, axis2=2)
    return jnp.where(squares > 0, trace**2 / jnp.where(squares > 0, squares, 1), 0)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to describe and compare styles.

    Attributes:
      sums: (features [b, h, w, c], weights of positions [b or 1, h, w]) -> sums, which add up over parts of an image.
      statistics: sums -> statistics, a row for each image.
      target: statistics -> what `distance` needs of those that many are compared with.
      distance: (statistics, `target`) -> loss per image [b].
      what: the kind in words.
    """

    sums: Callable[[jax.Array, jax.Array], Statistics]
    statistics: Callable[[Statistics], Statistics]
    target: Callable[[Statistics], Statistics]
    distance: Callable[[Statistics, Statistics], jax.Array]
    what: str


def _as_it_is(x: Statistics) -> Statistics:
    return x


KINDS = {
    "gram": Kind(second_sums, gram, _as_it_is, gram_distance, "Gram matrices"),
    "mean_variance": Kind(
        first_sums,
        mean_variance,
        _as_it_is,
        mean_variance_distance,
        "means and deviations of channels",
    ),
    "wasserstein": Kind(
        second_sums, gaussian, with_root, wasserstein, "Wasserstein-2 distance of feature Gaussians"
    ),
}


def with_length(
    kind: str, found: dict[str, Statistics]
) -> tuple[dict[str, Statistics], Statistics]:
    """What `relative` compares styles with.

    Args:
      kind: a key of `KINDS`.
      found: layer -> statistics, [r, ...].

    Returns:
      Layer -> statistics with what the kind's distance needs of a target; and layer -> their distance from those of
      features that are 0, [r].
    """
    target = {layer: KINDS[kind].target(x) for layer, x in found.items()}
    nothing = jax.tree.map(jnp.zeros_like, target)
    lengths = {layer: KINDS[kind].distance(nothing[layer], x) for layer, x in target.items()}
    # Where all features are 0, as those of a constant image may be, their length is.
    return target, jax.tree.map(lambda x: jnp.maximum(x, EPS), lengths)


def relative(
    kind: str,
    found: dict[str, Statistics],
    target: dict[str, Statistics],
    lengths: dict[str, jax.Array],
) -> jax.Array:
    """Distance of styles from a target as a share of its length, the mean over layers, [b]: 1 where nothing is seen.

    Args:
      kind: a key of `KINDS`.
      found: layer -> statistics, [b, ...].
      target, lengths: of `with_length`, [1 or b, ...].
    """
    apart = {layer: KINDS[kind].distance(x, target[layer]) for layer, x in found.items()}
    return sum(apart[layer] / lengths[layer] for layer in apart) / len(apart)
