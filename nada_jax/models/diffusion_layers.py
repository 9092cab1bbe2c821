"""Layers of the Flax classes of diffusers as PyTorch's classes compute them.

    with nn.intercept_methods(diffusion_layers.intercept):
        network.apply(...)

The classes differ from PyTorch's, on whose weights they run, by an approximate GELU and by the epsilon of a norm, 1e-4 of
a UNet's output together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

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


LAYERS: dict[str, Callable[[Any, jax.Array], jax.Array | None]] = {
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
