import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import invert as configs
from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import projection
from nada_jax.latents.inversion import METHODS, Invert, Networks, invert
from nada_jax.latents.spaces import SPACES
from nada_jax.models.encoder import Encoder, EncoderArchitecture
from nada_jax.runs.items import listing
from nada_jax.weights import loading
from nada_jax.weights.native import model_from_arrays

KEYS = jax.random.split(jax.random.key(0), 3)


def settings(**fields):
    """Settings of few steps."""
    few = {"steps": 12, "pivot_steps": 12, "tuning_steps": 12, "tuning_lr": 0.01, "enough": 0.0}
    return Invert(**configs.get_config().invert.to_dict() | few | fields)


@functools.cache
def small_encoder(iterative=False):
    """An encoder of random weights for the tiny generator."""
    architecture = EncoderArchitecture(
        in_channels=6 if iterative else 3, stem=4, widths=(4, 6), reduction=2,
        heads=(2,) * 6, w_dim=8, pyramid=False, image_size=16,
    )  # fmt: skip
    random, arrays = np.random.default_rng(0), {}
    for path, shape in architecture.shapes().items():
        x = random.standard_normal(shape, np.float32) * 0.3
        arrays[path] = np.abs(x) + 0.5 if path.endswith(("var", "scale")) else x
    return model_from_arrays(Encoder, arrays, architecture)


@pytest.fixture(scope="module")
def networks(tiny_generator, narrow_networks):
    """The tiny generator, a narrow VGG and an encoder."""
    lpips = loading.load_lpips(narrow_networks["vgg"], field="lpips.weights")
    return Networks(tiny_generator, lpips, small_encoder())


@pytest.fixture(scope="module")
def drawn():
    """Smooth images [3, 16, 16, 3] that the tiny generator does not draw."""
    small = jax.random.uniform(jax.random.key(1), (3, 3, 3, 3), minval=-1, maxval=1)
    return np.asarray(jax.image.resize(small, (3, 16, 16, 3), "cubic"))


# -- the projector's parts --------------------------------------------------------------------------------


def test_noise_is_regularised_as_officially():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    noise = {
        f"conv_{i}": random.standard_normal((2, n, n), np.float32) for i, n in enumerate((4, 8, 32))
    }
    found = projection.roughness(noise)
    for i in range(2):
        expected = 0.0
        for buffer in noise.values():
            x = torch.tensor(buffer[i])[None, None]
            while True:
                expected += (x * torch.roll(x, 1, 3)).mean() ** 2
                expected += (x * torch.roll(x, 1, 2)).mean() ** 2
                if x.shape[2] <= 8:
                    break
                x = torch.nn.functional.avg_pool2d(x, 2)
        np.testing.assert_allclose(found[i], expected, rtol=1e-5)


