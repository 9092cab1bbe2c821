"""The arithmetic of StyleGAN2, as pure functions of NHWC arrays.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN". Letters in shapes: b batch,
h w height and width, i input channels, o output channels. Parameters are stored as they were
trained ("equalised"): the run-time scale 1 / sqrt(fan in) is applied here.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Padding = tuple[tuple[int, int], tuple[int, int]]

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
    return x * _leaky_gain(x)


def _leaky_gain(x: jax.Array) -> jax.Array:
    """What the activation multiplies by; the same of its input and its output, whose signs are equal."""
    return jnp.where(x >= 0, SQRT2, 0.2 * SQRT2).astype(x.dtype)


def clamp(x: jax.Array, bound: float | None) -> jax.Array:
    """Keeps values within -bound..bound; None leaves them as they are."""
    return x if bound is None else jnp.clip(x, -bound, bound)


def conv(x: jax.Array, kernel: jax.Array, padding: Padding | None = None) -> jax.Array:
    """Plain convolution (cross-correlation, as in PyTorch) with stride 1.

    Args:
      x: [b, h, w, i].
      kernel: [k, l, i, o].
      padding: rows of zeros (above, below) and columns (left, right); by default what keeps h and w
        for odd k and l.

    Returns:
      [b, h', w', o]. On CPU it differentiates in reverse mode only.
    """
    if padding is None:
        padding = tuple((side // 2, side // 2) for side in kernel.shape[:2])
    if kernel.shape[:2] == (1, 1) and not np.any(padding):
        return x @ kernel[0, 0]
    return (_conv_cpu if _on_cpu() else _conv)(x, kernel, padding)


def _on_cpu() -> bool:
    """Whether this is traced for a CPU; the default device may be one that only a compiler knows."""
    device = jax.config.jax_default_device or jax.default_backend()
    return getattr(device, "platform", device) == "cpu"


def _conv(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# JAX states the gradients of a convolution in forms that XLA's CPU back end computes by plain loops, up to 50
# times slower than the convolution. As plain convolutions, the large kernel's without padding, they cost the same.
_conv_cpu = jax.custom_vjp(_conv, nondiff_argnums=(2,))


def _conv_cpu_backward(padding: Padding, saved, dy: jax.Array):
    x, kernel = saved
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    rest = tuple(
        (k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip(kernel.shape[:2], padding, strict=True)
    )
    # Channels in place of the batch, and dy as a kernel of the size of the picture.
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    dkernel = jax.lax.conv_general_dilated(
        padded, dy, (1, 1), "VALID", dimension_numbers=("CHWN", "IHWO", "HWNC")
    )
    return _conv(dy, turned, rest), dkernel


_conv_cpu.defvjp(
    lambda x, kernel, padding: (_conv(x, kernel, padding), (x, kernel)), _conv_cpu_backward
)


def modulated_conv(
    x: jax.Array, weight: jax.Array, style: jax.Array, *, up: bool = False
) -> jax.Array:
    """Modulated convolution before its demodulation, Karras et al. 2020, eq. 1.

    Scaling the input by the style and the output by `demodulation` is the same as scaling the kernel per
    sample, and leaves one kernel shared by the batch: no grouped convolution.

    Args:
      x: [b, h, w, i].
      weight: float32 [k, k, i, o].
      style: float32 [b, i].
      up: double the resolution (with the FIR filter behind it).

    Returns:
      [b, h, w, o], or [b, 2h, 2w, o]; dtype of x.
    """
    # The run-time scale, on the style because a kernel is large.
    style = style * _fan_in_scale(weight)
    x = x * style[:, None, None, :].astype(x.dtype)
    kernel = weight.astype(x.dtype)
    return upsample_conv(x, kernel) if up else conv(x, kernel)


def demodulation(weight: jax.Array, style: jax.Array) -> jax.Array:
    """What brings the outputs of `modulated_conv` to standard deviation 1, Karras et al. 2020, eq. 3: [b, o]."""
    # Tap by tap: a sum over the first axes takes twice as long on CPU.
    power = sum(tap**2 for row in weight for tap in row)
    return jax.lax.rsqrt((style * _fan_in_scale(weight)) ** 2 @ power + 1e-8)


def _fan_in_scale(weight: jax.Array) -> float:
    return 1 / np.sqrt(np.prod(weight.shape[:3]))


@jax.custom_vjp
def activate(y: jax.Array, scale: jax.Array, noise: jax.Array, bias: jax.Array) -> jax.Array:
    """What follows a modulated convolution: fused_leaky_relu(y * scale + noise + bias).

    Its gradient, of reverse mode only, undoes the activation to get the rest back from the output (Rota Bulò
    et al. 2018, "In-Place Activated BatchNorm"). The next layer keeps the output anyway, so nothing else has
    to be kept.

    Args:
      y: [b, h, w, o].
      scale: float32 [b, o], above 0.
      noise: float32 [b or 1, h or 1, w or 1].
      bias: float32 [o].

    Returns:
      [b, h, w, o], dtype of y.
    """
    y = y * scale[:, None, None, :].astype(y.dtype)
    return fused_leaky_relu(y + noise[..., None].astype(y.dtype) + bias.astype(y.dtype))


def _activate_forward(y, scale, noise, bias):
    out = activate(y, scale, noise, bias)
    return out, (out, scale, noise, bias)


def _activate_backward(saved, dout: jax.Array):
    out, scale, noise, bias = saved
    dx = dout * _leaky_gain(out)
    dx32 = dx.astype(jnp.float32)
    x = out.astype(jnp.float32) * jnp.where(out >= 0, 1 / SQRT2, 5 / SQRT2)
    total = jnp.sum(dx32, axis=(1, 2))
    dscale = (jnp.sum(dx32 * (x - noise[..., None]), axis=(1, 2)) - bias * total) / scale
    shared = [axis for axis in range(3) if noise.shape[axis] == 1]
    dnoise = jnp.sum(jnp.sum(dx32, axis=3), axis=shared, keepdims=True)
    dy = dx * scale[:, None, None, :].astype(dx.dtype)
    return dy, dscale, dnoise, jnp.sum(total, axis=0)


activate.defvjp(_activate_forward, _activate_backward)


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
    if kernel.shape[2] <= FOLD_CHANNELS and not _on_cpu():
        b, h, w, _ = x.shape
        phases = conv(x, _folded_phases(kernel)).reshape(b, h, w, 2, 2, -1)
        return phases.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)
    phases = (_phases_one_by_one if _on_cpu() else _phases_at_once)(x, kernel)
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
    """The transposed convolution by (row, column) phase: only the multiplications there are.

    An even output 2 j sums x[j] kernel[0] and x[j - 1] kernel[2], an odd one 2 j + 1 is x[j] kernel[1].

    Returns:
      Even phases have h + 1 rows or w + 1 columns, odd ones h or w.
    """
    taps, paddings = ([2, 0], [1]), ((1, 1), (0, 0))
    return [
        [
            conv(
                x,
                kernel[np.ix_(taps[p], taps[q])],
                (paddings[p], paddings[q]),
            )
            for q in range(2)
        ]
        for p in range(2)
    ]


def _phases_at_once(x: jax.Array, kernel: jax.Array) -> list[list[jax.Array]]:
    """The same as one convolution, almost half of its taps zero; odd phases end with zeros."""
    matrix = np.zeros((2, 2, 3), np.float32)
    matrix[0, 0, 2] = matrix[1, 0, 0] = matrix[1, 1, 1] = 1
    y = conv(x, _per_axis(kernel, matrix), ((1, 1), (1, 1)))
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
                if not odd:
                    matrix[d + 1, p, a] += tap
    return _per_axis(kernel, matrix)
