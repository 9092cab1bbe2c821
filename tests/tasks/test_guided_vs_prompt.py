"""The task guided_vs_prompt: its ways, their figures, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import guided_vs_prompt as configs
from nada_jax.errors import UserError
from nada_jax.tasks import guided_vs_prompt
from nada_jax.tasks.guided_vs_prompt import Settings

WAYS = (
    "prompt",
    "transfer",
    "guided",
    "words",
)  # of the schedules, one: each takes seconds to compile


@pytest.fixture(scope="module")
def make(tiny_diffusion_directory, narrow_networks, tiny_clip):
    """make({field: value}) -> a few steps of a tiny model, guided by a narrow VGG."""

    def config(fields=()):
        found = configs.get_config()
        small = {
            "diffusion.weights": str(tiny_diffusion_directory), "guidance.vgg": str(narrow_networks["vgg"]),
            "guidance.layers": ("relu1_1", "relu2_1"), "transfer.loss.style_layers": ("relu1_1", "relu2_1"),
            "transfer.loss.content_layers": ("relu2_1",), "transfer.scales.smallest": 16,
            "transfer.scales.first_steps": 3, "sampler.steps": 5, "judge": str(tiny_clip), "count": 2,
            "guidance.through": "estimate", "ways": WAYS,
        }  # fmt: skip
        found.update_from_flattened_dict(small | dict(fields))
        return found

    return config


@pytest.fixture(scope="module")
def finished(make, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert guided_vs_prompt.run(make(), workdir) == 0
    return workdir


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["image"]: row for row in map(json.loads, lines)}


def test_every_way_draws_every_seed_and_each_differs(finished):
    found = rows(finished)
    assert set(found) == {f"{way}_{seed:04d}" for way in WAYS for seed in (0, 1)}
    drawn = [np.asarray(Image.open(finished / row["files"][0])) for row in found.values()]
    assert {x.shape for x in drawn} == {(16, 16, 3)}
    assert len({x.tobytes() for x in drawn}) == len(found)


def test_figures_are_held_against_the_prompt_alone(finished):
    for name, row in rows(finished).items():
        assert (row["mse"] == 0) == (row["content"] > 1 - 1e-6) == name.startswith("prompt")
        assert row["gram"] > 0 and row["wasserstein"] > 0 and -1 <= row["named"] <= 1


def test_page_and_table_have_a_line_for_each_way(finished):
    table = (finished / "guided_vs_prompt.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == list(WAYS)
    page = (finished / "guided_vs_prompt.html").read_text()
    assert page.count("<img") == 1 + 2 * len(WAYS) and "a mosaic of a person" in page
    assert all(guided_vs_prompt.WAYS[way] in page for way in WAYS)


def test_what_is_missing_is_drawn_again_and_further_seeds_stand_beside(make, finished, capsys):
    before = rows(finished)
    lost = [finished / "images" / f"{way}_0000.png" for way in ("transfer", "prompt")]
    kept = [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()
    assert guided_vs_prompt.run(make(), finished) == 0
    assert "6 of 8 are done already" in capsys.readouterr().out
    assert [path.read_bytes() for path in lost] == kept
    assert {k: x["gram"] for k, x in rows(finished).items()} == {
        k: x["gram"] for k, x in before.items()
    }


def test_the_schedules_are_alike_in_the_mean_and_free_at_the_start(make):
    ways = Settings.read(make({"ways": tuple(guided_vs_prompt.WAYS)})).guidances()
    weights = {way: x.weights(100) for way, x in ways.items() if x is not None}
    assert weights["guided"].mean() == pytest.approx(0.75) == weights["constant"].mean()
    assert set(weights["constant"]) == {np.float32(0.75)}
    assert not weights["late"][:20].any()
    np.testing.assert_array_equal(weights["late"][20:], weights["guided"][20:])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": " "}, "prompt is ' '; expected words"),
        ({"named": ""}, "named is ''; expected words"),
        ({"guidance.weight": 0.0}, "guidance.weight is 0 .*expected a weight above 0 and one of gram"),
        ({"guidance.loss.gram": 0.0, "guidance.loss.similarity": 1.0, "guidance.text_target": "a"}, "guidance.loss has similarity"),
        ({"free": 1.0}, "free is 1.0; expected a share below guidance.until"),
        ({"ways": ("guided",)}, r"ways is \('guided',\); expected 'prompt' and others out of"),
        ({"count": 0}, "count is 0"),
        ({"seed": 2**32 - 1}, "count is 2; expected 1 to 1 images"),
        ({"transfer.loss.style": (1.0, 2.0)}, "transfer.loss.style is .*one weight"),
        ({"transfer.loss.kind": "grams"}, "transfer.loss.kind is 'grams'"),
        ({"guidance.reference": "styles"}, "guidance.reference='styles' names 7 images; expected one"),
        ({"judge": "nowhere"}, "nowhere"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_a_sentence_and_nothing_is_written(
    make, fields, said, tmp_path
):
    with pytest.raises(UserError, match=said):
        guided_vs_prompt.run(make(fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_judge_may_not_guide(make):
    both = {"guidance.loss.similarity": 1.0, "guidance.text_target": "mosaic", "judge": "avatar-p8"}
    with pytest.raises(
        UserError, match="judge is 'avatar-p8'; expected a CLIP that does not guide"
    ):
        Settings.read(make(both))
