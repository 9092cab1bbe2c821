"""Settings that the tasks of style transfer share."""

import math
from collections.abc import Callable
from typing import Annotated

from nada_jax.losses.style import KINDS
from nada_jax.models.vgg import POOLING, Vgg
from nada_jax.settings import (
    Count,
    Positive,
    Rule,
    Section,
    Seed,
    Share,
    need,
    one_of,
)
from nada_jax.style.colors import COLORS
from nada_jax.style.minimize import METHODS, Minimizer
from nada_jax.weights import loading

# Larger images have more pixels than a GPU's memory holds numbers for L-BFGS.
SIDE = Rule(lambda x: 16 <= x <= 2**14, "a whole number of pixels in 16..16,384")
Side = Annotated[int, SIDE]
# 1 would never take a new iterate.
AVERAGING = Rule(lambda x: 0 <= x < 1, "a number from 0, below 1")
# Beyond it, squares of gradients, which Adam takes, leave float32, and images do not move.
HEAVIEST = 1e12
Weight = Annotated[float, Rule(lambda x: 0 <= x <= HEAVIEST, f"a number in 0..{HEAVIEST:g}")]
Weights = Annotated[
    tuple[float, ...],
    Rule(
        lambda x: x and all(0 <= y <= HEAVIEST for y in x),
        f"one number in 0..{HEAVIEST:g}, or several",
    ),
]


class Network(Section, name="vgg"):
    """The network whose features count; `config.vgg`."""

    weights: str
    pooling: Annotated[str, one_of(POOLING)]

    def load(self) -> Vgg:
        """Loads the network, and says which it is; see `loading.load_vgg`."""
        vgg = loading.load_vgg(self.weights, field=self.path("weights"))
        preprocessing = vgg.architecture.preprocessing
        print(
            f"features of a VGG-{vgg.architecture.depth}, {preprocessing} preprocessing: {self.weights}",
            flush=True,
        )
        return vgg

    def check_layers(self, vgg: Vgg, field: str, layers: tuple[str, ...]) -> None:
        """Raises UserError where the network lacks a layer that a field names, or it is named twice."""
        known = vgg.architecture.layers()
        need(
            len(set(layers)) == len(layers) and set(layers) <= set(known),
            field,
            layers,
            f"different layers out of {', '.join(known)}, those of {self.weights}",
        )


class Optimizer(Section, name="optimizer"):
    """How pixels are optimised; `config.optimizer`."""

    method: Annotated[str, one_of(METHODS)]
    lr: Positive
    averaging: Annotated[float, AVERAGING]

    def of(self, loss: Callable) -> Minimizer:
        """The minimiser of a loss; see `minimize.Loss`."""
        return Minimizer(loss, self.method, self.lr, self.averaging)


class Scales(Section, name="scales"):
    """The sizes from coarse to fine; `config.scales`."""

    smallest: Side
    first_steps: Count
    steps: Count


class Layers(Section):
    """Which layers describe a style; part of `config.loss`."""

    style_layers: tuple[str, ...]
    style_layer_weights: tuple[float, ...]
    total_variation: Weight

    def check(self) -> None:
        """A weight for each layer, or none at all."""
        weights = self.style_layer_weights
        good = not weights or len(weights) == len(self.style_layers)
        good = good and all(0 <= x <= HEAVIEST for x in weights)
        self.need(good, "style_layer_weights", f"() or {len(self.style_layers)} numbers from 0")

    @property
    def layer_weights(self) -> tuple[float, ...]:
        """Of each style layer; all are 1 where none is given."""
        return self.style_layer_weights or (1.0,) * len(self.style_layers)


class Style(Layers):
    """How a style is described; part of `config.loss`."""

    kind: Annotated[str, one_of(KINDS)]


class Terms(Layers, name="loss"):
    """The terms and their weights, whatever the kind of the style; `config.loss`."""

    content: Weight
    style: Weights
    content_layers: tuple[str, ...]

    def check(self) -> None:
        """Weights differ, as results are called by them, and something is asked for."""
        super().check()
        named = {f"{x:g}" for x in self.style}
        self.need(len(named) == len(self.style), "style", "numbers that differ in six digits")
        self.need(bool(self.style_layers), "style_layers", "at least one layer")
        self.need(bool(self.content_layers) or not self.content, "content_layers", "a layer")


class Loss(Terms, name="loss"):
    """The terms and their weights; `config.loss`."""

    kind: Annotated[str, one_of(KINDS)]


class Painting(Section):
    """What decides a result of style transfer, beside its images; part of `configs/style_transfer.py`."""

    size: Side
    seed: Seed
    tile: Side
    blend: tuple[float, ...]
    style_scale: Positive
    colors: Annotated[str, one_of(COLORS)]
    strength: Share
    vgg: Network
    loss: Loss
    scales: Scales
    optimizer: Optimizer

    def check(self) -> None:
        """Shares of styles add up to something."""
        good = all(0 <= x < math.inf for x in self.blend) and (
            sum(self.blend) > 0 or not self.blend
        )
        self.need(good, "blend", "() or numbers from 0, not all of them 0")
