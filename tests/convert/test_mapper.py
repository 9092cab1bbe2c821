import argparse

import jax
import numpy as np
import pytest

from convert import mapper as conversion
from convert import rules
from nada_jax.errors import UserError
from nada_jax.models.mapper import Mapper, MapperArchitecture
from nada_jax.weights import loading as weights


def official(*networks):
    """A made-up state dict of mappers with these official names; latents have 6 numbers."""
    random = np.random.default_rng(0)
    return {
        f"mapper.{network}.mapping.{n}.{part}": random.standard_normal((6,) * axes, np.float32)
        for network in networks
        for n in (1, 2)
        for part, axes in (("weight", 2), ("bias", 1))
    }


@pytest.fixture
def file(tmp_path):
    """state dict -> an official file of it, with a decoder beside it."""
    torch = pytest.importorskip("torch")

    def write(arrays):
        tensors = {key: torch.tensor(x) for key, x in arrays.items()}
        decoder = {"decoder.input.input": torch.zeros(1, 6, 4, 4)}
        opts = argparse.Namespace(mapper_type="LevelsMapper", no_fine_mapper=True)
        torch.save({"state_dict": tensors | decoder, "opts": opts}, tmp_path / "mapper.pt")
        return tmp_path / "mapper.pt"

    return write


def test_the_table_gives_the_official_keys_and_shapes(golden):
    shapes = MapperArchitecture().shapes()
    native = {path: np.zeros(shape, bool) for path, shape in shapes.items()}
    made, _ = rules.apply(conversion.RULES, native, backward=True)
    expected = golden("shapes_styleclip.json")["levels_mapper"]
    assert {key: list(x.shape) for key, x in made.items()} == expected


@pytest.mark.parametrize(
    ("networks", "levels"),
    [
        (("course_mapping", "medium_mapping", "fine_mapping"), ("coarse", "medium", "fine")),
        (("course_mapping", "medium_mapping"), ("coarse", "medium")),
        (("fine_mapping",), ("fine",)),
        (("mapping",), ("all",)),  # a SingleMapper
    ],
)
def test_a_file_shows_its_levels(networks, levels, file):
    arrays = official(*networks)
    mapper, matches = conversion.read(file(arrays))
    assert mapper.architecture == MapperArchitecture(levels, w_dim=6, layers=2)
    assert {m.source for m in matches} == arrays.keys()
    weight = arrays[f"mapper.{networks[-1]}.mapping.2.weight"]
    np.testing.assert_array_equal(mapper.params[levels[-1]]["dense_1"]["weight"], weight.T)
    loaded = weights.load_model(Mapper, file(arrays))
    jax.tree.map(np.testing.assert_array_equal, loaded, mapper)


def test_missing_unknown_and_misshapen_keys_are_reported_together():
    arrays = official("course_mapping", "fine_mapping")
    del arrays["mapper.course_mapping.mapping.2.bias"]
    arrays["mapper.fine_mapping.mapping.1.bias"] = np.zeros(7, np.float32)
    arrays["mapper.mapper_0.mapping.1.bias"] = np.zeros(6, np.float32)  # of a StyleSpace mapper
    with pytest.raises(UserError) as error:
        conversion.to_native(arrays, "file.pt")
    message = str(error.value)
    assert message.startswith("file.pt does not fit, 3 problems: ")
    for said in (
        "coarse.dense_1.bias (6,) is missing",
        "fine.dense_0.bias has shape (7,), expected (6,)",
        "mapper.mapper_0.mapping.1.bias (6,): no rule takes it",
    ):
        assert said in message


@pytest.mark.parametrize(
    "numbers", [range(26), (0, 2, 3, 5)]
)  # with the layers of RGB, and without
def test_a_mapper_of_style_space_is_refused_by_name(numbers, file):
    arrays = official(*(f"mapper_{n}" for n in numbers))
    with pytest.raises(UserError, match="StyleSpace .FullStyleSpaceMapper or .* LevelsMapper or"):
        conversion.read(file(arrays))


def test_one_network_beside_levels_is_refused():
    with pytest.raises(UserError, match="not a mapper of StyleCLIP: .* it has fine, all"):
        conversion.to_native(official("fine_mapping", "mapping"), "file.pt")


def test_a_layer_of_a_huge_number_is_no_deep_network():
    arrays = official("mapping")
    arrays["mapper.mapping.mapping.1000000000.weight"] = np.zeros((6, 6), np.float32)
    with pytest.raises(
        UserError, match="mapper.mapping.mapping.1000000000.weight .6, 6.: no rule takes it"
    ):
        conversion.to_native(arrays, "file.pt")


def test_a_file_without_a_mapper_is_refused(file):
    with pytest.raises(UserError, match=r"holds no mapper: .*, it has decoder\.input\.input"):
        conversion.read(file({}))
