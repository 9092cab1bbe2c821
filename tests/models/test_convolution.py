import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.models import convolution
from tests.models.reference import random


@pytest.mark.parametrize(
    ("sides", "padding"),
    [
        ((1, 1), 0),
        ((1, 1), 1),
        ((2, 2), 1),
        ((2, 1), (1, 0)),
        ((1, 2), (0, 1)),
        ((3, 3), 1),
        ((3, 3), 0),
    ],
)
def test_the_cpu_gradients_of_conv_are_those_of_lax(assert_close, sides, padding):
    x, kernel = random(2, 6, 7, 3), random(*sides, 3, 4)
    padding = tuple((n, n) for n in np.broadcast_to(padding, 2).tolist())
    layout = ("NHWC", "HWIO", "NHWC")

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)

    ours, pull = jax.vjp(lambda x, kernel: convolution._conv_cpu(x, kernel, padding), x, kernel)
    theirs, expected_pull = jax.vjp(reference, x, kernel)
    assert_close(ours, theirs, 1e-6)
    dy = jnp.asarray(random(*ours.shape))
    for actual, expected in zip(pull(dy), expected_pull(dy), strict=True):
        assert_close(actual, expected, 1e-5)
