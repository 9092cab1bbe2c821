"""Training of StyleCLIP's latent mapper: a network that edits any latent towards one text, in one pass.

Patashnik et al. 2021 (arXiv 2103.17249), section 5; the network is in `models.mapper`.
"""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from nada_jax.losses.clip import global_
from nada_jax.losses.identity import identity
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.mapper import Mapper, MapperArchitecture, MapperNetwork
from nada_jax.models.stylegan2 import Generator, draw_latents

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class MapperState:
    """All that changes from step to step.

    Attributes:
      step: number of finished steps, int32.
      params: of the mapper.
      opt_state: the optimiser's state.
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: Any


@flax.struct.dataclass
class MapperContext:
    """All that the step reads and never changes.

    Attributes:
      generator: draws.
      clips: n of them, without text towers.
      weights: of the clips, [n].
      texts: unit feature of the text in each clip, [d].
      identity: a network of faces, or None.
    """

    generator: Generator
    clips: tuple[Clip, ...]
    weights: jax.Array
    texts: tuple[jax.Array, ...]
    identity: Irse50 | None = None


def init_params(architecture: MapperArchitecture, layers: int, key: jax.Array) -> dict[str, Any]:
    """Random parameters of a mapper, which edits at random.

    They are distributed as those of the mapping network of StyleGAN2, as in the official code.

    Args:
      architecture: of the mapper.
      layers: latents of an image.
      key: of the numbers.
    """
    ws = jnp.zeros((1, layers, architecture.w_dim))
    return MapperNetwork(architecture).init(key, ws)["params"]


def make_step(
    architecture: MapperArchitecture,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    batch_size: int,
    truncation: float,
    factors: dict[str, float],
) -> Callable[[MapperState, MapperContext, jax.Array], tuple[MapperState, Metrics]]:
    """Makes the training step, jitted; it takes over the memory of the state.

    Args:
      architecture: of the mapper.
      optimizer: of its weights.
      batch_size: latents of a step, drawn anew.
      truncation: of these latents.
      factors: of the terms `clip`, 1 - cos(image, text); `l2`, the mean squared change of a latent's numbers; and
        `identity`, 1 - <f, f_0>, where there is a network: Patashnik et al. 2021, eq. 3, whose official code has the
        mean, too.

    Returns:
      (state, context, key of the run) -> new state, metrics: `loss`, the terms, and `norm` of the weights.
    """

    def losses(params: Any, context: MapperContext, ws: jax.Array) -> tuple[jax.Array, Metrics]:
        generator = context.generator
        moved = Mapper(params, architecture).edit(ws)
        images = generator.synthesize(moved)
        parts = [
            weight * jnp.mean(global_(clip.embed_images(images), text))
            for clip, weight, text in zip(
                context.clips, context.weights, context.texts, strict=True
            )
        ]
        terms = {"clip": sum(parts), "l2": jnp.mean((moved - ws) ** 2)}
        if context.identity is not None:
            source = context.identity.embed_images(generator.synthesize(ws))
            terms["identity"] = jnp.mean(identity(source, context.identity.embed_images(images)))
        return sum(factors[name] * value for name, value in terms.items()), terms

    def step(state: MapperState, context: MapperContext, key: jax.Array):
        generator = context.generator
        ws = draw_latents(generator, jax.random.fold_in(key, state.step), batch_size)
        ws = generator.truncate(ws, truncation)
        (loss, terms), grads = jax.value_and_grad(losses, has_aux=True)(state.params, context, ws)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, chosen=None)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "norm": optax.tree.norm(params)} | terms
        return MapperState(state.step + 1, params, opt_state), metrics

    return jax.jit(step, donate_argnums=0)
