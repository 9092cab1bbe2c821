import jax.numpy as jnp
import numpy as np

from nada_jax.losses.identity import identity


def test_identity_is_0_for_equal_1_for_unrelated_and_2_for_opposite_faces():
    source = jnp.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])
    features = jnp.array([[0.6, 0.8], [0.0, 1.0], [0.0, -1.0]])
    np.testing.assert_allclose(identity(source, features), [0, 1, 2], atol=1e-6)
