"""A transfer between two steps, as arrays that a file holds."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from nada_jax import trees
from nada_jax.style.minimize import Minimizer


@dataclasses.dataclass(frozen=True)
class Scale:
    """One of the sizes of an image: height and width in pixels, and steps at it."""

    height: int
    width: int
    steps: int


def fits(
    snapshot: dict[str, np.ndarray], minimizer: Minimizer, rows: int, sizes: Sequence[Scale]
) -> bool:
    """Whether a snapshot, whose file anyone may have changed, has the arrays of this transfer."""
    at = int(snapshot["scale"]) if np.shape(snapshot.get("scale", [0])) == () else -1
    if not 0 <= at < len(sizes):
        return False

    def images(size: Scale) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, size.height, size.width, 3), np.float32)

    state = jax.eval_shape(minimizer.begin, images(sizes[at]))
    wanted = trees.enumerated(state)
    wanted |= {f"found_{i}": images(size) for i, size in enumerate(sizes[:at])}
    losses = np.shape(snapshot.get("history"))
    good = len(losses) == 2 and losses[1] == 1 + rows
    return (
        good
        and snapshot.keys() - {"scale", "history"} == wanted.keys()
        and all(
            (snapshot[name].shape, snapshot[name].dtype) == (x.shape, x.dtype)
            for name, x in wanted.items()
        )
    )
