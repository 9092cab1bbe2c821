"""Deltas in StyleSpace: what they do to styles, and which generators they fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.errors import UserError
from nada_jax.models.style_delta import DeltaArchitecture, StyleDelta, between, shift
from nada_jax.models.stylegan2 import Architecture
from nada_jax.weights import loading as weights
from nada_jax.weights import native


@pytest.fixture
def delta(tiny_generator):
    """Offsets of all kinds for the tiny generator."""
    architecture = between(tiny_generator, tiny_generator).architecture
    offsets = {
        name: jax.random.normal(jax.random.key(i), shape)
        for i, (name, shape) in enumerate(architecture.shapes().items())
    }
    return StyleDelta(offsets, architecture)


def test_a_delta_moves_the_styles_of_convolutions_for_every_latent_alike(tiny_generator, delta):
    ws = jax.random.normal(jax.random.key(0), (3, 8))
    before, after = tiny_generator.styles(ws), shift(tiny_generator, 0.5 * delta).styles(ws)
    assert before.keys() > delta.offsets.keys()
    for name, styles in before.items():
        offset = 0.5 * delta.offsets.get(name, jnp.zeros(()))
        np.testing.assert_allclose(after[name], styles + offset, atol=1e-5)


def test_deltas_are_added_scaled_and_found_again(tiny_generator, delta):
    moved = shift(tiny_generator, delta + -0.25 * delta)
    found = between(tiny_generator, moved)
    for name, offset in delta.offsets.items():
        np.testing.assert_allclose(found.offsets[name], 0.75 * offset, atol=1e-6)


def test_a_delta_fits_its_own_generators_alone(tiny_generator, random_generator, delta, tmp_path):
    other = random_generator(Architecture(channels=(6, 5, 3), z_dim=7, w_dim=8, mapping_layers=2))
    with pytest.raises(UserError, match=r"widths \(6, 6, 5, 5, 4\), but the generator has"):
        shift(other, delta)
    file = tmp_path / "delta.safetensors"
    native.save_model(delta, file)
    with pytest.raises(UserError, match=r"delta.safetensors: the style delta is for convolutions"):
        weights.load_generator("avatar64", deltas=[file])
    with pytest.raises(
        UserError, match=r"generator.scales is \(1, 2\); expected a number for each"
    ):
        weights.load_generator("avatar64", deltas=[file], scales=(1, 2))
    with pytest.raises(UserError, match="generator.deltas='nowhere.safetensors' does not exist"):
        weights.load_generator("avatar64", deltas=["nowhere.safetensors"])
    generator_file = weights.find_generator("avatar64")
    with pytest.raises(UserError, match="not one of the kind style delta"):
        weights.load_generator("avatar64", deltas=[generator_file])


def test_the_shapes_show_the_architecture(delta):
    shapes = delta.architecture.shapes()
    assert DeltaArchitecture.from_shapes(shapes) == delta.architecture
    with pytest.raises(UserError, match="not a style delta"):
        DeltaArchitecture.from_shapes({"conv_1": (3,)})
