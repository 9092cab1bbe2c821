"""Low-rank factors, which train in place of a generator's parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.adaptation.freezing.strategy import ALWAYS


def test_factors_start_as_nothing_and_add_their_product(tiny_generator, make_settings):
    freeze = make_settings({"freeze.strategy": "low_rank", "freeze.rank": 2}).freeze
    source = tiny_generator.params
    factors = freeze.row.prepare(source, freeze, jax.random.key(0))
    merged = freeze.row.merge(source, factors)
    for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(source), strict=True):
        assert a is b or np.array_equal(a, b)
    i, o = source["synthesis"]["conv_1"]["weight"].shape[2:]
    down, up = factors["conv_1"]["down"], factors["conv_1"]["up"]
    assert down.shape == (9 * i, 2) and up.shape == (2, o)
    merged = freeze.row.merge(source, factors | {"conv_1": {"down": down, "up": jnp.ones((2, o))}})
    change = merged["synthesis"]["conv_1"]["weight"] - source["synthesis"]["conv_1"]["weight"]
    expected = np.repeat(np.asarray(down).sum(axis=1)[:, None], o, axis=1)
    np.testing.assert_allclose(change.reshape(9 * i, o), expected, atol=1e-5)
    assert merged.keys() == source.keys()


def test_all_factors_train_and_nothing_else(tiny_generator, make_settings):
    freeze = make_settings({"freeze.strategy": "low_rank"}).freeze
    factors = freeze.row.prepare(tiny_generator.params, freeze, jax.random.key(0))
    labels = freeze.row.labels(tiny_generator.params, freeze)
    assert jax.tree.structure(labels) == jax.tree.structure(factors)
    assert set(jax.tree.leaves(labels)) == {ALWAYS}
    assert set(factors) == {name for name in tiny_generator.params["synthesis"] if "conv" in name}
