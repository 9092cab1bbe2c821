"""The networks of StyleGAN2 (Karras et al. 2020) in Flax linen, and the sizes that fix their shapes.

Latent i of l = 2 log2(size) - 2 drives `conv_i`, and every odd latent drives `to_rgb_{i // 2}` too. Odd
convolutions double the resolution; noise i has the side 2^((i + 5) // 2).
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nada_jax import trees
from nada_jax.errors import UserError
from nada_jax.models import ops
from nada_jax.models.upsampling import upsample

Styles = dict[str, jax.Array]
MAX_LAYERS = 64  # of a mapping network; a hostile header must not ask for endless ones


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The numbers that fix a generator's shapes.

    Attributes:
      channels: width at each resolution 4, 8, ..., size.
      z_dim, w_dim: sizes of the input and the intermediate latent.
      mapping_layers: depth of the mapping network.
      conv_clamp: bound of the absolute output of every layer (StyleGAN2-ADA keeps float16 from
        overflowing with it), or None.
    """

    channels: tuple[int, ...]
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    conv_clamp: float | None = None

    def __post_init__(self):
        numbers = (*self.channels, self.z_dim, self.w_dim)
        if (
            not 2 <= len(self.channels) <= 9
            or not 1 <= self.mapping_layers <= MAX_LAYERS
            or min(numbers) < 1
        ):
            raise UserError(
                f"not a StyleGAN2 generator: it would have the widths {self.channels}, the latent sizes "
                f"{self.z_dim} and {self.w_dim}, and {self.mapping_layers} mapping layers; expected 2 to 9 "
                f"widths (8 to 1024 pixels) and 1 to {MAX_LAYERS} layers"
            )
        if self.conv_clamp is not None and not 0 < self.conv_clamp < math.inf:
            raise UserError(f"conv_clamp is {self.conv_clamp}; expected a number above 0")

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return 2 ** (len(self.channels) + 1)

    @property
    def num_layers(self) -> int:
        """Latents per image."""
        return 2 * len(self.channels)

    def noise_sizes(self) -> dict[str, int]:
        """Side of each noise buffer, by name."""
        return {f"conv_{i}": 2 ** ((i + 5) // 2) for i in range(self.num_layers - 1)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of a native generator file."""
        params = jax.eval_shape(lambda: init_params(self, jax.random.key(0)))
        return (
            {path: leaf.shape for path, leaf in trees.flatten(params).items()}
            | {f"noise.{name}": (side, side) for name, side in self.noise_sizes().items()}
            | {"latent_avg": (self.w_dim,)}
        )

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, tuple[int, ...]], conv_clamp: float | None = None
    ) -> "Architecture":
        """Reads the architecture from the shapes of native parameters.

        Args:
          shapes: flat path -> shape, as in `shapes()`; more paths than needed do no harm.
          conv_clamp: see the class; it does not follow from shapes.

        Raises:
          UserError: the shapes are not those of a StyleGAN2 generator.
        """
        convs, denses = (
            sorted(int(m[1]) for path in shapes if (m := re.fullmatch(pattern, path)))
            for pattern in (r"synthesis\.conv_(\d+)\.weight", r"mapping\.dense_(\d+)\.weight")
        )
        whole = all(found == list(range(len(found))) for found in (convs, denses))
        if not whole or len(convs) < 3 or len(convs) % 2 == 0 or not denses:
            raise UserError(
                f"not a StyleGAN2 generator: it has the styled convolutions {convs} and the mapping "
                f"layers {denses}, where a generator of side 2^n has 2n - 3 and at least 1, from 0 on"
            )
        return cls(
            channels=tuple(int(shapes[f"synthesis.conv_{i}.weight"][3]) for i in convs[::2]),
            z_dim=int(shapes["mapping.dense_0.weight"][0]),
            w_dim=int(shapes["mapping.dense_0.weight"][1]),
            mapping_layers=len(denses),
            conv_clamp=conv_clamp,
        )


class Dense(nn.Module):
    """Equalised dense layer; see `ops.dense`."""

    features: int
    lr_mul: float = 1.0
    bias_init: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Equalised: weights start at deviation 1 over lr_mul, and `ops.dense` scales them at run time.
        spread = nn.initializers.normal(1.0 / self.lr_mul)
        weight = self.param("weight", spread, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias_init), (self.features,))
        return ops.dense(x, weight, bias, self.lr_mul)


