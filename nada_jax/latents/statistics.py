"""Global directions of StyleCLIP: what each channel of StyleSpace changes in an image, as a CLIP sees it.

Patashnik et al. 2021 (arXiv 2103.17249), section 6. Each channel is moved alone; the mean change of the image's feature
is kept. A text direction in CLIP's space then moves every channel by as much as its change is in line with the text.
The layers to RGB are left out, as in the official code.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax import batches, trees
from nada_jax.errors import UserError
from nada_jax.latents.directions import Direction, DirectionArchitecture
from nada_jax.models.clip import Clip, unit
from nada_jax.models.stylegan2 import Generator
from nada_jax.settings import Count, NonNegative, Positive, Rule, Section, Seed
from nada_jax.weights import native, registry

MOVED = 5.0  # standard deviations by which a channel is moved, up and down; as in the official code
SPREAD = 4096  # latents behind the standard deviations; they cost the mapping network alone
VERSION = 1  # of these computations; another number makes all cached statistics be computed anew

Report = Callable[[int, int], None]  # of progress: (finished, all)


class Global(Section, name="global_"):
    """How a text becomes a global direction; `config.global_`."""

    samples: Count
    beta: NonNegative
    seed: Seed


@dataclasses.dataclass(frozen=True)
class StatisticsArchitecture:
    """The numbers that fix the shapes of statistics.

    Attributes:
      widths: of the styles of conv_0, conv_1, ...
      dim: length of a feature of the CLIP.
    """

    widths: tuple[int, ...]
    dim: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of the file."""
        convs = {f"conv_{i}": width for i, width in enumerate(self.widths)}
        return {name: (width, self.dim) for name, width in convs.items()} | {
            f"spreads.{name}": (width,) for name, width in convs.items()
        }
