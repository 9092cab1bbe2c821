"""The arithmetic of StyleGAN2, as pure functions of NHWC arrays.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN". Letters in shapes: b batch,
h w height and width, i input channels, o output channels. Parameters are stored as they were
trained ("equalised"): the run-time scale 1 / sqrt(fan in) is applied here.
"""

import jax
import jax.numpy as jnp
import numpy as np

# The filter [1, 3, 3, 1] of every published StyleGAN2, with the gain 2 per axis of upsampling.
FIR = (0.25, 0.75, 0.75, 0.25)
SQRT2 = float(np.sqrt(2.0))
# Up to this many input channels the FIR is folded into the kernel of an upsampling convolution: more
# multiplications in one call and no passes over memory, which wins where channels are few. XLA's CPU
# convolutions are bound by multiplications, so there it never pays.
FOLD_CHANNELS = 128


def pixel_norm(x: jax.Array) -> jax.Array:
    """Scales the last axis to root mean square 1: x * rsqrt(mean(x^2) + 1e-8)."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-8)


def dense(x: jax.Array, weight: jax.Array, bias: jax.Array, lr_mul: float = 1.0) -> jax.Array:
    """Equalised dense layer: x @ (weight * lr_mul / sqrt(i)) + bias * lr_mul.

    Args:
      x: [..., i].
      weight: [i, o], stored divided by `lr_mul`.
      bias: [o], likewise.
      lr_mul: learning-rate multiplier; 0.01 in the mapping network.

    Returns:
      [..., o].
    """
    scale = lr_mul / np.sqrt(weight.shape[0])
    return x @ (weight * scale).astype(x.dtype) + (bias * lr_mul).astype(x.dtype)


def fused_leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU of slope 0.2 with the gain sqrt(2) that keeps the variance."""
    return jax.nn.leaky_relu(x, 0.2) * SQRT2


def clamp(x: jax.Array, bound: float | None) -> jax.Array:
    """Keeps values within -bound..bound; None leaves them as they are."""
    return x if bound is None else jnp.clip(x, -bound, bound)


def conv(x: jax.Array, kernel: jax.Array, padding: int | None = None) -> jax.Array:
    """Plain convolution (cross-correlation, as in PyTorch) with stride 1.

    Args:
      x: [b, h, w, i].
      kernel: [k, k, i, o].
      padding: zeros on every side; by default what keeps h and w for an odd k.

    Returns:
      [b, h', w', o]. On CPU it differentiates in reverse mode only.
    """
    padding = kernel.shape[0] // 2 if padding is None else padding
    return (_conv_cpu if jax.default_backend() == "cpu" else _conv)(x, kernel, padding)


