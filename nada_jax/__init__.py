"""Adapt a StyleGAN2 to a new domain by words alone: StyleGAN-NADA in JAX and Flax."""

from nada_jax.errors import UserError
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Architecture, Generator
from nada_jax.prompts import text_direction
from nada_jax.weights import load_clip, load_generator, save_generator

__version__ = "0.1.0"
__all__ = [
    "Architecture",
    "Clip",
    "Generator",
    "UserError",
    "load_clip",
    "load_generator",
    "save_generator",
    "text_direction",
]
