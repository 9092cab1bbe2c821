"""The adaptive choice of what trains: Gal et al. 2022, section 4.3."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nada_jax.adaptation.freezing import adaptive
from nada_jax.adaptation.freezing.strategy import Trained
from nada_jax.adaptation.settings import NOISES, StepSettings
from nada_jax.adaptation.state import Frozen
from nada_jax.adaptation.views import embedder
from nada_jax.devices import mesh as meshes
from nada_jax.losses import clip as clip_losses
from nada_jax.models.stylegan2 import draw_latents


def select(
    trained: Trained,
    frozen: Frozen,
    key: jax.Array,
    settings: StepSettings,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Adaptive choice of layers, Gal et al. 2022, section 4.3, or of tensors.

    Args:
      trained: see `TrainState`.
      key: draws fresh latents, `freeze.batch_size` of them, and their noise.

    Returns:
      Which candidates train, bool [n], and their scores [n].
    """
    ws_key, noise_key = jax.random.split(key)
    ws = draw_latents(frozen.generator, ws_key, settings.freeze.batch_size)
    ws = meshes.split_batch(ws, mesh)
    noise, _ = NOISES[settings.generator.noise](noise_key, noise_key)

    def loss_of(params, ws, noise):
        generator = frozen.generator.replace(params=params, remat=settings.low_memory)
        images = generator.synthesize(ws, noise)
        # Towards the target text itself, not along a direction: the source's images are not drawn for this.
        total = 0.0
        for clip, targets, weight in zip(
            frozen.clips, frozen.targets, settings.clip.weights, strict=True
        ):
            embed = embedder(clip, settings.clip.antialias, settings.low_memory)
            total += weight * jnp.mean(clip_losses.global_(embed(images), targets.bare))
        return total

    def loss_in_parts(params, ws):
        """The same with the activations of `batch_size` images at a time, each part over all devices."""
        parts = len(ws) // math.gcd(len(ws), settings.batch_size)
        if parts == 1 or not settings.low_memory:
            return loss_of(params, ws, noise)

        @jax.checkpoint  # or the loop below would keep the activations of all parts for its gradient
        def part(numbered):
            i, ws = numbered
            own = noise if isinstance(noise, str) else jax.random.fold_in(noise, i)
            return loss_of(params, ws, own)

        # Every `parts`-th image: each part then has images of every device.
        pieces = ws.reshape(-1, parts, *ws.shape[1:]).swapaxes(0, 1)
        return jnp.mean(jax.lax.map(part, (jnp.arange(parts), pieces)))

    params = settings.freeze.row.merge(frozen.generator.params, trained)
    scores = settings.freeze.row.scores(loss_in_parts, params, ws, settings.freeze)
    return adaptive.choose(scores, settings.freeze.k), scores
