"""What networks measure on images, held against the networks themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import evaluate as configs
from nada_jax.evaluation import features
from nada_jax.models.vgg import Vgg
from nada_jax.weights.loading import load_lpips


def test_lpips_of_a_cluster_is_that_of_its_pairs(tiny_generator, narrow_networks):
    vgg = load_lpips(narrow_networks["vgg"], field="lpips.weights")
    ws = np.random.default_rng(0).standard_normal((5, 6, 8)).astype(np.float32)
    labels, random = np.array([0, 0, 0, 1, 1]), np.random.default_rng(0)
    sizes = {"most": 100, "batch_size": 8}
    found = features.within_clusters("lpips", vgg, tiny_generator, ws, labels, random, **sizes)
    images = jax.jit(lambda generator, ws: generator.synthesize(ws))(tiny_generator, ws)
    expected = jax.jit(Vgg.lpips)(vgg, images[jnp.array([0, 3])], images[jnp.array([2, 4])])
    assert found[[0, 3], [2, 4]] == pytest.approx(np.asarray(expected), rel=1e-3)
    assert np.array_equal(found, found.T, equal_nan=True)
    assert np.array_equal(np.isnan(found), (labels[:, None] != labels) | np.eye(5, dtype=bool))


def test_every_network_has_a_section_with_its_weights():
    config = configs.get_config()
    assert all(isinstance(config[name].weights, str) for name in features.NETWORKS)
    assert features.load_networks(dict.fromkeys(features.NETWORKS, "")) == {}
