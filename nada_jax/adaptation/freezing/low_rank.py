"""Low-rank updates of the weights of convolutions: LoRA, Hu et al. 2021 (arXiv 2106.09685).

A weight [3, 3, i, o] becomes weight + down @ up, with down [9 i, r] and up [r, o]. The factors are all that trains;
the generator's own parameters stay those of the source.
"""

from typing import Any

import jax
import jax.numpy as jnp

from nada_jax.adaptation.freezing.strategy import ALWAYS, Params, Strategy, Trained


def prepare(params: Params, freeze: Any, key: jax.Array) -> Trained:
    """Makes the factors.

    Args:
      params: like `Generator.params`.
      freeze: `rank` is r.
      key: draws `down`, whose product with itself has unit diagonal on average, so that a step of the
        optimiser moves a weight about as far as it would move it alone; `up` starts at 0.

    Returns:
      {"conv_0": {"down": [9 i, r], "up": [r, o]}, ...}.
    """
    factors, rank = {}, freeze.rank
    for layer in (name for name in params["synthesis"] if name.startswith("conv_")):
        *window, channels = params["synthesis"][layer]["weight"].shape
        key, own = jax.random.split(key)
        down = jax.random.normal(own, (window[0] * window[1] * window[2], rank)) / rank**0.5
        factors[layer] = {"down": down, "up": jnp.zeros((rank, channels))}
    return Trained(factors)


def merge(params: Params, factors: Trained) -> Params:
    """The parameters with the products of the factors added to their weights."""
    synthesis = dict(params["synthesis"])
    for layer, pair in factors.items():
        weight = synthesis[layer]["weight"]
        product = (pair["down"] @ pair["up"]).reshape(weight.shape)
        synthesis[layer] = synthesis[layer] | {"weight": weight + product}
    return {**params, "synthesis": synthesis}


def labels(params: Params, _: Any) -> Any:
    """Every factor trains."""
    convs = (name for name in params["synthesis"] if name.startswith("conv_"))
    return {layer: {"down": ALWAYS, "up": ALWAYS} for layer in convs}


STRATEGIES = {"low_rank": Strategy(labels, prepare=prepare, merge=merge)}
