import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.latents.descent import Descent, ramp


def quadratic(x, context, share, keys):
    """Distance to the targets in the context."""
    losses = jnp.sum((x - context) ** 2, axis=1)
    return losses, {"share": share}


KEYS = jax.random.split(jax.random.key(0), 3)
TARGETS = jnp.asarray([[1.0, -2.0], [0.5, 0.5], [3.0, 1.0]])


def test_the_rate_rises_over_a_twentieth_and_falls_over_the_last_quarter():
    shares = jnp.asarray([0.0, 0.025, 0.05, 0.5, 0.75, 0.875, 1.0])
    np.testing.assert_allclose(ramp(shares), [0, 0.5, 1, 1, 1, 0.5, 0], atol=1e-6)


def test_it_finds_the_minimum_of_every_row():
    x, figures, history = Descent(quadratic).run(
        jnp.zeros((3, 2)), TARGETS, peaks=0.1, steps=200, keys=KEYS
    )
    np.testing.assert_allclose(x, TARGETS, atol=0.02)
    assert figures["loss"].shape == (3,)
    assert [row["step"] for row in history] == [50, 100, 150, 200]


@pytest.mark.parametrize("every", [7, 60])
def test_rows_move_as_they_would_alone(every):
    descent = Descent(quadratic)
    steps, peaks = np.asarray([20, 60, 35]), np.asarray([0.1, 0.02, 0.3])
    together, figures, _ = descent.run(
        jnp.zeros((3, 2)), TARGETS, peaks=peaks, steps=steps, keys=KEYS, every=every
    )
    for i in range(3):
        row = slice(i, i + 1)
        alone, single, _ = descent.run(
            jnp.zeros((1, 2)), TARGETS[row], peaks=peaks[row], steps=steps[row], keys=KEYS[row]
        )
        np.testing.assert_allclose(together[row], alone, atol=1e-6)
        np.testing.assert_allclose(figures["loss"][row], single["loss"], rtol=1e-5)


def test_it_is_adam_with_the_official_schedule():
    import torch

    x = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.1)
    for i in range(40):
        optimizer.param_groups[0]["lr"] = 0.1 * float(ramp(jnp.asarray(i / 40)))
        optimizer.zero_grad()
        ((x - torch.tensor([1.0, -2.0])) ** 2).sum().backward()
        optimizer.step()
    ours, _, _ = Descent(quadratic).run(
        jnp.zeros((1, 2)), TARGETS[:1], peaks=0.1, steps=40, keys=KEYS[:1]
    )
    np.testing.assert_allclose(ours[0], x.detach(), atol=1e-5)


def test_a_row_that_is_good_enough_stays_as_it_is():
    descent = Descent(quadratic, reached=lambda figures: figures["loss"] < 0.1)
    reports = []
    x, figures, _ = descent.run(
        jnp.zeros((3, 2)),
        TARGETS,
        peaks=0.1,
        steps=1000,
        keys=KEYS,
        report=lambda *row: reports.append(row),
    )
    assert np.all(figures["loss"] < 0.1) and np.all(figures["loss"] > 0.01)
    np.testing.assert_allclose(jnp.sum((x - TARGETS) ** 2, axis=1), figures["loss"], rtol=1e-5)
    assert sum(steps for steps, _, _ in reports) < 200  # it ends when all are


def test_projection_is_applied_after_each_step():
    x, _, _ = Descent(quadratic, project=lambda x: jnp.clip(x, -1, 1)).run(
        jnp.zeros((3, 2)), TARGETS, peaks=0.1, steps=100, keys=KEYS
    )
    np.testing.assert_allclose(x, jnp.clip(TARGETS, -1, 1), atol=0.02)
