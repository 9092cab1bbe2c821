"""The network that the config.json of a CLIP describes."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from transformers import CLIPConfig
from transformers.modeling_flax_utils import ACT2FN
from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

from nada_jax import trees
from nada_jax.errors import UserError

# Layers of a tower: published CLIPs have 64 at most, and tracing a damaged file's claim of more takes for ever.
DEEPEST = 100


def canonical(config: Mapping[str, Any]) -> str:
    """One JSON text for all equal configs, with Hugging Face's defaults filled in.

    Raises:
      UserError: it is one of another kind of model.
    """
    if config.get("model_type", "clip") != "clip":
        raise UserError(f"config.json describes a {config['model_type']!r} model; expected 'clip'")
    return CLIPConfig.from_dict(_without_labels(config)).to_json_string(use_diff=False)


@functools.cache
def network(config: str, precision: str) -> FlaxCLIPModule:
    """The network of a canonical config, which computes in a precision; it has no parameters."""
    return FlaxCLIPModule(CLIPConfig.from_dict(json.loads(config)), dtype=jnp.dtype(precision))


def param_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{flat path: shape} of the parameters that a config.json describes; nothing is computed.

    Raises:
      UserError: it does not describe a CLIP.
    """
    module = network(canonical(config), "float32")
    text, vision = module.config.text_config, module.config.vision_config
    for tower in (text, vision):
        name, layers = tower.base_config_key, tower.num_hidden_layers
        if not isinstance(layers, int) or not 1 <= layers <= DEEPEST:
            raise UserError(
                f"config.json says {name}.num_hidden_layers={layers!r}; expected 1 to {DEEPEST}"
            )
        if tower.hidden_act not in ACT2FN:
            raise UserError(
                f"config.json says {name}.hidden_act={tower.hidden_act!r}; expected one of "
                f"{', '.join(ACT2FN)}"
            )
    size, context = vision.image_size, text.max_position_embeddings

    def init():
        # The product of patches would fail where pixels are left over.
        if size % vision.patch_size:
            raise ValueError(f"image_size={size} is no multiple of patch_size={vision.patch_size}")
        ids, pixels = jnp.zeros((1, context), jnp.int32), jnp.zeros((1, size, size, 3))
        return module.init(jax.random.key(0), ids, pixels, None, jnp.arange(context)[None])

    try:
        tree = jax.eval_shape(init)["params"]
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"config.json does not describe a CLIP: {error}") from error
    return {path: tuple(leaf.shape) for path, leaf in trees.flatten(tree).items()}


def _without_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drops the number of classes, for each of which transformers would make a name, however many."""
    nested = {k: _without_labels(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    return {key: value for key, value in nested.items() if key != "num_labels"}
