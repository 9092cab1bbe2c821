"""The term "style": adapted images get the style of given images, by the statistics of a VGG's features."""

import functools
from typing import Annotated, Self

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.losses.style import KINDS, relative, with_length
from nada_jax.models.vgg import Vgg
from nada_jax.runs import items
from nada_jax.settings import Rule, Section, one_of
from nada_jax.style.objective import Objective
from nada_jax.style.objective import Style as Statistics
from nada_jax.weights import loading

LAYERS = Rule(lambda names: 0 < len(set(names)) == len(names), "names of layers, each once")
LARGEST = 4096  # pixels of a side; more would be a slip, and fill the memory
SIZE = Rule(lambda x: 1 <= x <= LARGEST, f"pixels of a side, 1 to {LARGEST}")
SCALE = Rule(lambda x: 1 / 64 <= x <= 64, "a number in 1/64..64")


class Style(Section, name="style"):
    """Style images, and how a VGG sees these and adapted images; `config.style`."""

    weights: str
    images: str
    kind: Annotated[str, one_of(KINDS)]
    layers: Annotated[tuple[str, ...], LAYERS]
    size: Annotated[int, SIZE]
    scale: Annotated[float, SCALE]

    def check(self) -> None:
        """Style images are bounded, too."""
        good = 1 <= self.side <= LARGEST
        self.need(good, "scale", f"style images of 1 to {LARGEST} pixels, not of {self.side}")

    @property
    def side(self) -> int:
        """Pixels of a side of the style images."""
        return round(self.scale * self.size)

    @property
    def objective(self) -> Objective:
        """What describes and compares styles."""
        return Objective(style_layers=self.layers, kind=self.kind)


@flax.struct.dataclass
class StyleTarget:
    """The mean style of some images, and the network that sees it.

    Attributes:
      vgg: the network.
      style: layer -> statistics, [1, ...], as those of a target.
      lengths: layer -> distance of this style from that of features which are 0, [1].
      section: the settings.
    """

    vgg: Vgg
    style: Statistics
    lengths: dict[str, jax.Array]
    section: Style = flax.struct.field(pytree_node=False)

    @classmethod
    def load(cls, section: Style) -> Self:
        """Loads the network, and describes the style images one by one.

        Raises:
          UserError: weights or images cannot be read, or the network has no such layers for images of this size.
        """
        vgg = loading.load_vgg(section.weights, field=section.path("weights"))
        known = vgg.architecture.layers()
        section.need(set(section.layers) <= set(known), "layers", f"some of {', '.join(known)}")
        objective = section.objective
        for field, side in (("size", section.size), ("scale", section.side)):
            try:  # without computing anything
                jax.eval_shape(objective.describe, vgg, np.zeros((1, side, side, 3), np.float32))
            except UserError as error:
                path = section.path(field)
                raise UserError(f"{path} is {getattr(section, field)}, but {error}") from error
        listed = items.listing(section.images, section.path("images"))
        describe = jax.jit(objective.describe)
        # Read as they are asked for: a folder may be larger than the memory.
        found = (describe(vgg, images.read(item.path, section.side)[None]) for item in listed)
        total = functools.reduce(functools.partial(jax.tree.map, jnp.add), found)
        mean = jax.tree.map(lambda x: x / len(listed), total)
        style, lengths = with_length(section.kind, mean)
        return cls(vgg, style, lengths, section)

    def loss(self, source: jax.Array, adapted: jax.Array) -> jax.Array:
        """Distance of adapted images [b, h, w, 3] from the style, as a share of its length, over layers: [b]."""
        b, _, _, c = adapted.shape
        seen = jax.image.resize(adapted, (b, self.section.size, self.section.size, c), "cubic")
        objective = self.section.objective
        return relative(
            self.section.kind, objective.describe(self.vgg, seen), self.style, self.lengths
        )
