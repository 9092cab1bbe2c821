"""Sheets of images to be viewed beside the numbers: source over adapted, and the clusters."""

import functools

import jax
import numpy as np

from nada_jax import batches
from nada_jax.models.stylegan2 import Generator

COLUMNS, ROWS = 8, 3  # of a sheet; a row is drawn at once, so that memory does not grow with it


def draw_pairs(source: Generator, adapted: Generator, ws: np.ndarray) -> np.ndarray:
    """Draws the first latents, each row of the source above one of the adapted generator.

    Args:
      ws: latents [n, l, w_dim], at least a row of them.

    Returns:
      Images [2 * rows * COLUMNS, size, size, 3] in [-1, 1].
    """
    first = ws[: min(ROWS, len(ws) // COLUMNS) * COLUMNS]
    pair = [_draw(generator, first) for generator in (source, adapted)]
    rows = np.stack(pair).reshape(2, -1, COLUMNS, *pair[0].shape[1:])
    return rows.swapaxes(0, 1).reshape(-1, *pair[0].shape[1:])


def draw_clusters(
    adapted: Generator, ws: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Draws a row for each cluster, the largest first, from its middle outwards; white where it ends.

    Args:
      ws: latents [n, l, w_dim].
      features: of their images [n, d].
      labels: their clusters [n].

    Returns:
      Images [clusters * COLUMNS, size, size, 3] in [-1, 1].
    """
    clusters = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rows = []
    for members in sorted(clusters, key=len, reverse=True):
        # From the middle: the first images are typical of the cluster, whatever its size.
        away = np.linalg.norm(features[members] - features[members].mean(axis=0), axis=1)
        chosen = members[np.argsort(away)][:COLUMNS]
        row = np.ones((COLUMNS, adapted.size, adapted.size, 3), np.float32)
        row[: len(chosen)] = _draw(adapted, ws[chosen])
        rows.append(row)
    return np.concatenate(rows)


def _draw(generator: Generator, ws: np.ndarray) -> np.ndarray:
    return batches.apply(functools.partial(_synthesize, generator), COLUMNS, ws)


@jax.jit
def _synthesize(generator: Generator, ws: jax.Array) -> jax.Array:
    return generator.synthesize(ws)
