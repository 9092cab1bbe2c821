"""Generators of one family put together by their weights: between two of them, and one's change on top of another's.

A generator that was adapted or tuned stays near its source, so that differences of weights can be scaled and added, as
if each moved the images by itself (Gal et al. 2022, arXiv 2108.00946, section 5.3).
"""

import jax

from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator


def interpolate(source: Generator, adapted: Generator, strength: float | jax.Array) -> Generator:
    """A generator between two: source + strength * (adapted - source), in all parameters.

    Args:
      source, adapted: of one architecture. The noise buffers and the mean latent are the source's.
      strength: 0 gives the source and 1 the adapted generator, both exactly; numbers outside lead beyond them.

    Returns:
      The generator, with the source's precision.

    Raises:
      UserError: the architectures differ.
    """
    _refuse_other(source, adapted, "the source", "the adapted generator")
    params = jax.tree.map(
        # Not as in the equation: rounding would leave 1 beside the adapted generator.
        lambda x, y: (1 - strength) * x + strength * y,
        source.params,
        adapted.params,
    )
    return source.replace(params=params)


def transfer(adapted: Generator, source: Generator, tuned: Generator) -> Generator:
    """An adaptation on top of a tuned generator: tuned + (adapted - source), in all parameters.

    Pivotal tuning (Roich et al. 2021, arXiv 2106.05744) changes the source so that it draws one image's details; the
    result draws that image in the adapted domain.

    Args:
      adapted: what the source became by an adaptation.
      source: what both others come from.
      tuned: what the source became by tuning. The noise buffers and the mean latent are its own.

    Returns:
      The generator, with the precision of `tuned`.

    Raises:
      UserError: the architectures differ.
    """
    _refuse_other(source, adapted, "the source", "the adapted generator")
    _refuse_other(source, tuned, "the source", "the tuned generator")
    params = jax.tree.map(lambda x, y, z: z + (x - y), adapted.params, source.params, tuned.params)
    return tuned.replace(params=params)


def _refuse_other(one: Generator, other: Generator, first: str, second: str) -> None:
    if one.architecture != other.architecture:
        raise UserError(
            f"{second} ({other.architecture}) and {first} ({one.architecture}) differ; expected generators of one "
            "architecture, one adapted from the other"
        )
