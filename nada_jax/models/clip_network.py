"""The network that the config.json of a CLIP describes: Hugging Face's, with the parts that are slow written anew."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from transformers import CLIPConfig
from transformers.modeling_flax_outputs import FlaxBaseModelOutput
from transformers.modeling_flax_utils import ACT2FN
from transformers.models.clip.modeling_flax_clip import (
    FlaxCLIPEncoderLayer,
    FlaxCLIPLayerCollection,
    FlaxCLIPModule,
)

from nada_jax import trees
from nada_jax.errors import UserError
from nada_jax.models import convolution

# Layers of a tower: published CLIPs have 64 at most, and tracing a damaged file's claim of more takes for ever.
DEEPEST = 100
STACKED = "stacked"  # where the parameters of all layers stand, with a first axis of layers


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
        # By type: True is 1 to Python.
        if type(layers) is not int or not 1 <= layers <= DEEPEST:
            raise UserError(
                f"config.json says {name}.num_hidden_layers={layers!r}; expected 1 to {DEEPEST}"
            )
        heads = tower.num_attention_heads
        if type(heads) is not int or heads < 1:
            raise UserError(
                f"config.json says {name}.num_attention_heads={heads!r}; expected a whole number from 1"
            )
        if not isinstance(tower.layer_norm_eps, float) or not 0 < tower.layer_norm_eps < 1:
            raise UserError(
                f"config.json says {name}.layer_norm_eps={tower.layer_norm_eps!r}; expected a number "
                "between 0 and 1"
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


def for_images(params: dict[str, Any], precision: str) -> dict[str, Any]:
    """The parameters that images need, as a network of this precision computes best with them.

    Kernels are of that precision; for accelerators the layers are stacked, under `STACKED`.
    """
    return _for_images(params, precision, stack=not convolution.on_cpu())


def image_features(module: FlaxCLIPModule, pixels: jax.Array) -> jax.Array:
    """A method for `apply`: pixels [b, r, r, 3] -> features [b, d], not of unit length."""
    with nn.intercept_methods(_rewritten):
        return module.visual_projection(module.vision_model(pixels).pooler_output)


def text_features(module: FlaxCLIPModule, ids: jax.Array) -> jax.Array:
    """A method for `apply`: ids [n, context] -> features [n, d], not of unit length."""
    positions = jnp.arange(ids.shape[1])[None]
    return module.text_projection(module.text_model(ids, None, positions).pooler_output)


@functools.partial(jax.jit, static_argnames=("precision", "stack"))
def _for_images(params: dict[str, Any], precision: str, stack: bool) -> dict[str, Any]:
    # Kernels are rounded before they are used anyway; the rest is used in float32 here and there.
    flat = trees.flatten(params)
    flat = {
        path: x.astype(precision) if path.endswith(".kernel") else x for path, x in flat.items()
    }
    params = trees.unflatten(flat)
    if stack and STACKED not in params["vision_model"]["encoder"]["layers"]:
        encoder = params["vision_model"]["encoder"]
        layers = [encoder["layers"][str(i)] for i in range(len(encoder["layers"]))]
        encoder["layers"] = {STACKED: jax.tree.map(lambda *xs: jnp.stack(xs), *layers)}
    return params


def _without_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drops the number of classes, for each of which transformers would make a name, however many."""
    nested = {k: _without_labels(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    return {key: value for key, value in nested.items() if key != "num_labels"}


def _rewritten(call: Callable, args: tuple, named: dict, context: Any) -> Any:
    """The parts of the network that are written anew here; called by Flax in place of each of its methods."""
    module = context.module
    if context.method_name == "__call__":
        if isinstance(module, nn.Conv):
            return _embed_patches(module, *args)
        if isinstance(module, FlaxCLIPLayerCollection) and STACKED in module.variables["params"]:
            return _loop_over_layers(module, named["hidden_states"])
    return call(*args, **named)


def _embed_patches(conv: nn.Conv, pixels: jax.Array) -> jax.Array:
    """The network's one convolution, whose stride is its kernel's side, as one matrix product."""
    # The gradient by pixels is another product, instead of a convolution dilated by the patch size.
    kernel = conv.get_variable("params", "kernel").astype(conv.dtype)
    (b, h, w, c), (p, _, _, d) = pixels.shape, kernel.shape
    patches = pixels.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(b, h // p, w // p, -1).astype(conv.dtype) @ kernel.reshape(-1, d)


def _loop_over_layers(layers: FlaxCLIPLayerCollection, hidden: jax.Array) -> FlaxBaseModelOutput:
    """The layers as one body of a loop over their stacked parameters, which compiles once for all of them."""
    layer = FlaxCLIPEncoderLayer(layers.config, layers.dtype, parent=None)

    def body(hidden, params):
        return layer.apply({"params": params}, hidden, None)[0], None

    hidden, _ = jax.lax.scan(body, hidden, layers.variables["params"][STACKED])
    return FlaxBaseModelOutput(last_hidden_state=hidden)
