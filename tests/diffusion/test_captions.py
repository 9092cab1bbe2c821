"""Data sets of images with captions: the layouts that are read, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from nada_jax.diffusion import captions
from nada_jax.errors import UserError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def image(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), colour).save(path)


def read(path, size=8):
    return captions.read(str(path), size, field="data", say=lambda line: None)


def test_a_folder_with_a_list(tmp_path):
    image(tmp_path / "images/a.png", RED)
    image(tmp_path / "images/b.png", BLUE)
    rows = [
        {"file_name": "images/b.png", "text": "blue"},
        {"file_name": "images/a.png", "captions": ["red", "a"]},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    found = read(tmp_path)
    assert found.captions == [["blue"], ["red", "a"]]
    assert found.images.dtype == np.uint8 and found.images.shape == (2, 8, 8, 3)
    assert [tuple(x[0, 0]) for x in found.images] == [BLUE, RED]


def test_a_folder_with_a_text_beside_each_image(tmp_path):
    image(tmp_path / "a.png", RED)
    image(tmp_path / "more/b.jpg", BLUE)
    image(tmp_path / "without.png", BLUE)
    image(tmp_path / "a.1.png", BLUE)
    (tmp_path / "a.bak").write_text("no image")
    (tmp_path / "a.txt").write_text("red\n\nvery red\n")
    (tmp_path / "more/b.txt").write_text("blue")
    found = read(tmp_path)
    assert found.captions == [["red", "very red"], ["blue"]]
    assert tuple(found.images[0, 0, 0]) == RED


def arrays(tmp_path, pixels, rows):
    np.savez(tmp_path / "data.npz", images=pixels)
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return tmp_path / "data.npz"


def test_arrays_with_a_list_beside_them(tmp_path):
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    pixels[2] = 255
    path = arrays(
        tmp_path, pixels, [{"captions": ["dark"]}, {"captions": [" "]}, {"captions": ["white"]}]
    )
    found = read(path)
    assert found.captions == [["dark"], ["white"]]  # an image without a caption is left out
    np.testing.assert_array_equal(found.images, pixels[[0, 2]])
    assert read(path, 16).images.shape == (2, 16, 16, 3)
    assert np.all(read(path, 16).images[1] == 255)


def test_what_cannot_be_read_is_skipped_with_a_line(tmp_path):
    image(tmp_path / "a.png", RED)
    (tmp_path / "b.png").write_text("no image")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    said = []
    found = captions.read(str(tmp_path), 8, field="data", say=said.append)
    assert found.captions == [["a"]] and len(said) == 1 and "b.png" in said[0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{", "line 1 of .*metadata.jsonl is not JSON"),
        ('{"text": "a"}', "line 1 of .* has no file_name"),
        ('{"file_name": "../a.png", "text": "a"}', "line 1 of .* has no file_name"),
        ("[" * 100_000, "line 1 of .*metadata.jsonl is not JSON"),
        ('{"file_name": "a.png", "text": 3}', "captions 3"),
        ('{"file_name": "a.png", "text": " "}', "no image with a caption"),
        ("", "no image with a caption"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, lines, message):
    (tmp_path / "metadata.jsonl").write_text(lines)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="data is empty; expected a folder"):
        read("")
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="lists 1 objects; expected 2"):
        read(arrays(tmp_path, np.zeros((2, 8, 8, 3), np.uint8), [{"captions": ["a"]}]))
    with pytest.raises(UserError, match="float64"):
        read(arrays(tmp_path, np.zeros((2, 8, 8, 3)), []))
