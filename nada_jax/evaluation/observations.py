"""What metrics are computed from: the features of the images of two generators, their clusters and resamples."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated

import jax
import numpy as np

from nada_jax import images
from nada_jax.evaluation import features, statistics
from nada_jax.evaluation.features import FEWEST, MOST
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.settings import Count, Rule, Section, Seed, Truncation

NOT_ZERO = Rule(lambda x: x != 0, "a number such as 1.0, and not 0, which draws one image only")

# Larger batches would be filled up with copies.
BATCH = Rule(lambda x: 1 <= x <= MOST, f"a whole number in 1..{MOST:,}")
# With as many, chance moves the ends of a 95 % interval by 0.2 % of its width; more cost time and memory for nothing.
BOOTSTRAP = Rule(lambda x: 1 <= x <= 100_000, "a whole number in 1..100,000")


class Identity(Section, name="identity"):
    """The network of the metric `identity`; `config.identity`. "" leaves it out."""

    weights: str


class Lpips(Section, name="lpips"):
    """The network of the metric `cluster_lpips`; `config.lpips`. "" leaves it out."""

    weights: str
    pairs: Count


class Sampling(Section):
    """What is drawn and observed; the fields stand at the top of `configs/evaluate.py`."""

    seed: Seed
    samples: int
    batch_size: Annotated[int, BATCH]
    truncation: Annotated[Truncation, NOT_ZERO]
    identity: Identity
    lpips: Lpips
    folder: str
    clusters: Count
    bootstrap: Annotated[int, BOOTSTRAP]

    def check(self) -> None:
        """There have to be enough images for the intervals, and for pairs within clusters."""
        fewest = max(FEWEST, 2 * self.clusters)
        expected = f"{fewest} to {MOST:,}, and at least 2 for each of {self.clusters} clusters"
        self.need(fewest <= self.samples <= MOST, "samples", expected)


@dataclasses.dataclass(frozen=True)
class Observations:
    """n images of each generator, from the same latents.

    Attributes:
      counts: resamples of the latents [r, n]; see `statistics`.
      source, adapted: unit features of the images [n, d], float64.
      labels: clusters of the adapted images [n].
      direction: unit text direction [d].
      texts: unit features of the source and the target text [2, d].
      compared: values of the networks that are given, by name, [n] or [n, n]; see `features.NETWORKS`.
      folder: unit features of images of the target domain [m, d], or None.
      folder_counts: resamples of them [r, m], or None.
    """

    counts: np.ndarray
    source: np.ndarray
    adapted: np.ndarray
    labels: np.ndarray
    direction: np.ndarray
    texts: np.ndarray
    compared: Mapping[str, np.ndarray]
    folder: np.ndarray | None
    folder_counts: np.ndarray | None

    # Several metrics need these two, and both cost the square of n.
    @functools.cached_property
    def distances(self) -> np.ndarray:
        """CLIP distances between all adapted images [n, n]."""
        return statistics.cosine_distances(self.adapted)

    @functools.cached_property
    def diversity(self) -> np.ndarray:
        """Their mean over pairs, [r]."""
        return statistics.pairwise(self.counts, self.distances)

    def nearer(self, found: np.ndarray) -> np.ndarray:
        """Share of images, by features [n, d], that are nearer to the target than to the source text, [r]."""
        source, target = self.texts
        return statistics.mean(self.counts, found @ target > found @ source)


def draw(source: Generator, sampling: Sampling) -> np.ndarray:
    """Draws the latents of all images, [samples, l, w_dim]."""
    sample = jax.jit(draw_latents, static_argnums=2)
    ws = sample(source, jax.random.key(sampling.seed), sampling.samples)
    return np.asarray(source.truncate(ws, sampling.truncation))


def observe(
    sampling: Sampling,
    source: Generator,
    adapted: Generator,
    judge: Clip,
    ws: np.ndarray,
    *,
    direction: np.ndarray,
    texts: np.ndarray,
    report: Callable[[str, int, int], None],
) -> Observations:
    """Embeds and compares images, and draws clusters and resamples.

    Args:
      judge: embeds the images.
      ws: their latents [n, l, w_dim].
      direction, texts: see `Observations`.
      report: is called after each batch with what is done, the number of finished rows and that of all.

    Raises:
      UserError: a network or the folder cannot be read.
    """
    files = {name: getattr(sampling, name).weights for name in features.NETWORKS}
    networks = features.load_networks(files)
    folder = folder_counts = None
    if sampling.folder:
        folder = features.of_folder(judge, sampling.folder, source.size, sampling.batch_size)
    size = sampling.batch_size
    progress = functools.partial(report, "pairs of images")
    compared = features.of_pairs(
        source, adapted, judge, networks, ws, batch_size=size, report=progress
    )
    of_source, of_adapted = compared.pop("source"), compared.pop("adapted")
    for field, found in (("source", of_source), ("generator", of_adapted)):
        images.check_finite(found, f"the features of the images of {field}.weights")
    features.refuse_alike(of_source, "expected another generator, or a larger truncation")

    # One stream of random numbers: another order of these draws would change what a seed gives.
    random = np.random.default_rng(sampling.seed)
    labels = statistics.kmeans(random, of_adapted, sampling.clusters)
    counts = statistics.resamples(random, sampling.bootstrap, len(ws))
    progress = functools.partial(report, "pairs within clusters")
    for name, network in networks.items():
        if features.NETWORKS[name].within:
            options = {"most": getattr(sampling, name).pairs, "batch_size": size}
            compared[name] = features.within_clusters(
                name, network, adapted, ws, labels, random, report=progress, **options
            )
    if folder is not None:
        folder_counts = statistics.resamples(random, sampling.bootstrap, len(folder))
    return Observations(
        counts=counts,
        source=of_source,
        adapted=of_adapted,
        labels=labels,
        direction=direction,
        texts=texts,
        compared=compared,
        folder=folder,
        folder_counts=folder_counts,
    )
