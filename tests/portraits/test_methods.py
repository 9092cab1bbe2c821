"""Edits other than by optimisation: global directions, directions from files, mappers."""

import json

import numpy as np
import pytest

from configs import edit as configs
from nada_jax.errors import UserError
from nada_jax.latents import codes, directions, seeds, statistics
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction, DirectionArchitecture
from nada_jax.latents.statistics import Statistics, StatisticsArchitecture
from nada_jax.models.mapper import Mapper, MapperArchitecture
from nada_jax.tasks import edit
from nada_jax.weights import native

RANDOM = np.random.default_rng(0)


@pytest.fixture
def config(tiny_file, tiny_clip):
    """config(**fields) -> an edit of one seed."""

    def make(**fields):
        found = configs.get_config()
        small = {
            "generator.weights": str(tiny_file), "clip.models": (str(tiny_clip),), "judge": "",
            "lpips.weights": "", "seeds": (1,), "batch_size": 2,
        }  # fmt: skip
        found.update_from_flattened_dict(small | fields)
        return found

    return make


@pytest.fixture
def saved(tiny_generator, tmp_path):
    """saved("w", "red hair") -> a random direction, and its file."""

    def save(space, target):
        architecture = DirectionArchitecture.of(tiny_generator, space)
        shapes = architecture.shapes().items()
        steps = {name: RANDOM.standard_normal(shape, np.float32) for name, shape in shapes}
        path = tmp_path / f"{target}.safetensors"
        native.save_model(Direction(steps, architecture), path, target=target)
        return Direction(steps, architecture), str(path)

    return save


def row(workdir):
    (line,) = (workdir / "metrics.jsonl").read_text().splitlines()
    return json.loads(line)


def start(generator):
    """The latent of seed 1."""
    return Codes(ws=generator.broadcast(seeds.latents(generator, np.asarray([1], np.uint32), 0.7)))


def assert_drawn(path, expected, generator):
    found = codes.read(path, generator, "latents")
    np.testing.assert_allclose(found.draw(generator), expected.draw(generator), atol=1e-4)


def test_directions_from_files_are_added_by_their_strengths(
    config, saved, tiny_generator, tmp_path, capsys
):
    (red, red_file), (glasses, glasses_file) = saved("w", "red hair"), saved("style", "glasses")
    fields = {
        "edit.method": "directions",
        "edit.directions": (red_file, glasses_file),
        "edit.strengths": (2.0, -0.5),
    }
    assert edit.run(config(**fields), tmp_path / "run") == 0
    assert row(tmp_path / "run")["text"] == "red hair and glasses"
    assert row(tmp_path / "run")["l2"] > 0
    assert "seed_0001: changed by " in capsys.readouterr().out
    moved = directions.move(start(tiny_generator), tiny_generator, [red, glasses], [2.0, -0.5])
    file = tmp_path / "run/latents/seed_0001_red_hair_and_glasses.npz"
    assert_drawn(file, moved, tiny_generator)


def test_a_mapper_from_a_file_edits(config, tiny_generator, tmp_path):
    architecture = MapperArchitecture(("all",), w_dim=8, layers=1)
    arrays = {
        path: RANDOM.standard_normal(shape, np.float32) * 100
        for path, shape in architecture.shapes().items()
    }
    mapper = native.model_from_arrays(Mapper, arrays, architecture)
    file = tmp_path / "mapper.safetensors"
    native.save_model(mapper, file)
    fields = {"edit.method": "mapper", "edit.mapper": str(file), "edit.mapper_strength": 0.2}
    assert edit.run(config(**fields), tmp_path / "run") == 0
    assert row(tmp_path / "run")["text"] == ""  # the file does not say it
    expected = Codes(ws=mapper.edit(start(tiny_generator).ws, 0.2))
    moved = np.sum(np.square(expected.ws - start(tiny_generator).ws))
    assert row(tmp_path / "run")["l2"] == pytest.approx(moved, rel=1e-4)
    with pytest.raises(UserError, match=r"not finite with edit.mapper_strength=1e\+30; expected"):
        edit.run(config(**fields | {"edit.mapper_strength": 1e30}), tmp_path / "far")
    assert_drawn(tmp_path / "run/latents/seed_0001_mapper.npz", expected, tiny_generator)
    native.save_model(mapper.replace(architecture=architecture), file, text="red hair")
    assert edit.run(config(**fields), tmp_path / "named") == 0
    assert row(tmp_path / "named")["text"] == "red hair"


