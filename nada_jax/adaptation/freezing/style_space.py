"""Trains what is added to the styles of convolutions, the same for every image: `models.style_delta`."""

from nada_jax.adaptation.freezing.fixed import convolutions
from nada_jax.adaptation.freezing.strategy import Strategy, label_layers
from nada_jax.models import style_delta

STRATEGIES = {
    "style_space": Strategy(
        # A style is a product of the latent plus this bias.
        lambda params, _: label_layers(params, convolutions(params), ("modulation.bias",)),
        results={"style_delta.safetensors": ("style delta", style_delta.between)},
    )
}
