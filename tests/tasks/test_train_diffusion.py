"""Diffusion models, trained as users train them: short runs, interrupted ones, refused ones."""

import json

import jax
import numpy as np
import pytest

from configs import train_diffusion as configs
from nada_jax.errors import UserError
from nada_jax.tasks import train_diffusion
from nada_jax.weights import loading


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten images of one colour each, with it as the caption."""
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    colours = np.random.default_rng(0).integers(256, size=(10, 1, 1, 3), dtype=np.uint8)
    np.savez(path, images=np.broadcast_to(colours, (10, 16, 16, 3)))
    texts = [{"captions": [f"a {name} person", name]} for name in ("red", "blue") * 5]
    path.with_suffix(".json").write_text(json.dumps(texts))
    return path


@pytest.fixture
def config(data, tiny_clip):
    """config(**fields) -> that of a run of seconds."""

    def make(**fields):
        result = configs.get_config()
        small = {
            "data": str(data), "size": 16, "steps": 4, "batch_size": 2, "checkpoint_every": 4, "sample_every": 2,
            "log_every": 1, "clip": str(tiny_clip), "vae.steps": 2, "vae.widths": (8, 8), "vae.batch_size": 2,
            "unet.widths": (32,), "unet.attention": (1,), "samples.prompts": ("red", "blue"), "samples.steps": 2,
        }  # fmt: skip
        result.update_from_flattened_dict(small | fields)
        return result

    return make


def test_a_run_writes_a_model_and_continues_where_it_stopped(config, tmp_path):
    assert train_diffusion.run(config(), tmp_path / "whole") == 0
    model = loading.load_diffusion(tmp_path / "whole" / "model")
    assert (model.size, model.factor, model.schedule.prediction) == (16, 2, "v_prediction")
    assert model.configs["vae"]["scaling_factor"] != 1
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert ["l1" in row for row in rows] == [True, True, False, False]
    names = {str(x.relative_to(tmp_path / "whole")) for x in (tmp_path / "whole").rglob("*.png")}
    assert names == {"loss.png", "samples/step_000002.png", "samples/step_000004.png"}

    # Cut within each of the two parts, it is the run that was not.
    for steps in (3, 4):
        assert train_diffusion.run(config(steps=steps), tmp_path / "parts") == 0
    again = loading.load_diffusion(tmp_path / "parts" / "model")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": ""}, "data is empty; expected a folder of images with metadata.jsonl"),
        ({"size": 18, "unet.widths": (32, 32), "unet.attention": (0, 1)}, "size is 18; expected a multiple of 4"),
        ({"vae.steps": 4}, "vae.steps is 4; expected fewer than the 4"),
        ({"unet.widths": (40,)}, "unet.widths is .*multiples of 32"),
        ({"unet.attention": (1, 1)}, r"unet.attention is \(1, 1\); expected 1 numbers"),
        ({"unet.attention": (0,)}, "or texts have no effect"),
        ({"unet.heads": 5}, "unet.heads is 5; expected a divisor"),
        ({"samples.prompts": ("",)}, "samples.prompts"),
        ({"samples.steps": 2000}, "samples.steps is 2000"),
        ({"clip": "no/such/clip"}, "clip='no/such/clip' is neither"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(config, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        train_diffusion.run(config(**fields), tmp_path)
    assert not list(tmp_path.rglob("*.json*"))
