"""Looks at pictures that no step trains on, and says when an adaptation has gone far enough."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nada_jax.adaptation import prompts
from nada_jax.devices import sharding
from nada_jax.evaluation import statistics as metrics
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents

PICTURES = 32
SEED = 2**30  # of their latents; training draws from other keys


class Watch:
    """The same latents, looked at again and again.

    Args:
      config: all of `configs/default.py`.
      generator: the source, on this process's own device.
      clip: what looks.
      target: what is asked for, a unit feature of this clip [d].
    """

    def __init__(self, config: ConfigDict, generator: Generator, clip: Clip, target: jax.Array):
        self.limits = {
            "diversity_kept": config.stop.diversity,
            "similarity": config.stop.similarity,
        }
        self.clip, self.target, self.generator = clip, target, generator
        self.ws = np.asarray(draw_latents(generator, jax.random.key(SEED), PICTURES))
        self.diversity, _ = self._measure(generator)

    def look(self, params: Any, mesh: Mesh | None) -> dict[str, float]:
        """What an adapted generator draws now.

        Args:
          params: its parameters, like `Generator.params`, as they lie on the mesh.

        Returns:
          "diversity_kept", the mean CLIP distance of its pictures over that of the source's, and
          "similarity", the mean cosine to the target.
        """
        whole = jax.device_get(sharding.whole(params, mesh))
        diversity, similarity = self._measure(self.generator.replace(params=whole))
        return {"diversity_kept": diversity / self.diversity, "similarity": similarity}

    def enough(self, seen: Mapping[str, Any]) -> str:
        """Why to stop after such a look, or nothing. What was not looked at is no reason."""
        for name, beyond in (("diversity_kept", -1), ("similarity", 1)):
            limit = self.limits[name]
            if limit and name in seen and beyond * (seen[name] - limit) >= 0:
                return f"{name.replace('_', ' ')} is {seen[name]:.3f}, and the limit {limit:g}"
        return ""

    def _measure(self, generator: Generator) -> tuple[float, float]:
        features = np.asarray(_embed(self.clip, generator, self.ws), np.float64)
        once = np.ones((1, PICTURES))
        diversity = metrics.pairwise(once, metrics.cosine_distances(features))[0]
        return float(diversity), float(np.mean(features @ np.asarray(self.target)))


@jax.jit
def _embed(clip: Clip, generator: Generator, ws: jax.Array) -> jax.Array:
    return prompts.embed_pictures(clip, generator.synthesize(ws))
