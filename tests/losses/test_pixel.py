import jax.numpy as jnp
import numpy as np

from nada_jax.losses import pixel


def test_l2_is_the_mean_square_of_each_image():
    source = jnp.zeros((2, 4, 4, 3))
    adapted = source.at[1].set(0.5).at[0, 0, 0, 0].set(1.0)
    np.testing.assert_allclose(pixel.l2(source, adapted), [1 / 48, 0.25], rtol=1e-6)
