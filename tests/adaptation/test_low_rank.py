"""Low-rank factors beside a generator's parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.adaptation.freezing import low_rank
from nada_jax.adaptation.freezing import strategies as freezing


def test_factors_start_as_nothing_and_add_their_product(tiny_generator):
    params = low_rank.add(tiny_generator.params, 2, jax.random.key(0))
    own = jax.tree.leaves(tiny_generator.params)
    for a, b in zip(jax.tree.leaves(low_rank.merge(params)), own, strict=True):
        assert a is b or np.array_equal(a, b)
    factors = params["low_rank"]["conv_1"]
    i, o = tiny_generator.params["synthesis"]["conv_1"]["weight"].shape[2:]
    assert factors["down"].shape == (9 * i, 2) and factors["up"].shape == (2, o)
    params["low_rank"]["conv_1"]["up"] = jnp.ones((2, o))
    merged = low_rank.merge(params)
    change = merged["synthesis"]["conv_1"]["weight"] - own_weight(tiny_generator)
    expected = np.repeat(np.asarray(factors["down"]).sum(axis=1)[:, None], o, axis=1)
    np.testing.assert_allclose(change.reshape(9 * i, o), expected, atol=1e-5)
    assert merged.keys() == tiny_generator.params.keys()
    assert low_rank.merge(tiny_generator.params) == tiny_generator.params


def own_weight(generator):
    return generator.params["synthesis"]["conv_1"]["weight"]


def test_labels_train_the_factors_alone(tiny_generator):
    params = low_rank.add(tiny_generator.params, 1, jax.random.key(0))
    labels = freezing.labels(tiny_generator.params, 6, "low_rank")
    assert jax.tree.structure(labels) == jax.tree.structure(params)
    assert set(jax.tree.leaves(labels["low_rank"])) == {"train"}
    assert set(jax.tree.leaves(labels["synthesis"])) == {"frozen"}
