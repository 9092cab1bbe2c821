"""The keys of a latent diffusion model, to those of diffusers' classes in PyTorch, each behind the folder of its part.

There are two tables: of directories by any version of diffusers, and of single files by the authors of Stable Diffusion,
whose code counts the layers of the UNet through all blocks, and the blocks of the VAE's decoder backwards.
"""

from collections.abc import Mapping
from typing import Any

from convert import rules
from convert.rules import Rule, Transform

_LEAF = "{leaf:weight|bias}"
# Matrices that are convolutions of one tap in files by the authors; some files by others have them as matrices.
_MATRIX = Transform(
    "[o, i, 1, 1] -> [o, i]", lambda x: x.reshape(x.shape[:2]), lambda x: x[:, :, None, None]
)
# What diffusers before 0.18 called the matrices of the VAE's attention, and what its authors do.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_AUTHORS = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def _attention(official: str, destination: str, names: dict[str, str]) -> list[Rule]:
    """Rules of the VAE's attention, less its norm."""
    return [
        Rule(f"{official}.{old}.{leaf}", f"{destination}.{new}.{leaf}", transform)
        for old, new in names.items()
        for leaf, transform in (("weight", _MATRIX), ("bias", rules.SAME))
    ]


def _rest(official: str, destination: str, pattern: str = ".+") -> Rule:
    """Keys that are the same behind their starts; the classes say which there have to be."""
    return Rule(f"{official}{{key:{pattern}}}", f"{destination}{{key:{pattern}}}")


DIRECTORY = [
    _rest("unet/", "unet/"),
    _rest("vae/", "vae/", rf"(?!.*\.attentions\.\d+\.(?:{'|'.join(_OLD)})\.).+"),
    *_attention(*["vae/{block:.+}.attentions.{i}"] * 2, _OLD),
    _rest("text_encoder/", "text_encoder/", r"(?!text_model\.embeddings\.position_ids).+"),
    Rule("text_encoder/text_model.embeddings.position_ids", None),  # 0, 1, 2, ... of older files
]

UNET, VAE, TEXT = "model.diffusion_model", "first_stage_model", "cond_stage_model.transformer"
EMA = "model_ema"  # behind it, the averages over the training have the UNet's names without dots
# Of training: tables of noise, which `diffusion_config` compares; the VAE's loss; and averages, which
# `diffusion.read_file` has put in the place of what they are averages of.
_TRAINING = (
    r"betas|logvar|lvlb_weights|(?:sqrt_|log_)?(?:recip_|recipm1_|one_minus_)?alphas_cumprod(?:_prev)?"
    r"|posterior_(?:variance|log_variance_clipped|mean_coef1|mean_coef2)"
    rf"|(?:{VAE}\.)?{EMA}\..+|{VAE}\.loss\..+"
)
_ENDS = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip
_RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip


def single_file(
    unet: Mapping[str, Any], vae: Mapping[str, Any], text: str = f"{TEXT}.text_model"
) -> list[Rule]:
    """The table of a single file.

    Args:
      unet, vae: contents of the configuration files.
      text: what keys of the text encoder start with.
    """
    return [
        *_unet(unet),
        *_vae(len(vae["block_out_channels"])),
        _rest(f"{text}.", "text_encoder/text_model.", r"(?!embeddings\.position_ids).+"),
        Rule(f"{text}.embeddings.position_ids", None),
        Rule(f"{{key:{_TRAINING}}}", None),
    ]


def _layers(official: str, destination: str, names: dict[str, str]) -> list[Rule]:
    return [
        Rule(f"{official}.{old}.{_LEAF}", f"{destination}{new}.{_LEAF}")
        for old, new in names.items()
    ]


def _unet(config: Mapping[str, Any]) -> list[Rule]:
    found, layers = _layers(UNET, "unet/", _ENDS), config["layers_per_block"]

    def layer(official: str, destination: str, i: int, attends: bool) -> None:
        nonlocal found
        found += _layers(f"{UNET}.{official}.0", f"unet/{destination}.resnets.{i}.", _RESNET)
        if attends:
            found.append(_rest(f"{UNET}.{official}.1.", f"unet/{destination}.attentions.{i}."))

    for block in range(len(config["block_out_channels"])):
        down, up = f"down_blocks.{block}", f"up_blocks.{block}"
        attends = {kind: "Attn" in config[f"{kind}_block_types"][block] for kind in ("down", "up")}
        # A block on the way down ends with one of its own that halves the image. A block on the way up has one layer
        # more, in which a last module doubles it.
        first = block * (layers + 1)
        for i in range(layers):
            layer(f"input_blocks.{first + 1 + i}", down, i, attends["down"])
        for i in range(layers + 1):
            layer(f"output_blocks.{first + i}", up, i, attends["up"])
        halve, double = f"input_blocks.{first + 1 + layers}.0.op", f"output_blocks.{first + layers}"
        double += f".{1 + attends['up']}.conv"
        found += _layers(UNET, f"unet/{down}.downsamplers.0.", {halve: "conv"})
        found += _layers(UNET, f"unet/{up}.upsamplers.0.", {double: "conv"})
    layer("middle_block", "mid_block", 0, attends=True)
    return found + _layers(f"{UNET}.middle_block.2", "unet/mid_block.resnets.1.", _RESNET)


def _vae(blocks: int) -> list[Rule]:
    found, ends = [], {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
    for side, way, resize in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        old, new = f"{VAE}.{side}", f"vae/{side}"
        attention = f"{old}.mid.attn_1", f"{new}.mid_block.attentions.0"
        found += _layers(old, f"{new}.", ends)
        found += _attention(*attention, _AUTHORS)
        found += _layers(attention[0], f"{attention[1]}.", {"norm": "group_norm"})
        found += _vae_resnet(f"{old}.mid.block_{{j+1}}", f"{new}.mid_block.resnets.{{j}}")
        for block in range(blocks):
            place = block if way == "down" else blocks - 1 - block
            one, other = f"{old}.{way}.{block}", f"{new}.{way}_blocks.{place}"
            found += _vae_resnet(f"{one}.block.{{j}}", f"{other}.resnets.{{j}}")
            found += _layers(one, f"{other}.", {f"{resize}.conv": f"{resize}rs.0.conv"})
    return found + _layers(VAE, "vae/", {name: name for name in ("quant_conv", "post_quant_conv")})


def _vae_resnet(official: str, destination: str) -> list[Rule]:
    names = {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
    return _layers(official, f"{destination}.", names | {"nin_shortcut": "conv_shortcut"})
