"""Metrics, progress and plots."""

import numpy as np
from PIL import Image

from nada_jax.runs import reporting


def test_half_a_line_of_metrics_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reporting.write_metrics(path, [{"step": 1}])
    reporting.append_metrics(path, [{"step": 2}])
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert reporting.read_metrics(path) == [{"step": 1}, {"step": 2}]
    assert reporting.read_metrics(tmp_path / "missing") == []


def test_plain_lines_come_every_so_many_steps(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with reporting.Progress(total=7, done=0, every=3) as progress:
        for steps in (1, 1, 2, 2, 1):
            progress.advance(steps, loss=0.5, ms=2000.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["4/7", "6/7", "7/7"]
    assert lines[0] == "step 4/7  loss 0.5000  2000 ms/step  0:06 left"


def test_a_terminal_gets_a_bar_with_loss_and_time(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    with reporting.Progress(total=2, done=0, every=1) as progress:
        progress.say("hello")
        progress.advance(2, loss=0.25, ms=12.0)
    out, bar = capsys.readouterr()
    assert "hello" in out
    assert "2/2" in bar and "loss 0.2500, 12 ms/step" in bar and "left" in bar


def test_the_heat_map_shows_which_latents_were_chosen(tmp_path):
    rows = [{"step": k, "chosen": [0, 3] if k <= 75 else [1]} for k in range(1, 151)]
    reporting.plot_choice(rows, "abcd", tmp_path / "layers.png")
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
    reporting.plot_losses(rows, tmp_path / "all.png", "photo -> sketch")
    reporting.plot_losses(rows[:1], tmp_path / "one.png", "one step")
    weighed = [row | {"weight_l2": row["step"] / 30} for row in rows]
    reporting.plot_losses(weighed, tmp_path / "weighed.png", "photo -> sketch")
    heights = []
    for name in ("all", "one", "weighed"):
        with Image.open(tmp_path / f"{name}.png") as image:
            heights.append(image.height)
    assert heights[0] == heights[1] < heights[2]
    with Image.open(tmp_path / "all.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    lines = {(0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0x2C, 0xA0, 0x2C)}  # of three curves
    assert lines <= {tuple(colour) for colour in colours.tolist()}


def test_intervals_are_drawn_where_they_lie_a_panel_for_each_group(tmp_path):
    def cell(x, y):
        return {m: {"value": v, "low": v - 0.1, "high": v + 0.1} for m, v in (("x", x), ("y", y))}

    groups = {"one": {"a": cell(0.0, 0.0), "b": cell(1.0, 1.0)}, "two": {"c": cell(0.0, 1.0)}}
    groups["empty"] = {"no y": {"x": cell(0, 0)["x"]}}
    reporting.plot_intervals(groups, "x", "y", tmp_path / "plot.png")
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
