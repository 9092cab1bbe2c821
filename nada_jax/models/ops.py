"""The arithmetic of StyleGAN2, as pure functions of NHWC arrays.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN". Letters in shapes: b batch,
h w height and width, i input channels, o output channels. Parameters are stored as they were
trained ("equalised"): the run-time scale 1 / sqrt(fan in) is applied here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.models import convolution, upsampling

SQRT2 = float(np.sqrt(2.0))
EPS = 1e-8  # of the official code; trained weights depend on it


def check_images(images: jax.Array, channels: int = 3) -> None:
    """Refuses what cannot be images [b, h, w, channels] in [-1, 1]: other shapes, and whole numbers, as of 0..255.

    Raises:
      ValueError: names the type and the shape.
    """
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if not floats or images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(
            f"images are {images.dtype} of the shape {images.shape}; expected floats [b, h, w, {channels}] in [-1, 1]"
        )


def pixel_norm(x: jax.Array) -> jax.Array:
    """Scales the last axis to root mean square 1: x * rsqrt(mean(x^2) + 1e-8)."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + EPS)


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
    """The factor of the activation, given its input or its output, whose signs are equal."""
    return jnp.where(x >= 0, SQRT2, 0.2 * SQRT2).astype(x.dtype)


def clamp(x: jax.Array, bound: float | None) -> jax.Array:
    """Keeps values within -bound..bound; None leaves them as they are."""
    return x if bound is None else jnp.clip(x, -bound, bound)


def modulated_conv(
    x: jax.Array, weight: jax.Array, style: jax.Array, *, up: bool = False
) -> jax.Array:
    """Modulated convolution before its demodulation, Karras et al. 2020, eq. 1.

    Scaling the input by the style and the output by `demodulation` equals scaling the kernel per sample.

    Args:
      x: [b, h, w, i].
      weight: float32 [k, k, i, o].
      style: float32 [b, i].
      up: double the resolution (with the FIR filter behind it).

    Returns:
      [b, h, w, o], or [b, 2h, 2w, o]; dtype of x.
    """
    # The style scales the input, not the kernel: one kernel for the batch needs no grouped convolution.
    # The run-time scale goes along with the style, which is smaller than the kernel.
    style = style * _fan_in_scale(weight)
    x = x * style[:, None, None, :].astype(x.dtype)
    kernel = weight.astype(x.dtype)
    return upsampling.upsample_conv(x, kernel) if up else convolution.conv(x, kernel)


def demodulation(weight: jax.Array, style: jax.Array) -> jax.Array:
    """Scales [b, o] that bring outputs of `modulated_conv` to deviation 1, Karras et al. 2020, eq. 3."""
    # Tap by tap: a sum over the first axes takes twice as long on CPU.
    power = sum(tap**2 for row in weight for tap in row)
    return jax.lax.rsqrt((style * _fan_in_scale(weight)) ** 2 @ power + EPS)


def _fan_in_scale(weight: jax.Array) -> float:
    return 1 / np.sqrt(np.prod(weight.shape[:3]))


@jax.custom_vjp
def activate(y: jax.Array, scale: jax.Array, noise: jax.Array, bias: jax.Array) -> jax.Array:
    """Demodulation, noise, bias and activation: fused_leaky_relu(y * scale + noise + bias).

    Its gradient is of reverse mode only.

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


# The backward pass undoes the activation to recover y from the output (Rota Bulò et al. 2018, "In-Place
# Activated BatchNorm"). The next layer keeps the output anyway, so y need not be kept.
def _activate_forward(y, scale, noise, bias):
    out = activate(y, scale, noise, bias)
    return out, (out, scale, noise, bias)


def _activate_backward(saved, dout: jax.Array):
    out, scale, noise, bias = saved
    dx = dout * _leaky_gain(out)
    dx32 = dx.astype(jnp.float32)  # sums over all pixels would lose too much in bfloat16
    x = out.astype(jnp.float32) * jnp.where(out >= 0, 1 / SQRT2, 5 / SQRT2)
    total = jnp.sum(dx32, axis=(1, 2))
    dscale = (jnp.sum(dx32 * (x - noise[..., None]), axis=(1, 2)) - bias * total) / scale
    # Noise of size 1 along an axis was broadcast along it.
    shared = [axis for axis in range(3) if noise.shape[axis] == 1]
    dnoise = jnp.sum(jnp.sum(dx32, axis=3), axis=shared, keepdims=True)
    dy = dx * scale[:, None, None, :].astype(dx.dtype)
    return dy, dscale, dnoise, jnp.sum(total, axis=0)


activate.defvjp(_activate_forward, _activate_backward)
