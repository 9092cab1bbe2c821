"""Generators put together by their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nada_jax
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture


def filled(generator, value, noise=0.0):
    """The same generator with one number in all parameters, and one in all noise buffers."""
    params = jax.tree.map(lambda x: jnp.full_like(x, value), generator.params)
    buffers = jax.tree.map(lambda x: jnp.full_like(x, noise), generator.noise)
    return generator.replace(params=params, noise=buffers)


def numbers(tree):
    """The values that occur in a tree."""
    return set(np.unique(np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])).tolist())


@pytest.fixture
def three(tiny_generator):
    """A source of 1.0, an adapted generator of 1.5, and a tuned one of 3.0."""
    return (
        filled(tiny_generator, 1.0, 7),
        filled(tiny_generator, 1.5, 8),
        filled(tiny_generator, 3.0, 9),
    )


def test_transfer_adds_the_change_of_the_adaptation_to_the_tuned_generator(three):
    source, adapted, tuned = three
    both = nada_jax.transfer(adapted, source, tuned)
    assert numbers(both.params) == {3.5}
    assert numbers(both.noise) == {9.0}  # those that the tuning has seen
    assert both.architecture == source.architecture


def test_transfer_of_an_untuned_generator_is_the_adapted_one(three):
    source, adapted, _ = three
    assert numbers(nada_jax.transfer(adapted, source, source).params) == {1.5}


@pytest.mark.parametrize(
    "strength, expected", [(0.0, 1.0), (0.5, 1.25), (1.0, 1.5), (2.0, 2.0), (-1.0, 0.5)]
)
def test_strength_leads_from_the_source_through_the_adapted_generator(three, strength, expected):
    source, adapted, _ = three
    between = nada_jax.interpolate(source, adapted, strength)
    assert numbers(between.params) == {expected} and numbers(between.noise) == {7.0}


def test_the_ends_are_exact(tiny_generator):
    other = tiny_generator.replace(
        params=jax.tree.map(lambda x: x * 1.7 + 0.3, tiny_generator.params)
    )
    for strength, end in ((0.0, tiny_generator), (1.0, other)):
        between = nada_jax.interpolate(tiny_generator, other, strength)
        assert all(
            map(np.array_equal, jax.tree.leaves(between.params), jax.tree.leaves(end.params))
        )


def test_generators_of_another_architecture_are_refused(tiny_generator, random_generator):
    wide = random_generator(Architecture(channels=(6, 5, 3), z_dim=7, w_dim=8, mapping_layers=2))
    with pytest.raises(
        UserError, match=r"the adapted generator .*\(6, 5, 3\).* of one architecture"
    ):
        nada_jax.interpolate(tiny_generator, wide, 0.5)
    with pytest.raises(
        UserError, match=r"the adapted generator .*\(6, 5, 3\).* of one architecture"
    ):
        nada_jax.transfer(wide, tiny_generator, tiny_generator)
    with pytest.raises(UserError, match=r"the tuned generator .*\(6, 5, 3\).* of one architecture"):
        nada_jax.transfer(tiny_generator, tiny_generator, wide)
