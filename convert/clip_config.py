"""Configuration files of a CLIP: config.json, which follows from shapes, and preprocessor_config.json."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert import open_clip
from convert.rules import Arrays
from nada_jax.errors import UserError
from nada_jax.models.preprocessing import BICUBIC, MEAN, STD

ACTIVATIONS = ("quick_gelu", "gelu")  # OpenAI's, and the one that open_clip mostly trains with
# Of OpenAI's networks: width of an attention head, which shapes do not show, and of the widest of them. Wider
# ones are by open_clip, with heads of 80 to 112.
HEAD, WIDEST = 64, 1024


def from_arrays(official: Arrays, what: str, activation: str) -> dict[str, Any]:
    """Makes a config.json from the shapes of OpenAI's arrays, with heads as OpenAI has them.

    Args:
      official: key -> array, as in OpenAI's `clip`.
      what: how messages call it.
      activation: one of `ACTIVATIONS`.

    Returns:
      The content of the file.

    Raises:
      UserError: an unknown activation, a ResNet, or no CLIP.
    """
    if activation not in ACTIVATIONS:
        known = " or ".join(ACTIVATIONS)
        raise UserError(f"activation of {what} is {activation!r}; expected {known}")
    if any(key.startswith("visual.layer1.") for key in official):
        raise UserError(
            f"{what} is a CLIP with a ResNet (RN50, RN101, ...), which is not supported; use one "
            "with a vision transformer: ViT-B/32, ViT-B/16 or ViT-L/14"
        )
    needed = {
        "visual.conv1.weight": 4, "visual.positional_embedding": 2, "visual.proj": 2,
        "positional_embedding": 2, "token_embedding.weight": 2,
    }  # fmt: skip
    wrong = [key for key, axes in needed.items() if np.ndim(official.get(key)) != axes]
    if wrong:
        raise UserError(f"{what} is not an OpenAI CLIP: no fitting {', '.join(wrong)}")
    width, _, patch, _ = official["visual.conv1.weight"].shape
    patches = len(official["visual.positional_embedding"]) - 1  # without the class token
    vocabulary, text_width = official["token_embedding.weight"].shape
    dim = official["visual.proj"].shape[1]

    def tower(prefix: str, width: int) -> dict[str, Any]:
        # One such norm a layer.
        norms = [k for k in official if k.startswith(f"{prefix}.") and k.endswith(".ln_1.weight")]
        hidden = official.get(f"{prefix}.resblocks.0.mlp.c_fc.weight")
        return {
            "hidden_size": width,
            # Four times the width where it is missing, which is found when the arrays are matched.
            "intermediate_size": len(hidden) if np.ndim(hidden) == 2 else 4 * width,
            "projection_dim": dim,
            "num_hidden_layers": len(norms),
            "num_attention_heads": width // HEAD,
            "hidden_act": activation,
        }

    text = {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "max_position_embeddings": len(official["positional_embedding"]),
        # OpenAI's vocabulary ends with the two tokens that are put around every text.
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }
    vision = {
        "model_type": "clip_vision_model",
        "image_size": math.isqrt(patches) * patch,
        "patch_size": patch,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": dim,
        "text_config": text | tower("transformer", text_width),
        "vision_config": vision | tower("visual.transformer", width),
    }


def check_heads(config: Mapping[str, Any], what: str) -> None:
    """Refuses widths at which nothing but a configuration tells the number of heads.

    Args:
      config: see `from_arrays`.
      what: how messages call it.

    Raises:
      UserError: a tower has such a width.
    """
    for tower in ("vision_config", "text_config"):
        width = config[tower]["hidden_size"]
        if width % HEAD or width > WIDEST:
            raise UserError(
                f"{what} does not say how many heads its {tower.removesuffix('_config')} tower of width "
                f"{width} has, which is none of OpenAI's; {open_clip.ADVICE}"
            )


def preprocessor(size: int) -> dict[str, Any]:
    """Makes a preprocessor_config.json for images of a size in pixels, as OpenAI prepares them."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "do_convert_rgb": True,
    }
