"""Low-rank updates of the weights of convolutions: LoRA, Hu et al. 2021 (arXiv 2106.09685).

A weight [3, 3, i, o] becomes weight + down @ up, with down [9 i, r] and up [r, o]. The factors stand beside the
generator's own parameters, which stay as they are; `merge` adds them up.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

FACTORS = "low_rank"


def add(params: Mapping[str, Any], rank: int, key: jax.Array) -> dict[str, Any]:
    """Puts factors beside parameters.

    Args:
      params: like `Generator.params`.
      rank: r, at least 1.
      key: draws `down`, whose product with itself has unit diagonal on average, so that a step of the
        optimiser moves a weight about as far as it would move it alone; `up` starts at 0.

    Returns:
      params | {"low_rank": {"conv_0": {"down": [9 i, r], "up": [r, o]}, ...}}.
    """
    factors = {}
    for layer in (name for name in params["synthesis"] if name.startswith("conv_")):
        *window, channels = params["synthesis"][layer]["weight"].shape
        key, own = jax.random.split(key)
        down = jax.random.normal(own, (window[0] * window[1] * window[2], rank)) / rank**0.5
        factors[layer] = {"down": down, "up": jnp.zeros((rank, channels))}
    return {**params, FACTORS: factors}


def merge(params: Mapping[str, Any]) -> dict[str, Any]:
    """The generator's parameters with the products of their factors, if any, added to the weights."""
    own = {name: tree for name, tree in params.items() if name != FACTORS}
    if FACTORS not in params:
        return own
    synthesis = dict(own["synthesis"])
    for layer, factors in params[FACTORS].items():
        weight = synthesis[layer]["weight"]
        product = (factors["down"] @ factors["up"]).reshape(weight.shape)
        synthesis[layer] = synthesis[layer] | {"weight": weight + product}
    return own | {"synthesis": synthesis}


def labels(num_layers: int, label: str) -> dict[str, Any]:
    """The label of every factor, as a tree like what `add` adds."""
    convs = [f"conv_{i}" for i in range(num_layers - 1)]
    return {FACTORS: {layer: {"down": label, "up": label} for layer in convs}}
