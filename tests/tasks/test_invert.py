"""Inversion as a task: files, resuming, bad images, wrong fields."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import invert as configs
from nada_jax.errors import UserError
from nada_jax.latents import codes
from nada_jax.tasks import invert
from nada_jax.weights import loading

NAMES = ("b", "a", "c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images of 16 pixels, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in NAMES:
        colours = Image.fromarray(random.integers(0, 255, (3, 3, 3), np.uint8))
        colours.resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    (folder / "broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def config(folder, tiny_file, narrow_networks):
    """config({"invert.steps": 3}) -> one of few steps, on these images."""

    def make(fields=()):
        config = configs.get_config()
        config.update_from_flattened_dict({
            "images": str(folder), "generator.weights": str(tiny_file), "judge": "", "batch_size": 2,
            "lpips.weights": str(narrow_networks["vgg"]), "invert.steps": 5, "invert.pivot_steps": 5,
            "invert.tuning_steps": 5,
        } | dict(fields))  # fmt: skip
        return config

    return make


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    """A finished run, and what it returned."""
    workdir = tmp_path_factory.mktemp("run") / "invert"
    return workdir, invert.run(config(), workdir)


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["image"]: row for row in map(json.loads, lines)}


def test_each_image_has_its_results_and_a_bad_one_is_counted(done, tiny_generator):
    workdir, code = done
    assert code == 2
    assert rows(workdir).keys() == set(NAMES)
    for name, row in rows(workdir).items():
        assert {"mse", "lpips", "seconds"} <= row.keys() and row["mse"] > 0
        for kind in ("aligned", "reconstructions"):
            with Image.open(workdir / kind / f"{name}.png") as image:
                assert image.size == (16, 16)
        with Image.open(workdir / "strips" / f"{name}.png") as strip:
            assert strip.height >= invert.LOOK and strip.width > 2 * invert.LOOK
        found = codes.read(workdir / "latents" / f"{name}.npz", tiny_generator, "latents")
        again = np.asarray(found.draw(tiny_generator))[0]
        with Image.open(workdir / "reconstructions" / f"{name}.png") as image:
            shown = np.asarray(image, np.float32) / 127.5 - 1
        np.testing.assert_allclose(np.clip(again, -1, 1), shown, atol=0.01)


def test_an_image_alone_is_found_to_be_the_same(done, config, folder, tmp_path):
    invert.run(config({"images": str(folder / "c.png")}), tmp_path)
    assert list(rows(tmp_path)) == ["c"]
    one, other = (np.load(path / "latents" / "c.npz") for path in (tmp_path, done[0]))
    np.testing.assert_allclose(one["ws"], other["ws"], atol=5e-3)


def test_a_run_goes_on_where_it_was_left(done, config, capsys):
    workdir, _ = done
    before = (workdir / "latents" / "a.npz").stat().st_mtime_ns
    (workdir / "strips" / "b.png").unlink()
    assert invert.run(config(), workdir) == 2
    out, err = capsys.readouterr()
    assert "2 of 4 are done already" in out and "image 1: b" in out
    assert "skipped broken" in err
    assert (workdir / "latents" / "a.npz").stat().st_mtime_ns == before
    assert rows(workdir).keys() == set(NAMES)


def test_tuned_generators_draw_their_images(
    config, folder, tiny_clip, narrow_networks, tmp_path, capsys
):
    fields = {
        "images": str(folder / "a.png"), "invert.method": "pti", "invert.noise": False, "judge": str(tiny_clip),
        "identity.weights": str(narrow_networks["irse50"]), "invert.tuning_lr": 0.01,
    }  # fmt: skip
    assert invert.run(config(fields), tmp_path) == 0
    row = rows(tmp_path)["a"]
    assert row["mse"] < row["pivot_mse"] and -1 <= row["clip"] <= 1 and -1 <= row["identity"] <= 1
    tuned = loading.load_generator(tmp_path / "tuned" / "a.safetensors")
    found = codes.read(tmp_path / "latents" / "a.npz", tuned, "latents")
    with Image.open(tmp_path / "reconstructions" / "a.png") as image:
        shown = np.asarray(image, np.float32) / 127.5 - 1
    np.testing.assert_allclose(
        np.clip(jax.jit(codes.Codes.draw)(found, tuned)[0], -1, 1), shown, atol=0.01
    )
    assert capsys.readouterr().out.splitlines()[-1].endswith("strips/a.png")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"invert.method": "psp"}, "invert.method is 'psp'; expected one of w, w\\+, style"),
        ({"invert.start": "zero"}, "invert.start is 'zero'; expected one of mean, encoder"),
        ({"invert.steps": 0}, "invert.steps is 0; expected a whole number from 1"),
        ({"invert.lr": -0.1}, "invert.lr is -0.1; expected a number above 0"),
        ({"invert.w_noise": -1.0}, "invert.w_noise is -1.0; expected a number from 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"images": "nowhere"}, "images='nowhere' does not exist"),
        ({"lpips.weights": "nowhere"}, "lpips.weights='nowhere' is neither a file"),
        ({"lpips.weights": ""}, "lpips.weights is '' and invert.l2 is 0"),
        ({"invert.method": "encoder", "encoder.weights": ""}, "encoder.weights is ''"),
        ({"invert.method": "encoder", "encoder.weights": "nowhere"}, "encoder.weights='nowhere'"),
        ({"generator.weights": "nowhere"}, "generator.weights='nowhere'"),
        ({"judge": "nowhere"}, "judge='nowhere'"),
    ],
)
def test_wrong_fields_end_in_a_sentence_and_leave_nothing(fields, words, config, tmp_path):
    with pytest.raises(UserError, match=words):
        invert.run(config(fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_optimisation_that_diverges_says_so(config, folder, tmp_path):
    fields = {"images": str(folder / "a.png"), "invert.lr": 1e30, "invert.steps": 40}
    with pytest.raises(UserError, match="diverged with invert.lr=1e\\+30; expected a smaller rate"):
        invert.run(config(fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
