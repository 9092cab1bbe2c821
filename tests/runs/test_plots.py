"""Plots."""

import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nada_jax.runs import plots


def test_the_heat_map_shows_which_latents_were_chosen(tmp_path):
    rows = [{"step": k, "chosen": [0, 3] if k <= 75 else [1]} for k in range(1, 151)]
    plots.plot_choice(rows, "abcd", tmp_path / "layers.png")
    with Image.open(tmp_path / "layers.png") as image:
        picture = np.asarray(image.convert("L"), float)
    # Inside of the axes, in the first and in the second half of the steps, from latent 3 down to latent 0.
    rows_of = [int(len(picture) * (0.1 + 0.78 * (i + 0.5) / 4)) for i in range(4)]
    early, late = (picture[rows_of, int(picture.shape[1] * x)] for x in (0.4, 0.5))
    assert (early > 128).tolist() == [True, False, False, True]
    assert (late > 128).tolist() == [False, False, True, False]


def test_the_plot_shows_the_loss_and_every_term(tmp_path):
    rows = [
        {"step": k, "loss": 2.0 / k, "directional": 1.0 / k, "l2": 1.0 / k, "norm": 9.0, "ms": 5.0}
        for k in range(1, 30)
    ]
    drawn = {"terms": ["directional", "l2", "patch"], "held_out": ["similarity"]}
    plots.plot_losses(rows, tmp_path / "all.png", "photo -> sketch", **drawn)
    plots.plot_losses(rows[:1], tmp_path / "one.png", "one step", **drawn)
    weighed = [row | {"weight_l2": row["step"] / 30} for row in rows]
    plots.plot_losses(weighed, tmp_path / "weighed.png", "photo -> sketch", **drawn)
    # A metric that is no term is not drawn.
    noted = [row | {"speed": 1e6} for row in rows]
    plots.plot_losses(noted, tmp_path / "noted.png", "photo -> sketch", **drawn)
    assert (tmp_path / "noted.png").read_bytes() == (tmp_path / "all.png").read_bytes()
    measured = [*rows[:-1], rows[-1] | {"similarity": 0.5}]
    plots.plot_losses(measured, tmp_path / "measured.png", "photo -> sketch", **drawn)
    heights = []
    for name in ("all", "one", "weighed", "measured"):
        with Image.open(tmp_path / f"{name}.png") as image:
            heights.append(image.height)
    assert heights[0] == heights[1] < heights[2] == heights[3]
    with Image.open(tmp_path / "all.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    lines = {(0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0x2C, 0xA0, 0x2C)}  # of three curves
    assert lines <= {tuple(colour) for colour in colours.tolist()}


@pytest.mark.parametrize(
    "xs, expected", [((12, 35), "20"), ((1e-6, 350), "0.01"), ((20, 22), "21")]
)
def test_ticks_of_curves_are_plain_numbers(xs, expected, tmp_path, monkeypatch):
    ticks = []
    savefig = Figure.savefig

    def save(figure, *args, **kwargs):
        savefig(figure, *args, **kwargs)
        axis = figure.axes[0].xaxis
        ticks.extend(x.get_text() for x in axis.get_ticklabels() + axis.get_ticklabels(minor=True))

    monkeypatch.setattr(Figure, "savefig", save)
    plots.plot_curves({"a": {"b": [(x, 1.0) for x in xs]}}, "x", "y", tmp_path / "curves.png")
    assert expected in ticks and len(list(filter(None, ticks))) < 16
    assert all(float(x.replace("\N{MINUS SIGN}", "-")) > 0 for x in filter(None, ticks))


@pytest.mark.parametrize("text", ["rapper with $$ chain", r"$\frac{$", "a^b_c $x$", "_", "x" * 500])
def test_texts_are_drawn_as_they_are(text, tmp_path):
    metrics = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in "xy"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_losses([{"step": 1, "loss": 1.0}], tmp_path / "loss.png", text, terms=())
        plots.plot_intervals({text: {text: metrics}}, "x", "y", tmp_path / "compare.png")
        plots.plot_choice([{"step": 1, "chosen": [0]}], [text[:20]], tmp_path / "layers.png")
    assert len(list(tmp_path.iterdir())) == 3
    assert matplotlib.rcParams["text.parse_math"]  # in what users draw themselves


def test_the_legend_has_names_as_they_are(tmp_path):
    metrics = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in "xy"}

    def drawn(name):
        plots.plot_intervals({"": {name: metrics}}, "x", "y", tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as image:
            return np.asarray(image.convert("L"), int)

    assert not np.array_equal(drawn("x"), drawn("$x$"))  # it is no mathematics
    assert not np.array_equal(drawn("_one"), drawn("_two"))  # both are in the legend


def test_characters_that_the_font_lacks_are_told_once(tmp_path):
    plots._warn_of_glyphs.cache_clear()
    rows = [{"step": 1, "loss": 1.0}]
    with pytest.warns(UserWarning) as met:
        for _ in range(2):
            plots.plot_losses(rows, tmp_path / "loss.png", "\u7d20\u63cf \u925b\u7b46", terms=())
    assert [str(x.message) for x in met] == [
        "the font of the plots lacks some characters of the texts, which are drawn as boxes"
    ]


def test_intervals_are_drawn_where_they_lie_a_panel_for_each_group(tmp_path):
    def cell(x, y):
        return {m: {"value": v, "low": v - 0.1, "high": v + 0.1} for m, v in (("x", x), ("y", y))}

    groups = {"one": {"a": cell(0.0, 0.0), "b": cell(1.0, 1.0)}, "two": {"c": cell(0.0, 1.0)}}
    groups["empty"] = {"no y": {"x": cell(0, 0)["x"]}}
    plots.plot_intervals(groups, "x", "y", tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        picture = np.asarray(image.convert("RGB"), int)

    def find(colour, half):
        """Places of so coloured pixels of the left or right half, from its upper left corner."""
        width = picture.shape[1] // 2
        part = picture[: len(picture) // 2, half * width : (half + 1) * width]
        return np.argwhere(np.abs(part - colour).sum(axis=-1) < 30)

    blue, orange = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)
    a, b, c = (find(*at).mean(axis=0) for at in ((blue, 0), (orange, 0), (blue, 1)))
    assert a[0] > b[0] + 50 and a[1] < b[1] - 50  # a below and left of b
    assert abs(c[0] - b[0]) < 30 and abs(c[1] - a[1]) < 60  # c as high as b, as far left as a
    assert not len(find(orange, 1))
