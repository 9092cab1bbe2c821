"""Statistics of features and their intervals, held against definitions and hand-computed values."""

import numpy as np
import pytest
import scipy.linalg

from nada_jax.evaluation import statistics


@pytest.fixture
def random():
    return np.random.default_rng(0)


def once(n):
    """Counts of the sample itself."""
    return np.ones((1, n))


def units(random, n, d=5):
    x = random.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# -- resampling ---------------------------------------------------------------------------------------


def test_resamples_draw_n_of_n_and_begin_with_the_sample(random):
    counts = statistics.resamples(random, 50, 7)
    assert counts.shape == (51, 7)
    assert np.array_equal(counts[0], np.ones(7))
    assert np.all(counts.sum(axis=1) == 7)


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says(random):
    covered = 0
    for _ in range(200):
        values = random.normal(3, 2, 60)
        found = statistics.interval(
            statistics.mean(statistics.resamples(random, 300, 60), values), 0.9
        )
        assert found["value"] == pytest.approx(values.mean())
        covered += found["low"] <= 3 <= found["high"]
    assert 0.82 <= covered / 200 <= 0.97


def test_an_interval_holds_the_quantiles_of_the_resamples_alone():
    replicates = np.array([1000.0, *range(101), np.nan])
    found = statistics.interval(replicates, 0.8)
    assert found == pytest.approx({"value": 1000, "low": 10, "high": 90})


# -- distances ----------------------------------------------------------------------------------------


def test_pairwise_is_the_mean_over_pairs():
    distances = np.array([[0, 1, 2], [1, 0, 6], [2, 6, 0]], float)
    assert statistics.pairwise(once(3), distances) == pytest.approx([3])


def test_an_image_drawn_twice_is_no_pair_with_itself():
    distances = np.array([[0, 1, 2], [1, 0, 6], [2, 6, 0]], float)
    # Drawn: 0, 0, 1. Pairs: (0, 1) twice.
    assert statistics.pairwise(np.array([[2.0, 1, 0]]), distances) == pytest.approx([1])
    assert np.isnan(statistics.pairwise(np.array([[3.0, 0, 0]]), distances))


def test_resampled_distances_are_not_biased(random):
    distances = statistics.cosine_distances(units(random, 20))
    replicates = statistics.pairwise(statistics.resamples(random, 1500, 20), distances)
    assert replicates[1:].mean() == pytest.approx(replicates[0], rel=0.01)


def test_clusters_count_alike_whatever_their_size():
    labels = np.array([4, 4, 4, 7, 7, 9])  # the last has no pair
    distances = np.full((6, 6), 100.0)
    distances[:3, :3], distances[3:5, 3:5] = 2, 4
    assert statistics.within(once(6), distances, labels) == pytest.approx([3])


def test_pairs_that_were_not_measured_are_left_out():
    distances = np.full((3, 3), np.nan)
    distances[0, 2] = distances[2, 0] = 5
    assert statistics.pairwise(once(3), distances) == pytest.approx([5])


def test_cosine_distances():
    x = np.array([[1, 0], [0, 1], [-1, 0]], float)
    assert np.array_equal(statistics.cosine_distances(x), [[0, 1, 2], [1, 0, 1], [2, 1, 0]])


# -- distributions ------------------------------------------------------------------------------------


def by_definition(x, y):
    """Unbiased MMD^2 with the kernel of KID, written with loops."""
    k = lambda a, b: (a @ b / len(a) + 1) ** 3  # noqa: E731
    n, m = len(x), len(y)
    same_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    same_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return same_x + same_y - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_is_the_unbiased_kernel_distance(random):
    x, y = random.standard_normal((6, 4)), random.standard_normal((9, 4)) + 1
    assert statistics.kid(once(6), once(9), x, y) == pytest.approx([by_definition(x, y)])


@pytest.mark.filterwarnings("ignore:Metric .*will save all")
def test_kid_and_fid_are_those_of_torchmetrics(random):
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Same(torch.nn.Module):
        """Takes four pixels for four features."""

        num_features = 4

        def forward(self, images):
            return images.flatten(1)

    x, y = random.standard_normal((2, 40, 4)) + np.array([[[0.0]], [[0.5]]])
    kid = KernelInceptionDistance(Same(), subsets=1, subset_size=40).set_dtype(torch.float64)
    fid = FrechetInceptionDistance(Same(), input_img_size=(1, 2, 2)).set_dtype(torch.float64)
    for metric in (kid, fid):
        metric.update(torch.tensor(x).reshape(40, 1, 2, 2), real=True)
        metric.update(torch.tensor(y).reshape(40, 1, 2, 2), real=False)
    assert statistics.kid(once(40), once(40), x, y)[0] == pytest.approx(float(kid.compute()[0]))
    assert statistics.fid(*np.ones((2, 2, 40)), x, y)[0] == pytest.approx(float(fid.compute()))


