"""The tasks style_transfer and meanvar, from the command line's config to their files."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from configs import meanvar as meanvar_configs
from configs import style_transfer as configs
from nada_jax.errors import UserError
from nada_jax.runs import signals
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.tasks import meanvar, style_transfer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images "sea" and "hill" (contents), "dots" and "lines" (styles), masks "left" and "right"."""
    directory = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, size in (
        ("sea", (48, 36)),
        ("hill", (36, 48)),
        ("dots", (40, 40)),
        ("lines", (64, 20)),
    ):
        coarse = random.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(
            directory / f"{name}.png"
        )
    for name, left in (("left", 1), ("right", 0)):
        mask = np.zeros((36, 48), np.uint8)
        mask[:, :24], mask[:, 24:] = 255 * left, 255 * (1 - left)
        Image.fromarray(mask).save(directory / f"{name}.png")
    return directory


@pytest.fixture
def make(folder, narrow_networks):
    """make("sea", "dots,lines", field=value) -> few steps by a narrow VGG."""

    def paths(names):
        return ",".join(
            str(folder / f"{x}.png") if (folder / f"{x}.png").exists() else x
            for x in names.split(",")
        )

    def config(content, style, base=configs, **fields):
        found = base.get_config()
        small = {
            "content": paths(content), "style": paths(style), "size": 32, "vgg.weights": str(narrow_networks["vgg"]),
            "scales.smallest": 24, "scales.first_steps": 2, "scales.steps": 2,
            "loss.style_layers": ("relu1_1", "relu2_1"), "loss.content_layers": ("relu2_2",),
        }  # fmt: skip
        if fields.get("masks"):
            fields["masks"] = paths(fields["masks"])
        found.update_from_flattened_dict(
            small | {k.replace("__", "."): x for k, x in fields.items()}
        )
        return found

    return config


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_one_content_and_one_style_are_one_result(make, tmp_path, capsys):
    assert style_transfer.run(make("sea", "dots"), tmp_path / "run") == 0
    with Image.open(tmp_path / "run/result.png") as image:
        assert image.size == (32, 24)
    assert [step for step, _ in rows(tmp_path / "run")[0]["losses"]] == [2]
    assert (tmp_path / "run/loss.png").is_file()
    assert (tmp_path / "run/strip.png").is_file() and not (tmp_path / "run/results").exists()
    said = capsys.readouterr().out
    assert f"result: {tmp_path / 'run/result.png'}" in said and "VGG-16" in said
    assert style_transfer.run(make("sea", "dots"), tmp_path / "run") == 0
    assert "1 of 1 are done already" in capsys.readouterr().out
    with pytest.raises(UserError, match="content was .*sea.png' and is .*hill.png"):
        style_transfer.run(make("hill", "dots"), tmp_path / "run")


def test_contents_styles_and_weights_are_as_many_results_and_more_may_follow(make, tmp_path):
    fields = {"loss__style": (1.0, 100.0), "colors": "match"}
    assert style_transfer.run(make("sea,hill", "dots", **fields), tmp_path) == 0
    names = {f"{c}_dots_{w}" for c in ("sea", "hill") for w in (1, 100)}
    assert {row["image"] for row in rows(tmp_path)} == names
    assert {path.stem for path in (tmp_path / "results").iterdir()} == names
    before = (tmp_path / "results/sea_dots_1.png").read_bytes()
    assert style_transfer.run(make("sea,hill", "dots,lines", **fields), tmp_path) == 0
    assert len(rows(tmp_path)) == 8 and len(list((tmp_path / "strips").iterdir())) == 8
    assert (tmp_path / "results/sea_dots_1.png").read_bytes() == before
    page = (tmp_path / "style_transfer.html").read_text()
    assert page.count("<h2>") == 5 and "sea, weight 100" in page
    assert (tmp_path / "style_transfer.md").read_text().count("\n") == 10


def test_styles_share_an_image_or_stand_in_their_regions(make, tmp_path):
    assert style_transfer.run(make("sea", "dots,lines", blend=(1.0, 3.0)), tmp_path / "a") == 0
    masks = {"masks": "left,right", "colors": "luminance", "strength": 0.5}
    assert style_transfer.run(make("sea", "dots,lines", **masks), tmp_path / "b") == 0
    assert rows(tmp_path / "a")[0]["image"] == rows(tmp_path / "b")[0]["image"] == "sea_dots+lines"


