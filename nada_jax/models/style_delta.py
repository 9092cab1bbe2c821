"""A domain as an offset in StyleSpace: StyleGAN-NADA with the fewest numbers.

Every modulated convolution multiplies its input by a style. An offset that is added to the styles of all
pictures alike turns one generator into another of the same architecture (the "domain vector" of
Alanov et al. 2022, "HyperDomainNet", arXiv 2210.08884, which multiplies where this adds): 6,048 numbers at 1024
pixels, a file of kilobytes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp

from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator, Styles


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

    def tree(self) -> dict[str, Any]:
        """The arrays, as in the file."""
        return self.offsets

    @classmethod
    def from_tree(cls, tree: dict[str, Any], architecture: DeltaArchitecture) -> "StyleDelta":
        """The inverse of `tree`."""
        return cls(tree, architecture)

    def __add__(self, other: "StyleDelta") -> "StyleDelta":
        """Both offsets at once."""
        if self.architecture != other.architecture:
            raise UserError(f"style deltas of {self.architecture} and {other.architecture} differ")
        return self.replace(offsets=jax.tree.map(jnp.add, self.offsets, other.offsets))

    def __mul__(self, scale: float | jax.Array) -> "StyleDelta":
        """So much of the way; 0 is the source, 1 the adapted generator, -1 the opposite."""
        return self.replace(offsets=jax.tree.map(lambda x: scale * x, self.offsets))

    __rmul__ = __mul__


def between(source: Generator, adapted: Generator) -> StyleDelta:
    """The delta that the strategy "style_space" has trained."""
    convs = range(source.num_layers - 1)
    offsets = {f"conv_{i}": _bias(adapted, i) - _bias(source, i) for i in convs}
    return StyleDelta(offsets, _architecture(source))


def shift(generator: Generator, delta: StyleDelta) -> Generator:
    """The generator with the offsets added to its styles.

    Raises:
      UserError: the delta belongs to a generator of other widths.
    """
    if delta.architecture != _architecture(generator):
        raise UserError(
            f"the style delta is for convolutions of the widths {delta.architecture.widths}, but the "
            f"generator has {_architecture(generator).widths}"
        )
    synthesis = dict(generator.params["synthesis"])
    for layer, offset in delta.offsets.items():
        modulation = synthesis[layer]["modulation"]
        moved = modulation | {"bias": modulation["bias"] + offset}
        synthesis[layer] = synthesis[layer] | {"modulation": moved}
    return generator.replace(params=generator.params | {"synthesis": synthesis})


def _bias(generator: Generator, i: int) -> jax.Array:
    """What is added to the style of a convolution whatever the latent."""
    return generator.params["synthesis"][f"conv_{i}"]["modulation"]["bias"]


def _architecture(generator: Generator) -> DeltaArchitecture:
    return DeltaArchitecture(
        tuple(_bias(generator, i).shape[0] for i in range(generator.num_layers - 1))
    )
