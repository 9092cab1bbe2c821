"""Trains a latent diffusion model on images with captions (Rombach et al. 2022, arXiv 2112.10752).

First the VAE, then the UNet on the latents that it finds; the text encoder is that of a CLIP and stays as it is.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import flax
import jax
import jax.numpy as jnp
import optax

from nada_jax.models.diffusion import Diffusion
from nada_jax.models.noise import PREDICTIONS, noisy
from nada_jax.settings import Count, NonNegative, Positive, Rule, Section, Share, one_of

Metrics = dict[str, jax.Array]
Step = Callable[..., tuple["State", Metrics]]

WIDTHS = Rule(
    lambda x: len(x) > 0 and all(w >= 1 and w % 4 == 0 for w in x), "a list of multiples of 4"
)
GROUPED = Rule(
    lambda x: len(x) > 0 and all(w >= 32 and w % 32 == 0 for w in x), "a list of multiples of 32"
)
GROUPS = 4  # channels of a group of the VAE's normalisation at least


class Autoencoder(Section, name="vae"):
    """The VAE and its training; `config.vae`."""

    widths: Annotated[tuple[int, ...], WIDTHS]
    layers: Count
    channels: Count
    steps: Count
    batch_size: Count
    lr: Positive
    kl: NonNegative


class Unet(Section, name="unet"):
    """The UNet and what it learns; `config.unet`."""

    widths: Annotated[tuple[int, ...], GROUPED]
    layers: Count
    heads: Count
    attention: Annotated[tuple[int, ...], Rule(lambda x: set(x) <= {0, 1}, "a list of 0 and 1")]
    prediction: Annotated[str, one_of(PREDICTIONS)]
    dropped: Share
    min_snr: NonNegative

    def check(self) -> None:
        """Every block says whether it attends to the text."""
        good = len(self.attention) == len(self.widths)
        self.need(good, "attention", f"{len(self.widths)} numbers, one a block")
        self.need(any(self.attention), "attention", "a 1 somewhere, or texts have no effect")
        good = all(width % self.heads == 0 for width in self.widths)
        self.need(good, "heads", f"a divisor of the widths {self.widths}")


def describe(vae: Autoencoder, unet: Unet, size: int, text: dict[str, Any]) -> dict[str, Any]:
    """The configuration files of a model.

    Args:
      vae, unet: their sizes.
      size: side of its images in pixels.
      text: configuration of the text encoder.

    Returns:
      Part -> content, as `diffusion.canonical` takes it.
    """
    down = ["CrossAttnDownBlock2D" if x else "DownBlock2D" for x in unet.attention]
    groups = next(
        g for g in (32, 16, 8, 4, 2, 1) if all(w % g == 0 and w >= GROUPS * g for w in vae.widths)
    )
    return {
        "unet": {
            "sample_size": size >> (len(vae.widths) - 1),
            "in_channels": vae.channels,
            "out_channels": vae.channels,
            "block_out_channels": list(unet.widths),
            "layers_per_block": unet.layers,
            "attention_head_dim": unet.heads,
            "cross_attention_dim": text["hidden_size"],
            "down_block_types": down,
            "up_block_types": [x.replace("Down", "Up") for x in reversed(down)],
            "use_linear_projection": True,
        },
        "vae": {
            "block_out_channels": list(vae.widths),
            "layers_per_block": vae.layers,
            "latent_channels": vae.channels,
            "norm_num_groups": groups,
            "sample_size": size,
            "scaling_factor": 1.0,  # measured when the VAE is trained
            "down_block_types": ["DownEncoderBlock2D"] * len(vae.widths),
            "up_block_types": ["UpDecoderBlock2D"] * len(vae.widths),
        },
        "text_encoder": text,
        "scheduler": {
            # Of Stable Diffusion.
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "prediction_type": unet.prediction,
            "steps_offset": 1,
            "set_alpha_to_one": False,
        },
    }  # fmt: skip


@flax.struct.dataclass
class State:
    """The training of one network between two steps.

    Attributes:
      params: of the network.
      moments: the state of the optimiser.
      ema: the exponential moving average of the parameters, which is the result.
    """

    params: Any
    moments: Any
    ema: Any


def begin(params: Any, optimizer: optax.GradientTransformationExtraArgs) -> State:
    """The state before the first step."""
    return State(params, optimizer.init(params), jax.tree.map(jnp.copy, params))


def _advance(
    state: State,
    loss: Callable[[Any], tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformationExtraArgs,
    half_life: float,
) -> tuple[State, Metrics]:
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, moments = optimizer.update(grads, state.moments, state.params, chosen=None)
    params = optax.apply_updates(state.params, updates)
    ema = params
    if half_life:
        ema = optax.incremental_update(params, state.ema, 1 - 0.5 ** (1 / half_life))
    metrics = {"loss": value, "norm": optax.tree.norm(params), **metrics}
    return State(params, moments, ema), metrics


def vae_step(
    settings: Autoencoder, optimizer: optax.GradientTransformationExtraArgs, half_life: float
) -> Step:
    """Builds the step of the VAE.

    Args:
      settings: static choices.
      optimizer: of its parameters.
      half_life: of the average of these, in steps; 0 keeps none.

    Returns:
      step(state, model, images uint8 [b, h, w, 3], key) -> (state, metrics).
    """

    def step(state: State, model: Diffusion, pixels: jax.Array, key: jax.Array):
        images = pixels.astype(jnp.float32) / 127.5 - 1

        def loss(params):
            vae = model.replace(params=model.params | {"vae": params})
            mean, logvar = vae.moments(images)
            z = mean + jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape)
            # `decode` undoes the scaling, which is not known yet and 1 in the configuration.
            again = vae.decode(z)
            l1 = jnp.mean(jnp.abs(again - images))
            kl = 0.5 * jnp.mean(mean**2 + jnp.exp(logvar) - 1 - logvar)
            return l1 + settings.kl * kl, {"l1": l1, "kl": kl}

        return _advance(state, loss, optimizer, half_life)

    return step


def unet_step(
    settings: Unet, optimizer: optax.GradientTransformationExtraArgs, half_life: float
) -> Step:
    """Builds the step of the UNet.

    Args:
      settings: static choices.
      optimizer: of its parameters.
      half_life: of the average of these, in steps; 0 keeps none.

    Returns:
      step(state, model, moments, ids, blank, key) -> (state, metrics), for mean and log-variance of latents
      [b, h, w, c], ids of captions [b, t], and those of the prompt that says nothing [1, t], which stands for captions
      that are dropped, so that there is classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).
    """

    def step(state: State, model: Diffusion, moments: Any, ids: jax.Array, blank: jax.Array, key):
        keys, schedule = jax.random.split(key, 4), model.schedule
        mean, logvar = moments
        latents = mean + jnp.exp(logvar / 2) * jax.random.normal(keys[3], mean.shape)
        latents *= model.configs["vae"]["scaling_factor"]
        b = len(latents)
        ids = jnp.where(jax.random.uniform(keys[0], (b, 1)) < settings.dropped, blank, ids)
        context = model.embed_tokens(ids)
        # One time out of each b-th of the range, so that the loss of a batch varies less.
        t = (jnp.arange(b) + jax.random.uniform(keys[1], (b,))) / b * schedule.steps
        t = jnp.minimum(t.astype(jnp.int32), schedule.steps - 1)
        alpha = jnp.asarray(schedule.alphas, jnp.float32)[t][:, None, None, None]
        noise = jax.random.normal(keys[2], latents.shape)
        x = noisy(latents, noise, alpha)
        target = PREDICTIONS[schedule.prediction].target(latents, noise, alpha)
        weight = snr_weight(alpha, schedule.prediction, settings.min_snr)

        def loss(params):
            unet = model.replace(params=model.params | {"unet": params})
            error = jnp.mean((unet.predict(x, t, context) - target) ** 2, (1, 2, 3))
            return jnp.mean(weight[:, 0, 0, 0] * error), {"mse": jnp.mean(error)}

        return _advance(state, loss, optimizer, half_life)

    return step


def snr_weight(alpha: jax.Array, prediction: str, bound: float) -> jax.Array:
    """The weight of a time in the loss, Hang et al. 2023 (arXiv 2303.09556), eq. 8: min(snr, bound) of the clean sample.

    Args:
      alpha: share of the sample in the variance.
      prediction: what the network gives.
      bound: of the signal-to-noise ratio; 0 weighs all times equally.

    Returns:
      Like alpha.
    """
    if not bound:
        return jnp.ones_like(alpha)
    snr = alpha / (1 - alpha)
    # The error of the clean sample is that of the noise by 1 / snr, and that of the velocity by 1 / (snr + 1).
    return jnp.minimum(snr, bound) / (snr + (prediction == "v_prediction"))


def scaling(moments: Sequence[jax.Array]) -> float:
    """What latents are multiplied by to have unit variance, out of means and log-variances [n, h, w, c]."""
    mean, logvar = moments
    return float(1 / jnp.sqrt(jnp.var(mean) + jnp.mean(jnp.exp(logvar))))
