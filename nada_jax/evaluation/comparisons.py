"""The metrics: one table, which the task, its report, and the pages of comparisons read.

A metric is added by a function of `Observations` and a row here; one with a network of its own also has a row in
`features.NETWORKS`, and a section `config.NAME` with the field `weights` (in `observations` and in the config).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from nada_jax.evaluation import statistics
from nada_jax.evaluation.observations import Observations
from nada_jax.losses import clip as clip_losses

FID_RESAMPLES = 100  # each takes the eigenvalues of two matrices [d, d]: seconds for a large judge

Intervals = Mapping[str, Mapping[str, float]]  # metric -> {"value", "low", "high"}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
      better: "higher", "lower", or "" where neither is better as such.
      meaning: in words; "{other}" stands for the images that the adapted ones are held against.
      compute: observations -> replicates [r]; see `statistics`.
      network: name of the network that it needs, a row of `features.NETWORKS`, or "".
    """

    better: str
    meaning: str
    compute: Callable[[Observations], np.ndarray]
    network: str = ""


def directional(seen: Observations) -> np.ndarray:
    """1 - directional loss, Gal et al. 2022, eq. 3."""
    loss = clip_losses.directional(seen.source, seen.adapted, seen.direction)
    return statistics.mean(seen.counts, 1 - np.asarray(loss))


def similarity(seen: Observations) -> np.ndarray:
    """Mean cosine to the target text."""
    return statistics.mean(seen.counts, seen.adapted @ seen.texts[1])


def diversity_kept(seen: Observations) -> np.ndarray:
    """Diversity of the adapted over that of the source's images."""
    of_source = statistics.pairwise(seen.counts, statistics.cosine_distances(seen.source))
    return seen.diversity / of_source


def kid(seen: Observations) -> np.ndarray:
    """Kernel distance to the images of the folder, or to the source's."""
    # At length sqrt(d) the kernel is (cosine + 1)^3; that of unit vectors would be all but linear.
    scale = math.sqrt(seen.adapted.shape[1])
    adapted = scale * seen.adapted
    if seen.folder is None:
        return statistics.kid_paired(seen.counts, scale * seen.source, adapted)
    return statistics.kid(seen.folder_counts, seen.counts, scale * seen.folder, adapted)


def clip_fid(seen: Observations) -> np.ndarray:
    """Frechet distance to the images of the folder, or to the source's."""
    few = slice(1 + FID_RESAMPLES)  # the sample itself and the first resamples
    others, counts = seen.folder, seen.folder_counts
    if others is None:
        others, counts = seen.source, seen.counts
    return statistics.fid(counts[few], seen.counts[few], others, seen.adapted)


METRICS = {
    "directional": Metric(
        "higher", "cosine between the edit of the images and that of the texts", directional
    ),
    "similarity": Metric("higher", "cosine between adapted images and the target text", similarity),
    "nearer": Metric(
        "higher",
        "share of adapted images nearer to the target text than to the source",
        lambda seen: seen.nearer(seen.adapted),
    ),
    "nearer_source": Metric(
        "lower",
        "the same share of source images, as a control",
        lambda seen: seen.nearer(seen.source),
    ),
    "diversity": Metric(
        "higher", "mean CLIP distance between two adapted images", lambda seen: seen.diversity
    ),
    "diversity_kept": Metric(
        "higher", "that distance over the one between source images", diversity_kept
    ),
    "cluster_clip": Metric(
        "higher",
        "mean CLIP distance within clusters of adapted images",
        lambda seen: statistics.within(seen.counts, seen.distances, seen.labels),
    ),
    "cluster_lpips": Metric(
        "higher",
        "mean LPIPS within clusters of adapted images",
        lambda seen: statistics.within(seen.counts, seen.compared["lpips"], seen.labels),
        network="lpips",
    ),
    "identity": Metric(
        "higher",
        "cosine between the faces of source and adapted images",
        lambda seen: statistics.mean(seen.counts, seen.compared["identity"]),
        network="identity",
    ),
    # Far from the source is neither good nor bad; near to a folder of the target domain is good.
    "kid": Metric("", "kernel distance between the adapted images and {other}", kid),
    "clip_fid": Metric("", "Frechet distance between the adapted images and {other}", clip_fid),
}
OTHERS = {True: "those of the folder", False: "the source's"}  # by whether there is a folder


def measure(seen: Observations, confidence: float) -> dict[str, dict[str, float]]:
    """Computes the metrics whose networks are given, in the order of the table.

    Args:
      seen: what they are computed from.
      confidence: of the intervals, in (0, 1).

    Returns:
      Metric -> {"value", "low", "high"}.
    """
    return {
        name: statistics.interval(metric.compute(seen), confidence)
        for name, metric in METRICS.items()
        if not metric.network or metric.network in seen.compared
    }


def meaning(name: str, folder: str) -> str:
    """What a metric is, in words; `folder` as in the config."""
    return METRICS[name].meaning.format(other=OTHERS[bool(folder)])


def leaders(found: Mapping[str, Intervals], better: Mapping[str, str]) -> dict[str, str]:
    """The best of several results, where there is no doubt.

    Args:
      found: name -> intervals of a result.
      better: metric -> "higher" or "lower"; others have no leader.

    Returns:
      {metric: name of the best}, where its interval lies apart from that of every other result.
    """
    leading = {}
    for metric, direction in better.items():
        sign = {"higher": 1, "lower": -1}.get(direction)
        rivals = {name: metrics[metric] for name, metrics in found.items() if metric in metrics}
        if sign is None or len(rivals) < 2:
            continue
        best = max(rivals, key=lambda name: sign * rivals[name]["value"])
        worst = {name: min(sign * x[end] for end in ("low", "high")) for name, x in rivals.items()}
        most = {name: max(sign * x[end] for end in ("low", "high")) for name, x in rivals.items()}
        if all(most[name] < worst[best] for name in rivals if name != best):
            leading[metric] = best
    return leading
