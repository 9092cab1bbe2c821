"""The task guided_diffusion, from the command line's config to its files."""

import functools
import inspect
import json
import shutil
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from configs import guided_diffusion as configs
from nada_jax import files
from nada_jax.diffusion import sampling
from nada_jax.errors import UserError
from nada_jax.guided import single
from nada_jax.models import diffusion
from nada_jax.runs.signals import Signals
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.tasks import guided_diffusion

PROMPT = "a person with red hair"
NAMES = [f"a_person_with_red_hair_{seed:04d}" for seed in range(2)]
STEPS = 4


@pytest.fixture(scope="module")
def make(tiny_diffusion_directory, narrow_networks):
    """make(field=value) -> few steps of a tiny model, guided by a narrow VGG, two a chunk."""

    def config(**fields):
        found = configs.get_config()
        small = {
            "diffusion.weights": str(tiny_diffusion_directory), "guidance.vgg": str(narrow_networks["vgg"]),
            "guidance.layers": ("relu1_1", "relu2_1"), "guidance.through": "estimate", "sampler.steps": STEPS,
            "prompt": PROMPT, "count": 2, "strip.columns": 3,
        }  # fmt: skip
        found.update_from_flattened_dict(
            small | {k.replace("__", "."): x for k, x in fields.items()}
        )
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "prepare", functools.partial(sampling.prepare, chunk=2))
        yield config


@pytest.fixture(scope="module")
def drawn(make, tmp_path_factory):
    """The workdir of a run."""
    workdir = tmp_path_factory.mktemp("drawn")
    assert guided_diffusion.run(make(), workdir) == 0
    return workdir


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def image_bytes(workdir):
    return [(workdir / f"images/{name}.png").read_bytes() for name in NAMES]


def test_a_prompt_and_two_seeds_are_two_images_with_their_paths(make, drawn, capsys):
    for name, row in zip(NAMES, rows(drawn), strict=True):
        with Image.open(drawn / f"images/{name}.png") as image:
            assert image.size == (16, 16)
        assert row["image"] == name and row["files"] == [f"images/{name}.png", f"paths/{name}.png"]
        assert [step for step, _ in row["losses"]["gram"]] == list(range(1, STEPS + 1))
        assert row["measures"].keys() == {"gram"} and row["prompt"] == PROMPT
    assert len(set(image_bytes(drawn))) == 2
    with Image.open(drawn / f"paths/{NAMES[0]}.png") as strip:  # reference, three steps, result
        assert strip.width == 5 * 256 + 4 * 4
    for name in ("grid.png", "loss.png", "guided_diffusion.html", "guided_diffusion.md"):
        assert (drawn / name).is_file()
    assert guided_diffusion.run(make(), drawn) == 0
    said = capsys.readouterr().out
    assert "2 of 2 are done already" in said
    assert f"images: {drawn / 'images'}, together {drawn / 'grid.png'}" in said
    assert "; distance from the style of mosaic, on average: " in said


@pytest.mark.parametrize("change", [{}, {"chunk": np.asarray(7)}, {"state_000": np.zeros(3)}])
def test_a_run_that_a_signal_ends_continues_to_the_same_images(
    make, drawn, tmp_path, monkeypatch, capsys, change
):
    numbers = iter([signal.SIGTERM])
    monkeypatch.setattr(Signals, "agreed", lambda *_: next(numbers, 0))
    assert guided_diffusion.run(make(), tmp_path) == 128 + signal.SIGTERM
    assert "stopped" in capsys.readouterr().out and not (tmp_path / "images").exists()
    path = tmp_path / SNAPSHOT
    arrays, metadata = files.read_safetensors(path)
    if change:  # a file that someone changed is not continued
        files.write_safetensors(path, arrays | change, metadata)
    assert guided_diffusion.run(make(), tmp_path) == 0
    said = capsys.readouterr().out
    assert ("continuing" in said) != bool(change) and f"step {STEPS}/{STEPS}" in said
    assert image_bytes(tmp_path) == image_bytes(drawn) and not path.exists()
    assert [row["losses"] for row in rows(tmp_path)] == [row["losses"] for row in rows(drawn)]


