import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import stylegan2 as conversion
from nada_jax.models.stylegan2 import Generator, mean_latent

draw = jax.jit(Generator.synthesize, static_argnums=2)


@pytest.fixture(scope="module")
def reference(golden):
    return golden("generator.npz")


@pytest.fixture(scope="module")
def generator(reference, golden_weights):
    """The official 256-pixel generator, channel multiplier 1, with seeded weights."""
    official = golden_weights("generator 256 cm1", int(reference["seed"]))
    official["latent_avg"] = reference["latent_avg"]
    return conversion.to_native(official, "generator 256 cm1")[0]


@pytest.fixture(scope="module")
def w(generator, reference):
    return generator.map(reference["z"]), generator.map(reference["z2"])


@pytest.fixture(scope="module")
def strided(reference):
    """Our images as the reference stores them: NCHW, every stride-th pixel."""
    stride = int(reference["stride"])
    return lambda images: images.transpose(0, 3, 1, 2)[:, :, ::stride, ::stride]


@pytest.fixture
def ws(tiny_generator):
    """One latent per layer for two images."""
    shape = (2, tiny_generator.num_layers, tiny_generator.architecture.w_dim)
    return jax.random.normal(jax.random.key(2), shape)


# -- against the official implementation --------------------------------------------------------------


def test_mapping_matches_the_official_generator(w, reference, assert_close):
    assert_close(w[0], reference["w"])


def test_images_match_the_official_generator(generator, w, reference, strided, assert_close):
    images = draw(generator, w[0])
    assert_close(strided(images), reference["image"])
    assert_close(images.mean(axis=(1, 2, 3)), reference["image_mean"])
    assert_close(images.reshape(2, -1).std(axis=1), reference["image_std"])


def test_truncation_matches(generator, w, reference, strided, assert_close):
    images = draw(generator, generator.truncate(generator.broadcast(w[0]), 0.7))
    assert_close(strided(images), reference["image_truncated"])


def test_mixing_matches(generator, w, reference, strided, assert_close):
    images = draw(generator, generator.mix(*w, 4))
    assert_close(strided(images), reference["image_mixed_at_4"])


def test_w_plus_and_its_gradient_match(generator, reference, strided, assert_close):
    def mean_square(ws, generator):
        images = generator.synthesize(ws)
        return jnp.mean(images**2), images

    gradient = jax.jit(jax.grad(mean_square, has_aux=True))
    dws, images = gradient(jnp.asarray(reference["w_plus"]), generator)
    assert_close(strided(images), reference["image_w_plus"])
    assert_close(dws, reference["grad_w_plus_of_mean_square"], 1e-3)


# -- drawing ------------------------------------------------------------------------------------------


def test_w_and_w_plus_of_the_same_latent_draw_the_same(tiny_generator):
    w = tiny_generator.map(jax.random.normal(jax.random.key(3), (2, 7)))
    expected = draw(tiny_generator, jnp.repeat(w[:, None], 6, axis=1))
    np.testing.assert_array_equal(draw(tiny_generator, w), expected)


def test_every_latent_reaches_the_image_and_only_its_own(tiny_generator, ws):
    brightness = lambda ws: tiny_generator.synthesize(ws).sum(axis=(1, 2, 3))  # noqa: E731
    influence = jax.jit(jax.jacrev(brightness))(ws)
    assert (jnp.abs(influence).max(axis=-1)[jnp.arange(2), jnp.arange(2)] > 0).all()
    assert not influence[0, 1].any() and not influence[1, 0].any()


def test_stylespace_round_trip(tiny_generator, ws):
    styles = jax.jit(Generator.styles)(tiny_generator, ws)
    convs = {"conv_0": 6, "conv_1": 6, "conv_2": 5, "conv_3": 5, "conv_4": 4}
    rgbs = {"to_rgb_0": 6, "to_rgb_1": 5, "to_rgb_2": 4}
    assert {name: style.shape for name, style in styles.items()} == {
        name: (2, width) for name, width in (convs | rgbs).items()
    }
    images = jax.jit(Generator.synthesize_styles)(tiny_generator, styles)
    np.testing.assert_array_equal(images, draw(tiny_generator, ws))


