"""Adapt a StyleGAN2 to a new domain by words alone: StyleGAN-NADA in JAX and Flax."""

from nada_jax.adaptation.prompts import text_direction
from nada_jax.errors import UserError
from nada_jax.models.clip import Clip
from nada_jax.models.encoder import Encoder
from nada_jax.models.irse import Irse50
from nada_jax.models.mapper import Mapper
from nada_jax.models.style_delta import StyleDelta
from nada_jax.models.stylegan2 import Architecture, Generator
from nada_jax.models.vgg import Vgg
from nada_jax.weights.loading import (
    load_clip,
    load_generator,
    load_model,
    save_generator,
    save_model,
)

__version__ = "0.1.0"
__all__ = [
    "Architecture",
    "Clip",
    "Encoder",
    "Generator",
    "Irse50",
    "Mapper",
    "StyleDelta",
    "UserError",
    "Vgg",
    "load_clip",
    "load_generator",
    "load_model",
    "save_generator",
    "save_model",
    "text_direction",
]
