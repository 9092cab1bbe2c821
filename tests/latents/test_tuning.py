import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.latents import tuning
from nada_jax.latents.codes import Codes
from nada_jax.latents.projection import Networks, differences, see
from nada_jax.weights import loading

KEYS = jax.random.split(jax.random.key(0), 2)


@pytest.fixture(scope="module")
def networks(tiny_generator, narrow_networks):
    """The tiny generator and a narrow VGG."""
    return Networks(
        tiny_generator, loading.load_lpips(narrow_networks["vgg"], field="lpips.weights")
    )


@pytest.fixture(scope="module")
def task(networks):
    """Pivots, and images a little beside what the generator draws from them."""
    pivots = Codes(ws=jax.random.normal(jax.random.key(1), (2, 6, 8)))
    drawn = pivots.draw(networks.generator)
    ramp = jnp.linspace(-0.3, 0.3, 16)[:, None, None]
    return pivots, see(networks, drawn + ramp)


def tune(networks, task, **fields):
    numbers = {"steps": 40, "lr": 0.003, "enough": 0.0, "locality": 0.0, "radius": 3.0}
    pivots, target = task
    return tuning.tune(networks, target, pivots, keys=KEYS, **numbers | fields)


def losses(networks, task, tuned):
    pivots, target = task
    drawn = jnp.concatenate([pivots[i : i + 1].draw(x) for i, x in enumerate(tuned)])
    return differences(networks, target, drawn)


def test_each_image_gets_weights_of_its_own_and_nothing_else_changes(networks, task):
    tuned = tune(networks, task, lr=0.01)
    before = losses(networks, task, (networks.generator,) * 2)
    after = losses(networks, task, tuned)
    assert np.all(after["mse"] + after["lpips"] < 0.7 * (before["mse"] + before["lpips"]))
    one, other = (x.params["synthesis"]["conv_0"]["weight"] for x in tuned)
    assert np.abs(one - other).max() > 1e-4
    for x in tuned:
        assert jax.tree.all(
            jax.tree.map(np.array_equal, x.params["mapping"], networks.generator.params["mapping"])
        )


def test_an_image_that_is_good_enough_is_tuned_no_further(networks, task):
    before = np.asarray(losses(networks, task, (networks.generator,) * 2)["lpips"])
    enough = float(before.mean())  # one image is there from the start
    near = int(np.argmin(before))
    tuned = tune(networks, task, enough=enough)
    weights, still = (
        x.params["synthesis"]["conv_0"]["weight"] for x in (tuned[near], networks.generator)
    )
    np.testing.assert_array_equal(weights, still)
    after = losses(networks, task, tuned)["lpips"][1 - near]
    assert 0.5 * enough < after <= enough


def test_latents_around_lie_at_the_radius(networks, task):
    pivots = task[0].ws
    near = tuning.around(networks.generator, pivots, 3.0, KEYS)
    np.testing.assert_allclose(np.linalg.norm((near - pivots).reshape(2, -1), axis=1), 3, rtol=1e-5)


def test_locality_keeps_what_lies_around(networks, task):
    near = Codes(ws=tuning.around(networks.generator, task[0].ws, 3.0, KEYS[::-1]))
    before, changed = near.draw(networks.generator), {}
    for locality in (0.0, 3.0):
        tuned = tune(networks, task, locality=locality)
        after = jnp.concatenate([near[i : i + 1].draw(x) for i, x in enumerate(tuned)])
        changed[locality] = float(jnp.mean((after - before) ** 2))
    assert changed[3.0] < 0.8 * changed[0.0]
