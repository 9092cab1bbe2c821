import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.losses import style
from nada_jax.losses.style import KINDS

ALL = jnp.ones((1, 1, 2))


def statistics(kind, x, weights=None):
    """Of features [b, h, w, c], as a target."""
    weights = jnp.ones((1, *x.shape[1:3])) if weights is None else weights
    return KINDS[kind].target(KINDS[kind].statistics(KINDS[kind].sums(x, weights)))


@pytest.fixture
def features():
    """Features of two images, [2, 6, 5, 8]."""
    return jax.random.normal(jax.random.key(0), (2, 6, 5, 8)) * 3 + 1


def test_content_and_variation_of_a_few_pixels():
    x = jnp.array([[[[0.0], [3.0]], [[1.0], [1.0]]]])  # rows 0 3 and 1 1
    np.testing.assert_allclose(style.content(x, jnp.zeros_like(x)), [11 / 4])
    # Downwards 1 and 2, to the right 3 and 0.
    np.testing.assert_allclose(style.total_variation(x), [(1 + 4 + 9) / 4])


@pytest.mark.parametrize("shape", [(1, 5, 1, 3), (1, 1, 5, 3), (1, 1, 1, 3)])
def test_variation_of_images_one_pixel_wide_is_finite(shape):
    value, gradient = jax.value_and_grad(lambda x: style.total_variation(x).sum())(jnp.ones(shape))
    assert value == 0 and not gradient.any()


def test_a_gram_matrix_by_hand():
    x = jnp.array([[[[1.0, 2.0], [3.0, 0.0]]]])  # two positions, two channels
    found = statistics("gram", x)["gram"]
    np.testing.assert_allclose(found, [np.array([[10, 2], [2, 4]]) / 4])
    other = {"gram": jnp.zeros((1, 2, 2))}
    distance = style.gram_distance(statistics("gram", x), other)
    np.testing.assert_allclose(distance, [(6.25 + 0.25 + 0.25 + 1) / 4])


def test_means_and_deviations_by_hand():
    x = jnp.array([[[[1.0, 2.0], [3.0, 2.0]]]])
    found = statistics("mean_variance", x)
    np.testing.assert_allclose(found["mean"], [[2, 2]])
    np.testing.assert_allclose(found["deviation"], [[1, 0.01]], atol=1e-3)


def test_the_distance_of_gaussians_in_one_dimension_is_that_of_means_and_deviations():
    x, y = jnp.array([[[[0.0], [2.0]]]]), jnp.array([[[[1.0], [9.0]]]])  # 1 +- 1 and 5 +- 4
    distance = style.wasserstein(statistics("wasserstein", x), statistics("wasserstein", y))
    np.testing.assert_allclose(distance, [16 + 9], rtol=1e-5)


def test_kinds_and_gradients_equal_those_of_pytorch(features, assert_close):
    torch = pytest.importorskip("torch")
    b, h, w, c = features.shape
    other = features[::-1] * 0.5 + 1

    def covariance(x):
        centred = x - x.mean(1, keepdim=True)
        return centred.transpose(1, 2) @ centred / (h * w)

    def root(x):
        values, vectors = torch.linalg.eigh(x)
        return vectors * values.clamp(min=0).sqrt()[:, None] @ vectors.transpose(1, 2)

    def gram(x, y):
        grams = [z.transpose(1, 2) @ z / (h * w * c) for z in (x, y)]
        return ((grams[0] - grams[1]) ** 2).mean((1, 2))

    def mean_variance(x, y):
        means = ((x.mean(1) - y.mean(1)) ** 2).mean(1)
        stds = [(z.var(1, correction=0) + style.EPS).sqrt() for z in (x, y)]
        return means + ((stds[0] - stds[1]) ** 2).mean(1)

    def wasserstein(x, y):
        a, d = covariance(x), covariance(y)
        cross = root(root(d) @ a @ root(d)).diagonal(dim1=1, dim2=2).sum(1)
        traces = [z.diagonal(dim1=1, dim2=2).sum(1) for z in (a, d)]
        means = ((x.mean(1) - y.mean(1)) ** 2).sum(1)
        return (means + traces[0] + traces[1] - 2 * cross) / c

    for kind, theirs in zip(KINDS, (gram, mean_variance, wasserstein), strict=True):
        target = statistics(kind, other)

        def ours(x, kind=kind, target=target):
            found = KINDS[kind].statistics(KINDS[kind].sums(x, jnp.ones((1, h, w))))
            return KINDS[kind].distance(found, target)

        x, y = (
            torch.tensor(np.asarray(z, np.float64)).reshape(b, h * w, c) for z in (features, other)
        )
        x.requires_grad_()
        expected = theirs(x, y)
        expected.sum().backward()
        assert_close(ours(features), expected.detach())
        gradient = jax.grad(lambda x: ours(x).sum())(features)  # noqa: B023
        assert_close(gradient.reshape(b, h * w, c), x.grad, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_style_is_at_no_distance_from_itself_wherever_its_parts_stand(kind, features):
    shuffled = features[:, ::-1, ::-1]
    found = KINDS[kind].distance(statistics(kind, shuffled), statistics(kind, features))
    np.testing.assert_allclose(found, 0, atol=1e-4)
    other = KINDS[kind].distance(statistics(kind, features * 2), statistics(kind, features))
    assert (other > 0.1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 3, 4, 8)),
        np.full((1, 3, 4, 8), 5.0),
        np.repeat(np.arange(12.0).reshape(1, 3, 4, 1), 8, axis=3),  # channels alike, as of grey
        np.ones((1, 6, 1, 8)),
        np.ones((1, 1, 1, 8)),
    ],
    ids=["zero", "constant", "grey", "narrow", "pixel"],
)
def test_gradients_are_finite(kind, x, features):
    for target in (features[:1], np.zeros((1, 2, 2, 8)), x):
        wanted = statistics(kind, jnp.asarray(target))

        def loss(x, wanted=wanted):
            found = KINDS[kind].statistics(KINDS[kind].sums(x, jnp.ones((1, *x.shape[1:3]))))
            return KINDS[kind].distance(found, wanted).sum()

        value, gradient = jax.value_and_grad(loss)(jnp.asarray(x, jnp.float32))
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_parts_are_those_of_the_whole(kind, features):
    left = jnp.zeros((1, 6, 5)).at[:, :, :2].set(1)
    parts = jax.tree.map(
        jnp.add, KINDS[kind].sums(features, left), KINDS[kind].sums(features, 1 - left)
    )
    whole = KINDS[kind].sums(features, jnp.ones((1, 6, 5)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), parts, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_mask_leaves_out_does_not_count(kind, features):
    left = jnp.zeros((1, 6, 5)).at[:, :, :2].set(1)
    found = statistics(kind, features, left)
    alone = statistics(kind, features[:, :, :2])
    np.testing.assert_allclose(KINDS[kind].distance(found, alone), 0, atol=1e-4)
    empty = statistics(kind, features, jnp.zeros((1, 6, 5)))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(empty))


def test_variety_counts_directions():
    line = jnp.einsum("p,c->pc", jnp.arange(30.0), jnp.arange(1.0, 9.0)).reshape(1, 5, 6, 8)
    assert style.variety(statistics("wasserstein", line)) == pytest.approx(1, abs=1e-3)
    noise = jax.random.normal(jax.random.key(0), (1, 100, 100, 8))
    assert style.variety(statistics("wasserstein", noise)) == pytest.approx(8, rel=0.01)
    assert style.variety(statistics("wasserstein", line * 0)) == 0
