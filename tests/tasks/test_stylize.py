"""Images drawn in adapted domains, into a workdir."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import invert as inversions
from configs import stylize as configs
from nada_jax.errors import UserError
from nada_jax.latents import codes
from nada_jax.runs.items import Item
from nada_jax.tasks import invert, stylize
from nada_jax.weights import native
from nada_jax.weights.registry import ASSETS

SMALL = {
    "lpips.weights": "",
    "judge": "",
    "invert.l2": 1.0,
    "invert.steps": 2,
    "invert.method": "w+",
}


@pytest.fixture
def sketch(tmp_path, tiny_generator):
    """The file of a generator that differs from the tiny one."""
    path = tmp_path / "nada_sketch" / "generator.safetensors"
    params = jax.tree.map(lambda x: 1.5 * x, tiny_generator.params)
    native.save_model(tiny_generator.replace(params=params), path)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder with two images, and one that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("avatar_03.png", "avatar_06.png"):
        shutil.copy(ASSETS / "avatars" / name, folder)
    (folder / "bad.png").write_text("no image")
    return folder


@pytest.fixture
def config(tiny_file, sketch, photos):
    """config(field=value) -> a few steps of everything small."""

    def make(**fields):
        found = configs.get_config()
        small = SMALL | {
            "generator.weights": str(tiny_file), "generators": (str(sketch),),
            "images": str(photos),
        }  # fmt: skip
        found.update_from_flattened_dict(small | fields)
        return found

    return make


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["image"]: row for row in map(json.loads, lines)}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, int)


def test_every_image_is_drawn_in_every_domain(config, sketch, tiny_file, tmp_path, capsys):
    fields = {"generators": (str(sketch), str(tiny_file)), "strength": (0.0, 1.0)}
    assert stylize.run(config(**fields), tmp_path / "run") == 2
    said = capsys.readouterr()
    assert "skipped bad: " in said.err and "1 of 3 could not be done (bad)" in said.err
    assert "image, reconstruction, sketch, tiny: " in said.out
    run = tmp_path / "run"
    names = {str(x.relative_to(run)) for x in run.rglob("*.*")}
    assert names == {"config.json", "metrics.jsonl", "stylize.html"} | {
        name.format(x)
        for x in ("avatar_03", "avatar_06")
        for name in (
            "aligned/{}.png", "latents/{}.npz", "reconstructions/{}.png", "strips/{}.png",
            "stylized/{}_sketch.png", "stylized/{}_tiny.png",
        )
    }  # fmt: skip
    first = rows(run)["avatar_03"]
    assert {"mse", "seconds"} <= first.keys()
    assert {name: x[1] for name, x in first["domains"].items()} == {"sketch": 0.0, "tiny": 1.0}
    # Of strength 0, and by the source itself.
    for name in ("sketch", "tiny"):
        drawn = pixels(run / f"stylized/avatar_03_{name}.png")
        np.testing.assert_array_equal(drawn, pixels(run / "reconstructions/avatar_03.png"))
    page = (run / "stylize.html").read_text()
    assert page.count("<figure>") == 8 and "http" not in page


def test_other_domains_are_drawn_from_the_latents_that_are_there(
    config, sketch, tiny_file, tmp_path, monkeypatch, capsys
):
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    image = {"images": str(tmp_path / "a.png"), "align.mode": "crop", "align.crop": (24, 8, 72, 56)}
    run = tmp_path / "run"
    assert stylize.run(config(**image), run) == 0
    before = rows(run)["a"]
    full = pixels(run / "stylized/a_sketch.png")
    monkeypatch.setattr(stylize.inversions, "find", None)  # nothing may be inverted again
    monkeypatch.setattr(stylize.inversions, "load", None)
    assert stylize.run(config(**image), run) == 0
    assert "1 of 1 are done already" in capsys.readouterr().out
    fields = image | {
        "generators": (str(sketch), str(tiny_file)),
        "strength": (0.5,),
        "paste": True,
    }
    assert stylize.run(config(**fields), run) == 0
    assert "1 of 1 were inverted before" in capsys.readouterr().out
    after = rows(run)["a"]
    assert after["mse"] == before["mse"] and set(after["domains"]) == {"sketch", "tiny"}
    half = pixels(run / "stylized/a_sketch.png")
    none = pixels(run / "reconstructions/a.png")
    assert 0 < np.abs(half - none).sum() < np.abs(full - none).sum()
    pasted = pixels(run / "stylized/a_sketch_photo.png")
    assert pasted.shape == photo.shape and np.abs(pasted[8:56, 24:72] - photo[8:56, 24:72]).any()
    np.testing.assert_array_equal(pasted[:, :23], photo[:, :23])  # beside the crop
    # Photograph, aligned, reconstruction, two domains.
    assert pixels(run / "strips/a.png").shape[1] == 5 * 260 - 4
    # The recipe is run again.
    shutil.copy(tiny_file, sketch)
    assert stylize.run(config(**fields), run) == 0
    np.testing.assert_array_equal(pixels(run / "stylized/a_sketch.png"), none)
    with pytest.raises(UserError, match=r"invert.steps was 2 and is 3.*overwrite=True"):
        stylize.run(config(**fields, **{"invert.steps": 3}), run)


@pytest.mark.parametrize("method", ["pti", "style"])
def test_latents_of_an_inversion_are_drawn_with_what_was_tuned(config, tmp_path, tiny_file, method):
    source = inversions.get_config()
    steps = {"invert.pivot_steps": 2, "invert.tuning_steps": 2, "invert.tuning_lr": 0.01}
    fields = SMALL | steps | {"invert.method": method, "generator.weights": str(tiny_file)}
    fields["images"] = str(ASSETS / "avatars" / "avatar_03.png")
    source.update_from_flattened_dict(fields)
    assert invert.run(source, tmp_path / "inverted") == 0
    fields = {"latents": str(tmp_path / "inverted/latents"), "generators": (str(tiny_file),)}
    assert stylize.run(config(**fields), tmp_path / "run") == 0
    found = pixels(tmp_path / "inverted/reconstructions/avatar_03.png")
    # The source as a domain of itself: the reconstruction by the tuned generator.
    for name in ("reconstructions/avatar_03", "stylized/avatar_03_tiny"):
        assert np.abs(pixels(tmp_path / f"run/{name}.png") - found).max() <= 1
    assert (tmp_path / "run/tuned/avatar_03.safetensors").exists() == (method == "pti")
    with pytest.raises(UserError, match="paste is True; expected False with latents"):
        stylize.run(config(**fields, paste=True), tmp_path / "other")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"generators": ()}, r"generators is \(\); expected at least one adapted generator"),
        ({"strength": (1.0, 0.5)}, r"strength is .* one for each of the 1 generators"),
        ({"strength": (float("nan"),)}, r"strength is .*expected one number"),
        ({"generators": ("avatar64.pt",)}, r"generators has 'avatar64\.pt', which is neither"),
        ({"latents": "nowhere"}, "latents='nowhere' does not exist"),
    ],
)
def test_wrong_input_leaves_nothing_behind(config, tmp_path, fields, words):
    with pytest.raises(UserError, match=words):
        stylize.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_of_latents_is_skipped(config, tmp_path):
    folder = tmp_path / "latents"
    folder.mkdir()
    good = np.zeros((1, 6, 8), np.float32)
    codes.write(folder / "good.npz", codes.Codes(ws=good))
    np.savez(folder / "several.npz", ws=np.zeros((2, 6, 8), np.float32))
    (folder / "bad.npz").write_text("no latents")
    assert stylize.run(config(latents=str(folder)), tmp_path / "run") == 2
    assert rows(tmp_path / "run").keys() == {"good"}


def test_further_faces_of_a_photograph_are_drawn_again_too():
    item = Item("a", Path("a.png"))
    # a_4 and b_2 are images of their own.
    rows = {
        "a_2": {"face_of": "a"},
        "a_3": {"face_of": "a"},
        "a": {},
        "a_4": {},
        "b": {},
        "b_2": {},
    }
    assert [face.name for face in stylize.faces_of(item, rows)] == ["a_2", "a_3", "a"]


def test_two_results_of_one_name_are_refused():
    stylize.check_names(["a", "a_2", "b"], ["sketch", "joker"])
    with pytest.raises(
        UserError, match=r"'a' and 'a_B', which would both become stylized/a_B_c\.png"
    ):
        stylize.check_names(["a", "a_B"], ["c", "b_c"])
    with pytest.raises(UserError, match=r"generators has 'sketch' and 'sketch_photo', which would"):
        stylize.check_names(["a"], ["sketch", "sketch_photo"])
    with pytest.raises(UserError, match=r"generators has 'reconstruction'.*rename its folder"):
        stylize.check_names(["a"], ["sketch", "reconstruction"])
