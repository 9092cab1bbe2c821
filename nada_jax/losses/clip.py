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
      Loss per image [b], in [0, 2]; 1 where the images are equal.
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
    """Official `lambda_manifold`: keeps the images as far apart as the two texts are.

    Args:
      source, adapted: unit image features [b, d].
      text_cosine: cosine of the two mean text features, [].

    Returns:
      |cos(source, adapted) - text_cosine| per image [b].
    """
    return jnp.abs(jnp.sum(source * adapted, axis=-1) - text_cosine)


def angle(source: jax.Array, adapted: jax.Array) -> jax.Array:
    """In-domain angle consistency, Alanov et al. 2022, "HyperDomainNet".

    Images keep their distances from each other. A generator that draws all people alike, which the other
    losses reward, has cosines near 1 among its images.

    Args:
      source, adapted: unit image features [b, d].

    Returns:
      Per image [b], the mean over the others of (change of the cosine between the two)^2; 0 where b is 1.
    """
    # The paper sums over the pairs of a batch; their mean does not depend on the batch size.
    change = adapted @ adapted.T - source @ source.T
    others = 1 - jnp.eye(len(source))
    return jnp.sum(others * change**2, axis=1) / max(len(source) - 1, 1)


def patch(source: jax.Array, adapted: jax.Array, directions: jax.Array) -> jax.Array:
    """Official `lambda_patch`: the directional loss of crops, for the part of the object that each may show.

    Args:
      source, adapted: unit features [b, d] of crops from the same places.
      directions: unit text directions [p, d] of the parts.

    Returns:
      Loss per image [b]: mean over parts of (1 - cos) * softmax over parts of cos.
    """
    cosines = _edit(source, adapted) @ directions.T
    return jnp.mean((1 - cosines) * jax.nn.softmax(cosines, axis=-1), axis=-1)


def _edit(source: jax.Array, adapted: jax.Array) -> jax.Array:
    """Scales adapted - source to length 1, [b, d]; near 0 where the two are equal."""
    edit = adapted - source
    length2 = jnp.sum(edit**2, axis=-1, keepdims=True)
    return edit * jax.lax.rsqrt(jnp.where(length2 > EPS, length2, START))
