"""Upsampling of StyleGAN2 by two: transposed convolutions and zero insertion, each with the FIR filter.

Both are computed by phase: outputs at even and at odd places are sums over inputs of the same resolution,
which are interleaved in the end.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.models import convolution

# The filter [1, 3, 3, 1] of every published StyleGAN2, with the gain 2 per axis of upsampling.
FIR = (0.25, 0.75, 0.75, 0.25)
# Up to this many input channels the FIR is folded into the kernel of an upsampling convolution: more
# multiplications in one call and no passes over memory, which wins where channels are few. XLA's CPU
# convolutions are bound by multiplications, so there it never pays.
FOLD_CHANNELS = 128


def upsample_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride-2 transposed 3x3 convolution, then the FIR filter, in polyphase form.

    Equal to conv_transpose2d(stride=2, padding=0) followed by the 4x4 filter with padding (1, 1).

    Args:
      x: [b, h, w, i].
      kernel: [3, 3, i, o], as stored for the transposed convolution.

    Returns:
      [b, 2h, 2w, o].
    """
    # A dilated convolution would say the same in one line, but its gradients are slow on every device.
    if kernel.shape[2] <= FOLD_CHANNELS and not convolution.on_cpu():
        b, h, w, _ = x.shape
        phases = convolution.conv(x, _folded_phases(kernel)).reshape(b, h, w, 2, 2, -1)
        return phases.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)
    phases = (_phases_one_by_one if convolution.on_cpu() else _phases_at_once)(x, kernel)
    rows = [_fir(phases[0][q], phases[1][q], axis=1) for q in range(2)]
    columns = [_fir(rows[0][p], rows[1][p], axis=2) for p in range(2)]
    return _interleave([_interleave(row, axis=2) for row in columns], axis=1)


def upsample(x: jax.Array) -> jax.Array:
    """Doubles [b, h, w, c] by zero insertion and the FIR filter with padding (2, 1)."""
    for axis in (1, 2):
        before, here, after = (_window(x, axis, start, x.shape[axis]) for start in (-1, 0, 1))
        x = _interleave(
            [FIR[0] * before + FIR[2] * here, FIR[1] * here + FIR[3] * after], axis=axis
        )
    return x


def _phases_one_by_one(x: jax.Array, kernel: jax.Array) -> list[list[jax.Array]]:
    """The transposed convolution by (row, column) phase, without multiplications by zero.

    Along an axis, output 2 j is x[j] kernel[0] + x[j - 1] kernel[2], and output 2 j + 1 is x[j] kernel[1].

    Returns:
      Even phases have h + 1 rows or w + 1 columns, odd ones h or w.
    """
    # By phase; cross-correlation reads x[j - 1] first, so the taps of even outputs are in this order.
    taps, paddings = ([2, 0], [1]), ((1, 1), (0, 0))
    return [
        [
            convolution.conv(
                x,
                kernel[np.ix_(taps[p], taps[q])],
                (paddings[p], paddings[q]),
            )
            for q in range(2)
        ]
        for p in range(2)
    ]


def _phases_at_once(x: jax.Array, kernel: jax.Array) -> list[list[jax.Array]]:
    """The same as one convolution, almost half of its taps zero; odd phases end with zeros.

    Accelerators run one large convolution faster than four small ones.
    """
    matrix = np.zeros((2, 2, 3), np.float32)
    # (tap, phase, tap of the kernel): even outputs read kernel[2] and kernel[0], odd ones kernel[1].
    matrix[0, 0, 2] = matrix[1, 0, 0] = matrix[1, 1, 1] = 1
    y = convolution.conv(x, _per_axis(kernel, matrix), ((1, 1), (1, 1)))
    y = y.reshape(*y.shape[:3], 2, 2, -1)
    return [[y[:, :, :, p, q] for q in range(2)] for p in range(2)]


def _fir(even: jax.Array, odd: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The filter between phases: output n sums FIR[k] * input[n + k - 1], zero outside.

    Args:
      even: phase of n + 1 samples along the axis.
      odd: phase of n samples, or of n + 1 of which the last is 0.

    Returns:
      Both phases of the output, n samples each.
    """
    n = even.shape[axis] - 1
    e, o = (
        (lambda start: _window(even, axis, start, n)),
        (lambda start: _window(odd, axis, start, n)),
    )
    return (
        FIR[0] * o(-1) + FIR[1] * e(0) + FIR[2] * o(0) + FIR[3] * e(1),
        FIR[0] * e(0) + FIR[1] * o(0) + FIR[2] * e(1) + FIR[3] * o(1),
    )


def _window(x: jax.Array, axis: int, start: int, n: int) -> jax.Array:
    """Samples start .. start + n - 1 along an axis, 0 where there are none."""
    size = x.shape[axis]
    inside = jax.lax.slice_in_dim(x, max(start, 0), min(start + n, size), axis=axis)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (max(-start, 0), max(start + n - size, 0))
    return jnp.pad(inside, widths)


def _interleave(phases: Sequence[jax.Array], axis: int) -> jax.Array:
    """Two phases of n samples along an axis -> 2n samples."""
    x = jnp.stack(phases, axis=axis + 1)
    return x.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 2 :])


def _per_axis(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Turns the taps a of [3, 3, i, o] into (tap, phase) by matrix [taps, phases, 3], on each axis."""
    taps, _, i, o = *matrix.shape[:2], *kernel.shape[2:]
    matrix = jnp.asarray(matrix, kernel.dtype)
    phases = jnp.einsum("spa,tqb,abio->stipqo", matrix, matrix, kernel)
    return phases.reshape(taps, taps, i, 4 * o)


def _folded_phases(kernel: jax.Array) -> jax.Array:
    """The kernel [3, 3, i, 4o] of all phases with the FIR folded in: three taps for each.

    Output n of the filter sums FIR[k] * transposed[n + k - 1], and transposed[2 j + a] holds
    x[j] * kernel[a]; so x[i + d] reaches output 2 i + p where 2 d = p + k - 1 - a.
    """
    matrix = np.zeros((3, 2, 3), np.float32)
    for p in range(2):
        for k, tap in enumerate(FIR):
            for a in range(3):
                d, odd = divmod(p + k - 1 - a, 2)
                if not odd:  # zero insertion has nothing at odd places
                    matrix[d + 1, p, a] += tap
    return _per_axis(kernel, matrix)
