"""Score distillation: a diffusion model's opinion of images as a loss of them."""

import jax
import jax.numpy as jnp


def distillation(latents: jax.Array, residual: jax.Array, weight: jax.Array) -> jax.Array:
    """A loss whose gradient is weight * residual / n, Poole et al. 2022 (arXiv 2209.14988), eq. 3.

    The exact gradient would also lead back through the denoiser, which costs most of the time and which the paper
    found to be worse; this one is of no loss that could be written down. What is returned has its gradient by
    construction; its value says how far estimates disagree, and need not fall.

    Args:
      latents: of the images, [b, ...], n numbers each.
      residual: what is wrong with them: the noise that the model sees minus what was added, or minus what it sees in
        another image (Hertz et al. 2023, arXiv 2304.07090, eq. 3); of the shape of `latents`.
      weight: of each image, [b]; w(t) of the paper.

    Returns:
      Half the mean square of weight * residual per image [b], from 0. The mean over the latent's numbers, where the
      paper sums, so that factors mean the same for latents of any size.
    """
    axes = tuple(range(1, latents.ndim))
    pull = jax.lax.stop_gradient(jnp.expand_dims(weight, axes) * residual)
    # The second term is 0 for finite latents, with the gradient of the first argument.
    still = latents - jax.lax.stop_gradient(latents)
    return jnp.mean(pull**2 / 2 + pull * still, axis=axes)
