import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.adaptation import prompts, views
from nada_jax.losses import clip as losses


def nhwc(images):
    return jnp.asarray(images.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def pair(golden):
    """The golden images (source, adapted), [3, 96, 96, 3]."""
    return nhwc(golden("clip_losses.npz")["source"]), nhwc(golden("clip_losses.npz")["target"])


@pytest.fixture(scope="module")
def features(golden_clip, pair):
    return [golden_clip.embed_images(images) for images in pair]


@pytest.fixture(scope="module")
def expected(golden_clip, golden):
    """expected("directional") -> the golden array of the clip at hand."""
    return lambda name: golden("clip_losses.npz")[f"{golden_clip.name}_{name}"]


@pytest.fixture(scope="module")
def direction(golden_clip):
    return prompts.text_direction(golden_clip, "photo", "sketch")


def test_directional_matches_the_official_loss(features, direction, expected, assert_close):
    loss = losses.directional(*features, direction)
    assert loss.shape == (3,)
    assert_close(loss.mean(), expected("directional"))


def test_directional_gradient_matches(
    golden_clip, pair, features, direction, expected, assert_close
):
    def loss(images):
        return losses.directional(features[0], golden_clip.embed_images(images), direction).mean()

    assert_close(jax.jit(jax.grad(loss))(pair[1]), nhwc(expected("directional_grad_target")), 1e-3)


def test_global_matches_the_official_loss(golden_clip, features, expected, assert_close):
    text = golden_clip.embed_texts(["a sketch"])[0]
    assert_close(losses.global_(features[1], text).mean(), expected("global"))


def test_angle_is_0_for_a_turned_batch_and_counts_each_pair_that_changed(assert_close):
    random = np.random.default_rng(0)
    source = random.standard_normal((4, 8))
    source /= np.linalg.norm(source, axis=1, keepdims=True)
    turn, _ = np.linalg.qr(random.standard_normal((8, 8)))
    assert float(losses.angle(source, source @ turn).max()) < 1e-10
    collapsed = np.tile(source[:1], (4, 1))
    expected = [
        np.mean([(1 - source[i] @ source[j]) ** 2 for j in range(4) if j != i]) for i in range(4)
    ]
    assert_close(losses.angle(source, collapsed), expected, 1e-5)
    assert losses.angle(source[:1], source[1:2]).tolist() == [0]


def test_manifold_matches_the_official_loss(golden_clip, features, expected, assert_close):
    source, target = (prompts.mean_feature(golden_clip, text) for text in ("photo", "sketch"))
    assert_close(losses.manifold(*features, source @ target).mean(), expected("manifold"))


def test_patch_matches_the_official_loss(golden_clip, pair, expected, assert_close):
    centers = jnp.asarray(expected("patch_size64_centers_xy"))[:, ::-1]
    crops = [golden_clip.embed_images(views.crops(images, centers, 64)) for images in pair]
    directions = prompts.part_directions(golden_clip, "photo", "sketch")
    assert_close(losses.patch(*crops, directions).mean(), expected("patch"))


@pytest.mark.parametrize("distance", [0.0, 1e-7, 1e-4])
def test_directional_is_finite_where_the_images_are_equal(distance):
    direction = jnp.eye(8)[1]
    source = jnp.eye(8)[:2]

    def loss(adapted):
        return losses.directional(source, adapted, direction).mean()

    value, gradient = jax.value_and_grad(loss)(source + distance)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
    if not distance:
        assert value == 1
        # It points along the direction, no steeper than for an edit of ordinary length.
        assert (gradient[:, 1] < 0).all() and jnp.abs(gradient).max() <= 10


def test_patch_is_finite_where_the_images_are_equal():
    source, directions = jnp.eye(8)[:2], jnp.eye(8)[2:6]
    gradient = jax.grad(lambda x: losses.patch(source, x, directions).mean())(source)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1, 4, 5, 6])
def test_crops_lie_within_the_image_and_reach_its_corners(size):
    h, w = 6, 9
    centers = views.crop_centers(jax.random.key(0), 500, h, w, size)
    corners = np.asarray(centers) - size // 2
    assert corners.min(axis=0).tolist() == [0, 0]
    assert corners.max(axis=0).tolist() == [h - size, w - size]
    images = jnp.arange(2 * h * w, dtype=jnp.float32).reshape(2, h, w, 1)
    cut = views.crops(images, centers[:2], size)
    for image, crop, (row, column) in zip(images, cut, corners, strict=False):
        assert (crop == image[row : row + size, column : column + size]).all()
