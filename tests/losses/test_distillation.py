import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.losses.distillation import distillation


def test_the_gradient_is_the_weighted_residual_over_the_size_of_a_latent(assert_close):
    random = np.random.default_rng(0)
    latents, residual = random.standard_normal((2, 3, 4, 4, 2), np.float32)
    weight = np.array([0.0, 0.5, 2.0], np.float32)
    pull = weight[:, None, None, None] * residual

    def total(latents):
        # Also where the residual depends on the latents: nothing is to go back through it.
        return jnp.sum(distillation(latents, residual + 0 * jnp.sin(latents), weight))

    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(latents)), pull / 32)
    losses = distillation(latents, residual, weight)
    assert losses[0] == 0 and losses.shape == (3,)
    assert_close(losses, (pull**2).mean(axis=(1, 2, 3)) / 2, 1e-6)


def test_nothing_goes_back_through_the_residual():
    latents = jnp.ones((2, 2, 2, 1))
    found = jax.grad(lambda x: jnp.sum(distillation(latents, x, jnp.ones(2))))(latents)
    assert not found.any()
