"""The sheets of pictures that show how far an adaptation has come."""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.adaptation.step import TrainState
from nada_jax.devices import sharding
from nada_jax.models.stylegan2 import Generator, draw_latents


class Painter:
    """Draws the source row over the adapted row, from latents fixed over the run."""

    def __init__(
        self, config: ConfigDict, generator: Generator, workdir: Path, mesh: Mesh | None = None
    ):
        samples = config.samples

        def latents(generator):
            ws = draw_latents(generator, jax.random.key(samples.seed), samples.count)
            return generator.truncate(ws, samples.truncation)

        self.generator, self.mesh, self.directory = generator, mesh, workdir / "samples"
        self.ws = jax.jit(latents)(sharding.whole(generator, mesh))
        self.draw = jax.jit(lambda generator, ws: generator.synthesize(ws))
        self.source = self.pictures(generator)

    def pictures(self, generator: Generator) -> np.ndarray:
        """The row of a generator, [n, h, w, 3]."""
        return np.asarray(self.draw(sharding.whole(generator, self.mesh), self.ws))

    def path(self, step: int) -> Path:
        """Where the grid of a step stands."""
        return self.directory / f"step_{step:06d}.png"

    def paint(self, state: TrainState, step: int) -> None:
        """Writes the grid of a step."""
        adapted = self.pictures(self.generator.replace(params=state.result))
        sheet = images.grid(np.concatenate([self.source, adapted]), columns=len(adapted))
        enlarge = images.enlargement(self.generator.size)
        sharding.alone(images.save, sheet, self.path(step), enlarge)
