"""Pivotal tuning: the weights of a generator of its own for each image, around the latents found for it.

Roich et al. 2021, "Pivotal Tuning for Latent-based Editing of Real Images" (arXiv 2106.05744).
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp

from nada_jax.latents.codes import Codes
from nada_jax.latents.descent import EVERY, Descent, Figures
from nada_jax.latents.projection import Networks, Report, Target, differences, see
from nada_jax.models.stylegan2 import Generator

LOCAL_TRUNCATION = 0.5  # of the latents towards which locality looks


@flax.struct.dataclass
class _Context:
    """What the loss reads: networks, targets, pivots, LPIPS that is enough, and locality with its radius."""

    networks: Networks
    target: Target
    pivots: Codes
    enough: jax.Array
    locality: jax.Array
    radius: jax.Array


def tune(
    networks: Networks,
    target: Target,
    pivots: Codes,
    *,
    steps: int,
    lr: float,
    enough: float,
    locality: float,
    radius: float,
    keys: jax.Array,
    every: int = EVERY,
    report: Report | None = None,
) -> tuple[Generator, ...]:
    """Tunes a generator for each image, until it draws the image from its pivot.

    Args:
      networks: the generator to start from, and LPIPS; without it all steps are taken, by pixels alone.
      target: b images of the generator's size.
      pivots: their latents in W+.
      steps: at most; 350 officially.
      lr: of Adam, constant; 3e-4 officially.
      enough: LPIPS at which an image is done; 0.06 officially, where AlexNet measures it, at full size.
      locality: factor of the change of images around the pivot; 0, or 0.1 officially.
      radius: distance of these from the pivot, over all layers; 30 officially.
      keys: PRNG keys [b].
      every, report: see `Descent.run`.

    Returns:
      A generator for each image, which differs from the first in its synthesis network.
    """
    generator = networks.generator
    networks = networks.replace(encoder=None, identity=None, judge=None)  # the loss reads none
    numbers = (jnp.float32(x) for x in (enough, locality, radius))
    context = _Context(networks, target, pivots, *numbers)
    b = len(pivots)
    weights = jax.tree.map(lambda x: jnp.repeat(x[None], b, axis=0), generator.params["synthesis"])
    descent = _LOCAL if locality else _TUNING
    tuned, _, _ = descent.run(
        weights, context, peaks=lr, steps=steps, keys=keys, every=every, report=report
    )
    return tuple(_with(generator, jax.tree.map(lambda x, i=i: x[i], tuned)) for i in range(b))


def _with(generator: Generator, synthesis: Mapping[str, Any]) -> Generator:
    """The generator with other weights of its synthesis network."""
    return generator.replace(params=generator.params | {"synthesis": synthesis})


def _draw(generator: Generator, weights: Any, codes: Codes) -> jax.Array:
    """Images [b, size, size, 3], each by the weights of its own, which are stacked [b, ...]."""

    def one(synthesis: Any, code: Codes) -> jax.Array:
        code = jax.tree.map(lambda x: x[None], code)
        return code.draw(_with(generator, synthesis))[0]

    # Not jax.lax.map, whose loop takes ten times as long on CPUs.
    return jax.vmap(one)(weights, codes)


def _loss(
    local: bool, weights: Any, context: _Context, share: jax.Array, keys: jax.Array
) -> tuple[jax.Array, Figures]:
    """LPIPS and L2 at the pivot, and with `local` the change around it; see `Descent`."""
    networks = context.networks
    drawn = _draw(networks.generator, weights, context.pivots)
    found = differences(networks, context.target, drawn)
    loss = found.get("lpips", 0) + found["mse"]
    if local:
        near = Codes(ws=around(networks.generator, context.pivots.ws, context.radius, keys))
        before = jax.lax.stop_gradient(near.draw(networks.generator))
        changed = differences(
            networks, see(networks, before), _draw(networks.generator, weights, near)
        )
        loss += context.locality * sum(changed.values())
    left = found.get("lpips", jnp.full_like(loss, jnp.inf)) - context.enough
    return loss, found | {"left": left}


def around(
    generator: Generator, pivots: jax.Array, radius: jax.Array, keys: jax.Array
) -> jax.Array:
    """Latents at a distance from the pivots, towards random ones; Roich et al. 2021, eq. 4.

    Args:
      generator: maps the random ones, truncated to 0.5.
      pivots: [b, l, w_dim].
      radius: over all layers.
      keys: PRNG keys [b].

    Returns:
      [b, l, w_dim].
    """
    z = jax.vmap(lambda key: jax.random.normal(key, (generator.architecture.z_dim,)))(keys)
    ws = generator.broadcast(generator.truncate(generator.map(z), LOCAL_TRUNCATION))
    apart = ws - pivots
    return pivots + radius * apart / jnp.linalg.norm(apart, axis=(1, 2), keepdims=True)


# The rate is constant, unlike that of the projector. Locality is a program of its own, of twice the work.
_TUNING, _LOCAL = (
    Descent(
        functools.partial(_loss, local),
        reached=lambda figures: figures["left"] <= 0,
        up=0,
        down=0,
    )
    for local in (False, True)
)
