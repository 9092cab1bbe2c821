"""Estimators on sets of image features, with bootstrap intervals.

A statistic takes counts [r, n], how often each of r resamples drew each of n images, and gives one
replicate a resample, [r]. Row 0 of `resamples` draws every image once, so that replicate 0 is the
statistic of the sample itself. Statistics that share their counts are resampled together.
"""

import numpy as np

LIMIT = 100  # iterations of k-means at most; it ends where no label changes


def resamples(random: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Draws n of n images with replacement, `count` times.

    Returns:
      Counts [1 + count, n]; row 0 is all ones.
    """
    # Counts rather than indices: statistics become matrix products over all resamples at once.
    drawn = random.multinomial(n, np.full(n, 1 / n), size=count)
    return np.concatenate([np.ones((1, n)), drawn])


def interval(replicates: np.ndarray, confidence: float) -> dict[str, float]:
    """Percentile bootstrap, Efron & Tibshirani 1993, section 13.3.

    Where all images agree it has no width, as every resample agrees too.

    Args:
      replicates: [1 + count], the statistic first; NaN where a resample left nothing to measure.
      confidence: in (0, 1).

    Returns:
      {"value", "low", "high"}.
    """
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(replicates[1:], (tail, 1 - tail))
    return {"value": float(replicates[0]), "low": float(low), "high": float(high)}


def mean(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of values [n], [r]."""
    return counts @ values / counts.sum(axis=1)


def within(counts: np.ndarray, distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean over the clusters of the mean distance of a cluster's pairs, Ojha et al. 2021, section 4.2.

    An image that was drawn twice is no pair: only pairs of different images count, as often as they
    were drawn. With replacement a replicate would otherwise be too small by a factor of (n - 1) / n.

    Args:
      distances: symmetric [n, n]; NaN where a pair was not measured.
      labels: cluster of each image, [n]. A cluster without a pair is left out.

    Returns:
      [r], NaN where no pair is left.
    """
    total, found = np.zeros(len(counts)), np.zeros(len(counts))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn, part = counts[:, members], distances[np.ix_(members, members)]
        known = ~np.isnan(part) & ~np.eye(len(part), dtype=bool)
        # As matrix products of counts: a loop over resamples would take minutes. 0 for NaN, since NaN * 0 is NaN.
        pairs = np.sum(drawn @ known * drawn, axis=1)
        sums = np.sum(drawn @ np.where(known, part, 0) * drawn, axis=1)
        total += np.divide(sums, pairs, out=np.zeros_like(sums), where=pairs > 0)
        found += pairs > 0
    return np.divide(total, found, out=np.full_like(total, np.nan), where=found > 0)


def pairwise(counts: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Mean distance of all pairs, [r]; see `within`."""
    return within(counts, distances, np.zeros(len(distances)))


def cosine_distances(x: np.ndarray) -> np.ndarray:
    """1 - cosine of all pairs of unit features [n, d]: [n, n]."""
    return 1 - x @ x.T


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x . y / d + 1)^3 of all pairs of x [n, d] and y [m, d], Binkowski et al. 2018, section 4."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid_paired(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kernel distance of x [n, d] and y [n, d], whose rows belong together, [r].

    The U-statistic of Gretton et al. 2012, lemma 6 (eq. 4). It leaves k(x_i, y_i) out, so that it is
    unbiased for pairs too, and exactly 0 where x is y. May fall below 0.
    """
    cross = kernel(x, y)
    return pairwise(counts, kernel(x, x) + kernel(y, y) - cross - cross.T)


def kid(counts_x: np.ndarray, counts_y: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kernel distance of independent x [n, d] and y [m, d], [r]: unbiased MMD^2, Gretton et al. 2012, eq. 3."""
    cross = np.sum(counts_x @ kernel(x, y) * counts_y, axis=1) / (len(x) * len(y))
    return pairwise(counts_x, kernel(x, x)) + pairwise(counts_y, kernel(y, y)) - 2 * cross


def frechet(mean_x: np.ndarray, cov_x: np.ndarray, mean_y: np.ndarray, cov_y: np.ndarray) -> float:
    """Frechet distance of two Gaussians, Heusel et al. 2017, eq. 6.

    Args:
      mean_x, mean_y: [d].
      cov_x, cov_y: [d, d].

    Returns:
      |mean_x - mean_y|^2 + tr(cov_x + cov_y - 2 (cov_x cov_y)^(1/2)).
    """
    values, vectors = np.linalg.eigh(cov_x)
    # Rounding gives eigenvalues slightly below 0, whose roots would be undefined.
    root = vectors * np.sqrt(np.maximum(values, 0))
    # Similar to cov_x cov_y, but symmetric: its eigenvalues are real, and cost less.
    products = np.linalg.eigvalsh(root.T @ cov_y @ root)
    overlap = np.sum(np.sqrt(np.maximum(products, 0)))
    return float(np.sum((mean_x - mean_y) ** 2) + np.trace(cov_x + cov_y) - 2 * overlap)


def fid(counts_x: np.ndarray, counts_y: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Frechet distance of x [n, d] and y [m, d], [r].

    It is too large by a bias that grows as the sample shrinks, and in resamples once more, as they hold
    fewer different images. The replicates are moved so that their mean is the statistic: the interval
    describes how far it varies among samples of this size, and can be compared at the same size only.
    """
    replicates = np.array(
        [
            frechet(*_moments(in_x, x), *_moments(in_y, y))
            for in_x, in_y in zip(counts_x, counts_y, strict=True)
        ]
    )
    replicates[1:] += replicates[0] - replicates[1:].mean()
    return replicates


def kmeans(random: np.random.Generator, x: np.ndarray, k: int) -> np.ndarray:
    """Lloyd's k-means from the start of k-means++ (Arthur & Vassilvitskii 2007).

    Args:
      x: [n, d].
      k: clusters, at most n; where fewer points differ, some stay empty.

    Returns:
      Cluster of each row, [n] in 0..k - 1.
    """
    centers = x[[random.integers(len(x))]]
    while len(centers) < k:
        nearest = _squared(x, centers).min(axis=1)
        # Where every point is a centre already, the next one is any of them.
        odds = nearest / nearest.sum() if nearest.any() else None
        centers = np.concatenate([centers, x[[random.choice(len(x), p=odds)]]])
    labels = np.full(len(x), -1)
    for _ in range(LIMIT):
        before, labels = labels, _squared(x, centers).argmin(axis=1)
        if np.array_equal(before, labels):
            break
        for label in np.unique(labels):
            centers[label] = x[labels == label].mean(axis=0)
    return labels


def _moments(counts: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and unbiased covariance [d, d] of x [n, d], each row counted as often as drawn, [n]."""
    n = counts.sum()
    centre = counts @ x / n
    centred = x - centre
    return centre, (centred.T * counts) @ centred / (n - 1)


def _squared(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distances of x [n, d] to centers [k, d]: [n, k]."""
    lengths = np.sum(x**2, axis=1)[:, None] + np.sum(centers**2, axis=1)
    return np.maximum(lengths - 2 * x @ centers.T, 0)
