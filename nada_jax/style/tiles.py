"""Parts of an image that overlap, so that the features of all of it are computed in bounded memory."""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from nada_jax.errors import UserError


class Span(NamedTuple):
    """A tile along one axis, in pixels: it sees side pixels from `origin` on, and stands for `start` to `stop`."""

    origin: int
    start: int
    stop: int


class Tiles(NamedTuple):
    """The tiles of an image.

    Attributes:
      height, width: of each tile in pixels.
      spans: of each tile, (vertical, horizontal).
    """

    height: int
    width: int
    spans: tuple[tuple[Span, Span], ...]

    def array(self) -> np.ndarray:
        """All spans, int32 [tiles, 2, 3]."""
        return np.asarray(self.spans, np.int32)


@functools.cache
def plan(height: int, width: int, most: int, stride: int, beyond: int, wrap: bool) -> Tiles:
    """Divides an image.

    Tiles and what they stand for begin at multiples of the stride, so that each feature belongs to one of them, which
    sees all that the feature sees. Borders of tiles are those of the image or lie beyond what counts.

    Args:
      height, width: of the image.
      most: side of a tile in pixels at most.
      stride, beyond: of the deepest layer; see `VggArchitecture.reach`.
      wrap: the image continues at its opposite side; then both sides are multiples of the stride.

    Returns:
      The tiles; one, which is the whole image, where it is no larger than `most`.

    Raises:
      UserError: tiles of `most` pixels would see nothing but their overlap.
    """
    margin = -(-beyond // stride) * stride
    if max(height, width) <= most:
        return Tiles(height, width, ((Span(0, 0, height), Span(0, 0, width)),))
    if most < 2 * margin + 2 * stride:
        raise UserError(
            f"tile is {most}; expected at least {2 * margin + 2 * stride} pixels for these layers, as neighbouring "
            f"tiles overlap by {margin} on each side"
        )
    (tall, rows), (wide, columns) = (
        _axis(side, most, stride, margin, wrap) for side in (height, width)
    )
    return Tiles(tall, wide, tuple(itertools.product(rows, columns)))


def _axis(
    side: int, most: int, stride: int, margin: int, wrap: bool
) -> tuple[int, tuple[Span, ...]]:
    """Side of the tiles along one axis, and the tiles."""
    if side <= most and not wrap:
        return side, (Span(0, 0, side),)
    # The last tile has to end with the image.
    rest = 0 if wrap else side % stride
    size = (most - rest) // stride * stride + rest
    count = 1
    while True:
        cuts = [round(i * side / count / stride) * stride for i in range(count)] + [side]
        pairs = list(itertools.pairwise(cuts))
        if wrap:
            size = max(stop - start for start, stop in pairs) + 2 * margin
            if size <= most:
                return size, tuple(Span(start - margin, start, stop) for start, stop in pairs)
        else:
            spans = [
                Span(min(max(start - margin, 0), side - size), start, stop) for start, stop in pairs
            ]
            if all(x.origin + size >= min(x.stop + margin, side) for x in spans):
                return size, tuple(spans)
        count += 1