def test_a_bad_image_is_named_and_the_others_are_done(make, folder, tmp_path, capsys):
    (folder / "broken.png").write_text("no image")
    try:
        code = style_transfer.run(make("sea,broken", "dots"), tmp_path)
    finally:
        (folder / "broken.png").unlink()
    assert code == 2 and [row["image"] for row in rows(tmp_path)] == ["sea_dots"]
    assert "skipped broken_dots: " in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "LA", "1"])
def test_images_of_all_modes_can_be_content_and_style(make, folder, tmp_path, mode):
    grey = np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)
    image = (
        Image.fromarray(grey.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(grey).convert(mode)
    )
    image.save(tmp_path / "odd.png")
    odd = str(tmp_path / "odd.png")
    assert style_transfer.run(make(odd, odd, scales__smallest=32), tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"blend": (1.0, 2.0)},
            r"blend is \(1.0, 2.0\); expected a share for each of the 1 styles",
        ),
        ({"blend": (0.0,)}, "blend is .*not all of them 0"),
        ({"masks": "left,right"}, "expected a mask for each of the 1 styles"),
        ({"masks": "nowhere"}, "masks='nowhere' does not exist"),
        ({"start": "nowhere"}, "start='nowhere' does not exist"),
        ({"size": 8}, "size is 8; expected a whole number of pixels in 16"),
        ({"loss__style": ()}, "loss.style is"),
        ({"loss__style": (1.0, 1.0)}, "loss.style is .*numbers that differ"),
        (
            {"loss__style_layers": ("relu9_9",)},
            "loss.style_layers is .*different layers out of conv1_1",
        ),
        ({"loss__style_layer_weights": (1.0,)}, "loss.style_layer_weights is .*2 numbers from 0"),
        (
            {"loss__kind": "colour"},
            "loss.kind is 'colour'; expected one of gram, mean_variance, wasserstein",
        ),
        (
            {"optimizer__averaging": 1.0},
            "optimizer.averaging is 1.0; expected a number from 0, below 1",
        ),
        ({"loss__style_layers": ("relu5_1",)}, "sea_dots: an image of 32 x 24 pixels is too small"),
        ({"vgg__weights": "nowhere"}, "vgg.weights='nowhere'"),
    ],
)
def test_wrong_fields_are_named_before_anything_is_written(make, tmp_path, fields, message):
    if "relu5_1" in str(fields):
        fields = fields | {"size": 32, "loss__style_layers": ("relu1_1", "pool5")}
    with pytest.raises(UserError, match=message):
        style_transfer.run(make("sea", "dots", **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_a_signal_ends_continues_to_the_same_image(make, tmp_path, monkeypatch, capsys):
    config = make("sea", "dots", start="noise")
    assert style_transfer.run(config, tmp_path / "whole") == 0
    calls = []

    def agreed(self, meeting):
        calls.append(meeting)
        return signal.SIGTERM if len(calls) == 1 else 0

    monkeypatch.setattr(signals.Signals, "agreed", agreed)
    assert style_transfer.run(config, tmp_path / "parts") == 128 + signal.SIGTERM
    assert (tmp_path / "parts" / SNAPSHOT).is_file()
    assert not (tmp_path / "parts/result.png").exists()
    assert style_transfer.run(config, tmp_path / "parts") == 0
    assert "continuing" in capsys.readouterr().out
    assert not (tmp_path / "parts" / SNAPSHOT).exists()
    images = [(tmp_path / x / "result.png").read_bytes() for x in ("whole", "parts")]
    assert images[0] == images[1]
    assert rows(tmp_path / "whole")[0]["losses"] == rows(tmp_path / "parts")[0]["losses"]


def test_more_weight_of_the_style_brings_style_and_costs_content(tmp_path):
    """On images that ship, by the VGG-16 of LPIPS."""
    config = configs.get_config()
    config.update_from_flattened_dict({
        "content": "harbour", "style": "strokes", "size": 64, "loss.style": (1.0, 30.0, 1000.0),
        "scales.smallest": 64, "scales.first_steps": 25, "optimizer.averaging": 0.5,
        "loss.content_layers": ("relu3_1",), "loss.style_layers": ("relu1_1", "relu2_1", "relu3_1"),
    })  # fmt: skip
    assert style_transfer.run(config, tmp_path) == 0
    found = sorted(rows(tmp_path), key=lambda row: row["weight"])
    contents, styles = ([row[x] for row in found] for x in ("content_loss", "style_loss"))
    assert contents == sorted(contents) and styles == sorted(styles, reverse=True)
    assert styles[0] > 2 * styles[2]


def test_kinds_are_compared_by_all_of_them(make, tmp_path, capsys):
    fields = {"kinds": ("gram", "mean_variance"), "loss__style": (1.0, 1000.0)}
    assert meanvar.run(make("sea", "dots", meanvar_configs, **fields), tmp_path) == 0
    names = {f"{kind}_{weight}" for kind in fields["kinds"] for weight in (1, 1000)}
    assert {row["image"] for row in rows(tmp_path)} == names
    assert {"gram", "mean_variance", "wasserstein", "variety", "content"} <= set(rows(tmp_path)[0])
    assert (tmp_path / "meanvar.md").read_text().count("\n") == 6
    assert "weight 1,000" in (tmp_path / "meanvar.html").read_text()
    with pytest.raises(UserError, match="names 2 images; expected one"):
        meanvar.run(make("sea,hill", "dots", meanvar_configs), tmp_path / "other")
    with pytest.raises(UserError, match="kinds is .*different names out of gram"):
        meanvar.run(
            make("sea", "dots", meanvar_configs, kinds=("gram", "gram")), tmp_path / "other"
        )


def test_results_of_one_name_are_refused(make, folder, tmp_path):
    for name in ("a", "a_b", "b", "b_b"):
        (folder / f"{name}.png").write_bytes((folder / "sea.png").read_bytes())
    with pytest.raises(
        UserError, match="two results would be called 'a_b_b', of .*a.png and of .*a_b.png"
    ):
        style_transfer.run(make("a,a_b", "b,b_b"), tmp_path / "run")


def test_a_run_does_not_read_what_it_writes(make, tmp_path):
    assert style_transfer.run(make("sea", "dots"), tmp_path) == 0
    result = str(tmp_path / "result.png")
    with pytest.raises(UserError, match="result.png is among the results"):
        style_transfer.run(make("sea", result, overwrite=True), tmp_path)
    assert (tmp_path / "result.png").is_file()


def test_another_image_to_start_from_is_another_result(make, folder, tmp_path):
    start = tmp_path / "start.png"
    start.write_bytes((folder / "hill.png").read_bytes())
    found = []
    for name in ("hill", "lines"):
        start.write_bytes((folder / f"{name}.png").read_bytes())
        assert style_transfer.run(make("sea", "dots", start=str(start)), tmp_path / "run") == 0
        found.append((tmp_path / "run/result.png").read_bytes())
    assert found[0] != found[1]


def test_a_style_that_is_too_narrow_is_skipped_and_the_page_shows_the_others(
    make, tmp_path, capsys
):
    Image.new("RGB", (1, 500)).save(tmp_path / "thin.png")
    config = make("sea", f"{tmp_path / 'thin.png'},dots", loss__style=(1.0, 2.0))
    assert style_transfer.run(config, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert (
        "skipped sea_thin_1: sea_thin_1: at the smallest scale, a style of 1 x 500 pixels" in said
    )
    assert "thin" not in (tmp_path / "run/style_transfer.html").read_text()


@pytest.mark.parametrize(
    "change", [{"scale": np.asarray(7)}, {"state_000": np.zeros(3)}, {"other": np.zeros(3)}]
)
def test_a_snapshot_that_someone_changed_is_not_continued(make, tmp_path, monkeypatch, change):
    from nada_jax import files

    config = make("sea", "dots", start="noise")
    assert style_transfer.run(config, tmp_path / "whole") == 0
    numbers = iter([signal.SIGTERM])
    monkeypatch.setattr(signals.Signals, "agreed", lambda *_: next(numbers, 0))
    assert style_transfer.run(config, tmp_path / "parts") == 128 + signal.SIGTERM
    path = tmp_path / "parts" / SNAPSHOT
    arrays, metadata = files.read_safetensors(path)
    files.write_safetensors(path, arrays | change, metadata)
    assert style_transfer.run(config, tmp_path / "parts") == 0
    images = [(tmp_path / x / "result.png").read_bytes() for x in ("whole", "parts")]
    assert images[0] == images[1]
