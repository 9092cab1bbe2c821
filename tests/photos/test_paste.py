"""A face is put back where it was cut out."""

import numpy as np
import pytest
from PIL import Image

from nada_jax import images
from nada_jax.photos import quads
from nada_jax.photos.paste import paste

TURNED = np.array([[60.0, 30], [35, 110], [115, 135], [140, 55]])


@pytest.fixture(scope="module")
def photo():
    """A photograph without a flat place."""
    y, x = np.indices((160, 180))
    waves = [np.sin(x / 9), np.sin(y / 11), np.sin((x + y) / 13)]
    return Image.fromarray(np.uint8(np.stack(waves, -1) * 90 + 128))


def white(size):
    return np.ones((size, size, 3), np.float32)


def depth(quad, size):
    """How deep each pixel lies in a quad, as a share of its side: negative outside."""
    y, x = np.indices(size[::-1])
    u, v = (
        ((x - quad[0][0]) * (p - quad[0])[0] + (y - quad[0][1]) * (p - quad[0])[1])
        / np.sum((p - quad[0]) ** 2)
        for p in (quad[3], quad[1])
    )
    return np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))


def test_pixels_outside_of_the_quad_are_those_of_the_photograph(photo):
    before = np.asarray(photo).copy()
    after = np.asarray(paste(photo, white(64), TURNED, feather=0.1))
    inside = depth(TURNED, photo.size)
    assert np.array_equal(after[inside < 0], before[inside < 0])
    assert (after[inside > 0.1] == 255).all()
    between = after[(inside > 0.02) & (inside < 0.08)]
    assert (
        not (between == 255).all() and (between >= before[(inside > 0.02) & (inside < 0.08)]).all()
    )
    assert np.array_equal(np.asarray(photo), before)


def test_an_upright_face_of_the_same_size_comes_back_exactly(photo):
    quad = quads.from_box(40, 20, 140, 120)
    face = images.from_uint8(photo.crop((40, 20, 140, 120)))
    for feather in (0.0, 0.1, 0.5):
        assert np.array_equal(np.asarray(paste(photo, face, quad, feather)), np.asarray(photo))


@pytest.mark.parametrize("size", [80, 400])
def test_a_turned_face_comes_back_within_rounding(photo, size):
    face = images.from_uint8(quads.cut(photo, TURNED, size))
    after = np.asarray(paste(photo, face, TURNED), float)
    assert np.abs(after - np.asarray(photo)).max() < 8
    assert np.abs(after - np.asarray(photo)).mean() < 0.5


def test_a_quad_that_is_the_photograph_replaces_it_without_a_seam(photo):
    square = photo.crop((0, 0, 160, 160))
    whole = quads.middle(square.size)
    assert (np.asarray(paste(square, white(320), whole)) == 255).all()
    beyond = paste(square, white(64), whole + [100, 0])  # half of it lies beyond the right border
    assert (np.asarray(beyond)[:, -20:] == 255).all()
    assert np.array_equal(np.asarray(beyond)[:, :95], np.asarray(square)[:, :95])


def test_a_quad_outside_of_the_photograph_changes_nothing(photo):
    after = paste(photo, white(8), quads.from_box(500, 500, 600, 600))
    assert np.array_equal(np.asarray(after), np.asarray(photo))
