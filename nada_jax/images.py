"""Pictures: arrays in [-1, 1] <-> files."""

import os

import numpy as np
from PIL import Image

from nada_jax import files


def to_uint8(images: np.ndarray) -> np.ndarray:
    """[..., h, w, 3] in [-1, 1] (clipped) -> the same shape in 0..255."""
    scaled = (np.asarray(images, np.float32) + 1) * 127.5
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """Lays pictures out in rows, from left to right, with white gaps.

    Args:
      images: [n, h, w, 3] in [-1, 1].
      columns: pictures per row; what is missing in the last row stays white.
      gap: pixels between pictures.

    Returns:
      uint8 [height, width, 3].
    """
    images = to_uint8(images)
    n, h, w, c = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


def save(pixels: np.ndarray, path: str | os.PathLike, enlarge: int = 1) -> None:
    """Writes uint8 [h, w, 3] atomically as PNG, each pixel `enlarge` times as large."""
    image = Image.fromarray(pixels)
    image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
    with files.atomic(path) as temporary:
        image.save(temporary, format="PNG")


def enlargement(size: int) -> int:
    """How much to enlarge pictures of this side so that a grid of them can be looked at."""
    return max(1, 128 // size)
