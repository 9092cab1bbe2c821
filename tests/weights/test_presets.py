"""Adapted generators by name, and their files."""

import shutil

import jax
import numpy as np
import pytest

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.evaluation import generators
from nada_jax.models.generator_delta import GeneratorDelta
from nada_jax.weights import domains, lineage, loading, native, presets, registry
from nada_jax.weights.lineage import Lineage


@pytest.fixture
def delta(tmp_path, tiny_generator, tiny_file):
    """A source of its own, and the file of a generator that was adapted from it."""
    source, file = tmp_path / "source.safetensors", tmp_path / "delta.safetensors"
    shutil.copy(tiny_file, source)
    synthesis = tiny_generator.params["synthesis"]
    moved = synthesis | {"constant": synthesis["constant"] + 1}
    adapted = tiny_generator.replace(params=tiny_generator.params | {"synthesis": moved})
    facts = Lineage(str(source), ("person", "zombie"), ("avatar-p8",)).header()
    loading.save_delta(tiny_generator, adapted, 2, file, **facts)
    return source, file, adapted


def test_a_delta_is_loaded_as_the_adapted_generator(delta):
    source, file, adapted = delta
    assert native.kind_of(file) == GeneratorDelta.KIND
    loaded = loading.load_generator(file, precision="bfloat16")
    assert loaded.precision == "bfloat16"
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=2e-3)  # noqa: E731
    jax.tree.map(close, loaded.params, adapted.params)
    assert lineage.read(file) == Lineage(str(source), ("person", "zombie"), ("avatar-p8",))
    ((name, _),) = domains.load([str(file)], loading.load_generator(source), str(source)).items()
    assert name == "delta"


def test_a_delta_to_other_weights_says_how_to_make_it_again(delta, tiny_generator):
    source, file, adapted = delta
    native.save_model(adapted, source)
    with pytest.raises(UserError, match=r"whose weights are others now; make it again, .*presets"):
        loading.load_generator(file)


def test_a_delta_to_a_delta_is_refused(delta):
    source, file, _ = delta
    shutil.copy(file, source)
    with pytest.raises(UserError, match=r"delta\.safetensors: source=.* is a delta itself"):
        loading.load_generator(file)


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_file):
    """A folder with two runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("nada_sketch", "mine"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        shutil.copy(tiny_file, tmp_path / "runs" / name / "generator.safetensors")
    return tmp_path


def test_runs_go_by_name(here, tiny_generator):
    given = ("run:sketch", "run:nada_sketch", "run:mine")
    found = domains.load(given, tiny_generator, "tiny")
    assert {name: str(path.parent) for name, (_, path) in found.items()} == {
        "sketch": "runs/nada_sketch",
        "sketch_2": "runs/nada_sketch",
        "mine": "runs/mine",
    }
    assert loading.load_generator("run:mine").architecture == tiny_generator.architecture


@pytest.mark.parametrize("name", ["other", "", "../runs/mine", "..", ".", "/etc", "mine/", "a\0b"])
def test_a_run_that_is_none_lists_those_that_there_are(name, here):
    for find in (loading.find_generator, domains.find):
        with pytest.raises(UserError, match=r"is no workdir in runs/ .*one of mine, sketch$"):
            find(f"run:{name}", "generators")


@pytest.mark.parametrize("name", ["other", "", "../avatar64", "/etc", "SKETCH.safetensors"])
def test_a_preset_that_is_none_lists_those_that_ship(name):
    for find in (loading.find_generator, domains.find):
        with pytest.raises(UserError, match="there is no preset .*one of ") as caught:
            find(f"preset:{name}", "generators")
        assert ", ".join(presets.names()) in str(caught.value)


def test_the_file_of_a_preset_has_facts_that_are_json(tmp_path):
    file = tmp_path / "bad.safetensors"
    for facts in ("{", "[]", "[" * 10**5):
        files.write_safetensors(file, {"x": np.zeros(1, "f")}, {"facts": facts})
        with pytest.raises(UserError, match="facts that are no JSON object"):
            presets.shipped(tmp_path)


def test_presets_that_ship_are_nearer_to_their_target(avatar_clip):
    """By the CLIP that took no part in their training; all of them by two programs."""
    clips = {"avatar-p8": avatar_clip}
    draw = jax.jit(lambda generator, z: generator.synthesize(generator.map(z)))
    embed = jax.jit(lambda clip, x: clip.embed_images(x))
    shipped = presets.shipped()
    assert len({preset.name for preset in shipped}) == len(shipped) >= 8
    for preset in shipped:
        assert preset.file.stat().st_size < 300_000 and preset.image.is_file()
        origin = lineage.read(preset.file)
        assert preset.source == origin.source and preset.source in registry.EMBEDDED
        judge = preset.facts["judge"]
        assert judge not in origin.clips
        if judge not in clips:
            clips[judge] = loading.load_clip(judge)
        clip = clips[judge]
        generator = loading.load_generator(f"preset:{preset.name}")
        z = jax.random.normal(jax.random.key(0), (8, generator.architecture.z_dim))
        features = np.asarray(embed(clip.without_texts(), draw(generator, z)))
        source, target = np.asarray(clip.embed_texts(list(origin.texts)))
        assert np.mean(features @ target > features @ source) > 0.5, preset.name


def test_a_preset_says_what_it_was_adapted_from():
    name = f"preset:{presets.names()[0]}"
    empty = generators.Source(weights=""), generators.Text(source="", target="")
    origin = generators.trace(generators.Adapted(weights=name), *empty)
    assert origin.source in registry.EMBEDDED and all(origin.texts) and origin.clips
