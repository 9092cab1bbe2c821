"""Bicubic resizing as small matrices: differentiable, in any layout, and equal on every device."""

import functools
import math

import numpy as np


def to_shorter_side(size: int, shorter: int, r: int, antialias: bool) -> np.ndarray | None:
    """The matrix [r, size] that resizes one axis and crops its middle.

    Args:
      size: pixels along this axis.
      shorter: pixels along the shorter axis, which is resized to r.
      r: pixels of the result.
      antialias: see `bicubic`.

    Returns:
      The matrix, float32, or None for the identity.
    """
    resized = r * size // shorter  # rounded down, as torchvision does
    if size == resized == r:
        return None
    first = round((resized - r) / 2)
    return bicubic(size, resized, antialias)[first : first + r]


@functools.cache
def bicubic(size: int, resized: int, antialias: bool) -> np.ndarray:
    """Cubic convolution with half-pixel centres, a matrix [resized, size]; Keys 1981, eqs. 4, 6.

    Plain: the border is repeated. Antialiased: the kernel is stretched by the scale, cut off at the border
    and normalised.

    Args:
      size: pixels along the axis.
      resized: pixels along the axis afterwards.
      antialias: widen the kernel when shrinking.

    Returns:
      float32.
    """
    scale = size / resized
    # PyTorch uses the coefficient of OpenCV for the plain form, and that of PIL for the antialiased one.
    a, stretch = (-0.5, max(scale, 1.0)) if antialias else (-0.75, 1.0)
    centers = (np.arange(resized) + 0.5) * scale - 0.5
    reach = math.ceil(2 * stretch)
    taps = np.floor(centers).astype(int)[:, None] + np.arange(-reach, reach + 2)
    x = np.abs(taps - centers[:, None]) / stretch
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    values = np.where(x <= 1, near, np.where(x < 2, far, 0))
    if antialias:
        values *= (taps >= 0) & (taps < size)
        values /= values.sum(axis=1, keepdims=True)
    matrix = np.zeros((resized, size))
    np.add.at(matrix, (np.arange(resized)[:, None], taps.clip(0, size - 1)), values)
    return matrix.astype(np.float32)
