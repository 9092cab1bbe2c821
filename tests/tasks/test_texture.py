"""The task texture, from the command line's config to its files."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import texture as configs
from nada_jax.errors import UserError
from nada_jax.models.vgg import Vgg
from nada_jax.runs.signals import Signals
from nada_jax.style.objective import Objective, Targets, Weights
from nada_jax.tasks import texture
from nada_jax.weights import loading

LAYERS = "relu1_1", "relu2_1"


@pytest.fixture
def config(narrow_networks, tmp_path):
    """config(field=value) -> few steps, by two layers of a narrow VGG; the style is of squares."""
    file = tmp_path / "squares.png"
    Image.fromarray(np.kron(np.eye(12) % 2, np.ones((5, 5))).astype(bool)).save(file)

    def make(**fields):
        found = configs.get_config()
        small = {
            "style": str(file), "vgg.weights": str(narrow_networks["vgg"]), "size": 32, "width": 48,
            "scales.smallest": 48, "scales.first_steps": 3, "loss.style_layers": LAYERS,
        }  # fmt: skip
        found.update_from_flattened_dict(small | fields)
        return found

    return make


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["image"]: row for row in map(json.loads, lines)}


def test_textures_of_each_layer_and_of_more_and_more(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert texture.run(config(), workdir) == 0
    found = rows(workdir)
    labels = {*LAYERS, "relu1_1-relu2_1"}
    assert {row["label"] for row in found.values()} == labels
    names = {path.name for path in (workdir / "results").iterdir()}
    assert names == {f"squares_{label}.png" for label in labels}
    with Image.open(workdir / "results/squares_relu2_1.png") as image:
        assert image.size == (48, 32)
    # Measured in all layers, whatever a texture was made by.
    assert all(set(row["gram"]) == set(LAYERS) for row in found.values())
    assert (workdir / "texture.html").read_text().count("data:image/png") == 6
    table = (workdir / "texture.md").read_text()
    assert table.count("| squares | ") == 4 and table.count("| noise ") == 1

    (workdir / "results/squares_relu2_1.png").unlink()
    assert texture.run(config(sets="each", style="waves," + config().style), workdir) == 0
    assert "1 of 4 are done already" in capsys.readouterr().out
    again = rows(workdir)
    assert len(again) == 3 + 2 and "waves_relu1_1" in again
    old, new = (x["squares_relu2_1"] for x in (found, again))
    assert new["loss"] == pytest.approx(old["loss"], rel=1e-2)


def test_one_texture_tileable_and_stopped_between(config, tmp_path, monkeypatch):
    """Neighbours across a border differ as those inside do, also after a change of scale; and a run continues."""
    fields = {"sets": "all", "tileable": True, "width": 64, "size": 64, "loss.total_variation": 1.0}
    fields |= {"scales.first_steps": 45, "scales.steps": 15}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert texture.run(config(**fields), whole) == 0
    files = {path.name for path in whole.iterdir()}
    assert files == {
        "config.json", "metrics.jsonl", "result.png", "tiled.png", "strip.png", "texture.html", "texture.md",
    }  # fmt: skip
    with Image.open(whole / "result.png") as image, Image.open(whole / "tiled.png") as tiled:
        assert tiled.size == (128, 128)
        pixels = np.asarray(image, np.float64)
    steps = [np.abs(pixels - np.roll(pixels, 1, axis)) for axis in (0, 1)]
    for axis in (0, 1):
        across = np.mean(np.take(steps[axis], 0, axis))
        assert across < 1.3 * np.mean(steps[axis])

    with monkeypatch.context() as patch:
        patch.setattr(
            Signals, "agreed", lambda *_: 15
        )  # as if a signal had come by the first snapshot
        assert texture.run(config(**fields), parts) == 128 + 15
    assert not (parts / "result.png").exists()
    assert texture.run(config(**fields), parts) == 0
    assert (whole / "result.png").read_bytes() == (parts / "result.png").read_bytes()


def test_a_texture_comes_close_to_its_style_in_its_own_layers(tmp_path, full_compile):
    """With the real VGG; the Gram distances of noise fall by more than ten."""
    small = {
        "style": "mosaic", "size": 48, "sets": "all", "loss.style_layers": ("relu1_1", "relu2_1"),
        "scales.smallest": 48, "scales.first_steps": 60,
    }  # fmt: skip
    config = configs.get_config()
    config.update_from_flattened_dict(small)
    assert texture.run(config, tmp_path) == 0
    (row,) = rows(tmp_path).values()
    for layer, distance in row["gram"].items():
        assert distance < 0.1 * row["gram_before"][layer]


def test_a_shifted_tileable_texture_is_as_good(narrow_networks):
    vgg = loading.load_model(Vgg, narrow_networks["vgg"])
    random = np.random.default_rng(0)
    style, image = (
        jnp.asarray(random.uniform(-1, 1, (1, 16, 24, 3)), jnp.float32) for _ in range(2)
    )

    @functools.partial(jax.jit, static_argnums=0)
    def losses(objective):
        found = objective.describe(vgg, style)
        targets = Targets({}, jax.tree.map(lambda x: x[:, None], found))
        ones = [jnp.ones((1, n)) for n in (len(objective.style_layers), 1)]
        weights = Weights(jnp.zeros((1, 0)), *ones, jnp.ones(1))
        shifted = jnp.roll(image, (4, 16), (1, 2))
        return [objective.loss(vgg, x, targets, weights)[0][0] for x in (image, shifted)]

    for wrap in (True, False):
        here, there = map(float, losses(Objective((), (*LAYERS, "relu3_1"), wrap=wrap)))
        assert (there == pytest.approx(here, rel=1e-5)) == wrap


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tileable": True, "width": 51}, "width is 51; expected a multiple of 2, as tileable textures"),
        ({"sets": "most"}, "sets is 'most'; expected one of all, each, cumulative, both"),
        ({"width": 8}, "width is 8; expected 0, or a whole number of pixels in 16"),
        ({"loss.style_layers": ()}, "loss.style_layers is .*; expected at least one layer"),
        ({"loss.style_layers": ("relu9_1",)}, "loss.style_layers is .*; expected different layers out of"),
        ({"style": "marble"}, "style='marble' does not exist"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named_and_leave_nothing(config, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        texture.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
