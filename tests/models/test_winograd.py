import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.models import convolution, winograd
from tests.models.reference import random

X, KERNEL = (2, 19, 34, 32), (3, 3, 32, 40)  # no side is one of whole tiles


def reference(x, kernel, padding):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(convolution, "on_cpu", lambda: True)


@pytest.mark.parametrize(
    "size", [winograd.STRIP, 100_000, 1]
)  # one strip, two, one for each row of tiles
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 0), (2, 1))])
def test_values_and_gradients_are_those_of_a_convolution(monkeypatch, assert_close, size, padding):
    monkeypatch.setattr(winograd, "STRIP", size)
    x, kernel = random(*X), random(*KERNEL)
    dy = random(*reference(x, kernel, padding).shape)

    @jax.jit
    def both(x, kernel, dy):
        found = []
        for conv in (winograd.conv, reference):
            y, pull = jax.vjp(lambda *xs, conv=conv: conv(*xs, padding), x, kernel)
            found.append((y, *pull(dy)))
        return found

    ours, theirs = both(x, kernel, dy)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_close(actual, expected, 1e-5)


def test_it_may_be_mapped_scanned_and_computed_again(monkeypatch, assert_close):
    monkeypatch.setattr(winograd, "STRIP", 100_000)
    x, kernel = random(2, *X), random(3, 3, 32, 32)

    def gradient(conv):
        step = jax.checkpoint(lambda y: conv(y, kernel, ((1, 1), (1, 1))))

        def loss(x):
            y, _ = jax.lax.scan(lambda y, _: (step(y), None), x, None, 2)
            return jnp.sum(y**2)

        return jax.jit(jax.vmap(jax.grad(loss)))(x)

    assert_close(gradient(winograd.conv), gradient(reference), 1e-5)


@pytest.mark.parametrize(
    ("x", "kernel", "dtype", "cpu"),
    [
        (X, KERNEL, "float32", False),
        (X, KERNEL, "bfloat16", True),
        ((1, 28, 32, 32), KERNEL, "float32", True),
        ((2, 34, 34, 3), (3, 3, 3, 40), "float32", True),
    ],
)
def test_small_and_other_convolutions_are_computed_as_ever(monkeypatch, x, kernel, dtype, cpu):
    monkeypatch.setattr(convolution, "on_cpu", lambda: cpu)
    x, kernel = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x, kernel))
    programs = (str(jax.make_jaxpr(f)(x, kernel)) for f in (winograd.conv, convolution.conv))
    assert len(set(programs)) == 1


def test_a_row_that_is_not_a_number_does_not_spread_to_others():
    x = np.stack([np.full(X[1:], np.nan, np.float32), random(*X[1:])])
    y = jax.jit(winograd.conv)(x, random(*KERNEL))
    assert jnp.isnan(y[0]).all() and jnp.isfinite(y[1]).all()
