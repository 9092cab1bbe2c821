"""Directions, from the texts to the files."""

import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import find_direction as configs
from nada_jax import batches, files, images
from nada_jax.adaptation import prompts
from nada_jax.errors import UserError
from nada_jax.latents import directions, statistics
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction
from nada_jax.models.stylegan2 import draw_latents
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
    printed = capsys.readouterr().out
    assert "scored images: 40/40" in printed
    assert "strength +1: judged" in printed and "strength +0" not in printed


def test_a_global_direction_computes_its_statistics_once(config, tmp_path, capsys, monkeypatch):
    fields = {"find.method": "global", "find.beta": 0.0}
    assert find_direction.run(config(**fields), tmp_path / "a") == 0
    printed = capsys.readouterr().out
    assert "statistics, computed once: images: 52/52" in printed
    assert "the statistics are kept for further runs: " in printed
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
    # As folders, and not as texts, by which an edit would be measured.
    assert header["target_images"] == folders["target"] and "target" not in header
    with pytest.raises(UserError, match=r"strengths has 1e\+38, whose images are not finite"):
        fields |= {"find.method": "images", "strengths": (1e38,)}
        find_direction.run(config(**fields), tmp_path / "far")
    assert not (tmp_path / "far").exists()


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


def test_directions_by_one_clip_are_seen_by_another_reversed_and_added(avatar_clip, full_compile):
    generator, judge = loading.load_generator("avatar64"), loading.load_clip("avatar-p16")
    wanted = {name: f"person with {name}" for name in ("red hair", "glasses")}

    @jax.jit
    def see(clip, ws):
        return clip.embed_images(generator.synthesize(ws), antialias=True)

    def aims(clip):
        found = {k: prompts.text_direction(clip, "person", text) for k, text in wanted.items()}
        return {name: np.asarray(aim) for name, aim in found.items()}

    ws = np.asarray(draw_latents(generator, jax.random.key(0), 768))[:, 0]
    features = batches.apply(functools.partial(see, avatar_clip.without_texts()), 64, ws)
    found = {k: directions.fit(ws, features @ aim)[0] for k, aim in aims(avatar_clip).items()}
    start = generator.truncate(draw_latents(generator, jax.random.key(1), 32), 0.7)
    eye, judged = judge.without_texts(), aims(judge)
    before = see(eye, start)

    def nearer(several, strength):
        """Shares of images that the judge sees nearer to each text."""
        strengths = [strength] * len(several)
        moved = directions.move(Codes(ws=start), generator, several, strengths)
        change = np.asarray(see(eye, moved.ws) - before)
        return {name: float((change @ aim > 0).mean()) for name, aim in judged.items()}

    assert nearer([found["red hair"]], 2.0)["red hair"] > 0.6
    assert nearer([found["red hair"]], -2.0)["red hair"] < 0.4
    assert min(nearer(list(found.values()), 2.0).values()) > 0.6
