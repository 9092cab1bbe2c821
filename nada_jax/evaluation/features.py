"""What networks measure on the images of two generators, a batch at a time."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nada_jax import batches, images
from nada_jax.errors import UserError
from nada_jax.losses import identity
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator
from nada_jax.models.vgg import Vgg
from nada_jax.weights import loading

# Images of each kind: below, intervals mean little; above, matrices of all pairs fill the memory.
FEWEST, MOST = 8, 10_000
# A shorter difference or sum of unit features is none. Float32 rounds to 2^-24, which the layers of a CLIP raise to some
# 1e-5: at this length that turns a direction by 1 %. Texts that CLIP tells apart lie 0.1 to 1.3 apart.
LEAST = 1e-3

Report = Callable[[int, int], None]  # of progress: (finished, all)


@jax.jit
def embed(clip: Clip, images: jax.Array) -> jax.Array:
    """Images [b, h, w, 3] in [-1, 1] -> unit features [b, d], with antialiasing, as CLIPs were trained."""
    return clip.embed_images(images, antialias=True)


def refuse_alike(found: np.ndarray, remedy: str) -> None:
    """Refuses a source whose images are all alike: no diversity can be held against theirs.

    Args:
      found: unit features of its images [n, d].
      remedy: ends the message.

    Raises:
      UserError: they differ by no more than rounding.
    """
    if not np.linalg.norm(found - found[0], axis=1).max() >= LEAST:
        raise UserError(f"CLIP sees no difference between the images of the source; {remedy}")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that compares two images; `config.NAME.weights` is its file.

    Attributes:
      load: (file, field=its name in messages) -> the network.
      compare: (network, images [b, h, w, 3], images [b, h, w, 3]) -> [b].
      within: whether it compares pairs of adapted images in one cluster, rather than each with its source.
    """

    load: Callable[..., Any]
    compare: Callable[[Any, jax.Array, jax.Array], jax.Array]
    within: bool = False


def _face_cosine(network: Irse50, one: jax.Array, other: jax.Array) -> jax.Array:
    return 1 - identity.identity(network.embed_images(one), network.embed_images(other))


NETWORKS = {
    "identity": Network(functools.partial(loading.load_model, Irse50), _face_cosine),
    "lpips": Network(loading.load_lpips, Vgg.lpips, within=True),
}


def load_networks(files: Mapping[str, str]) -> dict[str, Any]:
    """Loads the networks of the table, as far as they are given.

    Args:
      files: name of the network -> its file; "" leaves it out.

    Returns:
      Networks by name.

    Raises:
      UserError: one cannot be loaded.
    """
    return {
        name: NETWORKS[name].load(file, field=f"{name}.weights")
        for name, file in files.items()
        if file
    }


def of_pairs(
    source: Generator,
    adapted: Generator,
    judge: Clip,
    networks: Mapping[str, Any],
    ws: np.ndarray,
    *,
    batch_size: int,
    report: Report | None = None,
) -> dict[str, np.ndarray]:
    """Features of the images that both generators draw from the same latents.

    Args:
      networks: those that are given, by name; here each that compares an image with its source.
      ws: latents [n, l, w_dim].

    Returns:
      float64: "source" and "adapted", unit features of the judge [n, d], and for each network values [n].
    """
    compared = {name: net for name, net in networks.items() if not NETWORKS[name].within}
    function = functools.partial(_of_pairs, source, adapted, judge, compared)
    found = batches.apply(function, batch_size, ws, report=report)
    # Statistics take small differences of sums over all pairs, for which float32 has too few digits.
    return {name: values.astype(np.float64) for name, values in found.items()}


@jax.jit
def _of_pairs(
    source: Generator, adapted: Generator, judge: Clip, networks: dict[str, Any], ws: jax.Array
) -> dict[str, jax.Array]:
    drawn = {"source": source.synthesize(ws), "adapted": adapted.synthesize(ws)}
    found = {name: embed(judge, batch) for name, batch in drawn.items()}
    compared = {
        name: NETWORKS[name].compare(network, *drawn.values()) for name, network in networks.items()
    }
    return found | compared


def within_clusters(
    name: str,
    network: Any,
    adapted: Generator,
    ws: np.ndarray,
    labels: np.ndarray,
    random: np.random.Generator,
    *,
    most: int,
    batch_size: int,
    report: Report | None = None,
) -> np.ndarray:
    """Compares pairs of images that lie in one cluster.

    Args:
      name, network: the row of the table, and what it loaded.
      ws: latents of the images [n, l, w_dim].
      labels: their clusters [n].
      random: draws the pairs.
      most: pairs of a cluster at most.

    Returns:
      Symmetric values [n, n], float64; NaN where the pair was not drawn.
    """
    chosen = []
    # At most so many of each cluster: the number of its pairs grows with the square of its size.
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        pairs = members[np.stack(np.triu_indices(len(members), 1), axis=1)]
        chosen.append(random.permutation(pairs)[:most])
    one, other = np.concatenate(chosen).T
    function = functools.partial(_compare, name, network, adapted)
    found = batches.apply(function, batch_size, ws[one], ws[other], report=report)
    values = np.full((len(ws), len(ws)), np.nan)
    values[one, other] = values[other, one] = found
    return values


@functools.partial(jax.jit, static_argnums=0)
def _compare(
    name: str, network: Any, generator: Generator, one: jax.Array, other: jax.Array
) -> jax.Array:
    # Images are drawn again for each pair: to keep those of thousands of latents would fill the memory.
    return NETWORKS[name].compare(network, generator.synthesize(one), generator.synthesize(other))


def of_folder(judge: Clip, folder: str, size: int, batch_size: int) -> np.ndarray:
    """Features of the images of a folder.

    Args:
      judge: embeds them.
      folder: see `images.stream`.
      size: side at which they are read, that of the images of the generators, so that all are equally sharp.

    Returns:
      Unit features [m, d], float64.

    Raises:
      UserError: there is no such folder, or it holds too few or too many images.
    """
    function = functools.partial(embed, judge)
    found = np.concatenate(
        [
            batches.apply(function, batch_size, batch)
            for batch in images.stream(folder, size, field="folder", batch=batch_size)
        ]
    )
    if not FEWEST <= len(found) <= MOST:
        raise UserError(
            f"folder={folder!r} holds {len(found)} images; expected {FEWEST} to {MOST:,}"
        )
    return found.astype(np.float64)
