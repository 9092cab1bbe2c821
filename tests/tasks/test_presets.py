"""Presets: what the command makes, what it does not make twice, and what it refuses before it begins."""

import json
import shutil

import numpy as np
import pytest

from configs import presets as configs
from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.tasks import compare
from nada_jax.tasks import presets as task
from nada_jax.weights import loading, native, presets
from nada_jax.weights.lineage import Lineage

FIRST, SECOND, *_ = configs.PRESETS
VALUES = {"value": 0.5, "low": 0.4, "high": 0.6}


@pytest.fixture
def config(tiny_file):
    """config(only, ...) -> presets of the tiny generator; fields by their dotted name."""

    def make(only="", **fields):
        result = configs.get_config()
        result.update_from_flattened_dict({"only": only, "adapt.generator.weights": str(tiny_file)})
        result.update_from_flattened_dict(fields)
        return result.lock()

    return make


@pytest.fixture
def stand_ins(monkeypatch, tmp_path, tiny_file, tiny_generator):
    """Adaptations and figures that take no time, and folders in place of the package and its docs; calls of the first."""
    calls = []

    def train(config, workdir):
        calls.append(workdir.parent.name)
        synthesis = tiny_generator.params["synthesis"]
        moved = synthesis | {"constant": synthesis["constant"] * np.float32(1.5)}
        adapted = tiny_generator.replace(params=tiny_generator.params | {"synthesis": moved})
        origin = Lineage(str(tiny_file), ("person", "zombie"), ("avatar-p16",))
        native.save_model(adapted, workdir / "generator.safetensors", **origin.header())
        return 0

    def measure(config, workdir):
        assert native.kind_of(files.expand(config.generator.weights)) == "generator delta"
        found = {"source": str(tiny_file), "texts": ["person", "zombie"], "judge": config.judge}
        found |= {"samples": 8, "metrics": dict.fromkeys(task.SHOWN, VALUES)}
        files.write_text(workdir / "evaluation.json", json.dumps(found))
        return 0

    monkeypatch.setattr(compare.adapt, "run", train)
    monkeypatch.setattr(compare.evaluate, "run", measure)
    monkeypatch.setattr(presets, "FOLDER", tmp_path / "package")
    monkeypatch.setattr(presets.shipped, "__defaults__", (tmp_path / "package",))
    monkeypatch.setattr(task, "DOCS", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    return calls


def test_presets_are_made_once_installed_and_shown(tmp_path, config, stand_ins):
    workdir = tmp_path / "run"
    assert task.run(config(FIRST, install=True), workdir) == 0
    assert task.run(config(f"{SECOND}, {FIRST}", install=True), workdir) == 0
    assert stand_ins == [FIRST, SECOND]
    assert presets.names() == [FIRST, SECOND]

    preset = presets.find(SECOND)
    assert preset.file.parent == tmp_path / "package" and preset.image.is_file()
    assert preset.facts["metrics"]["nearer"] == VALUES and preset.facts["difference"] < 1
    assert loading.load_generator(f"preset:{SECOND}").size == 16
    page = (tmp_path / "docs" / "presets.md").read_text()
    assert f"`preset:{FIRST}`" in page and f"](../package/{SECOND}.png)" in page
    assert f"--config.only={FIRST}\n" in page and (tmp_path / "docs" / "presets.jpg").is_file()
    assert f"]({SECOND}.png)" in (workdir / "presets.md").read_text()

    (workdir / f"{FIRST}.safetensors").unlink()
    shutil.rmtree(tmp_path / "docs")  # an installed package has none
    assert task.run(config(FIRST, install=True), workdir) == 0
    assert stand_ins == [FIRST, SECOND, FIRST]
    assert (tmp_path / "package" / "presets.md").is_file()


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"only": "moon"}, f"only has 'moon'; expected some of {FIRST}, "),
        ({"evaluate.judge": "avatar-p16"}, "judge is 'avatar-p16', which is in adapt.clip.models"),
        ({f"presets.{SECOND}.adapt.steps": 0}, f"cell {SECOND}: steps is 0"),
        ({"rank": 0}, "rank is 0"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(fields, said, config, tmp_path):
    with pytest.raises(UserError, match=said):
        task.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
