"""How far results are from the style that they were to have, in layers and by kinds of their own choice."""

import dataclasses
import functools

import jax
import numpy as np
from PIL import Image

from nada_jax.losses.style import EPS
from nada_jax.models.vgg import Vgg
from nada_jax.style.objective import Objective, Style
from nada_jax.style.transfer import scaled


class Gauge:
    """Compares images with styles.

    Args:
      vgg: the network.
      objective: its style layers, and the kind of statistics.
      longer: longer side of the styles in pixels.
    """

    def __init__(self, vgg: Vgg, objective: Objective, longer: float):
        self._vgg, self._objective, self._longer = vgg, objective, longer
        # A style is no image that continues at its other side.
        self._flat = dataclasses.replace(objective, wrap=False)
        self._known: dict[int, Style] = {}

    def describe(self, image: np.ndarray) -> Style:
        """The style of an image [h, w, 3] in [-1, 1]."""
        return _describe(self._objective, self._vgg, image[None])

    def of_style(self, style: Image.Image) -> Style:
        """The same of a style, each once."""
        if id(style) not in self._known:
            pixels = scaled(style, self._longer)[None]
            self._known[id(style)] = _describe(self._flat, self._vgg, pixels)
        return self._known[id(style)]

    def distances(self, style: Image.Image, image: np.ndarray) -> dict[str, float]:
        """Layer -> distance of an image [h, w, 3] in [-1, 1] from a style."""
        found = self._objective.distance(self.describe(image), self.of_style(style))
        return {layer: float(x[0]) for layer, x in found.items()}

    def shares(self, style: Image.Image, image: np.ndarray) -> dict[str, float]:
        """The same over the distance of the style from nothing; of Gram matrices."""
        target = self.of_style(style)
        return {
            layer: x / max(float(np.mean(np.square(target[layer]["gram"]))), EPS)
            for layer, x in self.distances(style, image).items()
        }


@functools.partial(jax.jit, static_argnums=0)
def _describe(objective: Objective, vgg: Vgg, pixels: jax.Array) -> Style:
    return objective.describe(vgg, pixels, as_target=True)