def test_noise_is_renormalised():
    given = {"conv_0": 3 + 2 * np.random.default_rng(0).standard_normal((2, 8, 8))}
    found = np.asarray(projection.renormalise(given)["conv_0"])
    np.testing.assert_allclose(found.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose((found**2).mean(axis=(1, 2)), 1, rtol=1e-5)


def test_the_spread_of_w_is_the_official_one(tiny_generator):
    z = jax.random.normal(jax.random.key(123), (projection.SAMPLES, 7))
    w = np.asarray(tiny_generator.map(z), np.float64)
    mean, spread = projection.spread(tiny_generator)
    np.testing.assert_allclose(mean, w.mean(axis=0), atol=1e-3 * w.std())
    np.testing.assert_allclose(
        spread, (((w - w.mean(axis=0)) ** 2).sum() / len(w)) ** 0.5, rtol=1e-4
    )


@pytest.mark.parametrize("space", ["w", "w+", "style"])
def test_noise_on_latents_is_the_same_in_every_space_and_ends(space, networks, drawn):
    generator = networks.generator
    ws = generator.broadcast(jax.random.normal(jax.random.key(2), (3, 8)))
    target = projection.Target(drawn, None)
    context = projection._Context(networks, target, ws, jnp.float32(0.5), jnp.float32(0))
    shares = jnp.asarray([0.0, 0.375, 0.8])
    noise = projection._w_noise(space, context, shares, KEYS)
    assert np.allclose(noise[:, 0], noise[:, 1]) == (space == "w")
    np.testing.assert_array_equal(noise[2], 0)
    half = projection._w_noise(space, context, jnp.zeros(3), KEYS)[1] / 4
    np.testing.assert_allclose(noise[1], half, rtol=1e-5)
    # In StyleSpace, too, images are drawn as from ws + noise.
    styles = SPACES[space].styles(generator, SPACES[space].start(generator, ws), ws)
    moved, expected = projection._shift(generator, styles, noise), generator.styles(ws + noise)
    for name, x in moved.items():
        np.testing.assert_allclose(x, expected[name], atol=1e-4)


def test_large_images_are_compared_at_256_pixels(networks):
    large = jax.random.uniform(jax.random.key(0), (1, 512, 512, 3))
    pooled = large.reshape(1, 256, 2, 256, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(projection._reduce(large), pooled, atol=1e-6)
    assert projection._reduce(large[:, :64, :64]).shape == (1, 64, 64, 3)


# -- methods ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_found_to_be_the_same_in_any_company(method, networks, drawn):
    chosen = settings(method=method, noise=method in ("w+", "pti"))
    several = invert(networks, drawn, chosen, KEYS)
    # Of the same shape, which is compiled once; tests/tasks/test_invert.py has one alone.
    repeated = np.full(3, 1)
    alone = invert(networks, drawn[repeated], chosen, KEYS[repeated]).one(0)
    row = several.one(1)
    assert several.drawn.shape == drawn.shape and row.drawn.shape == alone.drawn.shape
    for ours, theirs in ((row.drawn, alone.drawn), (row.best, alone.best)):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    for ours, theirs in zip(jax.tree.leaves(row.codes), jax.tree.leaves(alone.codes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-3)
    assert (several.codes.styles is not None) == (method == "style")
    assert bool(several.codes.noise) == chosen.noise
    pivot = {"pivot_mse", "pivot_lpips"} if method == "pti" else set()
    assert several.figures.keys() == {"mse", "lpips"} | pivot


def test_other_keys_find_other_latents(networks, drawn):
    found = [invert(networks, drawn, settings(), keys).codes.ws for keys in (KEYS, KEYS[::-1])]
    assert np.abs(found[0] - found[1])[[0, 2]].max() > 1e-3


def test_pivotal_tuning_is_better_than_w_and_w_plus_at_its_pivot(networks, drawn):
    steps = {"steps": 60, "pivot_steps": 60, "tuning_steps": 60}
    figures = {
        method: invert(networks, drawn, settings(method=method, noise=False, **steps), KEYS).figures
        for method in ("w", "w+", "pti")
    }
    for name in ("mse", "lpips"):
        np.testing.assert_allclose(figures["pti"][f"pivot_{name}"], figures["w"][name], rtol=1e-3)
        for other in ("w", "w+"):
            assert np.all(figures["pti"][name] < figures[other][name])


def test_an_iterative_encoder_draws_its_attempts(networks, drawn):
    ours = networks.replace(encoder=small_encoder(iterative=True))
    one, five = (
        invert(ours.replace(refinements=n), drawn, settings(method="encoder"), KEYS).codes.ws
        for n in (1, 5)
    )
    assert np.abs(one - five).max() > 1e-3


def test_an_optimisation_may_start_from_the_encoder(networks, drawn):
    chosen = settings(start="encoder", lr=1e-9, w_noise=0.0, noise=False)
    np.testing.assert_allclose(
        invert(networks, drawn, chosen, KEYS).codes.ws,
        invert(networks, drawn, settings(method="encoder"), KEYS).codes.ws,
        atol=1e-5,
    )


def test_pixels_alone_are_enough(networks, drawn):
    blind = networks.replace(lpips=None)
    for method in ("w+", "pti"):
        found = invert(blind, drawn, settings(method=method, l2=1.0, noise=False), KEYS)
        assert "lpips" not in found.figures and np.all(np.isfinite(found.best))


@pytest.mark.parametrize(
    "change, fields, words",
    [
        ({"encoder": None}, {"method": "encoder"}, "invert.method is 'encoder'"),
        ({"encoder": None}, {"start": "encoder"}, "invert.start is 'encoder'"),
        ({"lpips": None}, {}, "lpips.weights is '' and invert.l2 is 0"),
    ],
)
def test_networks_that_are_missing_are_named(change, fields, words, networks):
    with pytest.raises(UserError, match=words):
        settings(**fields).check_networks(networks.replace(**change))


def test_networks_that_do_not_fit_are_refused(networks, random_generator):
    other = dataclasses.replace(networks.generator.architecture, channels=(6, 5))
    small = networks.replace(generator=random_generator(other), encoder=None)
    with pytest.raises(UserError, match="draws images of 8 pixels; expected 16 at least"):
        settings().check_networks(small)
    wide = dataclasses.replace(networks.generator.architecture, w_dim=9)
    with pytest.raises(UserError, match="finds 6 latents of 8 numbers, .* takes 6 of 9"):
        settings(method="encoder").check_networks(
            networks.replace(generator=random_generator(wide))
        )


# -- what it finds ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found_again():
    """An image of the embedded generator and a portrait that ships, inverted in W+ by a third of the steps of the config."""
    generator = loading.load_generator("avatar64")
    z = jax.random.normal(jax.random.key(7), (1, generator.architecture.z_dim))
    own = generator.synthesize(generator.truncate(generator.map(z), 0.7))[0]
    real = images.read(listing("avatars")[0].path, generator.size)
    networks = Networks(generator, loading.load_lpips("lpips", field="lpips.weights"))
    jax.config.update("jax_disable_most_optimizations", False)  # as `full_compile`
    fields = configs.get_config().invert
    chosen = Invert(**fields.to_dict() | {"steps": fields.steps // 3})
    assert chosen.method == "w+"
    yield invert(networks, np.stack([own, real]), chosen, KEYS[:2])
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
def test_the_generator_s_own_image_is_found_again(found_again):
    assert found_again.figures["mse"][0] < 0.01


@pytest.mark.slow
def test_a_portrait_is_found_reasonably(found_again):
    assert found_again.figures["mse"][1] < 0.12
    assert found_again.figures["lpips"][1] < 0.1
