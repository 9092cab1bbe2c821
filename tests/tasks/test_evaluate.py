"""Numbers for pairs of generators, from the weights to the files."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import evaluate as configs
from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.evaluation import comparisons, sheets
from nada_jax.models.irse import Irse50, Irse50Architecture
from nada_jax.models.vgg import Vgg, VggArchitecture
from nada_jax.tasks import evaluate
from nada_jax.weights import loading as weights
from nada_jax.weights import native

ALWAYS = {
    "directional", "similarity", "nearer", "nearer_source", "diversity", "diversity_kept",
    "cluster_clip", "kid", "clip_fid",
}  # fmt: skip
FACTS = {
    "source": "avatar64",
    "texts": json.dumps(["cartoon portrait", "pencil sketch"]),
    "clips": json.dumps(["avatar-p16"]),
}
WIDTHS = (2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4)  # of a narrow VGG-16


def config(**fields):
    result = configs.get_config()
    quick = {"samples": 16, "batch_size": 12, "clusters": 2, "bootstrap": 50, "lpips.weights": ""}
    result.update_from_flattened_dict(quick | fields)
    return result


def measure(**fields):
    """What evaluation.json would hold."""
    return evaluate.measure(evaluate.Settings.read(config(**fields)))[0]


@pytest.fixture(scope="module")
def source():
    return weights.load_generator("avatar64")


@pytest.fixture(scope="module")
def grey(source, tmp_path_factory):
    """avatar64 without colours, as an adapted generator's file."""
    params = jax.tree.map(lambda x: x, source.params)
    for name, layer in params["synthesis"].items():
        if name.startswith("to_rgb"):
            layer["weight"] = np.repeat(np.mean(layer["weight"], -1, keepdims=True), 3, -1)
            layer["bias"] = np.repeat(np.mean(layer["bias"], keepdims=True), 3)
    path = tmp_path_factory.mktemp("grey") / "generator.safetensors"
    native.save_model(source.replace(params=params), path, **FACTS)
    return path


@pytest.fixture
def stranger(source, tmp_path):
    """stranger(**facts) -> a file of avatar64 with these facts in its header."""

    def save(**facts):
        native.save_model(source, tmp_path / "stranger.safetensors", **facts)
        return str(tmp_path / "stranger.safetensors")

    return save


def random_model(kind, architecture, spread):
    random = np.random.default_rng(0)
    arrays = {
        path: np.abs(random.normal(0, spread, shape)).astype(np.float32)
        if path.startswith("lin_") or path.endswith("var")
        else random.normal(0, spread, shape).astype(np.float32)
        for path, shape in architecture.shapes().items()
    }
    return native.model_from_arrays(kind, arrays, architecture)


def values(path):
    found = json.loads((path / "evaluation.json").read_text())
    return found, {name: measured["value"] for name, measured in found["metrics"].items()}


def test_what_no_change_looks_like(tmp_path, capsys):
    assert evaluate.run(config(), tmp_path) == 0
    found, value = values(tmp_path)
    assert set(value) == ALWAYS
    assert found["source"] == found["adapted"] == "avatar64"
    assert found["judge_trained"] is False and found["folder"] is None
    for name, expected in {"directional": 0, "kid": 0, "clip_fid": 0, "diversity_kept": 1}.items():
        for number in found["metrics"][name].values():
            assert number == pytest.approx(expected, abs=1e-6)
    assert value["nearer"] == value["nearer_source"]
    assert "which took no part in training" in capsys.readouterr().out


def test_an_adapted_generator_is_measured_from_its_file_alone(grey, tmp_path, capsys):
    fields = {"generator.weights": str(grey), "text.target": "black and white photo"}
    assert evaluate.run(config(**fields), tmp_path) == 0
    found, value = values(tmp_path)
    assert (found["source"], found["adapted"]) == ("avatar64", str(grey))
    assert found["texts"] == ["cartoon portrait", "black and white photo"]
    assert found["judge_trained"] is False and found["samples"] == 16
    assert value["directional"] > 0.2 and value["nearer"] > value["nearer_source"]
    assert value["kid"] > 0 and value["clip_fid"] > 0
    for measured in found["metrics"].values():
        assert measured["low"] <= measured["value"] <= measured["high"]

    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert row == {"samples": 16, "seconds": found["seconds"]} | value
    report = (tmp_path / "evaluation.md").read_text()
    assert f"| directional    | {value['directional']:.4f}" in report
    out = capsys.readouterr().out
    assert report in out and out.endswith("(one a row, the largest first)\n")
    assert "pairs of images: 12/16\npairs of images: 16/16" in out
    with Image.open(tmp_path / "samples" / "grid.png") as sheet:
        pixels = np.asarray(sheet, int)
    assert pixels.shape == (2 * (4 * 66 - 2), 2 * (8 * 66 - 2), 3)
    spread = np.ptp(pixels, axis=2)
    assert spread[:128].max() > 100 and spread[132:260].max() <= 2  # source over adapted
    with Image.open(tmp_path / "samples" / "clusters.png") as sheet:
        assert sheet.size == (2 * (8 * 66 - 2), 2 * (2 * 66 - 2))


