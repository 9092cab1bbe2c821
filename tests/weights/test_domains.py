"""Which generators a user means, and what they are called."""

import shutil

import numpy as np
import pytest

from nada_jax.errors import UserError
from nada_jax.models.style_delta import between
from nada_jax.models.stylegan2 import Architecture
from nada_jax.weights import domains, native
from nada_jax.weights.lineage import Lineage


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_file):
    """A folder with the runs of two recipes, and a file of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/nada_sketch/generator", "runs/nada_joker_ffhq/generator", "vampire"):
        file = tmp_path / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_file, file)
    return tmp_path


def test_recipes_folders_and_files_are_found_and_named(here, tiny_generator):
    given = (
        "sketch",
        "runs/nada_joker_ffhq",
        "vampire.safetensors",
        "runs/nada_sketch/generator.safetensors",
    )
    found = domains.load(given, tiny_generator, "tiny")
    assert {name: str(path) for name, (_, path) in found.items()} == {
        "sketch": "runs/nada_sketch/generator.safetensors",
        "joker_ffhq": "runs/nada_joker_ffhq/generator.safetensors",
        "vampire": "vampire.safetensors",
        "sketch_2": "runs/nada_sketch/generator.safetensors",
    }


def test_a_file_of_this_name_comes_before_the_recipe(here, tiny_file):
    shutil.copy(tiny_file, here / "sketch")
    assert str(domains.find("sketch")) == "sketch"


def test_a_style_delta_is_added_to_the_source(here, tiny_generator):
    delta = between(tiny_generator, tiny_generator)
    delta = delta.replace(offsets={name: x + 0.5 for name, x in delta.offsets.items()})
    native.save_model(delta, here / "runs/vampires/style_delta.safetensors")
    ((name, (shifted, _)),) = domains.load(
        ["runs/vampires/style_delta.safetensors"], tiny_generator, "tiny"
    ).items()
    assert name == "vampires"
    ws = np.ones((1, 8), np.float32)
    before, after = tiny_generator.styles(ws), shifted.styles(ws)
    np.testing.assert_allclose(after["conv_1"], before["conv_1"] + 0.5, atol=1e-5)


@pytest.mark.parametrize(
    "given, words",
    [
        ("zombie", r"configs/nada_zombie\.py` makes it"),
        ("sketch_ffhq", r"configs/nada_sketch\.py:ffhq` makes it"),
        (
            "nowhere.pt",
            r"has 'nowhere\.pt', which is neither a file nor one of the recipes sketch, ",
        ),
        ("runs", r"has 'runs', a folder without generator\.safetensors"),
        ("", "has ''; expected files of adapted generators, or recipes"),
        ("https://example.org/a.pt", "is an address"),
    ],
)
def test_what_names_no_generator_is_refused(here, given, words):
    with pytest.raises(UserError, match=f"generators .*{words}"):
        domains.find(given)


def test_a_generator_of_another_architecture_is_refused_by_the_name_of_its_file(
    here, tiny_generator, random_generator
):
    other = random_generator(Architecture(channels=(6, 5, 3), z_dim=7, w_dim=8, mapping_layers=2))
    native.save_model(other, here / "other.safetensors")
    native.save_model(between(other, other), here / "delta.safetensors")
    words = (
        r"has 'other\.safetensors', whose .*\(6, 5, 3\).* generator\.weights='tiny' .*\(6, 5, 4\)"
    )
    with pytest.raises(UserError, match=words):
        domains.load(["vampire.safetensors", "other.safetensors"], tiny_generator, "tiny")
    with pytest.raises(UserError, match=r"has 'delta\.safetensors': the style delta is for"):
        domains.load(["delta.safetensors"], tiny_generator, "tiny")


def test_a_generator_that_came_from_another_source_is_named(here, tiny_generator, recwarn):
    header = Lineage("other.pt", ("photo", "vampire"), ("clip",)).header()
    native.save_model(tiny_generator, here / "vampire.safetensors", **header)
    domains.load(["vampire.safetensors"], tiny_generator, "other.pt")
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"adapted from 'other\.pt' and not from .*'mine\.pt'"):
        domains.load(["vampire.safetensors"], tiny_generator, "mine.pt")