def _conv(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# XLA's CPU back end has no fast kernel gradient: for an even kernel it falls back to plain loops, 50 times
# slower than the forward pass. As one matrix product per tap it costs what the forward pass costs.
_conv_cpu = jax.custom_vjp(_conv, nondiff_argnums=(2,))


def _conv_cpu_backward(padding: int, saved, dy: jax.Array):
    x, kernel = saved
    dx = jax.linear_transpose(lambda x: _conv(x, kernel, padding), x)(dy)[0]
    k, (_, h, w, o) = kernel.shape[0], dy.shape
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [
        padded[:, a : a + h, b : b + w].reshape(-1, x.shape[3]).T @ dy.reshape(-1, o)
        for a in range(k)
        for b in range(k)
    ]
    return dx, jnp.stack(taps).reshape(kernel.shape)


_conv_cpu.defvjp(
    lambda x, kernel, padding: (_conv(x, kernel, padding), (x, kernel)), _conv_cpu_backward
)


def modulated_conv(
    x: jax.Array, weight: jax.Array, style: jax.Array, *, up: bool = False, demodulate: bool = True
) -> jax.Array:
    """Modulated convolution, Karras et al. 2020, eqs. 1 and 3.

    Scaling the input by the style and the output by the demodulation factor is the same as scaling
    the kernel per sample, and leaves one kernel shared by the batch: no grouped convolution.

    Args:
      x: [b, h, w, i].
      weight: float32 [k, k, i, o].
      style: float32 [b, i].
      up: double the resolution (with the FIR filter behind it).
      demodulate: divide by the expected standard deviation of the output.

    Returns:
      [b, h, w, o], or [b, 2h, 2w, o]; dtype of x.
    """
    weight = weight * (1 / np.sqrt(np.prod(weight.shape[:3])))
    y = x * style[:, None, None, :].astype(x.dtype)
    kernel = weight.astype(x.dtype)
    y = upsample_conv(y, kernel) if up else conv(y, kernel)
    if demodulate:
        power = jnp.sum(weight**2, axis=(0, 1))
        scale = jax.lax.rsqrt(style**2 @ power + 1e-8)
        y = y * scale[:, None, None, :].astype(x.dtype)
    return y


def upsample_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride-2 transposed 3x3 convolution, then the FIR filter, in polyphase form.

    Equal to conv_transpose2d(stride=2, padding=0) followed by the 4x4 filter with padding (1, 1),
    without dilation, whose gradients are slow everywhere.

    Args:
      x: [b, h, w, i].
      kernel: [3, 3, i, o], as stored for the transposed convolution.

    Returns:
      [b, 2h, 2w, o].
    """
    if kernel.shape[2] <= FOLD_CHANNELS and jax.default_backend() != "cpu":
        return _interleave(conv(x, _folded_phases(kernel)))
    y = _interleave(conv(x, _phases(kernel), padding=1))
    # y is the transposed convolution [b, 2h + 1, 2w + 1, o] with its bottom and right padding.
    y = jnp.pad(y, ((0, 0), (1, 0), (1, 0), (0, 0)))
    return _fir(_fir(y, axis=1), axis=2)


def upsample(x: jax.Array) -> jax.Array:
    """Doubles [b, h, w, c] by zero insertion and the FIR filter with padding (2, 1)."""
    for axis in (1, 2):
        size = x.shape[axis]
        widths = [(0, 0)] * 4
        widths[axis] = (1, 1)
        padded = jnp.pad(x, widths)
        before, here, after = (
            jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(3)
        )
        even = FIR[0] * before + FIR[2] * here
        odd = FIR[1] * here + FIR[3] * after
        shape = list(x.shape)
        shape[axis] *= 2
        x = jnp.stack([even, odd], axis=axis + 1).reshape(shape)
    return x


def _fir(x: jax.Array, axis: int) -> jax.Array:
    """Four shifted adds along one axis; the axis becomes 3 shorter."""
    size = x.shape[axis] - 3
    return sum(tap * jax.lax.slice_in_dim(x, k, k + size, axis=axis) for k, tap in enumerate(FIR))


def _interleave(x: jax.Array) -> jax.Array:
    """[b, h, w, 4o], phases (row, column) first in the channels -> [b, 2h, 2w, o]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)


def _per_axis(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Turns the taps a of [3, 3, i, o] into (tap, phase) by matrix [taps, phases, 3], on each axis."""
    taps, _, i, o = *matrix.shape[:2], *kernel.shape[2:]
    matrix = jnp.asarray(matrix, kernel.dtype)
    phases = jnp.einsum("spa,tqb,abio->stipqo", matrix, matrix, kernel)
    return phases.reshape(taps, taps, i, 4 * o)


def _phases(kernel: jax.Array) -> jax.Array:
    """Even outputs of a stride-2 transposed convolution see taps (2, 0), odd ones tap 1."""
    matrix = np.zeros((2, 2, 3), np.float32)
    matrix[0, 0, 2] = matrix[1, 0, 0] = matrix[1, 1, 1] = 1
    return _per_axis(kernel, matrix)


def _folded_phases(kernel: jax.Array) -> jax.Array:
    """The same with the FIR folded in: three taps for each phase.

    Output n of the filter sums FIR[k] * transposed[n + k - 1], and transposed[2 j + a] holds
    x[j] * kernel[a]; so x[i + d] reaches output 2 i + p where 2 d = p + k - 1 - a.
    """
    matrix = np.zeros((3, 2, 3), np.float32)
    for p in range(2):
        for k, tap in enumerate(FIR):
            for a in range(3):
                d, odd = divmod(p + k - 1 - a, 2)
                if not odd:
                    matrix[d + 1, p, a] += tap
    return _per_axis(kernel, matrix)
