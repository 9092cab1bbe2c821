"""Directions, from the texts to the files."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import find_direction as configs
from nada_jax import files, images
from nada_jax.errors import UserError
from nada_jax.latents import statistics
from nada_jax.latents.directions import Direction
from nada_jax.tasks import find_direction
from nada_jax.weights import loading


@pytest.fixture
def config(tiny_file, tiny_clip):
    """config(**fields) -> that of a run of seconds."""

    def make(**fields):
        result = configs.get_config()
        small = {
            "generator.weights": str(tiny_file),
            "clip.model": str(tiny_clip),
            "judge": "",
            "batch_size": 16,
            "find.samples": 40,
            "statistics.samples": 1,
            "samples.count": 3,
            "strengths": (-1.0, 0.0, 1.0),
        }
        result.update_from_flattened_dict(small | fields)
        return result

    return make


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folders(tmp_path):
    """Two folders of two images each, dark and bright."""
    for name, level in {"dark": -0.8, "bright": 0.7}.items():
        for i in range(2):
            noise = np.random.default_rng(i).normal(level, 0.1, (64, 64, 3))
            images.save(images.to_uint8(noise), tmp_path / name / f"{i}.png")
    return {"source": str(tmp_path / "dark"), "target": str(tmp_path / "bright")}


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_texts_give_a_direction_a_sheet_and_figures(config, tmp_path, capsys):
    assert find_direction.run(config(), tmp_path / "run") == 0
    path = tmp_path / "run" / "direction.safetensors"
    direction = loading.load_model(Direction, path)
    assert direction.architecture.space == "w"
    header = files.read_metadata(path)
    assert header["target"] == "person with red hair" and header["method"] == "texts"
    found = rows(tmp_path / "run")
    assert [row["strength"] for row in found] == [-1, 0, 1]
    assert found[1]["judged"] == 0 and {"nearer", "correlation", "seconds"} < set(found[1])
    with Image.open(tmp_path / "run" / "samples" / "direction.png") as sheet:
        assert sheet.size == (3 * 8 * 16 + 2 * 8 * 2, 3 * 8 * 16 + 2 * 8 * 2)
    assert "scored images: 40/40" in capsys.readouterr().out


def test_a_global_direction_computes_its_statistics_once(config, tmp_path, capsys, monkeypatch):
    fields = {"find.method": "global", "find.beta": 0.0}
    assert find_direction.run(config(**fields), tmp_path / "a") == 0
    assert "statistics, computed once: images: 52/52" in capsys.readouterr().out
    direction = loading.load_model(Direction, tmp_path / "a" / "direction.safetensors")
    assert direction.architecture.space == "style"
    assert rows(tmp_path / "a")[0]["channels"] == 26
    monkeypatch.setattr(statistics, "measure", None)
    assert find_direction.run(config(**fields), tmp_path / "b") == 0
    with pytest.raises(UserError, match=r"find.beta is 2; expected at most 0\.\d+, the relevance"):
        find_direction.run(config(**fields | {"find.beta": 2.0}), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_two_folders_give_a_direction(config, folders, tmp_path):
    fields = {f"find.{name}_images": folder for name, folder in folders.items()}
    assert find_direction.run(config(**fields, **{"find.method": "images"}), tmp_path / "run") == 0
    header = files.read_metadata(tmp_path / "run" / "direction.safetensors")
    assert header["source"] == folders["source"] and header["target"] == folders["target"]


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"find.method": "pca"}, "find.method is 'pca'; expected one of texts, images, global"),
        ({"find.method": "images"}, "find.source_images is ''; expected a folder"),
        ({"find.samples": 3}, "find.samples is 3; expected a whole number from 16"),
        ({"strengths": ()}, r"strengths is \(\); expected numbers"),
        ({"text.target": " "}, "text.target is blank"),
        ({"text.target": "person"}, "are both 'person'"),
        ({"generator.weights": "nowhere"}, "generator.weights='nowhere' is neither"),
        ({"clip.model": "nowhere"}, "clip.model='nowhere' is neither"),
    ],
)
def test_wrong_fields_end_in_a_sentence_and_leave_nothing(config, fields, words, tmp_path):
    with pytest.raises(UserError, match=words):
        find_direction.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
