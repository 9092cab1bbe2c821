import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import mapper as conversion
from nada_jax.errors import UserError
from nada_jax.models.mapper import LEVELS, Mapper, MapperArchitecture
from nada_jax.weights import loading as weights
from nada_jax.weights import native


def made(*levels):
    """A small mapper with random weights; its latents have 6 numbers."""
    architecture = MapperArchitecture(levels, w_dim=6, layers=2)
    random = np.random.default_rng(0)
    arrays = {
        path: 100 * random.standard_normal(shape) for path, shape in architecture.shapes().items()
    }
    return native.model_from_arrays(Mapper, arrays, architecture)


@pytest.fixture
def ws():
    """Two images, ten latents each."""
    return jax.random.normal(jax.random.key(0), (2, 10, 6))


def test_the_edit_matches_the_official_mapper(golden, golden_weights, assert_close):
    reference = golden("styleclip.npz")
    table = golden("shapes_styleclip.json")["levels_mapper"]
    official = golden_weights(table, int(reference["seed"]))
    mapper, _ = conversion.to_native(official, "levels mapper")
    assert mapper.architecture == MapperArchitecture()
    ws = reference["mapper_w"]
    assert_close(mapper.edit(ws, 1.0) - ws, reference["mapper_out"])
    assert_close(mapper.edit(ws), ws + 0.1 * reference["mapper_out"])


@pytest.mark.parametrize(
    "levels", [("coarse",), ("medium", "fine"), ("coarse", "medium", "fine"), ("all",)]
)
def test_only_latents_of_the_levels_that_there_are_move(levels, ws):
    moved = (made(*levels).edit(ws) != ws).any(axis=(0, 2))
    expected = np.zeros(10, bool)
    for level in levels:
        expected[LEVELS[level]] = True
    np.testing.assert_array_equal(moved, expected)


def test_latents_are_normalised_over_their_level_as_in_the_official_code(ws):
    mapper = made("coarse", "medium", "fine")
    edit = lambda ws: mapper.edit(ws) - ws  # noqa: E731
    changed = (edit(ws.at[0, 5].multiply(3)) != edit(ws)).any(axis=2)
    assert changed[0].tolist() == [False] * 4 + [True] * 4 + [False] * 2
    assert not changed[1].any()
    np.testing.assert_allclose(edit(5 * ws), edit(ws), atol=1e-5)


def test_generators_with_few_latents_have_no_fine_ones():
    ws = jnp.ones((1, 6, 6))
    assert jnp.isfinite(made("coarse", "medium", "fine").edit(ws)).all()


@pytest.mark.parametrize("shape", [(2, 6), (2, 10, 5)])
def test_ws_of_a_wrong_shape_are_reported_with_the_right_one(shape):
    with pytest.raises(ValueError, match=r"ws has shape .*; expected \[b, l, 6\]"):
        made("all").edit(jnp.zeros(shape))


@pytest.mark.parametrize("levels", [("fine",), ("coarse", "medium", "fine"), ("all",)])
def test_a_mapper_is_saved_and_loaded_bit_for_bit(levels, tmp_path):
    mapper = made(*levels)
    assert MapperArchitecture.from_shapes(mapper.architecture.shapes()) == mapper.architecture
    native.save_model(mapper, tmp_path / "mapper.safetensors")
    loaded = weights.load_model(Mapper, tmp_path / "mapper.safetensors")
    assert loaded.architecture == mapper.architecture
    jax.tree.map(np.testing.assert_array_equal, loaded, mapper)


@pytest.mark.parametrize(
    ("levels", "held"), [((), "none"), (("coarse", "all"), "coarse, all"), (("rough",), "none")]
)
def test_shapes_of_no_mapper_are_refused(levels, held):
    shapes = {f"{level}.dense_0.weight": (6, 6) for level in levels}
    with pytest.raises(UserError, match=f"not a mapper of StyleCLIP: .*, it has {held}$"):
        MapperArchitecture.from_shapes(shapes)
