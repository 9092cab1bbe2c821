"""Losses between features of CLIP; all features and directions have unit length."""

import jax
import jax.numpy as jnp

# Twin generators start with an edit of 0, whose direction is rounding noise: an edit of a squared
# length up to EPS is divided by a length that edits have later on, sqrt(START). Dividing by
# sqrt(EPS) instead would be finite too, but the huge first gradient would stay in Adam's second
# moment and stop the training for hundreds of steps.
EPS, START = 1e-9, 1e-2


def directional(source: jax.Array, adapted: jax.Array, direction: jax.Array) -> jax.Array:
    """Directional CLIP loss, Gal et al. 2022, eq. 3: 1 - cos(adapted - source, direction).

    Args:
      source, adapted: unit image features [b, d].
      direction: unit text direction [d].

    Returns:
      Loss per image [b], in [0, 2]; 1 where the pictures are equal.
    """
    return 1 - _edit(source, adapted) @ direction


def global_(adapted: jax.Array, text: jax.Array) -> jax.Array:
    """Global CLIP loss, Gal et al. 2022, eq. 1: 1 - cos(adapted, text).

    Args:
      adapted: unit image features [b, d].
      text: unit text feature [d], of "a {target}".

    Returns:
      Loss per image [b], in [0, 2].
    """
    return 1 - adapted @ text


def manifold(source: jax.Array, adapted: jax.Array, text_cosine: jax.Array) -> jax.Array:
    """Official `lambda_manifold`: keeps the pictures as far apart as the two texts are.

    Args:
      source, adapted: unit image features [b, d].
      text_cosine: cosine of the two mean text features, [].

    Returns:
      |cos(source, adapted) - text_cosine| per image [b].
    """
    return jnp.abs(jnp.sum(source * adapted, axis=-1) - text_cosine)


def angle(source: jax.Array, adapted: jax.Array) -> jax.Array:
    """In-domain angle consistency, Alanov et al. 2022, "HyperDomainNet".

    Pictures stay as far from each other as they were. A generator that draws everybody alike, which the other
    losses reward, has cosines near 1 among its pictures. The paper sums over the pairs of a batch; this is
    their mean, which does not depend on its size.

    Args:
      source, adapted: unit image features [b, d].

    Returns:
      Per image [b], the mean over the others of (change of the cosine between the two)^2; 0 where b is 1.
    """
    change = adapted @ adapted.T - source @ source.T
    others = 1 - jnp.eye(len(source))
    return jnp.sum(others * change**2, axis=1) / max(len(source) - 1, 1)


def patch(source: jax.Array, adapted: jax.Array, directions: jax.Array) -> jax.Array:
    """Official `lambda_patch`: the directional loss of crops, for the part that each may show.

    Args:
      source, adapted: unit features [b, d] of crops from the same places; see `crops`.
      directions: unit text directions [p, d] of the parts.

    Returns:
      Loss per image [b]: mean over parts of (1 - cos) * softmax over parts of cos.
    """
    cosines = _edit(source, adapted) @ directions.T
    return jnp.mean((1 - cosines) * jax.nn.softmax(cosines, axis=-1), axis=-1)


def crops(images: jax.Array, centers: jax.Array, size: int) -> jax.Array:
    """Cuts one square out of each image.

    Args:
      images: [b, h, w, c].
      centers: int [b, 2], (row, column) of the pixel right and below of the middle.
      size: side of the square, at most h and w.

    Returns:
      [b, size, size, c].
    """

    def crop(image, center):
        row, column = center - size // 2
        return jax.lax.dynamic_slice(image, (row, column, 0), (size, size, image.shape[2]))

    return jax.vmap(crop)(images, centers)


def crop_centers(key: jax.Array, b: int, h: int, w: int, size: int) -> jax.Array:
    """Draws b centres, int [b, 2], whose square of side `size` lies within h x w pixels."""
    room = jnp.array([h - size + 1, w - size + 1])
    return jax.random.randint(key, (b, 2), 0, room) + size // 2


def _edit(source: jax.Array, adapted: jax.Array) -> jax.Array:
    """adapted - source at length 1, [b, d]; near 0 where the two are equal."""
    edit = adapted - source
    length2 = jnp.sum(edit**2, axis=-1, keepdims=True)
    return edit * jax.lax.rsqrt(jnp.where(length2 > EPS, length2, START))