def test_identity_and_lpips_are_measured_where_their_networks_are_given(grey, tmp_path):
    face = random_model(Irse50, Irse50Architecture(widths=(4,) * 2, stem=4, reduction=2), 0.5)
    vgg = random_model(Vgg, VggArchitecture(WIDTHS, linear=True), 0.5)
    native.save_model(face, tmp_path / "face.safetensors")
    native.save_model(vgg, tmp_path / "vgg.safetensors")
    found = measure(**{
        "generator.weights": str(grey), "lpips.pairs": 3,
        "identity.weights": str(tmp_path / "face.safetensors"),
        "lpips.weights": str(tmp_path / "vgg.safetensors"),
    })  # fmt: skip
    assert set(found["metrics"]) == ALWAYS | {"identity", "cluster_lpips"}
    assert list(found["metrics"]) == list(comparisons.METRICS)
    assert -1 <= found["metrics"]["identity"]["value"] < 1
    assert found["metrics"]["cluster_lpips"]["value"] > 0


def test_a_folder_takes_the_place_of_the_source(source, grey, tmp_path):
    z = np.random.default_rng(5).standard_normal((8, 256)).astype(np.float32)
    ws = np.asarray(source.broadcast(source.map(z)))
    for i, image in enumerate(sheets.draw_pairs(source, source, ws)):
        images.save(images.to_uint8(image), tmp_path / "images" / f"{i}.png")
    fields = {"folder": str(tmp_path / "images"), "source.weights": "avatar64"}
    near = measure(**fields)
    far = measure(**fields, **{"generator.weights": str(grey)})
    assert near["folder"] == str(tmp_path / "images")
    for name in ("kid", "clip_fid"):
        assert near["metrics"][name]["value"] < far["metrics"][name]["value"]
    kid = near["metrics"]["kid"]
    assert kid["low"] <= kid["value"] <= kid["high"]
    settings = evaluate.Settings.read(config(**fields))
    assert "| lower  | kernel distance" in evaluate.describe(near, settings)


@pytest.mark.parametrize(
    ("clips", "expected"),
    [({"clips": '["avatar-p16", "avatar-p8"]'}, True), ({}, None)],
)
def test_the_header_says_whether_the_judge_took_part(clips, expected, stranger):
    facts = {name: fact for name, fact in FACTS.items() if name != "clips"} | clips
    found = measure(**{"generator.weights": stranger(**facts), "samples": 8})
    assert found["judge_trained"] is expected


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "source.weights is empty, and the file of generator.weights="),
        ({"source": "x.pt"}, "source.weights is empty"),  # what it was converted from
        (FACTS | {"source": "gone.safetensors"}, "source.weights='gone.safetensors' is neither"),
        (FACTS | {"texts": '["photo"]'}, r"""texts='\["photo"\]'; expected a list of two texts"""),
        (FACTS | {"texts": "photo"}, "texts='photo'; expected a list of two texts"),
        (FACTS | {"clips": "{}"}, "clips='{}'; expected a list of names"),
    ],
)
def test_a_header_that_does_not_name_the_origin_is_refused(facts, message, stranger, tmp_path):
    with pytest.raises(UserError, match=message):
        evaluate.run(config(**{"generator.weights": stranger(**facts)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 7}, "samples is 7; expected 8 to 10,000"),
        ({"samples": 16, "clusters": 9}, "samples is 16; expected 18 to"),
        ({"clusters": 0}, "clusters is 0"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number in 1..10,000"),
        ({"bootstrap": 0}, "bootstrap is 0"),
        ({"bootstrap": 10**8}, r"bootstrap is 100000000; expected a whole number in 1\.\.100,000"),
        ({"lpips.pairs": 0}, "lpips.pairs is 0; expected a whole number from 1"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"truncation": 0.0}, "truncation is 0.0"),
        ({"truncation": 1e308}, r"truncation is 1e\+308; expected a number in -100\.\.100"),
        ({"truncation": float("nan")}, "truncation is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"judge": "nobody"}, "judge='nobody' is neither"),
        ({"generator.weights": "nowhere"}, "generator.weights='nowhere' is neither"),
        ({"source.weights": "nowhere"}, "source.weights='nowhere' is neither"),
        ({"text.target": " "}, "text.target is blank"),
        ({"text.source": "zombie", "text.target": "zombie"}, "are both 'zombie'"),
        ({"truncation": 1e-9}, "no difference between the images of the source; expected another"),
        ({"text.target": "Cartoon portrait"}, "which clip 'avatar-p8' reads as one text"),
        ({"folder": "nowhere"}, "folder='nowhere' is no directory"),
        ({"identity.weights": "nowhere.safetensors"}, "identity.weights='nowhere.safetensors'"),
        ({"lpips.weights": "nowhere.safetensors"}, "lpips.weights='nowhere.safetensors'"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_written(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        evaluate.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_few_images_is_refused(tmp_path):
    images.save(np.zeros((8, 8, 3), np.uint8), tmp_path / "images" / "1.png")
    with pytest.raises(UserError, match="holds 1 images; expected 8 to"):
        measure(folder=str(tmp_path / "images"))


def test_a_vgg_without_linear_layers_is_refused(tmp_path):
    vgg = random_model(Vgg, VggArchitecture((2, 2)), 0.5)
    native.save_model(vgg, tmp_path / "vgg.safetensors")
    fields = {"lpips.weights": str(tmp_path / "vgg.safetensors")}
    with pytest.raises(UserError, match=r"has no linear layers of LPIPS; convert it .*--lpips"):
        measure(**fields)


def test_generators_that_share_no_latents_are_refused(tiny_generator, tmp_path):
    native.save_model(tiny_generator, tmp_path / "tiny.safetensors")
    fields = {"source.weights": str(tmp_path / "tiny.safetensors")}
    with pytest.raises(
        UserError, match=r"latents of 6 x 8\) and generator.weights='avatar64' \(la"
    ):
        evaluate.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_tasks_workdir_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"task": "adapt", "steps": 5}')
    with pytest.raises(UserError, match="task was 'adapt' and is 'evaluate'"):
        evaluate.run(config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
