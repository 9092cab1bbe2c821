"""The StyleGAN2 generator: from latents to images, as pure functions of its weights."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.models.stylegan2_networks import (
    Architecture,
    MappingNetwork,
    Styles,
    SynthesisNetwork,
)

Noise = str | jax.Array | Mapping[str, jax.Array]
# Float16 is absent: it overflows without the clamp that few published generators have.


@flax.struct.dataclass
class Generator:
    """A StyleGAN2 generator: weights that pass through jit and grad, and a static architecture.

    Its activations have gradients of reverse mode only; `jax.jvp` is refused.

    Attributes:
      params: {"mapping": ..., "synthesis": ...}, float32.
      noise: noise buffers {"conv_i": [side, side]}.
      latent_avg: mean of w, [w_dim].
      architecture: static sizes.
      precision: "float32" or "bfloat16", in which the synthesis network computes.
      remat: whether gradients keep only the inputs of convolutions and compute the rest again: less
        memory, more time, the same numbers.
    """

    KIND: ClassVar[str] = "generator"
    ARCHITECTURE: ClassVar[type] = Architecture

    params: dict[str, Any]
    noise: dict[str, jax.Array]
    latent_avg: jax.Array
    architecture: Architecture = flax.struct.field(pytree_node=False)
    precision: str = flax.struct.field(pytree_node=False, default="float32")
    remat: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.architecture.size

    @property
    def num_layers(self) -> int:
        """Latents per image, l."""
        return self.architecture.num_layers

    def map(self, z: jax.Array) -> jax.Array:
        """Mapping network: z [b, z_dim] -> w [b, w_dim]."""
        network = MappingNetwork(self.architecture)
        return network.apply({"params": self.params["mapping"]}, z)

    def broadcast(self, ws: jax.Array) -> jax.Array:
        """Gives every layer its latent: [b, w_dim] -> [b, l, w_dim]; [b, l, w_dim] passes unchanged."""
        layers, w_dim = self.num_layers, self.architecture.w_dim
        if ws.shape[1:] not in ((w_dim,), (layers, w_dim)):
            raise ValueError(
                f"ws has shape {ws.shape}; expected [b, {w_dim}] or [b, {layers}, {w_dim}]"
            )
        return ws if ws.ndim == 3 else jnp.repeat(ws[:, None], layers, axis=1)

    def truncate(self, ws: jax.Array, psi: float | jax.Array) -> jax.Array:
        """Truncation trick, Karras et al. 2019: latent_avg + psi * (ws - latent_avg)."""
        return self.latent_avg + psi * (ws - self.latent_avg)

    def mix(self, ws: jax.Array, others: jax.Array, crossover: jax.Array) -> jax.Array:
        """Style mixing, Karras et al. 2019.

        Args:
          ws, others: [b, w_dim] or [b, l, w_dim].
          crossover: [b] or scalar; layers before it take `ws`, the rest `others`.

        Returns:
          [b, l, w_dim].
        """
        # A comparison instead of a slice: crossovers are traced, and differ within a batch.
        before = jnp.arange(self.num_layers) < jnp.reshape(crossover, (-1, 1))
        return jnp.where(before[..., None], self.broadcast(ws), self.broadcast(others))

    def styles(self, ws: jax.Array) -> Styles:
        """StyleSpace (Wu et al. 2021): the style [b, i] of every modulated layer, by name.

        Args:
          ws: [b, w_dim] or [b, l, w_dim].
        """
        return self._synthesis(self.broadcast(ws), method=SynthesisNetwork.styles)

    def synthesize(self, ws: jax.Array, noise: Noise = "const") -> jax.Array:
        """Draws images.

        Args:
          ws: [b, w_dim] or [b, l, w_dim].
          noise: "const" (the generator's buffers), "none", a PRNG key for fresh noise, or buffers
            [b, side, side] by convolution, as an inversion finds them.

        Returns:
          [b, size, size, 3] float32, about -1..1.
        """
        return self.synthesize_styles(self.styles(ws), noise)

    def synthesize_styles(self, styles: Styles, noise: Noise = "const") -> jax.Array:
        """Draws images from StyleSpace; see `styles` and `synthesize`."""
        maps = self._noise(noise, batch=styles["conv_0"].shape[0])
        return self._synthesis(styles, maps, method=SynthesisNetwork.render)

    def _synthesis(self, *args, method):
        network = SynthesisNetwork(self.architecture, jnp.dtype(self.precision), self.remat)
        return network.apply({"params": self.params["synthesis"]}, *args, method=method)

    def _noise(self, noise: Noise, batch: int) -> Mapping[str, jax.Array]:
        if isinstance(noise, Mapping):
            return noise
        if isinstance(noise, str):
            if noise == "none":
                return {}
            if noise == "const":
                return {name: buffer[None] for name, buffer in self.noise.items()}
            raise ValueError(f'noise is {noise!r}; expected "const", "none", a PRNG key or buffers')
        # One draw for all layers: a draw for each made a quarter of the instructions that XLA compiles for a
        # training step. Values are drawn before images, so that the first layers do not depend on how many follow.
        sizes = self.architecture.noise_sizes()
        ends = np.cumsum([side**2 for side in sizes.values()])
        drawn = jax.random.normal(noise, (ends[-1], batch)).T
        return {
            name: part.reshape(batch, side, side)
            for (name, side), part in zip(
                sizes.items(), jnp.split(drawn, ends[:-1], axis=1), strict=True
            )
        }


def mean_latent(generator: Generator, key: jax.Array, samples: int = 4096) -> jax.Array:
    """The mean of w over fresh samples, to which truncation pulls.

    Args:
      generator: the generator.
      key: of the samples.
      samples: 4,096 in the official code.

    Returns:
      [w_dim].
    """
    z = jax.random.normal(key, (samples, generator.architecture.z_dim))
    return jnp.mean(generator.map(z), axis=0)


def draw_latents(
    generator: Generator, key: jax.Array, batch: int, mixing: float = 0.0
) -> jax.Array:
    """Draws latents.

    Args:
      generator: the generator.
      key: of the draw.
      batch: number b of latents.
      mixing: probability that a latent mixes two z at a random layer.

    Returns:
      ws [b, l, w_dim].
    """
    keys = jax.random.split(key, 4)
    z_dim, layers = generator.architecture.z_dim, generator.num_layers
    ws = generator.broadcast(generator.map(jax.random.normal(keys[0], (batch, z_dim))))
    if mixing:
        others = generator.map(jax.random.normal(keys[1], (batch, z_dim)))
        # From layer 1 on, so that both z have a layer.
        crossover = jax.random.randint(keys[2], (batch,), 1, layers)
        mixed = jax.random.bernoulli(keys[3], mixing, (batch,))
        ws = generator.mix(ws, others, jnp.where(mixed, crossover, layers))
    return ws
