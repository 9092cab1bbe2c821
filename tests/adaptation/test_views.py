"""Random views of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.adaptation import views
from nada_jax.adaptation.views import Views
from nada_jax.models import convolution
from tests.models.reference import random


def ramp(side=8):
    """Each pixel holds its row and its column, and 1."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    return jnp.stack([rows, columns, np.ones_like(rows)], axis=-1)[None]


def view(scale=1.0, degrees=0.0, centre=(0.5, 0.5), color=None):
    """One view."""
    color = None if color is None else jnp.full((1, 3), color)
    return Views(jnp.array([scale]), jnp.deg2rad(jnp.array([degrees])), jnp.array([centre]), color)


def test_the_plain_view_changes_nothing(assert_close):
    assert_close(views.show(ramp(), view()), ramp(), 1e-6)
    assert_close(views.show(ramp(), view(color=0.3)), ramp(), 1e-6)


def test_zooming_shows_a_quarter_at_twice_the_size(assert_close):
    shown = views.show(ramp(), view(scale=2.0, centre=(0.25, 0.75)))[0]
    inner = slice(1, 7)
    assert_close(shown[inner, 0, 0], np.arange(8)[inner] / 2 - 0.25, 1e-5)
    assert_close(shown[0, inner, 1], np.arange(8)[inner] / 2 + 3.75, 1e-5)


def test_a_quarter_turn_turns(assert_close):
    assert_close(views.show(ramp(), view(degrees=90.0)), jnp.rot90(ramp(), 3, (1, 2)), 1e-5)


def test_beyond_the_image_its_edge_is_repeated_or_a_colour_is_shown(assert_close):
    moved = view(centre=(0.0, 0.5))  # half of it lies above the image
    edge = views.show(ramp(), moved)[0]
    assert_close(edge[:4, :, 1], np.tile(np.arange(8.0), (4, 1)), 1e-5)
    assert float(jnp.abs(edge[:4, :, 0]).max()) == 0
    colored = views.show(ramp(), moved.replace(color=jnp.full((1, 3), -0.5)))[0]
    assert_close(colored[:3], jnp.full((3, 8, 3), -0.5), 1e-5)
    assert_close(colored[5:, :, 0], edge[5:, :, 0], 1e-5)


@pytest.fixture
def limits(make_settings):
    """limits(zoom=2.0) -> the section of the config."""
    return lambda **fields: make_settings({f"clip.{name}": x for name, x in fields.items()}).clip


def test_draws_stay_within_their_limits_and_fill_them(limits):
    clip = limits(zoom=1.35, rotate=20.0, shift=0.1, background="random")
    drawn = views.draw(jax.random.key(1), 500, clip)
    degrees = np.rad2deg(drawn.angle)
    reach = np.abs(drawn.centre - 0.5) - (1 - 1 / drawn.scale[:, None]) / 2
    for values, low, high in (
        (drawn.scale, 1.0, 1.35), (degrees, -20.0, 20.0), (drawn.color, -1.0, 1.0),
    ):  # fmt: skip
        spread = high - low
        assert low <= values.min() < low + 0.05 * spread
        assert high - 0.05 * spread < values.max() <= high + 1e-5
    assert reach.max() <= 0.1 + 1e-6 and drawn.centre.max() > 0.6
    still = views.draw(jax.random.key(1), 5, limits())
    assert clip.moves and not limits().moves
    assert still.color is None
    np.testing.assert_allclose(still.centre, 0.5)


@pytest.mark.parametrize("background", views.BACKGROUNDS)
def test_gradients_are_finite(background, limits):
    clip = limits(zoom=1.5, rotate=30.0, shift=0.2, background=background)
    drawn = views.draw(jax.random.key(0), 1, clip)
    gradient = jax.grad(lambda x: jnp.sum(views.show(x, drawn) ** 2))(ramp())
    assert bool(jnp.isfinite(gradient).all()) and bool(jnp.any(gradient != 0))


def test_a_pair_embedded_in_one_call_has_the_features_of_two(monkeypatch, assert_close):
    pair = [random(3, 8, 8, 3), random(3, 8, 8, 3)]
    calls = []

    def embed(images):
        calls.append(len(images))
        return images.mean((1, 2))

    expected = views.embed_pair(embed, pair, low_memory=False)
    monkeypatch.setattr(convolution, "on_cpu", lambda: False)
    together = views.embed_pair(embed, pair, low_memory=False)
    apart = views.embed_pair(embed, pair, low_memory=True)
    assert calls == [3, 3, 6, 3, 3]
    many = [random(views.ONE_CALL + 1, 4, 4, 3)] * 2
    views.embed_pair(embed, many, low_memory=False)
    assert calls[5:] == [len(many[0])] * 2  # a full device gains nothing
    for features in (together, apart):
        for actual, right in zip(features, expected, strict=True):
            assert_close(actual, right, 1e-6)
