"""Moving images by the command: files of every kind, what is refused, and what an earlier run leaves."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import interpolate as configs
from nada_jax.errors import UserError
from nada_jax.latents import codes as latent_files
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction, DirectionArchitecture
from nada_jax.motion import scenes
from nada_jax.tasks import interpolate
from nada_jax.weights import native

QUICK = {"motion.seconds": 0.4, "video.fps": 10.0, "video.side": 0, "seeds": (0, 1)}


@pytest.fixture
def config(tiny_file):
    def make(**fields):
        result = configs.get_config()
        fields = {name.replace("__", "."): x for name, x in fields.items()}
        result.update_from_flattened_dict(QUICK | {"generator.weights": str(tiny_file)} | fields)
        return result

    return make


@pytest.fixture(scope="module")
def adapted(tiny_generator, tmp_path_factory):
    """The workdir of an adaptation."""
    moved = jax.tree.map(lambda x: x + np.float32(0.1), tiny_generator.params)
    folder = tmp_path_factory.mktemp("adapted") / "nada_stone"
    native.save_model(tiny_generator.replace(params=moved), folder / "generator.safetensors")
    return str(folder)


def names(workdir):
    return sorted(
        str(x.relative_to(workdir))
        for x in workdir.rglob("*")
        if x.is_file() and not x.name.startswith(".")
    )


def test_formats_replace_each_other_in_a_workdir(config, tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg")
    others = ["config.json", "metrics.jsonl", "samples/frames.png"]
    frames = [f"frames/frame_{i:05d}.png" for i in range(8)]
    for format, found in (("frames", frames), ("mp4", ["video.mp4"]), ("gif", ["video.gif"])):
        assert interpolate.run(config(video__format=format), tmp_path) == 0
        assert names(tmp_path) == sorted(others + found)
    assert "step 8/8" in (said := capsys.readouterr().out)
    assert "video.gif (8 frames of 16x16 pixels, 0.8 s)" in said
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["frames"] == 8


def test_domains_and_edits_of_latents_and_their_tuned_generators(
    config, adapted, tiny_generator, tmp_path
):
    who = scenes.identity(tiny_generator, 3, 0.7).codes
    latent_files.write(tmp_path / "run/latents/face.npz", Codes(ws=who.ws))
    tuned = jax.tree.map(lambda x: x + np.float32(0.02), tiny_generator.params)
    tuned = tiny_generator.replace(params=tuned)
    native.save_model(tuned, tmp_path / "run/tuned/face.safetensors")
    fields = {"latents": str(tmp_path / "run/latents"), "video__format": "frames"}
    domains = config(motion__kind="domains", generators=(adapted,), video__labels=False, **fields)
    interpolate.run(domains, tmp_path / "domains")
    with Image.open(tmp_path / "domains/frames/frame_00000.png") as first:
        drawn = np.asarray(tuned.synthesize(who.ws))[0]
        expected = np.clip((drawn + 1) * 127.5, 0, 255)
        assert np.abs(np.asarray(first) - expected).max() <= 1.5
    architecture = DirectionArchitecture.of(tiny_generator, "w")
    step = {"w": np.ones(architecture.sizes, np.float32)}
    native.save_model(Direction(step, architecture), tmp_path / "direction.safetensors")
    edit = {"motion__kind": "edit", "edit__direction": str(tmp_path / "direction.safetensors")}
    interpolate.run(config(generators=(adapted,), **edit, **fields), tmp_path / "edit")
    with Image.open(tmp_path / "edit/frames/frame_00003.png") as frame:
        assert frame.size == (16, 16 + 2 * 22)  # with the domain's name and the strength
    wrong = config(**edit | {"generator__weights": "avatar64"})
    with pytest.raises(UserError, match="edit.direction='.*': the direction is for w of the sizes"):
        interpolate.run(wrong, tmp_path / "wrong")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": ()}, "seeds is (); expected at least one, or latents"),
        ({"seeds": (1,)}, "seeds is (1,); expected at least two, from one to the next"),
        ({"seeds": (1, -1)}, "seeds is (1, -1); expected whole numbers in 0..2^32 - 1"),
        ({"generators": ("sketch",)}, "generators is ('sketch',); expected () with motion.kind='w"),
        ({"motion__kind": "grid"}, "generators is (); expected adapted generators with motion.ki"),
        ({"motion__kind": "moon"}, "motion.kind is 'moon'; expected one of walk, domains, grid, e"),
        ({"motion__kind": "edit"}, "edit.text is ''; expected a text or edit.direction, one of bo"),
        ({"motion__kind": "edit", "edit__strengths": (1.0,)}, "edit.strengths is (1.0,); expected"),
        ({"motion__space": "z", "latents": "x"}, "motion.space is 'z'; expected 'w' with latents"),
        ({"motion__seconds": 0.0}, "motion.seconds is 0.0; expected a number above 0"),
        ({"motion__seconds": 3600}, "there would be 72,000 frames at video.fps=10; expect"),
        ({"motion__easing": "wild"}, "motion.easing is 'wild'; expected one of smooth, linear"),
        ({"video__fps": 400.0}, "video.fps is 400; expected 0.1 to 120 for mp4"),
        (
            {"motion__seconds": 1e308},
            "motion.seconds is 1e+308; expected at most 1,000,000 seconds",
        ),
        ({"video__side": 10**5}, "video.side is 100000; expected at most 8,192 pixels"),
        ({"latents": "nowhere"}, "latents='nowhere'"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_written(fields, message, config, tmp_path):
    with pytest.raises(UserError) as caught:
        interpolate.run(config(**fields), tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_command_leaves_the_earlier_result(config, tmp_path, monkeypatch):
    interpolate.run(config(video__format="gif"), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(interpolate.Progress, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interpolate.run(config(video__format="frames", seeds=(4, 5)), tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    assert not list(tmp_path.glob(".frames*"))
