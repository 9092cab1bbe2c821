"""Edits of images, latents and seeds into a workdir."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from configs import edit as configs
from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import codes
from nada_jax.latents.codes import Codes
from nada_jax.portraits.subjects import draw
from nada_jax.tasks import edit
from nada_jax.weights import native
from nada_jax.weights.registry import ASSETS


@pytest.fixture
def config(tiny_file, tiny_clip):
    """config(field=value) -> two steps of everything small."""

    def make(**fields):
        found = configs.get_config()
        small = {
            "generator.weights": str(tiny_file), "clip.models": (str(tiny_clip),), "judge": str(tiny_clip),
            "lpips.weights": "", "edit.steps": 2, "edit.label": "x", "seeds": (1, 2, 3), "batch_size": 2,
        }  # fmt: skip
        found.update_from_flattened_dict(small | fields)
        return found

    return make


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["image"]: row for row in map(json.loads, lines)}


def size(path):
    with Image.open(path) as image:
        return image.size


def test_seeds_are_edited_and_resumed(config, tmp_path, tiny_file, capsys):
    adapted = tmp_path / "nada_sketch" / "generator.safetensors"
    adapted.parent.mkdir()
    shutil.copy(tiny_file, adapted)
    fields = {"generators": (str(adapted),)}
    assert edit.run(config(**fields), tmp_path / "run") == 0
    names = {str(x.relative_to(tmp_path / "run")) for x in (tmp_path / "run").rglob("*.*")}
    subjects = [f"seed_000{i}_x" for i in (1, 2, 3)]
    assert names == {"config.json", "metrics.jsonl"} | {
        name.format(x)
        for x in subjects
        for name in ("edited/{}.png", "edited/{}_sketch.png", "latents/{}.npz", "strips/{}.png")
    }  # fmt: skip
    first = rows(tmp_path / "run")["seed_0001"]
    assert {"clip_before", "clip_after", "l2", "mse", "seconds", "edit", "text"} <= first.keys()
    # Before and after, in two rows of images that are 256 pixels wide.
    assert size(tmp_path / "run/strips/seed_0001_x.png") == (34 * 16, 34 * 16)
    (tmp_path / "run/edited/seed_0002_x.png").unlink()
    assert edit.run(config(**fields, seeds=(1, 2, 3, 4)), tmp_path / "run") == 0
    assert "2 of 4 are done already" in capsys.readouterr().out
    assert rows(tmp_path / "run").keys() == {f"seed_000{i}" for i in (1, 2, 3, 4)}
    assert rows(tmp_path / "run")["seed_0001"] == first


def test_latents_of_both_kinds_are_edited_and_bad_files_skipped(
    config, tiny_generator, tmp_path, capsys
):
    folder = tmp_path / "latents"
    folder.mkdir()
    ws = np.random.default_rng(0).standard_normal((3, 6, 8), np.float32)
    np.savez(folder / "several.npz", w=ws[:2])
    codes.write(folder / "styles.npz", Codes(styles=tiny_generator.styles(ws[2:])))
    (folder / "bad.npz").write_text("no latents")
    fields = {"seeds": (), "latents": str(folder), "edit.space": "style", "edit.l2": 0.0}
    assert edit.run(config(**fields), tmp_path / "run") == 2
    assert "skipped bad: " in capsys.readouterr().err
    assert rows(tmp_path / "run").keys() == {"several_0", "several_1", "styles"}
    found = codes.read(tmp_path / "run/latents/styles_x.npz", tiny_generator, "latents")
    assert found.styles is not None
    with pytest.raises(UserError, match="edit.space is 'w\\+', but the latents are styles"):
        fields |= {"edit.space": "w+", "latents": str(folder / "styles.npz")}
        edit.run(config(**fields), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_latents_of_a_run_of_invert_bring_their_tuned_generators(config, tiny_generator, tmp_path):
    # Of an inversion by "pti": latents/NAME.npz and tuned/NAME.safetensors.
    ws = np.random.default_rng(0).standard_normal((1, 6, 8), np.float32)
    for name in "ab":
        codes.write(tmp_path / f"latents/{name}.npz", Codes(ws=ws))
    tuned = jax.tree.map(lambda x: 1.3 * x, tiny_generator)
    native.save_model(tuned, tmp_path / "tuned/b.safetensors")
    fields = {"seeds": (), "latents": str(tmp_path / "latents"), "edit.l2": 1e6, "edit.lr": 1e-9}
    assert edit.run(config(**fields), tmp_path / "run") == 0
    for name, generator in {"a": tiny_generator, "b": tuned}.items():
        with Image.open(tmp_path / f"run/edited/{name}_x.png") as image:
            expected = images.to_uint8(draw(generator, Codes(ws=ws))[0])
            np.testing.assert_allclose(np.asarray(image, int), expected, atol=1)


def test_no_two_results_have_one_name(config, tiny_file, tmp_path, monkeypatch):
    edit.check_names(["a", "a_sketch"], "x", ["sketch"])
    edit.check_names(["a", "b"], "sketch", ["sketch"])
    with pytest.raises(UserError, match="'a' and 'A_sketch' would both become edited/A_sketch_s"):
        edit.check_names(["a", "A_sketch"], "sketch", ["sketch"])
    folder = tmp_path / "sketch"  # after which a bare generator.safetensors within is named
    for name in ("a", "a_sketch"):
        codes.write(folder / f"{name}.npz", Codes(ws=np.zeros((1, 6, 8), np.float32)))
    shutil.copy(tiny_file, folder / "generator.safetensors")
    monkeypatch.chdir(folder)
    fields = {"seeds": (), "latents": ".", "edit.label": "sketch"}
    with pytest.raises(UserError, match="would both become edited/a_sketch_sketch.png"):
        given = ("generator.safetensors",)
        edit.run(config(**fields, generators=given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_are_inverted_first(config, tmp_path):
    small = {"invert.method": "w+", "invert.steps": 1, "invert.l2": 1.0}
    image = str(ASSETS / "avatars" / "avatar_03.png")
    fields = {"seeds": (), "images": image, **small}
    assert edit.run(config(**fields), tmp_path / "run") == 0
    (name,) = rows(tmp_path / "run")
    # The image itself, before and after.
    assert size(tmp_path / f"run/strips/{name}_x.png") == ((3 * 18 - 2) * 16, 16 * 16)


def test_the_free_mode_starts_from_the_mean(config, tmp_path):
    fields = {"seeds": (), "edit.mode": "free", "edit.steps": 1}  # the first step has a rate of 0
    assert edit.run(config(**fields), tmp_path / "run") == 0
    (row,) = rows(tmp_path / "run").values()
    assert row["image"] == "mean" and row["mse"] < 1e-9


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"images": "avatars"}, "images and seeds are set; expected one of them"),
        ({"seeds": (-1,)}, r"seeds is \(-1,\); expected whole numbers"),
        ({"edit.mode": "free"}, "edit.mode is 'free', which starts from the mean latent"),
        ({"edit.identity": 0.1}, "edit.identity is 0.1 and identity.weights is ''"),
        ({"edit.label": "a/b"}, "edit.label is 'a/b'; expected a name"),
        ({"edit.text": " "}, "edit.text is blank"),
        ({"edit.method": "magic"}, "edit.method is 'magic'; expected one of optimize"),
        ({"edit.view": "official"}, "needs images in multiples of 32 pixels"),
        ({"clip.weights": (1.0, 2.0)}, "clip.weights is"),
        ({"generators": ("avatar64",)}, "generators has 'avatar64', whose architecture"),
        ({"seeds": (), "latents": "nowhere"}, "latents='nowhere' does not exist"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_written(fields, words, config, tmp_path):
    with pytest.raises(UserError, match=words):
        edit.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
