"""Grids and single images from any generator."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import sample as configs
from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents.seeds import draw
from nada_jax.tasks import sample
from nada_jax.weights import loading as weights
from nada_jax.weights import native


def config(**fields):
    result = configs.get_config()
    result.update_from_flattened_dict({"rows": 2, "columns": 3} | fields)
    return result


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, int)


def test_a_grid_and_single_files_are_drawn(tmp_path):
    assert sample.run(config(), tmp_path) == 0
    grid = pixels(tmp_path / "samples" / "grid.png")
    assert grid.shape == (2 * (2 * 66 - 2), 2 * (3 * 66 - 2), 3)
    singles = [pixels(tmp_path / "samples" / f"seed_{seed:04d}.png") for seed in range(6)]
    assert np.array_equal(grid[:128:2, :128:2], singles[0])
    assert np.array_equal(grid[132:260:2, 264:392:2], singles[5])
    assert len(list((tmp_path / "samples").iterdir())) == 7


def test_a_seed_gives_its_image_in_any_grid(tmp_path):
    sample.run(config(seed=4, rows=1, columns=1, singles=True), tmp_path / "one")
    sample.run(config(seed=0, singles=True), tmp_path / "many")
    one, many = (pixels(tmp_path / w / "samples" / "seed_0004.png") for w in ("one", "many"))
    assert np.abs(one - many).max() <= 1


def test_large_seeds_draw_images_of_their_own():
    generator = weights.load_generator("avatar64")
    seeds = range(2**32 - 2, 2**32)
    large, small = (
        draw(generator, numbers, truncation=1.0, noise="none")
        for numbers in (seeds, range(2**31 - 2, 2**31))
    )
    assert np.abs(large[0] - large[1]).mean() > 0.01
    assert np.abs(large[1] - small[1]).mean() > 0.01  # of which they share the lower 31 bits


def test_source_stands_above_adapted_from_the_same_latents(tmp_path):
    source = weights.load_generator("avatar64")
    brighter = jax.tree.map(lambda x: x, source.params)
    brighter["synthesis"]["to_rgb_4"]["bias"] = brighter["synthesis"]["to_rgb_4"]["bias"] - 0.5
    native.save_model(source.replace(params=brighter), tmp_path / "adapted.safetensors")
    fields = {"generator.weights": str(tmp_path / "adapted.safetensors"), "rows": 1}
    sample.run(config(**fields, **{"source.weights": "avatar64"}), tmp_path)
    grid = pixels(tmp_path / "samples" / "grid.png")
    assert grid.shape[0] == 260
    darker = (grid[:128] - grid[132:260])[:, :128]
    assert np.mean((darker >= 60) | (grid[132:260, :128] == 0)) > 0.9
    assert (tmp_path / "samples" / "source_0000.png").exists()


def test_truncation_zero_draws_one_image_and_noise_changes_it(tmp_path):
    generator = weights.load_generator("avatar64")
    same = draw(generator, range(2), truncation=0.0, noise="const")
    assert np.abs(same[0] - same[1]).max() < 1e-5
    noisy = draw(generator, range(2), truncation=0.0, noise="random")
    assert 1e-4 < np.abs(noisy[0] - noisy[1]).mean() < 0.2
    assert images.to_uint8(noisy).dtype == np.uint8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"noise": "loud"}, "noise is 'loud'"),
        ({"generator.weights": "nowhere"}, "generator.weights='nowhere' is neither"),
        ({"source.weights": "nowhere"}, "source.weights='nowhere' is neither"),
        ({"truncation": 1e308}, r"truncation is 1e\+308; expected a number in -100\.\.100"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"seed": 2**32}, r"seed is 4294967296; expected a whole number in 0\.\.2\^32 - 1"),
        (
            {"seed": 2**32 - 5, "generator.weights": "nowhere"},  # before anything is loaded
            "seed is 4294967291; expected at most 4,294,967,295 for the last of the 6 images",
        ),
        ({"rows": 2**31 - 1}, r"rows is 2147483647; expected rows \* columns up to 65,536"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_written(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        sample.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_that_are_not_finite_name_the_generator_and_leave_an_earlier_run(
    tmp_path, monkeypatch
):
    earlier = tmp_path / "samples" / "grid.png"
    (tmp_path / "config.json").write_text(config().to_json())
    earlier.parent.mkdir()
    earlier.write_text("earlier")
    drawn = np.full((6, 4, 4, 3), np.nan, np.float32)
    monkeypatch.setattr(sample, "draw", lambda *_: drawn)
    with pytest.raises(UserError, match="the images of generator.weights are not finite: 288 of"):
        sample.run(config(), tmp_path)
    assert earlier.read_text() == "earlier"


def test_another_tasks_workdir_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"task": "adapt", "steps": 5}')
    with pytest.raises(UserError, match="task was 'adapt' and is 'sample'"):
        sample.run(config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "fields", [{"rows": "a"}, {"rows": None}, {"rows": 1.5}, {"rows": 10**9}, {"source": {}}]
)
def test_a_damaged_config_is_told_before_anything_is_drawn(fields, tmp_path, monkeypatch):
    damaged = config().to_dict() | fields
    (tmp_path / "config.json").write_text(json.dumps(damaged))
    monkeypatch.setattr(sample, "load", lambda *_: pytest.fail("it was not told"))
    with pytest.raises(UserError, match="config.json is not the config of a run that draws images"):
        sample.run(config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_images_of_an_earlier_larger_grid_are_removed(tmp_path):
    sample.run(config(), tmp_path)
    sample.run(config(rows=1, columns=2), tmp_path)
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["grid.png", "seed_0000.png", "seed_0001.png"]


def test_images_that_no_run_drew_stay(tmp_path):
    mine = tmp_path / "samples" / "seed_0006.png"
    mine.parent.mkdir()
    mine.write_text("mine")
    sample.run(config(), tmp_path)
    sample.run(config(rows=1, columns=1), tmp_path)
    names = sorted(path.name for path in mine.parent.iterdir())
    assert names == ["grid.png", "seed_0000.png", "seed_0006.png"] and mine.read_text() == "mine"
    with pytest.raises(UserError, match="files that the run would replace .samples/seed_0003.png"):
        other = tmp_path / "other" / "samples"
        other.mkdir(parents=True)
        (other / "seed_0003.png").touch()
        sample.run(config(), other.parent)


def test_two_generators_of_different_size_are_refused(tiny_generator, tmp_path):
    native.save_model(tiny_generator, tmp_path / "tiny.safetensors")
    fields = {"source.weights": str(tmp_path / "tiny.safetensors")}
    with pytest.raises(UserError, match="differ in architecture"):
        sample.run(config(**fields), tmp_path / "run")
