"""What was found in a photograph, drawn on it."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from nada_jax import images
from nada_jax.photos.align import Aligned

LONGER = 640  # pixels of the longer side
FRAME, TOP, POINT = "#ff2d55", "#ffd60a", "#34c759"


def marked(path: str | os.PathLike, faces: Sequence[Aligned]) -> Image.Image:
    """A small copy of a photograph with quads, their upper sides in another colour, and landmarks.

    Args:
      path: the photograph.
      faces: what was cut out of it.
    """
    photo = images.upright(path, most=4 * LONGER**2)
    image = photo.image
    image.thumbnail((LONGER, LONGER))
    image = image if max(image.size) == LONGER else _enlarged(image)
    scale = np.divide(image.size, photo.size)
    pen = ImageDraw.Draw(image)
    for face in faces:
        top_left, bottom_left, bottom_right, top_right = map(tuple, (face.quad + 0.5) * scale)
        pen.line([top_left, bottom_left, bottom_right, top_right], FRAME, 3)
        pen.line([top_left, top_right], TOP, 3)
        for x, y in () if face.landmarks is None else (face.landmarks + 0.5) * scale:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), POINT)
    return image


def _enlarged(image: Image.Image) -> Image.Image:
    factor = LONGER / max(image.size)
    size = [max(1, round(side * factor)) for side in image.size]
    return image.resize(size, Image.Resampling.BICUBIC)
