"""The configuration files of a latent diffusion model in diffusers' layout: what is read, and what is not built.

A file may be a stranger's, and Flax's classes know less than PyTorch's: a field that changes the network and that they do
not know has to have the value that they assume.
"""

import json
from collections.abc import Mapping
from typing import Any

from nada_jax.errors import UserError
from nada_jax.models.noise import Schedule

PARTS = ("unet", "vae", "text_encoder", "scheduler")  # folders of the layout, less the tokenizer
# Widest and deepest that published models come near; tracing a damaged file's claim of more takes for ever.
WIDEST, DEEPEST, LARGEST = 2**14, 64, 2**12
CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
}  # "FlaxAutoencoderKL" is the same
TEXT = {  # the same of the text encoder; the number of heads has to divide the first
    "hidden_size": WIDEST,
    "intermediate_size": 2**16,
    "num_hidden_layers": DEEPEST,
    "num_attention_heads": WIDEST,
    "max_position_embeddings": LARGEST,
    "vocab_size": 2**20,
}
DOWN, UP = ("CrossAttnDownBlock2D", "DownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")

# Fields that the networks are built by, with the defaults of diffusers.
UNET = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "only_cross_attention": False,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "use_linear_projection": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "transformer_layers_per_block": 1,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
}
# Fields that Flax's classes do not have, and the value that these assume.
UNET_PLAIN = {
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
    "attention_type": "default",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "upcast_attention": "any",  # in float32, which attention is computed in anyway unless precision is bfloat16
    "dropout": "any",  # of training
    "addition_embed_type_num_heads": "any",  # of an embedding that is refused
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
}
VAE_PLAIN = {
    "act_fn": "silu",
    "force_upcast": "any",  # the VAE computes in float32 always
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}


