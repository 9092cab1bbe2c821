"""Grids of images that show how far an adaptation has come."""

import functools
from typing import Annotated, Any

import jax
import numpy as np
from jax.sharding import Mesh

from nada_jax import images
from nada_jax.devices import mesh as meshes
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.runs.workdir import Run
from nada_jax.settings import Rule, Section, Seed, Truncation

# Many more than fit into the memory, which XLA says where it can; of 10^8 it ends the process.
COUNT = Rule(lambda x: 1 <= x <= images.MOST, f"a whole number in 1..{images.MOST:,}")


class Samples(Section, name="samples"):
    """The sample grids of a run; `config.samples`."""

    count: Annotated[int, COUNT]
    seed: Seed
    truncation: Truncation


class SampleGrid:
    """Draws the source row over the adapted row, from latents fixed over the run.

    Args:
      samples: how many, and of which latents.
      source: the source generator, as it lies on the mesh.
      run: writes the grids.
    """

    def __init__(self, samples: Samples, source: Generator, run: Run, mesh: Mesh | None = None):
        def latents(generator):
            ws = draw_latents(generator, jax.random.key(samples.seed), samples.count)
            return generator.truncate(ws, samples.truncation)

        self.run, self.mesh = run, mesh
        self.ws = jax.jit(latents)(meshes.whole(source, mesh))
        self.synthesize = jax.jit(lambda generator, ws: generator.synthesize(ws))
        self.source_row = self._row(source)  # drawn once: neither the source nor its latents change

    def name(self, step: int) -> str:
        """The file of a step, within the workdir."""
        return f"samples/step_{step:06d}.png"

    def draw(self, adapted: Generator, step: int) -> None:
        """Writes the grid of a step."""
        rows = np.concatenate([self.source_row, self._row(adapted)])
        write = functools.partial(images.save_grid, rows, len(rows) // 2)
        self.run.draw(self.name(step), write)

    def _row(self, generator: Generator) -> Any:
        return np.asarray(self.synthesize(meshes.whole(generator, self.mesh), self.ws))
