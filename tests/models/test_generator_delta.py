"""A generator as a low-rank difference to its source."""

import jax
import numpy as np
import pytest

from nada_jax.errors import UserError
from nada_jax.models import generator_delta
from nada_jax.models.generator_delta import DeltaArchitecture

RANK = 2


@pytest.fixture(scope="module")
def adapted(tiny_generator):
    """The tiny generator after a change of rank 2 in one weight, and of one bias."""
    random = np.random.default_rng(0)
    synthesis = dict(tiny_generator.params["synthesis"])
    layer = synthesis["conv_1"]
    *window, columns = layer["weight"].shape
    change = random.normal(size=(np.prod(window), RANK)) @ random.normal(size=(RANK, columns))
    weight = layer["weight"] + change.reshape(layer["weight"].shape).astype(np.float32)
    synthesis["conv_1"] = layer | {"weight": weight, "bias": layer["bias"] + 1}
    return tiny_generator.replace(params=tiny_generator.params | {"synthesis": synthesis})


def test_a_change_of_low_rank_comes_back(tiny_generator, adapted):
    delta = generator_delta.between(tiny_generator, adapted, rank=RANK + 1)
    assert sorted(delta.architecture.ranks) == [0] * (len(delta.architecture.ranks) - 1) + [RANK]
    back = generator_delta.add(tiny_generator, delta)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-4), back, adapted)


def test_a_change_of_higher_rank_becomes_the_nearest(tiny_generator, adapted):
    delta = generator_delta.between(tiny_generator, adapted, rank=1)
    back = generator_delta.add(tiny_generator, delta)
    source, whole, near = (
        np.asarray(x.params["synthesis"]["conv_1"]["weight"]).reshape(-1, 5)
        for x in (tiny_generator, adapted, back)
    )
    values = np.linalg.svd(whole - source, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(whole - near), values[1], rtol=1e-3)


def test_a_delta_needs_its_own_architecture(tiny_generator, adapted, random_generator):
    other = random_generator(tiny_generator.architecture.__class__(channels=(6, 5, 3)))
    delta = generator_delta.between(tiny_generator, adapted, RANK)
    with pytest.raises(UserError, match="the delta is for a generator of"):
        generator_delta.add(other, delta)
    with pytest.raises(UserError, match="differ; expected generators of one architecture"):
        generator_delta.between(tiny_generator, other, RANK)


def test_what_changed_elsewhere_is_refused(tiny_generator):
    moved = tiny_generator.replace(latent_avg=tiny_generator.latent_avg + 1)
    with pytest.raises(UserError, match="changed in latent_avg too"):
        generator_delta.between(tiny_generator, moved, RANK)


@pytest.mark.parametrize("ranks", [(), (1,) * 50, (10**6,) * 11, (-1,) * 11])
def test_ranks_that_no_generator_has_are_refused(ranks):
    with pytest.raises(UserError, match="not a generator delta: it has the ranks"):
        DeltaArchitecture(channels=(6, 5, 4), ranks=ranks)