def test_a_resample_is_a_sample_with_repeated_rows(random):
    x, y = random.standard_normal((5, 4)), random.standard_normal((5, 4))
    counts = np.array([[2.0, 0, 1, 1, 1]])
    rows = np.repeat(np.arange(5), counts[0].astype(int))
    assert statistics.mean(counts, x[:, 0]) == pytest.approx([x[rows, 0].mean()])
    expected = statistics.frechet(
        x[rows].mean(axis=0), np.cov(x[rows].T), y[rows].mean(axis=0), np.cov(y[rows].T)
    )
    replicates = statistics.fid(
        np.concatenate([counts, counts]), np.repeat(counts, 2, axis=0), x, y
    )
    assert replicates == pytest.approx([expected, expected])


@pytest.mark.parametrize("paired", [False, True])
def test_kid_of_one_distribution_is_0_on_average(random, paired):
    values = []
    for _ in range(400):
        x, y = random.standard_normal((2, 12, 3))
        if paired:  # rows that depend on each other
            y = 0.6 * x + 0.8 * y
            values.append(statistics.kid_paired(once(12), x, y)[0])
        else:
            values.append(statistics.kid(once(12), once(12), x, y)[0])
    assert abs(np.mean(values)) < 3 * np.std(values) / 20


def test_sets_that_are_equal_are_0_apart_in_every_resample(random):
    x, counts = units(random, 20), statistics.resamples(random, 30, 20)
    for replicates in (statistics.kid_paired(counts, x, x), statistics.fid(counts, counts, x, x)):
        assert np.abs(replicates).max() < 1e-6
        found = statistics.interval(replicates, 0.95)
        assert found["low"] - 1e-6 <= 0 <= found["high"] + 1e-6


def test_the_interval_of_kid_covers_what_large_samples_tell(random):
    draw = lambda n: (random.standard_normal((n, 4)), random.standard_normal((n, 4)) + 0.7)  # noqa: E731
    truth = statistics.kid(once(1500), once(1500), *draw(1500))[0]
    x, y = draw(150)
    counts = [statistics.resamples(random, 400, 150) for _ in range(2)]
    found = statistics.interval(statistics.kid(*counts, x, y), 0.99)
    assert found["low"] < truth < found["high"] and found["low"] > 0


def test_frechet_is_the_formula_with_a_matrix_root(random):
    a, b = random.standard_normal((2, 5, 5))
    mean_x, mean_y, cov_x, cov_y = *random.standard_normal((2, 5)), a @ a.T, b @ b.T
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    expected = np.sum((mean_x - mean_y) ** 2) + np.trace(cov_x + cov_y - 2 * root)
    assert statistics.frechet(mean_x, cov_x, mean_y, cov_y) == pytest.approx(expected)


def test_frechet_of_gaussians_along_the_axes():
    found = statistics.frechet(
        np.zeros(2), np.diag([1.0, 4]), np.array([3.0, 0]), np.diag([9.0, 4])
    )
    assert found == pytest.approx(9 + (1 - 3) ** 2)


def test_fid_of_large_samples_comes_near_that_of_their_gaussians(random):
    x, y = random.normal(0, 1, (20000, 3)), random.normal(1, 2, (20000, 3))
    found = statistics.fid(np.ones((2, 20000)), np.ones((2, 20000)), x, y)
    assert found[0] == pytest.approx(3 * (1 + 1), rel=0.03)


def test_the_interval_of_fid_lies_around_its_value(random):
    x, y = random.standard_normal((2, 40, 8))
    counts = statistics.resamples(random, 100, 40)
    replicates = statistics.fid(counts, counts, x, y + 1)
    assert replicates[1:].mean() == pytest.approx(replicates[0])
    found = statistics.interval(replicates, 0.95)
    assert found["low"] < found["value"] < found["high"]


# -- clusters -----------------------------------------------------------------------------------------


def test_kmeans_finds_clusters_that_lie_apart(random):
    truth = np.repeat(np.arange(4), 10)
    x = 20 * np.eye(4)[truth] + random.standard_normal((40, 4))
    labels = statistics.kmeans(np.random.default_rng(1), x, 4)
    assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 4
    assert np.array_equal(labels, statistics.kmeans(np.random.default_rng(1), x, 4))


def test_kmeans_ends_with_every_row_at_its_nearest_centre(random):
    x = random.standard_normal((60, 3))
    labels = statistics.kmeans(random, x, 5)
    centers = np.stack([x[labels == label].mean(axis=0) for label in range(5)])
    away = np.linalg.norm(x[:, None] - centers, axis=-1)
    assert np.array_equal(away.argmin(axis=1), labels)


def test_one_cluster_holds_everything_and_its_input_stays(random):
    x = random.standard_normal((6, 2))
    before = x.copy()
    assert set(statistics.kmeans(random, x, 1)) == {0}
    assert np.array_equal(x, before)


def test_kmeans_of_equal_rows_is_one_cluster(random):
    assert len(set(statistics.kmeans(random, np.ones((6, 2)), 3))) == 1