def test_noise_is_const_none_or_drawn_from_a_key(tiny_generator, ws, assert_close):
    same = jnp.broadcast_to(ws[:1], ws.shape)
    const, none = draw(tiny_generator, same, "const"), draw(tiny_generator, same, "none")
    one, again, other = (
        jax.jit(Generator.synthesize)(tiny_generator, same, jax.random.key(seed))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(const[0], const[1])  # one buffer for all images
    assert (one[0] != one[1]).any()  # fresh noise for each image
    for a, b in ((const, none), (const, one), (none, one), (one, other)):
        assert jnp.abs(a - b).max() > 0.01
    silenced = tiny_generator.replace(noise=jax.tree.map(jnp.zeros_like, tiny_generator.noise))
    assert_close(draw(silenced, same, "const"), none, 1e-5)


def test_bfloat16_is_close_to_float32_and_sums_colours_in_float32(tiny_generator, ws, assert_close):
    low = tiny_generator.replace(precision="bfloat16")
    images, expected = draw(low, ws), draw(tiny_generator, ws)
    assert images.dtype == jnp.float32
    assert_close(images, expected, 0.05)
    assert (images != expected).any()
    assert (images != images.astype(jnp.bfloat16)).any()
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype("float32")}


def test_a_generator_passes_through_jit_grad_and_tree_map(tiny_generator, ws):
    @jax.jit
    def loss(generator):
        return jnp.mean(generator.synthesize(ws) ** 2)

    gradient = jax.jit(jax.grad(loss))(tiny_generator)
    assert gradient.architecture == tiny_generator.architecture
    moved = jax.tree.map(lambda x, dx: x - 0.01 * dx, tiny_generator, gradient)
    assert loss(moved) < loss(tiny_generator)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient.params["mapping"]))
    twin = jax.tree.map(lambda x: x + 0, tiny_generator)
    traced = jax.jit(Generator.map)
    traced(tiny_generator, jnp.zeros((1, 7)))
    traced(twin, jnp.zeros((1, 7)))
    assert traced._cache_size() == 1


def test_truncation_pulls_towards_the_average(tiny_generator, ws, assert_close):
    np.testing.assert_array_equal(
        tiny_generator.truncate(ws, 0.0), jnp.broadcast_to(tiny_generator.latent_avg, ws.shape)
    )
    assert_close(tiny_generator.truncate(ws, 1.0), ws, 1e-6)
    assert_close(
        tiny_generator.truncate(ws, 0.25), tiny_generator.latent_avg * 0.75 + ws * 0.25, 1e-6
    )


def test_mixing_crosses_over_per_image(tiny_generator):
    ones, twos = jnp.ones((3, 8)), jnp.full((3, 8), 2.0)
    mixed = tiny_generator.mix(ones, twos, jnp.array([0, 4, 6]))
    assert mixed[:, :, 0].tolist() == [[2] * 6, [1, 1, 1, 1, 2, 2], [1] * 6]


def test_the_mean_latent_is_the_mean_of_mapped_samples(tiny_generator):
    w = tiny_generator.map(jax.random.normal(jax.random.key(5), (20_000, 7)))
    mean = mean_latent(tiny_generator, jax.random.key(6), samples=20_000)
    assert (jnp.abs(mean - w.mean(axis=0)) < 6 * w.std(axis=0) / 100).all()


# -- wrong input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 7), (8,), (2, 5, 8), (2, 6, 7), (1, 2, 6, 8)])
def test_ws_of_a_wrong_shape_are_reported_with_the_right_one(tiny_generator, shape):
    with pytest.raises(ValueError) as error:
        tiny_generator.synthesize(jnp.zeros(shape))
    assert f"ws has shape {shape}; expected [b, 8] or [b, 6, 8]" in str(error.value)


def test_an_unknown_noise_is_reported_with_the_known_ones(tiny_generator, ws):
    with pytest.raises(ValueError, match='noise is \'random\'; expected "const", "none", a PRNG'):
        tiny_generator.synthesize(ws, "random")
