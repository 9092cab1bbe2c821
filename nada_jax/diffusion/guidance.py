"""Guidance of a sampler: by words, and by the gradient of a loss of the image that is about to be drawn.

At each step the noise estimate implies a clean image, whose loss L has a gradient; the estimate becomes
eps + weight * correction(gradient), so that the sampler, which knows nothing of it, goes where the loss is lower
(Dhariwal & Nichol 2021, arXiv 2105.05233, alg. 2; Bansal et al. 2023, "universal guidance", arXiv 2302.07121).
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.diffusion.objectives import Guide
from nada_jax.diffusion.samplers import Denoise, Times, noise
from nada_jax.models.diffusion import Diffusion
from nada_jax.models.noise import clean_of, noise_of, noisy

Losses = dict[str, jax.Array]
# Where the gradient goes: "denoiser", through UNet and decoder, is that of the loss by the noisy latents; "estimate", by
# the clean latents alone, holds the noise estimate for constant, which spares the UNet's backward pass.
THROUGH = ("denoiser", "estimate")


def as_unit(x: jax.Array) -> jax.Array:
    """Scales each of x [b, ...] to a root mean square of 1, the size of noise; 0 stays 0."""
    axes = tuple(range(1, x.ndim))
    # By the largest first: squares of a small gradient are none in float32.
    peak = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    scaled = x / jnp.where(peak > 0, peak, 1)
    return scaled / jnp.where(peak > 0, size(scaled), 1)


def size(x: jax.Array) -> jax.Array:
    """Root mean square of each of x [b, ...], with axes of length 1."""
    return jnp.sqrt(jnp.mean(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))


# How the gradient of a loss, of any size, becomes a correction of the noise estimate: (gradient [b, h, w, c], alpha, what
# classifier-free guidance has added to the estimate [b, h, w, c]) -> [b, h, w, c].
SCALINGS: dict[str, Callable[..., jax.Array]] = {
    # Of the size of the noise that is left, sqrt(1 - alpha), whatever the loss, the model and the size of the image. A
    # weight of 1 makes as large a change as the estimate itself where there is nothing but noise.
    "noise": lambda gradient, alpha, difference: jnp.sqrt(1 - alpha) * as_unit(gradient),
    # As it is, times sqrt(1 - alpha): the correction falls with the loss, and depends on all of these.
    "gradient": lambda gradient, alpha, difference: jnp.sqrt(1 - alpha) * gradient,
    # Of the size of what classifier-free guidance adds, as in FreeDoM (Yu et al. 2023, arXiv 2303.09833), which takes 0.2
    # of it.
    "freedom": lambda gradient, alpha, difference: size(difference) * as_unit(gradient),
}


@flax.struct.dataclass
class Words:
    """Classifier-free guidance, Ho & Salimans 2022 (arXiv 2207.12598), eq. 6: e_n + scale (e_p - e_n).

    Attributes:
      model: estimates the noise.
      contexts: features of the prompts [1 or b, t, d].
      negatives: those of what is avoided, or of nothing; None leaves the estimate of the prompt as it is.
      scale: 1 leaves it as well.
    """

    model: Diffusion
    contexts: jax.Array
    negatives: jax.Array | None = None
    scale: jax.Array | float = 1.0

    def estimate(self, x: jax.Array, at: Times) -> tuple[jax.Array, jax.Array]:
        """The noise in latents [b, h, w, c] at a row of `Times`; and what was added to the estimate of the negatives."""
        rows = (len(x), *self.contexts.shape[1:])
        wanted = jnp.broadcast_to(self.contexts, rows)
        if self.negatives is None:
            eps = noise_of(self.model.predict(x, at.t, wanted), x, at.alpha, at.prediction)
            return eps, jnp.zeros_like(eps)
        # Both in one call; the two of an image lie side by side, so that a batch over devices stays where it is.
        both = jnp.stack([jnp.broadcast_to(self.negatives, rows), wanted], axis=1)
        twice = jnp.repeat(x, 2, axis=0)
        output = self.model.predict(twice, at.t, both.reshape(-1, *rows[1:]))
        pairs = noise_of(output, twice, at.alpha, at.prediction).reshape(-1, 2, *x.shape[1:])
        difference = self.scale * (pairs[:, 1] - pairs[:, 0])
        return pairs[:, 0] + difference, difference


def unguided(words: Words) -> Denoise:
    """What a sampler asks, by words alone. The path keeps the clean latents, and no losses."""

    def denoise(x: jax.Array, at: Times, keys: jax.Array) -> tuple[jax.Array, ...]:
        eps, _ = words.estimate(x, at)
        clean = clean_of(eps, x, at.alpha)
        return eps, clean, (clean, {})

    return denoise


@flax.struct.dataclass
class How:
    """How the gradient of a loss guides; numbers are arrays, so that others need no other program.

    Attributes:
      weights: of the correction at each step, float32 [steps]; at those where it is 0, no gradient is computed.
      counts: how often each step is taken, int32 [steps]. Each time but the first it starts from where the time before
        has led, with new noise (Lugmayr et al. 2022, "RePaint", arXiv 2201.09865; "time travel" of FreeDoM).
      backward_rate: length of the first of the steps of `backward` as a root mean square; the others fall linearly.
      through: one of `THROUGH`.
      scaling: a key of `SCALINGS`.
      backward: further steps down the gradient on the clean latents ("backward guidance" of universal guidance), which
        cost the decoder but not the UNet.
      remat: blocks of the networks are computed again for the gradient, for less memory.
      always, once: whether all weights are above 0, and all counts are 1.
    """

    weights: np.ndarray | jax.Array
    counts: np.ndarray | jax.Array
    backward_rate: np.ndarray | jax.Array
    through: str = flax.struct.field(pytree_node=False)
    scaling: str = flax.struct.field(pytree_node=False)
    backward: int = flax.struct.field(pytree_node=False)
    remat: bool = flax.struct.field(pytree_node=False)
    always: bool = flax.struct.field(pytree_node=False)
    once: bool = flax.struct.field(pytree_node=False)


def guided(words: Words, guide: Guide, how: How) -> Denoise:
    """What a sampler asks, guided by words and by the losses of a guide.

    Args:
      words: the prompts and their guidance.
      guide: gives the losses, summed by their factors.
      how: see the class.

    Returns:
      The function; the path keeps the clean latents with their guidance, and the losses of the image before its
      correction, NaN where nothing guides.
    """
    if how.remat:
        words = words.replace(model=words.model.replace(remat=True))
    estimate, decode = words.estimate, words.model.decode

    def loss(clean: jax.Array) -> tuple[jax.Array, Losses]:
        losses = guide.losses(decode(clean))
        return jnp.sum(guide.total(losses)), losses

    def look(x: jax.Array, at: Times) -> tuple[jax.Array, jax.Array, Losses, jax.Array]:
        """Estimate, what words have added to it, losses, and the gradient of their sum."""
        if how.through == "estimate":
            eps, difference = estimate(x, at)
            gradient, losses = jax.grad(loss, has_aux=True)(clean_of(eps, x, at.alpha))
            return eps, difference, losses, gradient

        def ahead(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Losses]]:
            eps, difference = estimate(x, at)
            total, losses = loss(clean_of(eps, x, at.alpha))
            return total, (eps, difference, losses)

        gradient, found = jax.grad(ahead, has_aux=True)(x)
        return *found, gradient

    def descend(k: jax.Array, clean: jax.Array) -> jax.Array:
        gradient, _ = jax.grad(loss, has_aux=True)(clean)
        return clean - how.backward_rate * (1 - k / how.backward) * as_unit(gradient)

    def corrected(x: jax.Array, at: Times, weight: jax.Array) -> tuple[jax.Array, ...]:
        eps, difference, losses, gradient = look(x, at)
        eps += weight * SCALINGS[how.scaling](gradient, at.alpha, difference)
        clean = clean_of(eps, x, at.alpha)
        if how.backward:
            clean = jax.lax.fori_loop(0, how.backward, descend, clean)
            eps = (x - jnp.sqrt(at.alpha) * clean) / jnp.sqrt(1 - at.alpha)
        return eps, clean, losses

    def free(x: jax.Array, at: Times, weight: jax.Array) -> tuple[jax.Array, ...]:
        eps, _ = estimate(x, at)
        nothing = {name: jnp.full(len(x), jnp.nan) for name in guide.names}
        return eps, clean_of(eps, x, at.alpha), nothing

    def once(x: jax.Array, at: Times) -> tuple[jax.Array, ...]:
        weight = jnp.asarray(how.weights)[at.index]
        if how.always:
            return corrected(x, at, weight)
        return jax.lax.cond(weight > 0, corrected, free, x, at, weight)

    def denoise(x: jax.Array, at: Times, keys: jax.Array) -> tuple[jax.Array, ...]:
        if how.once:
            eps, clean, losses = once(x, at)
            return eps, clean, (clean, losses)

        def again(k: jax.Array, known: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            eps, clean, _ = known
            kept = at.alpha / at.after
            fresh = noise(jax.vmap(jax.random.fold_in, (0, None))(keys, k), x.shape[1:])
            back = jnp.sqrt(kept) * noisy(clean, eps, at.after) + jnp.sqrt(1 - kept) * fresh
            return once(jnp.where(k > 0, back, x), at)

        empty = x, x, {name: jnp.zeros(len(x)) for name in guide.names}
        eps, clean, losses = jax.lax.fori_loop(0, jnp.asarray(how.counts)[at.index], again, empty)
        return eps, clean, (clean, losses)

    return denoise
