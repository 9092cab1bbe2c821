"""The task guided_diffusion, from the command line's config to its files."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from configs import guided_diffusion as configs
from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.runs import signals
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.tasks import guided_diffusion

PROMPT = "a person with red hair"


@pytest.fixture
def make(tiny_diffusion_directory, narrow_networks):
    """make(field=value) -> few steps of a tiny model, guided by a narrow VGG."""

    def config(variant="", **fields):
        found = configs.get_config(variant)
        small = {
            "diffusion.weights": str(tiny_diffusion_directory), "guidance.vgg": str(narrow_networks["vgg"]),
            "guidance.layers": ("relu1_1", "relu2_1"), "sampler.steps": 12, "prompt": PROMPT, "count": 2,
            "batch_size": 2, "strip.columns": 3,
        }  # fmt: skip
        found.update_from_flattened_dict(
            small | {k.replace("__", "."): x for k, x in fields.items()}
        )
        return found

    return config


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_prompt_and_two_seeds_are_two_images_with_their_paths(make, tmp_path, capsys):
    assert guided_diffusion.run(make(), tmp_path) == 0
    names = [f"a_person_with_red_hair_{seed:04d}" for seed in range(2)]
    assert [row["image"] for row in rows(tmp_path)] == names
    for name in names:
        with Image.open(tmp_path / f"images/{name}.png") as image:
            assert image.size == (32, 32)
    said = capsys.readouterr().out
    print(said)
