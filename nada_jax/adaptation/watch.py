"""Measures images that no step trains on, and decides when an adaptation has gone far enough."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from nada_jax.devices import mesh as meshes
from nada_jax.evaluation import features, statistics
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.settings import NonNegative, Section, Whole

SAMPLES = 32  # images: enough to see diversity fall, and drawn in a moment
SEED = 2**30  # of their latents; training draws from other keys

# Measurement -> the field of `stop` with its limit, and when it is reached.
MEASUREMENTS = {
    "diversity_kept": ("diversity", operator.le),
    "similarity": ("similarity", operator.ge),
}


class Stop(Section, name="stop"):
    """When an adaptation ends before its last step; `config.stop`."""

    every: Whole
    clip: str
    diversity: NonNegative
    similarity: NonNegative

    def check(self) -> None:
        """Limits need measurements."""
        for field, _ in MEASUREMENTS.values():
            used = self.every or not getattr(self, field)
            self.need(used, field, "0 as long as stop.every is 0")


class Watch:
    """The same latents, drawn and measured again and again.

    Args:
      stop: the limits.
      generator: the source, on this process's own device.
      clip: embeds the images.
      target: unit feature of the target in this clip [d].
    """

    def __init__(self, stop: Stop, generator: Generator, clip: Clip, target: jax.Array):
        self.stop = stop
        self.clip, self.target, self.generator = clip, target, generator
        # Fixed, so that measurements differ by the generator alone.
        self.ws = np.asarray(draw_latents(generator, jax.random.key(SEED), SAMPLES))
        features.refuse_alike(
            self._features(generator), "expected another generator, or stop.every=0"
        )
        self.diversity, _ = self._measure(generator)

    def measure(self, adapted: Generator, mesh: Mesh | None) -> dict[str, float]:
        """Measures an adapted generator, as it lies on the mesh.

        Returns:
          "diversity_kept", the mean CLIP distance of its images over that of the source's, and
          "similarity", the mean cosine to the target.
        """
        # On one device: every process measures the same and so decides the same.
        whole = jax.device_get(meshes.whole(adapted.params, mesh))
        diversity, similarity = self._measure(self.generator.replace(params=whole))
        return {"diversity_kept": diversity / self.diversity, "similarity": similarity}

    def reason(self, row: Mapping[str, Any]) -> str:
        """Why to stop after a step with these metrics, or "". What was not measured is no reason."""
        for name, (field, reached) in MEASUREMENTS.items():
            limit = getattr(self.stop, field)
            if limit and name in row and reached(row[name], limit):
                return f"{name.replace('_', ' ')} is {row[name]:.3f}, and the limit {limit:g}"
        return ""

    def _features(self, generator: Generator) -> np.ndarray:
        # In float64: a distance is 1 less a cosine near 1.
        return np.asarray(_embed(self.clip, generator, self.ws), np.float64)

    def _measure(self, generator: Generator) -> tuple[float, float]:
        found = self._features(generator)
        once = np.ones((1, SAMPLES))
        diversity = statistics.pairwise(once, statistics.cosine_distances(found))[0]
        return float(diversity), float(np.mean(found @ np.asarray(self.target)))


@jax.jit
def _embed(clip: Clip, generator: Generator, ws: jax.Array) -> jax.Array:
    return features.embed(clip, generator.synthesize(ws))
