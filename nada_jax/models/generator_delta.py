"""An adapted generator as low-rank factors of what was added to its source: kilobytes in place of megabytes.

An adaptation changes the synthesis network alone. The change of a weight, as a matrix, is kept as the product of two
factors (LoRA, Hu et al. 2021, arXiv 2106.09685): exactly where it was trained as such (the strategy "low_rank"), by its
largest singular values otherwise. Biases and the constant input, which are small, are kept whole.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax import trees
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture, Generator

CHANGED = "synthesis."  # beginning of the paths that may differ from the source's
# Singular values below this share of the largest are rounding: weights are float32, and a change is 0.1 to 1 of them.
ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class DeltaArchitecture(Architecture):
    """That of the generator, and the ranks of the changes.

    Attributes:
      ranks: of the change of each matrix, in the order of `matrices`; 0 where it has not changed.
    """

    ranks: tuple[int, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        sides = self.matrices().values()
        fits = len(self.ranks) == len(sides) and all(
            0 <= rank <= min(side) for rank, side in zip(self.ranks, sides, strict=True)
        )
        if not fits:
            raise UserError(
                f"not a generator delta: it has the ranks {self.ranks}; expected one for each of {len(sides)} "
                "matrices, and none above their sides"
            )

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Flat path of each weight of a layer -> (rows, columns) of its matrix, the last axis in columns."""
        return {
            path: (math.prod(shape[:-1]), shape[-1])
            for path, shape in super().shapes().items()
            if path.startswith(CHANGED) and path.endswith(".weight")
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of the file."""
        found = {path: x for path, x in super().shapes().items() if path.startswith(CHANGED)}
        for (path, (rows, columns)), rank in zip(self.matrices().items(), self.ranks, strict=True):
            del found[path]
            if rank:
                found |= {f"{path}.down": (rows, rank), f"{path}.up": (rank, columns)}
        return found


@flax.struct.dataclass
class GeneratorDelta:
    """What an adaptation has added to the synthesis network of its source.

    Attributes:
      changes: nested as `Generator.params`: "down" [rows, r] and "up" [r, columns] in place of a weight, whose change
        is their product, nothing where it has not changed; of all else the change itself.
      architecture: static sizes.
    """

    KIND: ClassVar[str] = "generator delta"
    ARCHITECTURE: ClassVar[type] = DeltaArchitecture

    changes: dict[str, Any]
    architecture: DeltaArchitecture = flax.struct.field(pytree_node=False)


def between(source: Generator, adapted: Generator, rank: int) -> GeneratorDelta:
    """The delta that leads from a generator to an adapted one.

    Args:
      source, adapted: of one architecture; they differ in the synthesis network alone.
      rank: the largest of a change. Where a change has a larger one, the delta is the nearest of this rank.

    Returns:
      The delta.

    Raises:
      UserError: the architectures differ, or more than the synthesis network does.
    """
    if source.architecture != adapted.architecture:
        raise UserError(
            f"the adapted generator ({adapted.architecture}) and its source ({source.architecture}) differ; expected "
            "generators of one architecture, one adapted from the other"
        )
    before, after = (_flat(generator) for generator in (source, adapted))
    changes = {path: after[path] - before[path] for path in before}
    if other := [path for path, x in changes.items() if not path.startswith(CHANGED) and x.any()]:
        raise UserError(
            f"the adapted generator has changed in {other[0]} too; expected the synthesis network alone"
        )
    plain = dataclasses.asdict(source.architecture)
    none = [0] * sum(path.startswith(CHANGED) and path.endswith(".weight") for path in changes)
    matrices = DeltaArchitecture(**plain, ranks=tuple(none)).matrices()
    arrays, ranks = {}, []
    for path, change in changes.items():
        if path in matrices:
            down, up = _factors(change.reshape(matrices[path]), rank)
            ranks.append(down.shape[1])
            if down.shape[1]:
                arrays |= {f"{path}.down": down, f"{path}.up": up}
        elif path.startswith(CHANGED):
            arrays[path] = change
    return GeneratorDelta(trees.unflatten(arrays), DeltaArchitecture(**plain, ranks=tuple(ranks)))


def add(generator: Generator, delta: GeneratorDelta) -> Generator:
    """Adds a delta to the generator that it was made from.

    Args:
      generator: the source.
      delta: what an adaptation has added to it.

    Returns:
      The adapted generator, with the precision of the source.

    Raises:
      UserError: the delta belongs to a generator of another architecture.
    """
    plain = dataclasses.asdict(delta.architecture)
    del plain["ranks"]
    if Architecture(**plain) != generator.architecture:
        raise UserError(
            f"the delta is for a generator of {Architecture(**plain)}; this one has {generator.architecture}"
        )
    # By numpy, as in `between`: JAX would compile for every shape.
    before, changes = jax.device_get((generator.params, delta.changes))
    before, changes = trees.flatten(before), trees.flatten(changes)
    for path, rank in zip(delta.architecture.matrices(), delta.architecture.ranks, strict=True):
        if rank:
            changes[path] = changes.pop(f"{path}.down") @ changes.pop(f"{path}.up")
    params = {
        path: jnp.asarray(x + changes[path].reshape(x.shape)) if path in changes else jnp.asarray(x)
        for path, x in before.items()
    }
    return generator.replace(params=trees.unflatten(params))


def _factors(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the nearest matrix of a rank, of one size, so that float16 serves both."""
    # From the eigenvectors of a small matrix, in a tenth of the time of a singular value decomposition.
    matrix = matrix.astype(np.float64)
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)  # ascending
    values = np.sqrt(np.maximum(squares, 0))
    rank = min(rank, int(np.sum(values > ROUNDING * values[-1])))
    up = vectors[:, ::-1][:, :rank].T
    root = np.sqrt(values[::-1][:rank, None])
    return (matrix @ (up / root).T).astype(np.float32), (root * up).astype(np.float32)


def _flat(generator: Generator) -> Mapping[str, np.ndarray]:
    """Parameters and noise by flat path, as arrays of numpy."""
    tree = jax.device_get(generator.params | {"noise": generator.noise})
    return trees.flatten(tree | {"latent_avg": np.asarray(generator.latent_avg)})
