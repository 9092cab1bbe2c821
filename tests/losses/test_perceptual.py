import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.losses import perceptual

RIGHT, UP = jnp.array([[[[3.0, 0.0]]]]), jnp.array([[[[0.0, 0.5]]]])  # [1, 1, 1, 2]


def test_orthogonal_features_are_as_far_apart_as_their_channels_weigh():
    assert perceptual.lpips([RIGHT], [UP], [jnp.array([2.0, 5.0])]) == pytest.approx(7.0)


def test_the_length_of_features_does_not_count():
    assert perceptual.lpips([RIGHT], [RIGHT * 100], [jnp.ones(2)]) == pytest.approx(0, abs=1e-12)


def test_layers_add_up_and_places_are_averaged_for_each_image():
    half = jnp.concatenate([UP, RIGHT], axis=2)  # one of two places differs
    a = [jnp.concatenate([RIGHT, UP]), jnp.repeat(RIGHT, 2, axis=2)]
    b = [jnp.concatenate([RIGHT, RIGHT]), half]
    weights = [jnp.array([1.0, 1.0]), jnp.array([3.0, 1.0])]
    np.testing.assert_allclose(perceptual.lpips(a, b, weights), [2.0, 4.0], rtol=1e-6)


def test_dead_features_are_0_apart_and_have_a_finite_gradient():
    dead, weights = jnp.zeros((1, 2, 2, 3)), [jnp.ones(3)]
    value, gradient = jax.value_and_grad(lambda x: perceptual.lpips([x], [dead], weights).sum())(
        dead
    )
    assert value == 0 and (gradient == 0).all()
    gradient = jax.grad(lambda x: perceptual.lpips([x], [dead + 1], weights).sum())(dead)
    assert jnp.isfinite(gradient).all() and gradient.any()
