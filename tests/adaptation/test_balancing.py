"""Weights of loss terms move as their formulas say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nada_jax.adaptation.balancing import MODES, Balancing

FACTORS = {"directional": 1.0, "l2": 0.25}
TERMS = {"directional": jnp.float32(0.5), "l2": jnp.float32(4.0)}


def descend(mode, steps, lr=0.05):
    """The weights after each step of gradient descent on the logarithms alone, the terms held."""
    balancing = Balancing(mode=mode, lr=lr)
    logs = balancing.init(FACTORS)
    gradient = jax.jit(jax.grad(lambda logs: balancing.total(TERMS, FACTORS, logs)))
    path = []
    for _ in range(steps):
        logs = optax.apply_updates(logs, jax.tree.map(lambda g: -lr * g, gradient(logs)))
        path.append({name: float(jnp.exp(log)) for name, log in logs.items()})
    return path


@pytest.mark.parametrize("mode", MODES)
def test_weights_start_at_the_factors(mode):
    balancing = Balancing(mode=mode, lr=0.1)
    logs = balancing.init(FACTORS)
    assert bool(logs) == (mode != "fixed")
    if logs:
        assert {name: float(jnp.exp(log)) for name, log in logs.items()} == pytest.approx(FACTORS)
    constant = {"fixed": 0, "learned": 0, "uncertainty": -np.log(1.0) - np.log(0.25)}[mode]
    expected = 1.0 * 0.5 + 0.25 * 4.0 + constant
    assert balancing.total(TERMS, FACTORS, logs) == pytest.approx(expected)


def test_learned_weights_fall_by_their_share_of_the_loss_and_end_at_zero():
    path = descend("learned", 3000)
    # d(total) / d(log w) = w L.
    assert np.log(path[0]["l2"] / 0.25) == pytest.approx(-0.05 * 0.25 * 4.0, rel=1e-4)
    assert np.log(path[0]["directional"]) == pytest.approx(-0.05 * 0.5, rel=1e-4)
    for name in FACTORS:
        values = [weights[name] for weights in path]
        assert values == sorted(values, reverse=True) and values[-1] < 0.03


def test_uncertainty_weights_end_at_one_over_the_loss():
    last = descend("uncertainty", 3000)[-1]
    assert last == pytest.approx({"directional": 2.0, "l2": 0.25}, rel=1e-2)
