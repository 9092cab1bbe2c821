"""The command line, on a file of every kind that holds a generator as well."""

import argparse

import numpy as np
import pytest

from convert import encoder, kinds, mapper, rules, stylegan2
from convert.__main__ import main
from nada_jax import load_generator
from nada_jax.errors import UserError
from nada_jax.models.encoder import Encoder, EncoderArchitecture
from nada_jax.models.mapper import Mapper, MapperArchitecture
from nada_jax.models.style_delta import StyleDelta
from nada_jax.models.stylegan2 import Generator
from nada_jax.weights import loading, native

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def encoder_arrays():
    """A small e4e for the tiny generator's 6 latents of 8 numbers, in the official layout."""
    architecture = EncoderArchitecture(
        stem=4, widths=(4, 4, 6, 8, 8), reduction=2, heads=(5,) * 3 + (6,) * 3, w_dim=8
    )
    random = np.random.default_rng(0)
    return {
        path: random.standard_normal(shape, np.float32)
        for path, shape in architecture.shapes().items()
        if path != "latent_avg"
    }


def tensors(arrays, prefix=""):
    return {prefix + key: torch.tensor(np.array(array)) for key, array in arrays.items()}


def official_of(table, arrays):
    """Native arrays in the official layout."""
    return rules.apply(table, arrays, backward=True)[0]


@pytest.fixture
def save(tiny_generator, tmp_path):
    """save(name, state dict, decoder=True, ...) -> a file of the pSp framework."""

    def write(name, state, decoder=True, **content):
        if decoder:
            arrays, _ = stylegan2.to_official(tiny_generator, "tiny")
            average = arrays.pop("latent_avg")
            state = state | tensors(arrays, "decoder.")
            content = {"latent_avg": torch.tensor(average).repeat(6, 1)} | content
        torch.save({"state_dict": state} | content, tmp_path / name)
        return tmp_path / name

    return write


OPTS = argparse.Namespace(encoder_type="Encoder4Editing", start_from_latent_avg=True)


def assert_same(one, other):
    one, other = native.model_to_arrays(one), native.model_to_arrays(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path], err_msg=path)


def test_the_generator_in_an_encoders_file_becomes_a_file_of_its_own(
    encoder_arrays, save, tiny_generator, tmp_path, capsys
):
    source = save("e4e.pt", tensors(official_of(encoder.RULES, encoder_arrays)), opts=OPTS)
    assert main(["encoder", "--check", str(source), str(tmp_path / "e4e.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "encoder.latlayer1.weight" in out and "convs.0.conv.weight" in out
    model = loading.load_model(Encoder, tmp_path / "e4e.safetensors")
    assert model.architecture.progressive and model.num_layers == 6
    np.testing.assert_array_equal(model.latent_avg[3], tiny_generator.latent_avg)
    assert_same(load_generator(tmp_path / "e4e-generator.safetensors"), tiny_generator)
    # On the fly, and as a generator, the same file gives the same.
    assert_same(loading.load_model(Encoder, source), model)
    assert_same(load_generator(source), tiny_generator)


def test_an_encoder_without_a_generator_is_one_file(encoder_arrays, save, tmp_path):
    state = tensors(official_of(encoder.RULES, encoder_arrays))
    average = torch.zeros(6, 8)
    source = save("e4e.pt", state, decoder=False, latent_avg=average, opts=OPTS)
    kinds.convert("encoder", source, tmp_path / "e4e.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e4e.pt", "e4e.safetensors"]


def test_a_generator_that_does_not_fit_leaves_no_encoder_behind(
    encoder_arrays, save, tmp_path, capsys
):
    state = tensors(official_of(encoder.RULES, encoder_arrays))
    source = save("e4e.pt", state | {"decoder.more": torch.ones(1)}, opts=OPTS)
    assert main(["encoder", str(source), str(tmp_path / "e4e.safetensors")]) == 2
    assert "more (1,): no rule takes it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["e4e.pt"]


def test_an_encoder_is_not_written_where_its_generator_cannot_be(
    encoder_arrays, save, tmp_path, capsys
):
    source = save("e4e.pt", tensors(official_of(encoder.RULES, encoder_arrays)), opts=OPTS)
    (tmp_path / "e4e-generator.safetensors").mkdir()
    assert main(["encoder", str(source), str(tmp_path / "e4e.safetensors")]) == 2
    assert "e4e-generator.safetensors: it is a directory" in capsys.readouterr().err
    assert not (tmp_path / "e4e.safetensors").exists()


def test_the_generator_in_a_mappers_file_is_read_too(save, tiny_generator):
    architecture = MapperArchitecture(levels=("coarse", "fine"), w_dim=8, layers=2)
    random = np.random.default_rng(1)
    arrays = {
        path: random.standard_normal(shape, np.float32)
        for path, shape in architecture.shapes().items()
    }
    source = save("mapper.pt", tensors(official_of(mapper.RULES, arrays)), opts=OPTS)
    assert loading.load_model(Mapper, source).architecture == architecture
    assert_same(loading.load_model(Generator, source), tiny_generator)


@pytest.mark.parametrize("kind", [kind.name for kind in kinds.KINDS.values() if kind.native])
def test_every_kind_says_in_one_line_what_it_cannot_read(kind, tmp_path, capsys):
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    (tmp_path / "cut.pkl").write_bytes(b"\x80\x04")
    for name in ("text.pt", "other.pt", "absent.pt", "cut.pkl", "README.md"):
        out = tmp_path / "out.safetensors"
        assert main([kind, str(tmp_path / name), str(out)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and name in said
        assert not out.exists()


# -- the table ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", kinds.KINDS.values(), ids=lambda kind: kind.name)
def test_a_row_names_what_its_module_has(kind):
    module = kind.load()
    assert callable(module.convert if kind.convert else module.read)
    if kind.writes:
        assert kind.native == module.MODEL.KIND and callable(module.write)
    for companion in kind.companions:
        assert callable(kinds.KINDS[companion].load().read_companion)


def test_the_help_shows_the_options_and_examples_of_every_kind(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for kind in kinds.KINDS.values():
        assert all(f"--{option.name}" in shown for option in kind.options)
        assert kind.examples and all(arguments in shown for arguments, _ in kind.examples)


def test_a_kind_without_official_files_says_so(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"never opened")
    with pytest.raises(UserError) as error:
        loading.load_model(StyleDelta, tmp_path / "x.pt")
    assert str(error.value) == (
        f"{tmp_path}/x.pt is no style delta: expected a .safetensors file; there are no official files "
        "of this kind"
    )


@pytest.mark.parametrize("name", ["x.h5", "x.txt", "x"])
def test_another_ending_is_refused_with_the_right_ones(name, tmp_path):
    (tmp_path / name).touch()
    said = f"{name} does not end in .safetensors, .pt or .pth; expected a native or an official encoder"
    with pytest.raises(UserError, match=said):
        loading.load_model(Encoder, tmp_path / name)


def test_a_device_that_fails_is_not_reported_as_a_damaged_file(save, monkeypatch):
    def fail(*_):
        raise RuntimeError("Unable to initialize backend 'cuda'")

    source = save("g.pt", {})
    monkeypatch.setattr(native.jnp, "asarray", fail)
    with pytest.raises(RuntimeError, match="^Unable to initialize backend 'cuda'$"):
        loading.load_model(Generator, source)