def test_a_global_direction_comes_straight_from_two_texts(
    config, tiny_generator, tmp_path, monkeypatch
):
    widths = (6, 6, 5, 5, 4)
    effects = {f"conv_{i}": RANDOM.standard_normal((n, 128)) for i, n in enumerate(widths)}
    spreads = {name: np.ones(len(x), np.float32) for name, x in effects.items()}
    found = Statistics(effects, spreads, StatisticsArchitecture(widths, 128))
    monkeypatch.setattr(statistics, "load", lambda *_, **__: found)
    fields = {"edit.method": "global", "edit.alpha": 3.0, "edit.beta": 0.1}
    assert edit.run(config(**fields), tmp_path / "run") == 0
    file = tmp_path / "run/latents/seed_0001_a_person_with_red_hair.npz"
    moved = codes.read(file, tiny_generator, "latents").styles
    before = tiny_generator.styles(start(tiny_generator).ws)
    steps = np.concatenate([np.abs(moved[name] - before[name])[0] for name in effects])
    assert steps.max() == pytest.approx(3, abs=1e-4)  # alpha standard deviations
    np.testing.assert_allclose(moved["to_rgb_0"], before["to_rgb_0"], atol=1e-5)
    two = {"clip.models": ("a", "b"), "clip.weights": (1.0, 1.0)}
    with pytest.raises(UserError, match=r"clip.models is \('a', 'b'\); expected one CLIP"):
        edit.run(config(**fields, **two), tmp_path / "two")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"edit.method": "directions"}, "edit.directions is empty; expected files of"),
        (
            {"edit.method": "directions", "edit.directions": ("nowhere",)},
            "edit.directions='nowhere' does not exist",
        ),
        ({"edit.strengths": (1.0,)}, "edit.strengths is .*; expected a number for each of the 0"),
        ({"edit.alpha": float("nan")}, "edit.alpha is nan; expected a finite number"),
        ({"edit.method": "mapper", "edit.mapper": "nowhere"}, "edit.mapper='nowhere' does not"),
        ({"edit.method": "mapper"}, "edit.mapper is empty"),
        ({"edit.method": "global", "edit.source": ""}, "edit.source is blank"),
    ],
)
def test_wrong_fields_end_in_a_sentence(config, fields, words, tmp_path):
    with pytest.raises(UserError, match=words):
        edit.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_of_other_generators_and_kinds_are_refused_by_name(config, saved, tmp_path):
    _, file = saved("w", "red hair")
    other = Direction({"w": np.ones(9, np.float32)}, DirectionArchitecture("w", (9,)))
    native.save_model(other, tmp_path / "other.safetensors")
    for name, words in {
        str(tmp_path / "other.safetensors"): r"other.safetensors: the direction is for w of the",
        str(config().generator.weights): "not one of the kind direction",
    }.items():
        fields = {"edit.method": "directions", "edit.directions": (file, name)}
        with pytest.raises(UserError, match=words):
            edit.run(config(**fields), tmp_path / "run")


def test_a_mapper_needs_latents_of_w(config, tiny_generator, tmp_path):
    architecture = MapperArchitecture(("all",), w_dim=8, layers=1)
    arrays = {path: np.ones(shape) for path, shape in architecture.shapes().items()}
    file = tmp_path / "mapper.safetensors"
    native.save_model(native.model_from_arrays(Mapper, arrays, architecture), file)
    ws = start(tiny_generator).ws
    codes.write(tmp_path / "styles.npz", Codes(styles=tiny_generator.styles(ws)))
    fields = {"edit.method": "mapper", "edit.mapper": str(file), "seeds": ()}
    with pytest.raises(UserError, match="edit.method is 'mapper', which reads W"):
        edit.run(config(**fields, latents=str(tmp_path / "styles.npz")), tmp_path / "run")
