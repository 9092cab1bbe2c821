"""Strategies that choose what trains again and again, by a short optimisation: Gal et al. 2022, section 4.3."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nada_jax import trees
from nada_jax.adaptation.freezing.fixed import latent_of_layer
from nada_jax.adaptation.freezing.strategy import (
    FROZEN,
    Params,
    Strategy,
    check_k,
    count_layers,
    label_layers,
    latents,
)
from nada_jax.settings import need

MEASURES = ("absolute", "relative")
LR = 0.01  # of the official W+ optimisation, plain gradient descent
UNROLLED = 100  # steps of `tensor_scores` at most: each is compiled on its own, which takes seconds
EPS = 1e-8  # tensors that start at 0 count as this small
Loss = Callable[[Any, jax.Array], jax.Array]


def latent_scores(loss: Loss, params: Params, ws: jax.Array, freeze: Any) -> jax.Array:
    """How far each latent moves in a short optimisation of W+, Gal et al. 2022, section 4.3.

    Args:
      loss: (params, ws) -> scalar.
      params: like `Generator.params`.
      ws: start [n, l, w_dim].
      freeze: `iterations` steps of gradient descent.

    Returns:
      mean |w - w0| over batch and channels, [l].
    """
    moved = descend(lambda ws: jax.grad(loss, 1)(params, ws), ws, freeze.iterations)
    return jnp.mean(jnp.abs(moved), axis=(0, 2))


def tensor_scores(loss: Loss, params: Params, ws: jax.Array, freeze: Any) -> jax.Array:
    """How far each tensor of the synthesis network moves where a copy is trained for a few steps.

    Args:
      loss, params, ws: as for `latent_scores`; the copy starts at `params`.
      freeze: `iterations` steps; `measure` "relative" divides by the size of the tensor's own values.

    Returns:
      mean |p - p0|, or mean |p - p0| / mean |p0|, of each of `tensors`.
    """

    def sizes(params):
        flat = trees.flatten(params["synthesis"])
        return jnp.stack([jnp.mean(jnp.abs(flat[name])) for name in tensors(params)])

    # XLA's kernel gradients for CPU are ten times slower within a loop: the few steps are unrolled.
    gradient = lambda params: jax.grad(loss)(params, ws)  # noqa: E731
    moved = sizes(descend(gradient, params, freeze.iterations, unroll=True))
    return moved / jnp.maximum(sizes(params), EPS) if freeze.measure == "relative" else moved


def descend(
    gradient: Callable[[Any], Any], start: Any, iterations: int, unroll: bool = False
) -> Any:
    """How far plain gradient descent moves from `start`, a tree of arrays; a tree like it."""

    def step(_, moved):
        here = jax.tree.map(jnp.add, start, moved)
        return jax.tree.map(lambda x, g: x - LR * g, moved, gradient(here))

    nothing = jax.tree.map(jnp.zeros_like, start)
    return jax.lax.fori_loop(0, iterations, step, nothing, unroll=unroll)


def choose(scores: jax.Array, k: int) -> jax.Array:
    """The k highest of [n] scores, as bool [n]."""
    _, indices = jax.lax.top_k(scores, k)
    return jnp.zeros(scores.shape, bool).at[indices].set(True)


def tensors(params: Params) -> list[str]:
    """Names of the tensors of the synthesis network, the candidates of "adaptive_parameters"."""
    return sorted(trees.flatten(params["synthesis"]))


def _by_latent(*parts: str) -> Callable[[Params, Any], Any]:
    """Labels the layers by the latents that drive them; of each layer the named parts train."""

    def labels(params: Params, freeze: Any) -> Any:
        check_k(freeze.k, latents(params), "latents")
        layers = latent_of_layer(count_layers(params), freeze.parity)
        return label_layers(params, layers, parts or ("",))

    return labels


def _by_tensor(params: Params, freeze: Any) -> Any:
    names = tensors(params)
    check_k(freeze.k, names, "tensors")
    expected = f"at most {UNROLLED} for adaptive_parameters, which compiles each of them"
    need(freeze.iterations <= UNROLLED, "freeze.iterations", freeze.iterations, expected)
    index = {f"synthesis.{name}": j for j, name in enumerate(names)}
    return trees.unflatten({path: index.get(path, FROZEN) for path in trees.flatten(params)})


STRATEGIES = {
    "adaptive": Strategy(_by_latent(), latents, latent_scores),
    "adaptive_modulation": Strategy(
        _by_latent("modulation", "noise_strength"), latents, latent_scores
    ),
    "adaptive_parameters": Strategy(_by_tensor, tensors, tensor_scores),
}
