"""Whose colours a result has (Gatys et al. 2016, "Preserving color in neural artistic style transfer", 1606.05897)."""

import numpy as np
from PIL import Image

COLORS = ("style", "luminance", "match")
# Of the variances of colours in 0..255, so that grey images, which vary along one axis alone, have a root.
EPS = 1e-2


def with_colors(result: Image.Image, content: Image.Image) -> Image.Image:
    """The brightness of one image with the hues of another of any size (section 3.2), RGB."""
    brightness = result.convert("YCbCr").getchannel(0)
    content = content.convert("RGB").resize(result.size, Image.Resampling.LANCZOS)
    _, blue, red = content.convert("YCbCr").split()
    return Image.merge("YCbCr", (brightness, blue, red)).convert("RGB")


def matched(style: Image.Image, content: Image.Image) -> Image.Image:
    """A style whose colours have the mean and the covariance of those of a content (section 3.1), RGB."""
    pixels, target = (np.asarray(x.convert("RGB"), np.float64) for x in (style, content))
    shape = pixels.shape
    pixels, target = pixels.reshape(-1, 3), target.reshape(-1, 3)
    to, back = _root(target), np.linalg.inv(_root(pixels))
    moved = (pixels - pixels.mean(axis=0)) @ back @ to + target.mean(axis=0)
    return Image.fromarray(np.clip(np.round(moved), 0, 255).astype(np.uint8).reshape(shape))


def _root(pixels: np.ndarray) -> np.ndarray:
    """The square root of the covariance of colours [n, 3] -> [3, 3]."""
    centred = pixels - pixels.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred) + EPS * np.eye(3))
    return vectors * np.sqrt(np.maximum(values, EPS)) @ vectors.T