class MappingNetwork(nn.Module):
    """z [b, z_dim] -> w [b, w_dim]: pixel norm, then dense layers."""

    architecture: Architecture

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        w = ops.pixel_norm(z)
        for i in range(self.architecture.mapping_layers):
            # Karras et al. 2019 train this network 100 times slower than the synthesis.
            w = Dense(self.architecture.w_dim, lr_mul=0.01, name=f"dense_{i}")(w)
            w = ops.fused_leaky_relu(w)
        return w


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation."""

    in_channels: int
    channels: int
    up: bool
    clamp: float | None = None

    def setup(self):
        shape = (3, 3, self.in_channels, self.channels)
        self.weight = self.param("weight", nn.initializers.normal(1.0), shape)
        self.noise_strength = self.param("noise_strength", nn.initializers.zeros, ())
        self.bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        self.modulation = Dense(self.in_channels, bias_init=1.0)

    def __call__(self, x: jax.Array, style: jax.Array, noise: jax.Array | None) -> jax.Array:
        """x [b, h, w, i], style [b, i], noise [1 or b, h', w'] -> [b, h', w', o]."""
        x = ops.modulated_conv(x, self.weight, style, up=self.up)
        # `activate`, whose gradient is written by hand, always adds noise.
        noise = jnp.zeros((1, 1, 1)) if noise is None else self.noise_strength * noise
        x = ops.activate(x, ops.demodulation(self.weight, style), noise, self.bias)
        return ops.clamp(x, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation."""

    in_channels: int
    clamp: float | None = None

    def setup(self):
        shape = (1, 1, self.in_channels, 3)
        self.weight = self.param("weight", nn.initializers.normal(1.0), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (3,))
        self.modulation = Dense(self.in_channels, bias_init=1.0)

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        """x [b, h, w, i], style [b, i] -> float32 [b, h, w, 3]."""
        # Images are sums over all resolutions, whose rounding errors in bfloat16 would add up.
        rgb = ops.modulated_conv(x, self.weight, style)
        return ops.clamp(rgb.astype(jnp.float32) + self.bias, self.clamp)


class SynthesisNetwork(nn.Module):
    """Latents -> styles -> images."""

    architecture: Architecture
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self):
        channels, clamp = self.architecture.channels, self.architecture.conv_clamp
        shape = (4, 4, channels[0])
        self.constant = self.param("constant", nn.initializers.normal(1.0), shape)
        # Per convolution: rematerialising the whole network would not lower the peak of memory.
        styled_conv = nn.remat(StyledConv) if self.remat else StyledConv
        self.convs = [
            styled_conv(
                channels[i // 2], channels[(i + 1) // 2], i % 2 == 1, clamp, name=f"conv_{i}"
            )
            for i in range(self.architecture.num_layers - 1)
        ]
        self.to_rgbs = [ToRGB(c, clamp, name=f"to_rgb_{i}") for i, c in enumerate(channels)]

    def styles(self, ws: jax.Array) -> Styles:
        """ws [b, l, w_dim] -> the style vector [b, i] of every modulated layer, by its name."""
        # to_rgb_{i} shares the latent of the convolution that follows it, as in the official code.
        return {f"conv_{i}": conv.modulation(ws[:, i]) for i, conv in enumerate(self.convs)} | {
            f"to_rgb_{i}": rgb.modulation(ws[:, 2 * i + 1]) for i, rgb in enumerate(self.to_rgbs)
        }

    def render(self, styles: Styles, noise: Mapping[str, jax.Array]) -> jax.Array:
        """Styles and noise ([1 or b, side, side] by convolution, or empty) -> [b, size, size, 3]."""
        batch = styles["conv_0"].shape[0]
        x = jnp.broadcast_to(self.constant, (batch, *self.constant.shape)).astype(self.dtype)
        image = None
        for i, conv in enumerate(self.convs):
            x = conv(x, styles[f"conv_{i}"], noise.get(f"conv_{i}"))
            if i % 2 == 0:
                rgb = self.to_rgbs[i // 2](x, styles[f"to_rgb_{i // 2}"])
                image = rgb if image is None else upsample(image) + rgb
        return image

    def __call__(self, ws: jax.Array, noise: Mapping[str, jax.Array]) -> jax.Array:
        return self.render(self.styles(ws), noise)


def init_params(architecture: Architecture, key: jax.Array) -> dict[str, Any]:
    """Random parameters {"mapping": ..., "synthesis": ...}, distributed as before training."""
    keys = jax.random.split(key)
    z = jnp.zeros((1, architecture.z_dim))
    ws = jnp.zeros((1, architecture.num_layers, architecture.w_dim))
    return {
        "mapping": MappingNetwork(architecture).init(keys[0], z)["params"],
        "synthesis": SynthesisNetwork(architecture).init(keys[1], ws, {})["params"],
    }