def test_without_weight_prompts_of_a_file_are_drawn_plainly_and_more_may_follow(
    make, tmp_path, capsys
):
    (tmp_path / "prompts.txt").write_text(
        "a smiling person\n\na person with a hat\na smiling person\n"
    )
    prompts = str(tmp_path / "prompts.txt")
    plain = {"guidance__weight": 0.0, "guidance__reference": "", "prompt": prompts, "batch_size": 3}
    workdir = tmp_path / "run"
    assert guided_diffusion.run(make(count=1, **plain), workdir) == 0
    assert [row["prompt"] for row in rows(workdir)] == ["a smiling person", "a person with a hat"]
    assert all(row["losses"] == row["measures"] == {} for row in rows(workdir))
    assert not (workdir / "loss.png").exists() and "distance" not in capsys.readouterr().out
    before = (workdir / "images/a_smiling_person_0000.png").read_bytes()
    assert guided_diffusion.run(make(count=2, **plain), workdir) == 0  # 2 batches of 2
    assert "2 of 4 are done already" in capsys.readouterr().out and len(rows(workdir)) == 4
    assert (workdir / "images/a_smiling_person_0000.png").read_bytes() == before
    assert (workdir / "guided_diffusion.html").read_text().count("<h2>") == 2
    with pytest.raises(UserError, match="guidance.weight was 0.0 and is 0.6"):
        guided_diffusion.run(make(), workdir)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " "}, "prompt is ' '; expected what the images show, such as"),
        ({"prompt": "nowhere.txt"}, "prompt is 'nowhere.txt'; expected a text, or an existing"),
        ({"count": 10**6}, "count is 1000000; expected 1 to 65,536 images"),
        ({"seed": 2**32 - 1}, "seed is 4294967295; expected at most 4,294,967,294"),
        ({"sampler__method": "magic"}, "sampler.method is 'magic'; expected one of ddim, pndm"),
        ({"sampler__size": 10**6}, "sampler.size is 1000000; expected pixels of a side"),
        ({"sampler__size": 33}, "sampler.size is 33; expected a multiple of 2"),
        ({"sampler__steps": 2000}, "sampler.steps is 2000; expected 1 to 1,000 steps"),
        ({"guidance__reference": ""}, "guidance.reference is ''; expected a style image"),
        ({"guidance__reference": "nowhere"}, "guidance.reference='nowhere' does not exist"),
        ({"guidance__reference": "styles"}, "guidance.reference='styles' names 7 images"),
        ({"guidance__loss__gram": 0.0}, "all of guidance.loss .* are 0"),
        ({"guidance__layers": ("relu9_9",)}, "guidance.layers is"),
        ({"diffusion__weights": "nowhere"}, "diffusion.weights='nowhere' is neither an embedded"),
        ({"diffusion__weights": "clip"}, "diffusion.weights='.*' is neither an embedded name"),
        ({"strip__columns": 1000}, "strip.columns is 1000; expected a whole number in 0..100"),
        ({"mesh__data": 3}, "mesh.data"),
    ],
)
def test_wrong_fields_are_named_before_anything_is_written(
    make, tiny_clip, tmp_path, fields, message
):
    if fields.get("diffusion__weights") == "clip":
        fields = {"diffusion__weights": str(tiny_clip)}
    with pytest.raises(UserError, match=message):
        guided_diffusion.run(make(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_prompts_of_one_name_are_refused(make, tmp_path):
    (tmp_path / "prompts.txt").write_text("a person\na person!\n")
    with pytest.raises(UserError, match="prompts 'a person' and 'a person!' would both be called"):
        guided_diffusion.run(make(prompt=str(tmp_path / "prompts.txt")), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": PROMPT + "!"}, "would replace; give another --workdir"),
        ({"prompt": ["a"]}, "would replace; give another --workdir"),
        ({"files": 5}, "has files=5; expected a list of names of files"),
        ({"files": []}, "lacks some of what was measured"),
        ({"losses": None}, "lacks some of what was measured"),
        ({"measures": {"gram": "a"}}, "lacks some of what was measured"),
        ({"seed": None}, "lacks some of what was measured"),
        (None, "has 8 x 8 pixels, and others of the run 16 x 16"),
    ],
)
def test_results_changed_by_hand_are_named(make, drawn, tmp_path, change, message):
    workdir = shutil.copytree(drawn, tmp_path / "run")
    first, second = rows(workdir)
    if change is None:
        Image.new("RGB", (8, 8)).save(workdir / f"images/{NAMES[1]}.png")
    lines = [json.dumps(x) for x in (first, second | (change or {}))]
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=message):
        guided_diffusion.run(make(), workdir)


@pytest.mark.parametrize("seeds", [5, [], ["a"], [float("nan")], [None], np.array([[1]]), [-1]])
def test_seeds_of_a_call_are_whole_numbers(tiny_diffusion, seeds):
    with pytest.raises(UserError, match="seeds is .*expected one or more whole numbers"):
        single.guided_diffusion(PROMPT, weights=tiny_diffusion, seeds=seeds)


def test_where_diffusers_is_not_installed_a_sentence_says_what_to_do(make, tmp_path, monkeypatch):
    diffusion.networks.cache_clear()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match="pip install -r requirements-diffusion.txt"):
        guided_diffusion.run(make(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_call_gives_the_images_of_the_command(make, drawn, tiny_diffusion):
    guidance, weights = make().guidance, make().diffusion.weights
    fields = {name: guidance[name] for name in ("vgg", "layers", "through")}
    reports = []
    images = single.guided_diffusion(
        PROMPT, "mosaic", seeds=(0, 1), weights=weights, steps=STEPS, report=lambda *x: reports.append(x), **fields
    )  # fmt: skip
    assert reports == [(2, STEPS), (4, STEPS)] and images.dtype == np.float32
    for name, image in zip(NAMES, images, strict=True):
        with Image.open(drawn / f"images/{name}.png") as file:
            np.testing.assert_allclose(np.asarray(file) / 127.5 - 1, image, atol=0.005)
    with pytest.raises(UserError, match="guidance is 'wieght'; expected fields out of"):
        single.guided_diffusion(PROMPT, "mosaic", weights=tiny_diffusion, wieght=1.0)
    with pytest.raises(UserError, match="prompt is .*; expected one text, or 1, as seeds"):
        single.guided_diffusion([PROMPT] * 2, weights=tiny_diffusion)


def test_defaults_of_the_call_are_those_of_the_config():
    config = configs.get_config().to_dict()
    ours = {k: x for k, x in config["guidance"].items() if k != "loss"}
    ours |= {"reference": "", "content": ""}
    assert ours == single.DEFAULTS
    assert {k: x for k, x in config["guidance"]["loss"].items() if x} == {"gram": 1.0}
    given = {k: x.default for k, x in inspect.signature(single.guided_diffusion).parameters.items()}
    assert {k: given[k] for k in config["sampler"]} == config["sampler"]
    assert given["weights"] == config["diffusion"]["weights"]
