"""Layers of the Flax classes of diffusers: as PyTorch's classes compute them, and fast on CPU.

    with nn.intercept_methods(diffusion_layers.intercept):
        network.apply(...)

The classes differ from PyTorch's, on whose weights they run, by an approximate GELU and by the epsilon of a norm, 1e-4 of
a UNet's output together. Convolutions are those of the other networks; see `convolution` and `winograd`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nada_jax.models import convolution, winograd

TRANSFORMER_EPS = 1e-6  # of the norm of a transformer, by PyTorch's class


def intercept(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """What is called in place of every method of a module; see `flax.linen.intercept_methods`."""
    layer = LAYERS.get(type(context.module).__name__) if context.method_name == "__call__" else None
    found = layer(context.module, args[0]) if layer else None
    return call(*args, **kwargs) if found is None else found


def _gated(module: nn.Module, x: jax.Array) -> jax.Array:
    """Shazeer 2020 (arXiv 2002.05202), GEGLU: a linear function of x times the GELU of another one."""
    linear, gate = jnp.split(module.proj(x), 2, axis=-1)
    return linear * nn.gelu(gate, approximate=False)


def _group_norm(module: nn.GroupNorm, x: jax.Array) -> jax.Array:
    eps = module.epsilon
    if type(module.parent).__name__ == "FlaxTransformer2DModel":
        eps = TRANSFORMER_EPS
    params = module.variables["params"]
    groups = module.num_groups
    dtype = x.dtype
    # [b, pixels, groups, channels of one], in float32, in which the sums are.
    grouped = x.reshape(len(x), -1, groups, x.shape[-1] // groups).astype(jnp.float32)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = jnp.square(grouped - mean).mean((1, 3), keepdims=True)
    x = ((grouped - mean) * jax.lax.rsqrt(variance + eps)).reshape(x.shape)
    return (x * params["scale"] + params["bias"]).astype(dtype)


def _conv(module: nn.Conv, x: jax.Array) -> jax.Array | None:
    """None where the class itself does as well: on other devices than CPUs, and in other types than float32."""
    params = module.variables["params"]
    kernel, size = params["kernel"], params["kernel"].shape[:2]
    if not convolution.on_cpu() or not x.dtype == kernel.dtype == module.dtype == jnp.float32:
        return None
    padding = ((0, 0), (0, 0)) if module.padding == "VALID" else module.padding
    if size == (1, 1):
        x = convolution.conv(x, kernel)
    elif module.strides == (1, 1):
        x = winograd.conv(x, kernel, padding)
    else:
        x = _halving_conv(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel)
    return x + params["bias"]


def _halving_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of 3 x 3 taps at every second pixel, without padding, as one of 2 x 2 taps at every one.

    Each 2 x 2 pixels become one of four times the channels. The gradients of the other form are, on CPU, up to 50 times as
    slow as itself.
    """
    b, *sides, c = x.shape
    # Of blocks, which the last tap of 4 x 4 reaches, whose last row and column are zeros.
    down, across = ((side - 3) // 2 + 2 for side in sides)
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, : 2 * down, : 2 * across]
    x = x.reshape(b, down, 2, across, 2, c).transpose(0, 1, 3, 2, 4, 5)
    taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    taps = taps.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 1, 3, 4, 5)
    x, taps = x.reshape(b, down, across, 4 * c), taps.reshape(2, 2, 4 * c, -1)
    return convolution.conv(x, taps, ((0, 0), (0, 0)))


LAYERS: dict[str, Callable[[Any, jax.Array], jax.Array | None]] = {
    "Conv": _conv,
    "FlaxGEGLU": _gated,
    "GroupNorm": _group_norm,
}


class Rematerialised:
    """Blocks whose inputs alone are kept for the gradient; for `flax.linen.intercept_methods`, inside of `intercept`."""

    # Blocks that hold no others of these; and per block, since computing a whole network again would not lower the peak.
    BLOCKS = ("FlaxResnetBlock2D", "FlaxBasicTransformerBlock", "FlaxAttentionBlock")

    def __init__(self):
        self.within = False  # a block, which is called again as a function of its parameters

    def __call__(
        self,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        """See `intercept`."""
        known = type(context.module).__name__ in self.BLOCKS and context.method_name == "__call__"
        if self.within or not known:
            return call(*args, **kwargs)
        block, variables = context.module.unbind()

        def run(variables: Any, *args: Any) -> Any:
            self.within = True
            try:
                return block.apply(variables, *args, **kwargs)
            finally:
                self.within = False

        return jax.checkpoint(run)(variables, *args)
