"""Labelled rows of images."""

import re

import numpy as np
from PIL import Image

from nada_jax.web import gallery


def test_a_strip_has_every_image_above_its_label():
    black = np.zeros((64, 64, 3), np.uint8)
    wide = np.full((300, 600, 3), (255, 0, 0), np.uint8)
    strip = gallery.strip({"black": black, "wide": wide}, side=300)
    assert strip.shape == (300 + gallery.LABEL, 600 + gallery.GAP, 3)
    # Four times as large, and half as large, in the middle of their squares.
    assert (strip[22:278, 22:278] == 0).all() and (strip[:22, :300] == 255).all()
    assert (strip[75:225, -300:] == (255, 0, 0)).all() and (strip[:75, -300:] == 255).all()
    labels = strip[300:]
    assert (labels[:, :300] < 128).any() and (labels[:, -300:] < 128).any()


def test_a_page_is_one_file_in_which_names_are_text(tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((1024, 1024, 3), np.uint8)).save(tmp_path / "b.png")
    shown = {"<i>": tmp_path / "a.png", "large": tmp_path / "b.png"}
    page = gallery.page("T & T", [("<b>", {"mse": 0.25}, shown)])
    assert "<h1>T &amp; T</h1>" in page and "<h2>&lt;b&gt;<small>mse 0.25</small></h2>" in page
    sources = re.findall(r'src="(data:image/\w+);[^"]+" alt="([^"]+)"', page)
    assert sources == [("data:image/png", "&lt;i&gt;"), ("data:image/jpeg", "large")]
    assert page.count("src=") == 2 and "http" not in page


def test_rows_of_files_stand_below_each_other_in_the_same_columns(tmp_path):
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(tmp_path / "a.png")
    rows = [{"1": tmp_path / "a.png", "2": tmp_path / "a.png"}, {"3": tmp_path / "a.png"}]
    sheet = gallery.sheet(rows)
    row = gallery.SIDE + gallery.LABEL
    assert sheet.shape == (2 * row + gallery.GAP, 2 * gallery.SIDE + gallery.GAP, 3)
    assert (sheet[row + gallery.GAP :, 260:] == 255).all()
    cards = [("name", {}, shown) for shown in rows]
    page = gallery.page("T", cards, text="a < b", aligned=True)
    assert "repeat(2, " in page and "<pre>a &lt; b</pre>" in page
    assert "grid" not in gallery.page("T", cards)