def canonical(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """One JSON text for all equal configurations of a model.

    Args:
      configs: part of `PARTS` -> the content of its configuration file.

    Returns:
      JSON of the fields that networks and noise are built by, all of them.

    Raises:
      UserError: a field is not possible, or of a network that is not built.
    """
    for part, name in CLASSES.items():
        found = configs[part].get("_class_name", name)
        if found not in (name, f"Flax{name}"):
            raise UserError(f"{part}/config.json describes a {found!r}; expected {name!r}")
    unet = _chosen("unet/config.json", configs["unet"], UNET, UNET_PLAIN)
    vae = _chosen("vae/config.json", configs["vae"], VAE, VAE_PLAIN)
    _check_unet(unet)
    _check_vae(vae)
    if unet["in_channels"] != vae["latent_channels"] or unet["out_channels"] != unet["in_channels"]:
        raise UserError(
            f"unet/config.json says in_channels={unet['in_channels']} and out_channels={unet['out_channels']}, and the "
            f"VAE has {vae['latent_channels']} channels of latents; expected the same number (models for inpainting "
            "and depth are not built)"
        )
    text = dict(configs["text_encoder"])
    if text.get("model_type", "clip_text_model") != "clip_text_model":
        raise UserError(
            f"text_encoder/config.json describes a {text['model_type']!r} model; expected 'clip_text_model'"
        )
    for name, most in TEXT.items():
        _count("text_encoder/config.json", name, text.get(name, 1), most)
    eps = text.get("layer_norm_eps", 1e-5)
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise UserError(
            f"text_encoder/config.json says layer_norm_eps={eps!r}; expected a number between 0 and 1"
        )
    if unet["cross_attention_dim"] != text.get("hidden_size", 512):
        raise UserError(
            f"unet/config.json says cross_attention_dim={unet['cross_attention_dim']!r}, but the text encoder has "
            f"hidden_size={text.get('hidden_size', 512)!r}"
        )
    schedule = Schedule.parse(configs["scheduler"]).to_json()
    parts = {"unet": unet, "vae": vae, "text_encoder": text, "scheduler": schedule}
    return json.dumps(parts, sort_keys=True)


def _chosen(
    file: str, config: Mapping[str, Any], known: Mapping[str, Any], plain: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields that a network is built by; UserError where another one changes it."""
    for name, value in config.items():
        # What a field is called that is not known, and is not used, cannot be foreseen.
        if name in known or name.startswith("_") or value in (None, False):
            continue
        expected = plain.get(name)
        if expected != "any" and value != expected:
            built = "no such field" if expected is None else f"{expected!r}"
            raise UserError(
                f"{file} says {name}={value!r}, which is not built; expected {built} (Stable Diffusion 1 and 2, and "
                "smaller models of their classes)"
            )
    for name, expected in plain.items():
        if expected not in ("any", False) and config.get(name, expected) != expected:
            raise UserError(
                f"{file} says {name}={config[name]!r}, which is not built; expected {expected!r}"
            )
    chosen = {name: config.get(name, default) for name, default in known.items()}
    return {name: list(x) if isinstance(x, tuple) else x for name, x in chosen.items()}


def _count(file: str, name: str, value: Any, most: int) -> None:
    # By type: True is 1 to Python.
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"{file} says {name}={value!r}; expected a whole number in 1..{most:,}")


def _list(file: str, config: Mapping[str, Any], name: str, length: int | None) -> list[Any]:
    value = config[name]
    good = isinstance(value, list) and 0 < len(value) <= DEEPEST
    if not good or length not in (None, len(value)):
        raise UserError(f"{file} says {name}={value!r}; expected a list, one entry a block")
    return value


def _check_blocks(file: str, config: Mapping[str, Any], groups: int) -> int:
    """Checks what UNets and VAEs have in common; the number of blocks."""
    widths = _list(file, config, "block_out_channels", None)
    for width in widths:
        _count(file, "block_out_channels", width, WIDEST)
        if width % groups:
            raise UserError(
                f"{file} says block_out_channels={widths}; expected multiples of {groups}, the groups of its "
                "normalisation"
            )
    _count(file, "layers_per_block", config["layers_per_block"], DEEPEST)
    for name in ("in_channels", "out_channels"):
        _count(file, name, config[name], WIDEST)
    return len(widths)


def _check_unet(config: Mapping[str, Any]) -> None:
    file = "unet/config.json"
    blocks = _check_blocks(file, config, 32)
    _count(file, "sample_size", config["sample_size"], LARGEST)
    _count(file, "cross_attention_dim", config["cross_attention_dim"], WIDEST)
    for name, known in (("down_block_types", DOWN), ("up_block_types", UP)):
        for kind in _list(file, config, name, blocks):
            if kind not in known:
                raise UserError(f"{file} says {name} has {kind!r}; expected {' or '.join(known)}")
    for name, most in (("attention_head_dim", WIDEST), ("transformer_layers_per_block", DEEPEST)):
        value = config[name]
        for one in [value] if not isinstance(value, list) else _list(file, config, name, blocks):
            _count(file, name, one, most)
    for name in ("only_cross_attention", "use_linear_projection", "flip_sin_to_cos"):
        value = config[name]
        for one in [value] if not isinstance(value, list) else _list(file, config, name, blocks):
            if not isinstance(one, bool):
                raise UserError(f"{file} says {name}={value!r}; expected true or false")
    # Which is the number of heads, by an old mistake of diffusers.
    value = config["attention_head_dim"]
    for width, heads in zip(
        config["block_out_channels"],
        value if isinstance(value, list) else [value] * blocks,
        strict=True,
    ):
        if width % heads:
            raise UserError(
                f"{file} says attention_head_dim={value!r}; expected divisors of {width} channels"
            )


def _check_vae(config: Mapping[str, Any]) -> None:
    file = "vae/config.json"
    _count(file, "norm_num_groups", config["norm_num_groups"], WIDEST)
    blocks = _check_blocks(file, config, config["norm_num_groups"])
    _count(file, "latent_channels", config["latent_channels"], WIDEST)
    if (config["in_channels"], config["out_channels"]) != (3, 3):
        raise UserError(
            f"{file} says in_channels={config['in_channels']}; expected 3, of colours, in and out"
        )
    expected = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
    for name, kind in expected.items():
        if set(_list(file, config, name, blocks)) != {kind}:
            raise UserError(f"{file} says {name}={config[name]!r}; expected {kind} alone")
    factor = config["scaling_factor"]
    if not isinstance(factor, float | int) or not 0 < factor < 1e6:
        raise UserError(f"{file} says scaling_factor={factor!r}; expected a number above 0")
