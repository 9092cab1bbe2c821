"""Convolutions of 3 x 3 taps by a third of the multiplications: Lavin & Gray 2016, arXiv 1509.09308.

Each 4 x 4 outputs of a channel are seen as products of polynomials, which are known by their values at 6 x 6 points:
36 products in place of 144. Between the two transforms stands one matrix product for each point.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.models import convolution
from nada_jax.models.convolution import Padding

OUTPUTS = 4  # of a tile, along each axis
TAPS = 6  # inputs of a tile, and points; the last point is infinity
# Near 1, so that their powers are, too: results are within 3e-6 of the exact ones, relative to the largest, as measured
# for the layers of VGG-16. With 0, 1, -1, 1/2 and -1/2, errors are three times as large.
POINTS = np.array((0, 0.75, -0.75, 1.25, -1.25))
# Numbers in the transform of a strip of tiles, 4 MB: it is to stay in a processor's cache. At 1024 x 1024 pixels and 64
# channels, strips are four times as fast as the whole image at once.
STRIP = 2**20
# With less, the transforms take longer than what they save.
LEAST_CHANNELS, LEAST_TILES = 32, 64


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The transforms of Toom and Cook: of inputs [6, 6], of taps [6, 3], and back to outputs [4, 6]."""
    inputs, taps = np.zeros((TAPS, TAPS)), np.zeros((TAPS, 3))
    outputs = np.zeros((OUTPUTS, TAPS))
    for i, point in enumerate(POINTS):
        others = np.delete(POINTS, i)
        inputs[i, :-1] = np.poly(others)[::-1]
        taps[i] = point ** np.arange(3) / np.prod(point - others)
        outputs[:, i] = point ** np.arange(OUTPUTS)
    inputs[-1] = np.poly(POINTS)[::-1]
    taps[-1, -1] = outputs[-1, -1] = 1
    return inputs, taps, outputs


_INPUTS, _TAPS, _OUTPUTS = _matrices()


def conv(x: jax.Array, kernel: jax.Array, padding: Padding = ((1, 1), (1, 1))) -> jax.Array:
    """`convolution.conv` for 3 x 3 taps; where it is large, up to three times as fast on CPU, and equal within 1e-5.

    Args:
      x: [b, h, w, i]. Several images belong into the batch: under vmap it is right, but slower.
      kernel: [3, 3, i, o].
      padding: rows of zeros (above, below) and columns (left, right), 0 to 2 each.

    Returns:
      [b, h', w', o]. On CPU, it differentiates in reverse mode only.
    """
    tiles = len(x) * np.prod(_tiles(x, padding))
    large = tiles >= LEAST_TILES and min(kernel.shape[2:]) >= LEAST_CHANNELS
    # On GPUs, cuDNN chooses among such forms by itself. Fewer bits are too few for sums of other sizes than the result.
    if convolution.on_cpu() and large and x.dtype == kernel.dtype == jnp.float32:
        return _by_hand(x, kernel, padding)
    return convolution.conv(x, kernel, padding)


def _tiles(x: jax.Array, padding: Padding) -> tuple[int, int]:
    """Tiles downwards and across."""
    return tuple(-(-n // OUTPUTS) for n in _sides(x, padding))


def _sides(x: jax.Array, padding: Padding) -> tuple[int, int]:
    """Height and width of what comes out."""
    return tuple(n + sum(p) - 2 for n, p in zip(x.shape[1:3], padding, strict=True))


def _combine(matrix: np.ndarray, parts: list[jax.Array], axis: int) -> jax.Array:
    """Sums of the parts with the factors of each row of a matrix, along a new axis."""
    # Written out, since XLA computes all of it in one loop; a product with so small a matrix would be slower.
    rows = [
        [np.float32(factor) * part for factor, part in zip(row, parts, strict=True) if factor]
        for row in matrix
    ]
    return jnp.stack([functools.reduce(operator.add, row) for row in rows], axis)


def _conv(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    b, o = len(x), kernel.shape[3]
    (height, width), (down, across) = _sides(x, padding), _tiles(x, padding)
    # Strips of equal height, of which the last may have rows of zeros.
    strips = -(-down // max(1, STRIP // (b * across * TAPS**2 * max(kernel.shape[2:]))))
    rows = -(-down // strips)
    (above, below), (left, right) = padding
    below += strips * rows * OUTPUTS - height
    right += across * OUTPUTS - width
    # Of what XLA knows to depend on no image, it holds the arrays of all layers from the start of the program on. So
    # the result starts filled with a value of x, and to the transform of taps a 0 is added that XLA does not know.
    first = x[0, 0, 0, 0]
    transform = np.kron(_TAPS, _TAPS).astype(np.float32) + jnp.float32(first > jnp.inf)
    x = jnp.pad(x, ((0, 0), (above, below), (left, right), (0, 0)))
    # In one product, before which XLA turns a turned kernel, once.
    taps = transform @ kernel.reshape(9, -1)
    taps = taps.reshape(TAPS, TAPS, *kernel.shape[2:])

    def strip(i):
        part = jax.lax.dynamic_slice_in_dim(x, i * rows * OUTPUTS, rows * OUTPUTS + 2, axis=1)
        ends = (rows - 1) * OUTPUTS + 1, (across - 1) * OUTPUTS + 1
        y = _combine(_INPUTS, [part[:, i : ends[0] + i : OUTPUTS] for i in range(TAPS)], 0)
        y = _combine(_INPUTS, [y[:, :, :, i : ends[1] + i : OUTPUTS] for i in range(TAPS)], 1)
        y = jnp.einsum("klbhwi,klio->klbhwo", y, taps)
        y = _combine(_OUTPUTS, [y[:, i] for i in range(TAPS)], 4)
        y = _combine(_OUTPUTS, [y[i] for i in range(TAPS)], 2)
        return y.reshape(b, rows * OUTPUTS, across * OUTPUTS, o)

    if strips == 1:
        return strip(0)[:, :height, :width]
    y = jnp.broadcast_to(first, (b, strips * rows * OUTPUTS, across * OUTPUTS, o))
    y = jax.lax.fori_loop(
        0,
        strips,
        lambda i, y: jax.lax.dynamic_update_slice_in_dim(y, strip(i), i * rows * OUTPUTS, axis=1),
        y,
    )
    return y[:, :height, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_hand(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return _conv(x, kernel, padding)


def _backward(padding: Padding, saved, dy: jax.Array):
    x, kernel = saved
    turned, rest = convolution.turn(kernel, padding)
    return _conv(dy, turned, rest), convolution.kernel_gradient(x, dy, padding)


_by_hand.defvjp(lambda x, kernel, padding: (_conv(x, kernel, padding), (x, kernel)), _backward)
