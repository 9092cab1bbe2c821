"""The native format: what a file holds, and what damaged and hostile files are refused with."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import nada_jax
from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator
from nada_jax.weights import native


@pytest.fixture
def saved(tiny_generator, tmp_path):
    """The tiny generator as a file."""
    nada_jax.save_generator(tiny_generator, tmp_path / "tiny.safetensors", text="a sketch")
    return tmp_path / "tiny.safetensors"


def test_the_header_holds_the_architecture_and_the_facts(saved):
    with safetensors.safe_open(saved, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["text"] == "a sketch"
    assert '"channels": [6, 5, 4]' in metadata["architecture"]
    assert metadata["format"] == "nada_jax generator"


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(UserError, match=r"tiny.safetensors is not a whole safetensors file"):
        nada_jax.load_generator(saved)


def test_a_foreign_safetensors_file_is_refused(saved):
    safetensors.numpy.save_file({"x": np.zeros(3)}, saved)
    with pytest.raises(UserError, match=r"tiny.safetensors .* not one of the kind generator"):
        nada_jax.load_generator(saved)


def test_arrays_that_do_not_fit_are_all_named(tiny_generator):
    arrays = native.model_to_arrays(tiny_generator)
    del arrays["noise.conv_2"]
    arrays |= {"extra": np.zeros(2), "latent_avg": np.zeros(9)}
    with pytest.raises(UserError) as error:
        native.model_from_arrays(Generator, arrays)
    for said in (
        "noise.conv_2 (8, 8) is missing",
        "extra (2,) has no place in the model",
        "latent_avg has shape (9,), expected (8,)",
    ):
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(np.nan, "holds NaN or infinity"), (np.inf, "holds NaN"), (1, "holds int64, expected floats")],
)
def test_a_file_whose_values_are_no_weights_names_them(wrong, said, saved):
    arrays, metadata = files.read_safetensors(saved)
    files.write_safetensors(saved, arrays | {"latent_avg": np.full(8, wrong)}, metadata)
    with pytest.raises(UserError, match=f"tiny.safetensors: .*latent_avg {said}"):
        nada_jax.load_generator(saved)


def test_another_ending_is_not_written(tiny_generator, tmp_path):
    with pytest.raises(UserError, match=r"x.npz does not end in .safetensors"):
        nada_jax.save_generator(tiny_generator, tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_reported(tiny_generator, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "x.safetensors").mkdir()
    for place in ("file/x.safetensors", "x.safetensors"):
        with pytest.raises(UserError, match=f"cannot write .*{place}"):
            nada_jax.save_generator(tiny_generator, tmp_path / place)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "x.safetensors"}


@pytest.mark.parametrize(
    "wild",
    [
        {"conv_clamp": "x"}, {"conv_clamp": True}, {"conv_clamp": -1.0}, {"channels": []},
        {"channels": [4] * 65}, {"channels": [6, 5, 4.0]}, {"channels": [[6], [5], [4]]},
        {"mapping_layers": 10**9}, {"mapping_layers": True}, {"z_dim": None}, {"w_dim": "8"},
    ],
)  # fmt: skip
def test_a_header_that_a_stranger_wrote_is_checked(wild, saved, tmp_path):
    arrays, metadata = files.read_safetensors(saved)
    described = json.dumps(json.loads(metadata["architecture"]) | wild)
    path = tmp_path / "wild.safetensors"
    files.write_safetensors(path, arrays, metadata | {"architecture": described})
    with pytest.raises(UserError, match="wild.safetensors.* describes no generator"):
        nada_jax.load_generator(path)


@pytest.mark.parametrize("text", ["[" * 10**5, "3", "{", ""])
def test_a_header_that_is_no_table_is_reported(text, saved, tmp_path):
    arrays, metadata = files.read_safetensors(saved)
    path = tmp_path / "wild.safetensors"
    files.write_safetensors(path, arrays, metadata | {"architecture": text})
    with pytest.raises(UserError, match="wild.safetensors.* describes no generator"):
        nada_jax.load_generator(path)
