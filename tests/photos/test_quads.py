"""FFHQ's alignment: quads by hand, and what is cut out along them."""

import numpy as np
import pytest
from PIL import Image

from nada_jax.errors import UserError
from nada_jax.photos import quads

# Eyes 40 apart around (100, 100), mouth 50 below: 2 x 40 < 1.8 x 50 = 90 is half a side, the centre 5 below the eyes.
UPRIGHT = np.array([[80, 100], [120, 100], [100, 130], [85, 150], [115, 150]], float)
BY_HAND = np.array([[10, 15], [10, 195], [190, 195], [190, 15]], float)
CENTRE = np.array([100, 105])


def turned(points, degrees, centre=(0, 0)):
    """Clockwise as one sees it, as y points down."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - centre) @ np.array([[c, s], [-s, c]]) + centre


def sixty_eight():
    points = np.zeros((68, 2))
    around = np.array([[-6, 0], [-3, -2], [3, -2], [6, 0], [3, 2], [-3, 2]])
    points[36:42], points[42:48] = UPRIGHT[0] + around, UPRIGHT[1] + around
    points[48], points[54] = UPRIGHT[3:]
    return points


@pytest.mark.parametrize("points", [UPRIGHT, sixty_eight()], ids=["5", "68"])
@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_quads_are_those_by_hand_and_turn_with_the_face(points, degrees):
    expected = turned(BY_HAND, degrees)
    assert quads.from_landmarks(turned(points, degrees)) == pytest.approx(expected, abs=1e-9)


def test_a_wide_face_is_measured_by_its_eyes():
    wide = UPRIGHT + [[-10, 0], [10, 0], [0, 0], [0, 0], [0, 0]]  # 60 apart: half a side is 120
    expected = CENTRE + [[-120, -120], [-120, 120], [120, 120], [120, -120]]
    assert quads.from_landmarks(wide) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (UPRIGHT[:4], "of the shape (4, 2); expected finite [5, 2] or [68, 2]"),
        (UPRIGHT * np.nan, "expected finite"),
        (np.ones((5, 2)), "those of no face"),
        (UPRIGHT[[1, 0, 2, 4, 3]], "the left eye, as one sees it, first"),
        (UPRIGHT[[3, 4, 2, 0, 1]], "the eyes above the mouth"),
    ],
)
def test_landmarks_of_no_face_are_refused(points, words):
    with pytest.raises(UserError) as caught:
        quads.from_landmarks(points)
    assert words in str(caught.value)


def test_boxes_and_middles_are_upright_squares():
    assert quads.middle((4, 2)).tolist() == [[0.5, -0.5], [0.5, 1.5], [2.5, 1.5], [2.5, -0.5]]
    box = quads.from_box(10, 20, 50, 30)  # 40 wide
    assert box[0].tolist() == [9.5, 4.5] and box[2].tolist() == [49.5, 44.5]


def smooth(width, height):
    """A photograph whose colours are waves, so that any pixel tells where it is from."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(x / 19), np.sin(y / 23), np.sin((x + y) / 31)]
    return Image.fromarray(np.uint8(np.stack(waves, -1) * 100 + 128))


@pytest.mark.parametrize("degrees", [0, 25, 90])
@pytest.mark.parametrize("size", [32, 64])
def test_each_pixel_is_that_of_its_place_in_the_quad(degrees, size):
    quad = turned(np.array([[60, 50], [60, 178], [188, 178], [188, 50]]) - 0.5, degrees, (123, 114))
    cut = np.asarray(quads.cut(smooth(260, 240), quad, size), float)
    i, j = (np.indices((size, size)) + 0.5) / size
    place = quad[0] + j[..., None] * (quad[3] - quad[0]) + i[..., None] * (quad[1] - quad[0])
    x, y = place[..., 0], place[..., 1]
    waves = np.stack([np.sin(x / 19), np.sin(y / 23), np.sin((x + y) / 31)], -1)
    assert np.abs(cut - (waves * 100 + 128)).max() < 4


def test_a_large_photograph_is_shrunk_without_a_shift():
    photo = smooth(800, 800).resize((3200, 3200), Image.Resampling.BICUBIC)
    small = quads.cut(smooth(800, 800), quads.from_box(200, 200, 600, 600), 50)
    large = quads.cut(photo, quads.from_box(800, 800, 2400, 2400), 50)
    assert np.abs(np.asarray(small, int) - np.asarray(large, int)).max() <= 2


def test_beyond_the_border_a_photograph_is_continued_and_fades():
    photo = smooth(100, 100)
    cut = np.asarray(quads.cut(photo, quads.from_box(-60, 0, 40, 100), 100), float)
    inside = np.asarray(photo, float)[20:80, 20:40]
    assert np.abs(cut[20:80, 80:] - inside).max() < 25  # the blur reaches 10 pixels into it
    assert cut.min() > 20  # nothing black
    outermost = cut[20:80, :3]
    assert outermost.std(0).max() < 15  # of nearly one colour
    with pytest.raises(UserError, match="outside the photograph"):
        quads.cut(photo, quads.from_box(300, 300, 400, 400), 64)
