"""What a strategy of freezing is: a row of the table in `nada_jax.adaptation.freezing.table`.

Two trees of arrays are told apart by name and type. `Params` are what a generator draws with, like
`Generator.params`. `Trained` is what the optimiser moves: for most strategies a copy of `Params`, for low-rank updates
the factors alone. `prepare` makes the second from the first, `merge` goes back.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NewType

import jax
import jax.numpy as jnp

from nada_jax.models.stylegan2 import Generator
from nada_jax.settings import need

Params = Mapping[str, Any]
Trained = NewType("Trained", dict[str, Any])

# The label of an array: never trained, always trained, or from 0 on the index of the candidate that has to be chosen.
FROZEN, ALWAYS = -2, -1


def copy(params: Params, freeze: Any, key: jax.Array) -> Trained:
    """Trains the parameters themselves, from a copy: the step takes over the memory of what trains."""
    return Trained(jax.tree.map(jnp.copy, dict(params)))


def as_they_are(params: Params, trained: Trained) -> Params:
    """What trains is what is drawn."""
    return trained


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Which arrays train.

    Attributes:
      labels: (params, freeze) -> a tree like what `prepare` returns, of labels (see `FROZEN`).
      candidates: params -> names of what freeze.k counts, or None where it counts nothing.
      scores: (loss, params, ws, freeze) -> how far each candidate moves in a short optimisation, [n]; loss is a
        function (params, ws) -> scalar. The k highest train until the next selection. None: what trains is fixed.
      prepare: (params, freeze, key) -> what trains, before the first step.
      merge: (params of the source, what trains) -> the params that are drawn.
      results: file name -> (words, function of source and adapted generator that gives a model to be saved beside
        the adapted generator).
    """

    labels: Callable[[Params, Any], Any]
    candidates: Callable[[Params], list[str]] | None = None
    scores: Callable[..., jax.Array] | None = None
    prepare: Callable[[Params, Any, jax.Array], Trained] = copy
    merge: Callable[[Params, Trained], Params] = as_they_are
    results: Mapping[str, tuple[str, Callable[[Generator, Generator], Any]]] = dataclasses.field(
        default_factory=dict
    )


def count_layers(params: Params) -> int:
    """Latents per image, l: one for each convolution and one for the last ToRGB."""
    return 1 + sum(layer.startswith("conv_") for layer in params["synthesis"])


def latents(params: Params) -> list[str]:
    """Names of the latents, for strategies that count them."""
    return [f"latent {j}" for j in range(count_layers(params))]


def check_k(k: int, names: list[str], what: str) -> None:
    """Refuses a choice of k out of fewer candidates; UserError."""
    need(1 <= k <= len(names), "freeze.k", k, f"1..{len(names)}, the {what} of this generator")


def label_layers(params: Params, layers: Mapping[str, int], parts: tuple[str, ...] = ("",)) -> Any:
    """Labels every parameter by its layer.

    Args:
      params: of arrays or shapes.
      layers: label of each layer of the synthesis network that may train, by its name: `constant`, `conv_i` or
        `to_rgb_i`. All others are frozen, and the mapping network always is: both generators draw the same w
        from it.
      parts: how the names of the arrays begin that train of a layer; by default all.

    Returns:
      A tree like `params`.
    """

    def label(path, _):
        network, layer, *part = (step.key for step in path)
        trains = network == "synthesis" and ".".join(part).startswith(parts)
        return layers.get(layer, FROZEN) if trains else FROZEN

    return jax.tree_util.tree_map_with_path(label, dict(params))
