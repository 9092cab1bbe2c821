import itertools

import pytest

from nada_jax.errors import UserError
from nada_jax.style.tiles import plan

STRIDE, BEYOND, MARGIN = 16, 58, 64  # of relu5_1 in a VGG-16


@pytest.mark.parametrize("sides", [(512, 700), (301, 1025), (1000, 200), (257, 256), (2048, 33)])
@pytest.mark.parametrize("most", [192, 256, 300, 401])
def test_each_pixel_belongs_to_one_tile_that_sees_enough_around_it(sides, most):
    found = plan(*sides, most, STRIDE, BEYOND, False)
    assert max(found.height, found.width) <= most
    for axis, side, size in ((0, sides[0], found.height), (1, sides[1], found.width)):
        spans = sorted({pair[axis] for pair in found.spans})
        assert [spans[0].start, spans[-1].stop] == [0, side]
        assert all(a.stop == b.start for a, b in itertools.pairwise(spans))
        for span in spans:
            assert span.origin % STRIDE == span.start % STRIDE == 0
            assert span.origin >= 0 and span.origin + size <= side
            assert span.origin <= max(0, span.start - MARGIN)
            assert span.origin + size >= min(side, span.stop + MARGIN)
    assert len(found.spans) == len(set(found.spans))


def test_a_small_image_is_one_tile():
    assert plan(100, 37, 128, STRIDE, BEYOND, False).spans == (((0, 0, 100), (0, 0, 37)),)


def test_tiles_of_an_image_that_wraps_see_as_much_on_all_sides():
    found = plan(512, 256, 256, STRIDE, BEYOND, True)
    for vertical, horizontal in found.spans:
        for span, size in ((vertical, found.height), (horizontal, found.width)):
            assert span.origin == span.start - MARGIN and span.origin + size >= span.stop + MARGIN


def test_tiles_that_would_only_see_their_overlap_are_refused():
    with pytest.raises(UserError, match="tile is 100; expected at least 160 pixels"):
        plan(512, 512, 100, STRIDE, BEYOND, False)
