"""What networks see in the pictures of two generators, a batch at a time, and sheets of these pictures."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nada_jax.adaptation import prompts
from nada_jax.losses import identity
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator
from nada_jax.models.vgg import Vgg

COLUMNS, ROWS = 8, 3  # of the sheets of pictures; a row is drawn at once


def batched(function: Callable[..., Any], size: int, *arrays: np.ndarray, tell: str = "") -> Any:
    """Applies a jitted function to `size` rows of arrays [n, ...] at a time, float64 results [n, ...].

    The last batch repeats its last row, so that there is one shape to compile.
    """
    n, results = len(arrays[0]), []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        results.append(jax.device_get(function(*(array[rows] for array in arrays))))
        if tell:
            print(f"{tell}: {min(start + size, n)}/{n}", flush=True)
    return jax.tree.map(lambda *parts: np.concatenate(parts, dtype=np.float64)[:n], *results)


@jax.jit
def look(
    source: Generator, adapted: Generator, judge: Clip, face: Irse50 | None, ws: jax.Array
) -> dict[str, jax.Array]:
    """Features of both pictures of latents ws [b, l, w_dim], and the likeness of their faces."""
    pictures = {"source": source.synthesize(ws), "adapted": adapted.synthesize(ws)}
    found = {name: prompts.embed_pictures(judge, batch) for name, batch in pictures.items()}
    if face is not None:
        faces = [face.embed_images(batch) for batch in pictures.values()]
        found["identity"] = 1 - identity.identity(*faces)
    return found


@jax.jit
def _draw(generator: Generator, ws: jax.Array) -> jax.Array:
    return generator.synthesize(ws)


@jax.jit
def _lpips(vgg: Vgg, generator: Generator, one: jax.Array, other: jax.Array) -> jax.Array:
    return vgg.lpips(generator.synthesize(one), generator.synthesize(other))


def lpips_within(
    adapted: Generator,
    vgg: Vgg,
    ws: np.ndarray,
    labels: np.ndarray,
    random: np.random.Generator,
    *,
    most: int,
    batch_size: int,
) -> np.ndarray:
    """LPIPS of pairs of pictures that lie in one cluster.

    Args:
      ws: latents of the pictures [n, l, w_dim].
      labels: their clusters [n].
      random: draws the pairs.
      most: pairs of a cluster at most.

    Returns:
      Distances [n, n]; NaN where the pair was not drawn.
    """
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        pairs = members[np.stack(np.triu_indices(len(members), 1), axis=1)]
        chosen.append(random.permutation(pairs)[:most])
    one, other = np.concatenate(chosen).T
    lpips = functools.partial(_lpips, vgg, adapted)
    found = batched(lpips, batch_size, ws[one], ws[other], tell="pairs within clusters")
    distances = np.full((len(ws), len(ws)), np.nan)
    distances[one, other] = distances[other, one] = found
    return distances


def draw_pairs(source: Generator, adapted: Generator, ws: np.ndarray) -> np.ndarray:
    """The pictures of the first latents, each row of the source before one of the adapted generator."""
    first = ws[: min(ROWS, len(ws) // COLUMNS) * COLUMNS]
    pair = [batched(functools.partial(_draw, g), COLUMNS, first) for g in (source, adapted)]
    rows = np.stack(pair).reshape(2, -1, COLUMNS, *pair[0].shape[1:])
    return rows.swapaxes(0, 1).reshape(-1, *pair[0].shape[1:])


def draw_clusters(
    adapted: Generator, ws: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """A row of pictures for each cluster, the largest first, from its middle outwards; white at its end."""
    clusters = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rows = []
    for members in sorted(clusters, key=len, reverse=True):
        away = np.linalg.norm(features[members] - features[members].mean(axis=0), axis=1)
        chosen = members[np.argsort(away)][:COLUMNS]
        row = np.ones((COLUMNS, adapted.size, adapted.size, 3))
        row[: len(chosen)] = batched(functools.partial(_draw, adapted), COLUMNS, ws[chosen])
        rows.append(row)
    return np.concatenate(rows)
