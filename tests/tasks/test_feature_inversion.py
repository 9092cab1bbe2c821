"""The task feature_inversion, from the command line's config to its files, with a narrow VGG."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import feature_inversion as configs
from nada_jax.errors import UserError
from nada_jax.runs.signals import Signals
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.style import minimize
from nada_jax.tasks import feature_inversion


@pytest.fixture
def config(narrow_networks, tmp_path):
    """config(field=value) -> few steps on an image of 48 x 32 pixels."""
    file = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC).save(file)

    def make(**fields):
        found = configs.get_config()
        small = {
            "content": str(file), "vgg.weights": str(narrow_networks["vgg"]), "size": 48, "steps": 2,
            "layers": (1, 2),
        }  # fmt: skip
        found.update_from_flattened_dict(small | fields)
        return found

    return make


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["image"]: row for row in map(json.loads, lines)}


def test_results_have_their_names_and_further_layers_stand_beside_them(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert feature_inversion.run(config(), workdir) == 0
    found = rows(workdir)
    assert list(found) == ["conv1_1", "relu1_1", "conv1_2", "relu1_2"]
    assert [row["depth"] for row in found.values()] == [1, 1, 2, 2]
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "config.json", "metrics.jsonl", "content.png", "layers", "strip.png", "loss.png", "brightness.png",
        "feature_inversion.html", "feature_inversion.md",
    }  # fmt: skip
    with (
        Image.open(workdir / "layers/relu1_2.png") as image,
        Image.open(tmp_path / "photo.png") as content,
    ):
        assert image.size == (48, 32)
        small = content.resize((48, 32), Image.Resampling.LANCZOS)
    assert found["relu1_2"]["content_brightness"] == pytest.approx(np.mean(small), abs=1e-3)
    page = (workdir / "feature_inversion.html").read_text()
    assert page.count("data:image/png") == 5 and "http" not in page

    (workdir / "layers/conv1_2.png").unlink()
    assert feature_inversion.run(config(layers=(1, 2, "relu2_2")), workdir) == 0
    out = capsys.readouterr().out
    assert "3 of 5 are done already" in out and "relu2_2: content loss" in out
    again = rows(workdir)
    assert again["relu1_1"] == found["relu1_1"] and again["relu2_2"]["depth"] == 4
    # In a program of fewer layers, a layer is what it was.
    assert again["conv1_2"]["loss"] == pytest.approx(found["conv1_2"]["loss"], rel=1e-3)
    table = (workdir / "feature_inversion.md").read_text()
    assert [line.split()[1] for line in table.splitlines()[2:]] == ["1_1", "1_2", "2_2"]


def test_an_image_keeps_what_its_layer_sees(config, tmp_path):
    """The first convolution, 4 channels of 3 x 3 x 3, knows nearly all pixels; nothing is known of untouched noise."""
    fields = {"layers": ("conv1_1", "relu5_3"), "total_variation": 0.0, "steps": 100}
    assert feature_inversion.run(config(**fields), tmp_path / "run") == 0
    found = rows(tmp_path / "run")
    assert found["conv1_1"]["loss"] < 0.01
    assert found["conv1_1"]["mse"] < 0.3 * found["relu5_3"]["mse"]


def test_a_run_that_is_stopped_continues_at_its_step(config, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fields = {"layers": ("relu1_1",), "steps": 25}
    assert feature_inversion.run(config(**fields), whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            Signals, "agreed", lambda *_: 15
        )  # as if a signal had come by the first snapshot
        assert feature_inversion.run(config(**fields), parts) == 128 + 15
    assert (parts / SNAPSHOT).exists() and not (parts / "layers").exists()
    taken = []
    advance = minimize.Minimizer.advance
    monkeypatch.setattr(
        minimize.Minimizer,
        "advance",
        lambda self, state, *args: taken.append(int(state.step)) or advance(self, state, *args),
    )
    assert feature_inversion.run(config(**fields), parts) == 0
    assert taken == [10, 20] and "continuing" in capsys.readouterr().out
    assert not (parts / SNAPSHOT).exists()
    files = [workdir / "layers/relu1_1.png" for workdir in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": (14,)}, r"layers is \(14,\); expected numbers in 1..13, or names out of conv1_1, relu1_1"),
        ({"layers": ("pool1",)}, r"layers is \('pool1',\); expected numbers in 1..13"),
        ({"layers": (1.5,)}, "layers is .* expected numbers of convolutions"),
        ({"content": "styles"}, "content='styles' names .* images; expected one"),
        ({"size": 16, "layers": (13,)}, "16 x 11 pixels is too small for these layers.* at least 16"),
        ({"steps": 0}, "steps is 0; expected a whole number from 1"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named_and_leave_nothing(config, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        feature_inversion.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
