"""Strategies whose choice is made before the first step: none, phase, late."""

from collections.abc import Callable, Mapping
from typing import Any

from nada_jax.adaptation.freezing.strategy import (
    ALWAYS,
    Params,
    Strategy,
    check_k,
    count_layers,
    label_layers,
    latents,
)

PARITIES = ("corrected", "official")

# Convolutions that each phase of the official code trains, beside the constant: convs[j] is conv_{j+1}.
PHASES: Mapping[str, Callable[[int], bool]] = {
    "texture": lambda i: i == 0 or 3 <= i <= 10,
    "shape": lambda i: i <= 2,
    "shape_expanded": lambda i: i <= 3,
    "no_fine": lambda i: i <= 10,
    "all": lambda i: True,
}


def latent_of_layer(num_layers: int, parity: str) -> dict[str, int]:
    """The latent whose choice trains a layer.

    Args:
      num_layers: latents per image, l.
      parity: "corrected" follows the wiring: latent j drives conv_j, and to_rgb_{j // 2} where j is odd.
        "official" is off by one, as the official code is: 0 -> conv_0, 1 -> to_rgb_0, j -> conv_{j-1}.

    Returns:
      {layer name: latent index}; layers that are not named never train.
    """
    if parity == "official":
        convs = {f"conv_{j - 1}": j for j in range(2, num_layers)}
        return {"conv_0": 0, "to_rgb_0": 1} | convs
    convs = {f"conv_{j}": j for j in range(num_layers - 1)}
    return convs | {f"to_rgb_{j // 2}": j for j in range(1, num_layers, 2)}


def convolutions(params: Params) -> dict[str, int]:
    """The constant and every convolution, always trained: the official default."""
    convs = range(count_layers(params) - 1)
    return dict.fromkeys(["constant", *(f"conv_{i}" for i in convs)], ALWAYS)


def _phase(params: Params, freeze: Any) -> Any:
    convs, chosen = range(count_layers(params) - 1), PHASES[freeze.phase]
    layers = ["constant", *(f"conv_{i}" for i in convs if chosen(i))]
    if freeze.phase == "all":  # the only phase of the official code that trains ToRGB
        layers += [f"to_rgb_{i}" for i in range(count_layers(params) // 2)]
    return label_layers(params, dict.fromkeys(layers, ALWAYS))


def _late(params: Params, freeze: Any) -> Any:
    check_k(freeze.k, latents(params), "latents")
    layers = count_layers(params)
    # Of a layer, not of a latent: an odd latent also drives a ToRGB.
    driven = latent_of_layer(layers, freeze.parity).items()
    return label_layers(params, {name: ALWAYS for name, j in driven if j >= layers - freeze.k})


STRATEGIES = {
    "none": Strategy(lambda params, _: label_layers(params, convolutions(params))),
    "phase": Strategy(_phase),
    "late": Strategy(_late, candidates=latents),
}
