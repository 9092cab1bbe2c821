"""Mappers, trained as users train them: short runs, interrupted ones, refused ones."""

import json

import numpy as np
import pytest

from configs import train_mapper as configs
from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.models.mapper import Mapper
from nada_jax.tasks import train_mapper
from nada_jax.weights import loading


@pytest.fixture
def config(tiny_file, tiny_clip):
    """config(**fields) -> that of a run of seconds."""

    def make(**fields):
        result = configs.get_config()
        small = {
            "generator.weights": str(tiny_file),
            "clip.models": (str(tiny_clip),),
            "judge": "",
            "steps": 4,
            "batch_size": 2,
            "checkpoint_every": 2,
            "sample_every": 2,
            "log_every": 2,
            "samples.count": 2,
            "mapper.layers": 2,
        }
        result.update_from_flattened_dict(small | fields)
        return result

    return make


def arrays(workdir):
    return files.read_safetensors(workdir / "mapper.safetensors")[0]


def test_a_run_writes_a_mapper_and_continues_where_it_stopped(config, tmp_path):
    assert train_mapper.run(config(), tmp_path / "whole") == 0
    path = tmp_path / "whole" / "mapper.safetensors"
    mapper = loading.load_model(Mapper, path)
    assert mapper.architecture.levels == ("coarse", "medium", "fine")
    assert files.read_metadata(path)["text"] == "a person with red hair"
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert row["loss"] == pytest.approx(row["clip"] + 3 * row["l2"], rel=1e-5)
    assert {"judged", "nearer"} < set(rows[3]) and "judged" not in rows[2]
    names = {str(x.relative_to(tmp_path / "whole")) for x in (tmp_path / "whole").rglob("*.png")}
    assert names == {"loss.png", "samples/step_000002.png", "samples/step_000004.png"}

    assert train_mapper.run(config(steps=2), tmp_path / "half") == 0
    assert train_mapper.run(config(), tmp_path / "half") == 0
    for name, x in arrays(tmp_path / "whole").items():
        np.testing.assert_array_equal(arrays(tmp_path / "half")[name], x)
    with pytest.raises(UserError, match="other settings.*loss.l2 was 3.0 and is 1.0"):
        train_mapper.run(config(**{"loss.l2": 1.0}), tmp_path / "half")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"mapper.levels": ()}, r"mapper.levels is \(\); expected some of coarse, medium and fine"),
        ({"mapper.levels": ("all", "fine")}, "mapper.levels is"),
        ({"mapper.levels": ("fine",)}, "expected a level of the generator's 6 latents: coarse is"),
        ({"mapper.layers": 0}, "mapper.layers is 0"),
        ({"loss.identity": 0.1}, "identity.weights is ''; expected an irse50 file"),
        ({"clip.weights": (1.0, 2.0)}, "clip.weights is .*; expected a number for each of the 1"),
        ({"clip.models": (), "clip.weights": ()}, "clip.models is"),
        ({"text.target": ""}, "text.target is blank"),
        ({"optimizer.lr": 0.0}, "optimizer.lr is 0.0"),
    ],
)
def test_wrong_fields_end_in_a_sentence_and_leave_nothing(config, fields, words, tmp_path):
    with pytest.raises(UserError, match=words):
        train_mapper.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
