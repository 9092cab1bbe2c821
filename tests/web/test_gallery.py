"""Labelled rows of images."""

import re

import numpy as np
from PIL import Image

from nada_jax.web import gallery


def test_a_strip_has_every_image_above_its_label():
    black, red = np.zeros((64, 64, 3), np.uint8), np.full((512, 512, 3), (255, 0, 0), np.uint8)
    strip = gallery.strip({"black": black, "red": red})
    assert strip.shape == (512 + gallery.LABEL, 1024 + gallery.GAP, 3)
    assert (strip[:512, :512] == 0).all() and (strip[:512, -512:] == (255, 0, 0)).all()
    labels = strip[512:]
    assert (labels[:, :512] < 128).any() and (labels[:, 516:] < 128).any()


def test_a_page_is_one_file_in_which_names_are_text(tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((1024, 1024, 3), np.uint8)).save(tmp_path / "b.png")
    shown = {"<i>": tmp_path / "a.png", "large": tmp_path / "b.png"}
    page = gallery.page("T & T", [("<b>", {"mse": 0.25}, shown)])
    assert "<h1>T &amp; T</h1>" in page and "<h2>&lt;b&gt;<small>mse 0.25</small></h2>" in page
    sources = re.findall(r'src="(data:image/\w+);[^"]+" alt="([^"]+)"', page)
    assert sources == [("data:image/png", "&lt;i&gt;"), ("data:image/jpeg", "large")]
    assert page.count("src=") == 2 and "http" not in page
