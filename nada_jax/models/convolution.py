"""Convolutions of NHWC arrays, with gradients that are fast on every device."""

import jax
import jax.numpy as jnp
import numpy as np

Padding = tuple[tuple[int, int], tuple[int, int]]


def conv(x: jax.Array, kernel: jax.Array, padding: Padding | None = None) -> jax.Array:
    """Plain convolution (cross-correlation, as in PyTorch) with stride 1.

    Args:
      x: [b, h, w, i].
      kernel: [k, l, i, o].
      padding: rows of zeros (above, below) and columns (left, right); by default what keeps h and w
        for odd k and l.

    Returns:
      [b, h', w', o]. On CPU, and for even k or l, it differentiates in reverse mode only.
    """
    if padding is None:
        padding = tuple((side // 2, side // 2) for side in kernel.shape[:2])
    # A convolution of one tap is a matrix product, which needs no form of its own for gradients.
    if kernel.shape[:2] == (1, 1) and not np.any(padding):
        return x @ kernel[0, 0]
    even = any(side % 2 == 0 for side in kernel.shape[:2])
    return (_conv_by_hand if even or on_cpu() else _conv)(x, kernel, padding)


def on_cpu() -> bool:
    """Whether this is traced for a CPU; RuntimeError where JAX finds no device."""
    # The default device may be an object without a client, of a compiler for absent hardware.
    device = jax.config.jax_default_device
    try:
        device = device or jax.default_backend()
    except AssertionError as error:  # JAX says no more; nobody should take it for damage of a file
        raise RuntimeError("JAX finds none of the devices that JAX_PLATFORMS names") from error
    return getattr(device, "platform", device) == "cpu"


def _conv(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# JAX states the gradients of a convolution in forms that XLA's CPU back end computes by plain loops, up to
# 50 times slower than the convolution itself; written as plain convolutions they cost the same as it. On GPUs
# its kernel gradient is cuDNN's only for odd kernels: for even ones it is a forward convolution with a window as
# large as the image, which took a quarter of the step of a generator of 1024 pixels.
_conv_by_hand = jax.custom_vjp(_conv, nondiff_argnums=(2,))


def turn(kernel: jax.Array, padding: Padding) -> tuple[jax.Array, Padding]:
    """The kernel and the padding of the convolution that is the gradient by x of one with these."""
    rest = tuple(
        (k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip(kernel.shape[:2], padding, strict=True)
    )
    return kernel[::-1, ::-1].swapaxes(2, 3), rest


def kernel_gradient(x: jax.Array, dy: jax.Array, padding: Padding) -> jax.Array:
    """The gradient [k, l, i, o] of a convolution by its kernel, of that by its output [b, h', w', o]."""
    # Channels in place of the batch, and dy as a kernel of the size of the image; padded by hand, since
    # the fast path for such kernels takes no padding.
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    if not on_cpu():
        # Or XLA would make the padding the convolution's again, and not know it for a kernel gradient.
        padded = jax.lax.optimization_barrier(padded)
    return jax.lax.conv_general_dilated(
        padded, dy, (1, 1), "VALID", dimension_numbers=("CHWN", "IHWO", "HWNC")
    )


def _backward(padding: Padding, saved, dy: jax.Array):
    x, kernel = saved
    return _conv(dy, *turn(kernel, padding)), kernel_gradient(x, dy, padding)


_conv_by_hand.defvjp(lambda x, kernel, padding: (_conv(x, kernel, padding), (x, kernel)), _backward)
