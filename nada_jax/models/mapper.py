"""The latent mapper of StyleCLIP: one text's edit of any latent, in one pass, in Flax linen.

Patashnik et al. 2021, "StyleCLIP: Text-Driven Manipulation of StyleGAN Imagery" (arXiv 2103.17249),
section 5.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from nada_jax.errors import UserError
from nada_jax.models import ops
from nada_jax.models.irse import network_shapes
from nada_jax.models.stylegan2_networks import Dense

# The latents that each level's network reads and moves; a mapper of a single network moves all.
LEVELS = {
    "coarse": slice(0, 4),
    "medium": slice(4, 8),
    "fine": slice(8, None),
    "all": slice(None),
}


@dataclasses.dataclass(frozen=True)
class MapperArchitecture:
    """The numbers that fix a mapper's shapes.

    Attributes:
      levels: names of its networks; see `LEVELS`.
      w_dim: size of a latent.
      layers: depth of each network.
    """

    levels: tuple[str, ...] = ("coarse", "medium", "fine")
    w_dim: int = 512
    layers: int = 4

    def __post_init__(self):
        good = self.levels and set(self.levels) <= set(LEVELS)
        if not good or not 1 <= self.layers <= 64 or self.w_dim < 1:
            raise UserError(
                f"not a mapper of StyleCLIP: it would have the levels {self.levels}, {self.layers} layers "
                f"and latents of {self.w_dim}"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of a native file."""
        return network_shapes(MapperNetwork(self), (1, 9, self.w_dim))

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "MapperArchitecture":
        """Reads the architecture from the shapes of native parameters; UserError where it cannot."""
        pattern = re.compile(r"(\w+)\.dense_(\d+)\.weight")
        found = [m for path in shapes if (m := pattern.fullmatch(path)) and m[1] in LEVELS]
        levels = tuple(level for level in LEVELS if any(m[1] == level for m in found))
        if not levels or ("all" in levels and len(levels) > 1):
            raise UserError(
                "not a mapper of StyleCLIP: expected networks for coarse, medium or fine latents, "
                f"or one for all, it has {', '.join(levels) or 'none'}"
            )
        w_dim = int(shapes[found[0][0]][1])
        return cls(levels, w_dim, layers=len({m[2] for m in found}))


class LevelNetwork(nn.Module):
    """Normalisation, then dense layers with a learning rate of 0.01 times the others'."""

    layers: int

    @nn.compact
    def __call__(self, ws: jax.Array) -> jax.Array:
        """[b, l, w] -> [b, l, w]."""
        # The official code normalises every channel over the latents; trained mappers need that.
        ws = ops.pixel_norm(ws.swapaxes(1, 2)).swapaxes(1, 2)
        for i in range(self.layers):
            # 0.01 as in the mapping network of StyleGAN2; the stored weights are divided by it.
            dense = Dense(ws.shape[-1], lr_mul=0.01, name=f"dense_{i}")
            ws = ops.fused_leaky_relu(dense(ws))
        return ws


class MapperNetwork(nn.Module):
    """M(w): the edit, 0 for latents that no level moves."""

    architecture: MapperArchitecture

    @nn.compact
    def __call__(self, ws: jax.Array) -> jax.Array:
        """[b, l, w] -> [b, l, w]."""
        edit = jnp.zeros_like(ws)
        for name in self.architecture.levels:
            latents = LEVELS[name]
            level = LevelNetwork(self.architecture.layers, name=name)
            edit = edit.at[:, latents].set(level(ws[:, latents]))
        return edit


@flax.struct.dataclass
class Mapper:
    """A latent mapper.

    Attributes:
      params: by level, float32.
      architecture: static sizes.
    """

    KIND: ClassVar[str] = "mapper"
    ARCHITECTURE: ClassVar[type] = MapperArchitecture

    params: dict[str, Any]
    architecture: MapperArchitecture = flax.struct.field(pytree_node=False)

    def edit(self, ws: jax.Array, strength: float | jax.Array = 0.1) -> jax.Array:
        """Moves latents towards the text that the mapper was trained for: w + strength * M(w).

        Args:
          ws: [b, l, w_dim], one latent per layer of the generator.
          strength: 0.1 is what mappers are trained with.

        Returns:
          [b, l, w_dim].
        """
        w_dim = self.architecture.w_dim
        if ws.ndim != 3 or ws.shape[-1] != w_dim:
            raise ValueError(f"ws has shape {ws.shape}; expected [b, l, {w_dim}]")
        network = MapperNetwork(self.architecture)
        return ws + strength * network.apply({"params": self.params}, ws)
