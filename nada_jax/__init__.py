"""Adapt a StyleGAN2 to a new domain by words alone: StyleGAN-NADA in JAX and Flax.

Names are imported when they are first used: JAX takes seconds to load, and what has to be set before it (see
`nada_jax.devices`) can be.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> the module that defines it.
_HOMES = {
    "UserError": "errors",
    "Aligned": "photos.align",
    "Architecture": "models.stylegan2",
    "Clip": "models.clip",
    "Codes": "latents.codes",
    "Diffusion": "models.diffusion",
    "Direction": "latents.directions",
    "Encoder": "models.encoder",
    "Generator": "models.stylegan2",
    "Irse50": "models.irse",
    "Mapper": "models.mapper",
    "StyleDelta": "models.style_delta",
    "Vgg": "models.vgg",
    "align": "photos.align",
    "guided_diffusion": "guided.single",
    "interpolate": "models.blending",
    "load_clip": "weights.loading",
    "load_diffusion": "weights.loading",
    "load_encoder": "weights.loading",
    "load_generator": "weights.loading",
    "load_model": "weights.loading",
    "load_vgg": "weights.loading",
    "save_generator": "weights.native",
    "save_model": "weights.native",
    "style_transfer": "style.painting",
    "text_direction": "adaptation.prompts",
    "transfer": "models.blending",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value  # the next use does not come here
        return value
    try:  # a room, such as nada_jax.models
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":  # something that the room needs is not installed
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOMES])
