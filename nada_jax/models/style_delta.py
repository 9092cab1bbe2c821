"""A domain as an offset in StyleSpace: StyleGAN-NADA with the fewest numbers.

Every modulated convolution multiplies its input by a style. An offset added to the styles of all images
turns one generator into another of the same architecture: 6,048 numbers at 1024 pixels, a file of
kilobytes. The "domain vector" of Alanov et al. 2022, "HyperDomainNet" (arXiv 2210.08884), multiplies where
this adds.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

import flax
import jax
import jax.numpy as jnp

from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator
from nada_jax.models.stylegan2_networks import Styles


@dataclasses.dataclass(frozen=True)
class DeltaArchitecture:
    """The numbers that fix a delta's shapes.

    Attributes:
      widths: of the styles of conv_0, conv_1, ...
    """

    widths: tuple[int, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of the file."""
        return {f"conv_{i}": (width,) for i, width in enumerate(self.widths)}

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "DeltaArchitecture":
        """Reads the architecture from the shapes of the arrays; UserError where they are no delta's."""
        # Convolutions are numbered from 0 on, without gaps.
        found = sorted(int(m[1]) for path in shapes if (m := re.fullmatch(r"conv_(\d+)", path)))
        if not found or found != list(range(len(found))):
            raise UserError(f"not a style delta: it has offsets of the convolutions {found}")
        return cls(tuple(int(shapes[f"conv_{i}"][0]) for i in found))


@flax.struct.dataclass
class StyleDelta:
    """Offsets of the styles of convolutions; deltas are added, and multiplied by numbers.

    Attributes:
      offsets: [i] by convolution, float32.
      architecture: static sizes.
    """

    KIND: ClassVar[str] = "style delta"
    ARCHITECTURE: ClassVar[type] = DeltaArchitecture

    offsets: Styles
    architecture: DeltaArchitecture = flax.struct.field(pytree_node=False)

    def __add__(self, other: "StyleDelta") -> "StyleDelta":
        """Adds the offsets of two deltas; UserError where their architectures differ."""
        if self.architecture != other.architecture:
            raise UserError(f"style deltas of {self.architecture} and {other.architecture} differ")
        return self.replace(offsets=jax.tree.map(jnp.add, self.offsets, other.offsets))

    def __mul__(self, scale: float | jax.Array) -> "StyleDelta":
        """Scales the offsets: 0 is the source, 1 the adapted generator, -1 the opposite direction."""
        return self.replace(offsets=jax.tree.map(lambda x: scale * x, self.offsets))

    __rmul__ = __mul__


def between(source: Generator, adapted: Generator) -> StyleDelta:
    """The delta that leads from a generator to an adapted one.

    Args:
      source: the generator.
      adapted: the same after training of its style biases alone (the strategy "style_space").

    Returns:
      The delta.
    """
    convs = range(source.num_layers - 1)
    offsets = {f"conv_{i}": _bias(adapted, i) - _bias(source, i) for i in convs}
    return StyleDelta(offsets, _architecture(source))


def shift(generator: Generator, delta: StyleDelta) -> Generator:
    """Adds the offsets to the styles of a generator.

    Args:
      generator: one of the architecture of the delta.
      delta: the offsets.

    Returns:
      The shifted generator.

    Raises:
      UserError: the delta belongs to a generator of other widths.
    """
    if delta.architecture != _architecture(generator):
        raise UserError(
            f"the style delta is for convolutions of the widths {delta.architecture.widths}, but the "
            f"generator has {_architecture(generator).widths}"
        )
    synthesis = dict(generator.params["synthesis"])
    # An offset of a style equals an offset of the bias of the layer that computes it.
    for layer, offset in delta.offsets.items():
        modulation = synthesis[layer]["modulation"]
        moved = modulation | {"bias": modulation["bias"] + offset}
        synthesis[layer] = synthesis[layer] | {"modulation": moved}
    return generator.replace(params=generator.params | {"synthesis": synthesis})


def _bias(generator: Generator, i: int) -> jax.Array:
    """The part of a convolution's style that does not depend on the latent."""
    return generator.params["synthesis"][f"conv_{i}"]["modulation"]["bias"]


def _architecture(generator: Generator) -> DeltaArchitecture:
    return DeltaArchitecture(
        tuple(_bias(generator, i).shape[0] for i in range(generator.num_layers - 1))
    )
