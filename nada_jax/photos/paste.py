"""Puts an aligned face back into its photograph."""

import numpy as np
from PIL import Image

from nada_jax import images

FEATHER = 0.1  # share of the quad's side over which the photograph passes into the face


def paste(
    photo: Image.Image, image: np.ndarray, quad: np.ndarray, feather: float = FEATHER
) -> Image.Image:
    """The photograph with an aligned face, edited or not, along its quad.

    Args:
      photo: RGB, upright; see `images.upright`. It stays as it is.
      image: [s, s, 3] in [-1, 1].
      quad: [4, 2], where it lies; see `Aligned`.
      feather: share of the quad's side, in 0..0.5, over which the photograph passes into the image, inside of the quad. A
        side of the quad that lies on or beyond the border of the photograph has nothing to pass into, and stays sharp.

    Returns:
      RGB, of the photograph's size. Pixels outside of the quad are those of the photograph.
    """
    quad = np.asarray(quad, np.float64)
    low = np.maximum(np.floor(quad.min(0)), 0).astype(int)
    high = np.minimum(np.ceil(quad.max(0)) + 1, photo.size).astype(int)
    result = photo.copy()
    if not (high > low).all():
        return result
    square = Image.fromarray(images.to_uint8(image))
    # Pillow samples points: an image that is finer than the photograph has to be reduced first.
    side = np.hypot(*(quad[3] - quad[0]))
    if square.width > side:
        square = square.resize((max(1, round(side)),) * 2, Image.Resampling.LANCZOS)
    # Pixel of the photograph -> place (u, v) in the quad, in 0..1.
    across, down = (quad[3] - quad[0]) / side**2, (quad[1] - quad[0]) / side**2
    start = low - 0.5 - quad[0]  # the corner of the first pixel
    scale = square.width
    matrix = [
        scale * value for axis in (across, down) for value in (axis[0], axis[1], axis @ start)
    ]
    w, h = high - low
    # A margin: beyond the border Pillow has black, which would seep into the outermost pixels.
    margin = 2
    wide = Image.fromarray(
        np.pad(np.asarray(square), ((margin,) * 2, (margin,) * 2, (0, 0)), "edge")
    )
    matrix[2] += margin
    matrix[5] += margin
    face = wide.transform((w, h), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    x, y = np.arange(w)[None] + 0.5, np.arange(h)[:, None] + 0.5
    u, v = (axis[0] * x + axis[1] * y + axis @ start for axis in (across, down))
    depths = zip((u, v, 1 - u, 1 - v), _seams(quad, photo.size), strict=True)
    mask = np.ones((h, w))
    for depth, seam in depths:
        if seam and feather:
            share = np.clip(depth / feather, 0, 1)
            mask = np.minimum(mask, share**2 * (3 - 2 * share))
        mask *= depth >= 0
    result.paste(face, tuple(low), Image.fromarray(np.rint(mask * 255).astype(np.uint8)))
    return result


def _seams(quad: np.ndarray, size: tuple[int, int]) -> list[bool]:
    """Whether the sides of a quad, left, top, right and bottom, lie within the photograph, a pixel or more."""
    sides = [(0, 1), (0, 3), (3, 2), (1, 2)]
    limit = np.array(size) - 1.5
    outside = [
        (quad[list(ends)] < 0.5).all(0) | (quad[list(ends)] > limit).all(0) for ends in sides
    ]
    return [not beyond.any() for beyond in outside]
