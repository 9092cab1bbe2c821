import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.models import convolution
from tests.models.reference import random

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("on_cpu", [True, False])
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
def test_the_gradients_of_conv_are_those_of_lax(assert_close, monkeypatch, sides, padding, on_cpu):
    monkeypatch.setattr(convolution, "on_cpu", lambda: on_cpu)
    x, kernel = random(2, 6, 7, 3), random(*sides, 3, 4)
    padding = tuple((n, n) for n in np.broadcast_to(padding, 2).tolist())

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=LAYOUT)

    ours, pull = jax.vjp(lambda x, kernel: convolution.conv(x, kernel, padding), x, kernel)
    theirs, expected_pull = jax.vjp(reference, x, kernel)
    assert_close(ours, theirs, 1e-6)
    dy = jnp.asarray(random(*ours.shape))
    for actual, expected in zip(pull(dy), expected_pull(dy), strict=True):
        assert_close(actual, expected, 1e-5)


def test_for_gpus_the_kernel_gradient_of_even_kernels_has_its_padding_apart(monkeypatch):
    """XLA for GPUs takes the gradient for a forward convolution otherwise, with the image as its window."""
    monkeypatch.setattr(convolution, "on_cpu", lambda: False)

    def gradient(x, kernel):
        padding = ((1, 1), (1, 1))
        return jax.grad(lambda k: convolution.conv(x, k, padding).sum())(kernel)

    def program(side):
        x, kernel = random(2, 16, 16, 3), random(side, side, 3, 4)
        lowered = jax.jit(gradient).trace(x, kernel).lower(lowering_platforms=("cuda",))
        return lowered.as_text()

    even, odd = program(2), program(3)
    (convolved,) = re.findall(r"stablehlo.convolution\((%\w+), .*pad = (\[\[.*?\]\])", even)
    assert convolved[1] == "[[0, 0], [0, 0]]"
    assert re.search(rf"{convolved[0]} = stablehlo.optimization_barrier", even)
    assert "optimization_barrier" not in odd
