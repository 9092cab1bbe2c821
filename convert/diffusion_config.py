"""The configuration files of a Stable Diffusion 1 in a single file, from the shapes of its arrays.

What no shape shows (heads, groups of norms, the noise, the scale of latents) is that of Stable Diffusion 1.
"""

import re
from typing import Any

import numpy as np

from convert.diffusion_tables import TEXT, UNET, VAE
from convert.rules import Arrays
from nada_jax.errors import UserError
from nada_jax.models.noise import Schedule

HEADS = 8  # of the UNet at all widths
TEXT_HEAD = 64  # width of one, in OpenAI's text towers
SIDE = 64  # of latents: images of 512 pixels
SCHEDULER = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False,
}  # fmt: skip
# How keys of other models start, and what these are; the first that is found is named.
OTHERS = {
    "conditioner.": "a Stable Diffusion XL",
    "cond_stage_model.model.": "a Stable Diffusion 2",
    "control_model.": "a ControlNet",
    "lora_": "a LoRA",
    f"{UNET}.joint_blocks.": "a Stable Diffusion 3",
    f"{UNET}.double_blocks.": "a Flux",
}
LARGEST = 10_000  # number of a block; longer ones would become huge integers


def check_kind(official: Arrays, what: str) -> None:
    """Refuses other models by what they are.

    Args:
      official: key -> array, as in the file.
      what: how messages call it.

    Raises:
      UserError: it is another model, or lacks a part.
    """
    for start, name in OTHERS.items():
        if key := next((key for key in official if key.startswith(start)), None):
            raise UserError(
                f"{what} is {name} ({key}), which is not converted; expected a Stable Diffusion 1 in one file, or a "
                "directory in diffusers' layout"
            )
    for part, name in ((UNET, "UNet"), (VAE, "VAE"), (TEXT, "text encoder")):
        if not any(key.startswith(f"{part}.") for key in official):
            raise UserError(
                f"{what} has no {name} (no key starts with {part}.); expected a Stable Diffusion 1 in one file"
            )


def from_arrays(official: Arrays, what: str) -> dict[str, dict[str, Any]]:
    """Makes the configuration files.

    Args:
      official: key -> array, as in the file.
      what: how messages call it.

    Returns:
      "unet", "vae", "text_encoder", "scheduler" -> content of its file.

    Raises:
      UserError: it is another model, or arrays that say how it is built are missing or of another shape.
    """
    check_kind(official, what)
    alphas = official.get("alphas_cumprod")
    if alphas is not None:
        expected = Schedule.parse(SCHEDULER).alphas
        if alphas.shape != expected.shape or not np.allclose(alphas, expected, atol=1e-3):
            raise UserError(
                f"{what} was trained on other noise (alphas_cumprod) than Stable Diffusion 1, which is not converted"
            )
    shapes = _Shapes(official, what)
    return {
        "unet": _unet(shapes), "vae": _vae(shapes), "text_encoder": _text(shapes), "scheduler": SCHEDULER,
    }  # fmt: skip


def text_start(official: Arrays) -> str:
    """What keys of the text encoder start with; some files by others lack "text_model"."""
    whole = f"{TEXT}.text_model"
    return whole if any(key.startswith(f"{whole}.") for key in official) else TEXT


class _Shapes:
    """Shapes of arrays by key; UserError for a key that is missing, or of another rank."""

    def __init__(self, official: Arrays, what: str):
        self.official, self.what = official, what

    def __call__(self, key: str, *ranks: int) -> tuple[int, ...]:
        array = self.official.get(key)
        if array is None:
            raise UserError(f"{self.what} does not say how it is built: {key} is missing")
        if array.ndim not in ranks or not all(array.shape):
            axes = " or ".join(map(str, ranks))
            raise UserError(
                f"{self.what} does not say how it is built: {key} has shape {tuple(array.shape)}, expected {axes} axes"
            )
        return tuple(array.shape)

    def count(self, template: str) -> int:
        """The numbers that stand for {} in keys that start so: how many there are from 0 on."""
        start, end = template.split("{}")
        numbered = re.compile(rf"{re.escape(start)}([0-9]{{1,4}}){re.escape(end)}")
        found = {int(match[1]) for key in self.official if (match := numbered.match(key))}
        return next(i for i in range(LARGEST) if i not in found)


def _unet(shapes: _Shapes) -> dict[str, Any]:
    number = shapes.count(f"{UNET}.input_blocks.{{}}.")
    # Each block ends with one that halves, but for the last.
    halving = [
        i for i in range(number) if f"{UNET}.input_blocks.{i}.0.op.weight" in shapes.official
    ]
    blocks = len(halving) + 1
    layers, rest = divmod(number, blocks)
    if rest or layers < 2 or halving != [i * layers for i in range(1, blocks)]:
        raise UserError(
            f"{shapes.what} has {number} input_blocks, of which {halving} halve the image; expected blocks of equal "
            "depth"
        )
    layers -= 1
    starts = range(1, number, layers + 1)
    widths = [shapes(f"{UNET}.input_blocks.{i}.0.out_layers.3.weight", 4)[0] for i in starts]

    def kinds(side: str, indices: list[int], way: str) -> list[str]:
        attends = [f"{UNET}.{side}.{i}.1.norm.weight" in shapes.official for i in indices]
        return [f"{'CrossAttn' * x}{way}Block2D" for x in attends]

    middle = f"{UNET}.middle_block.1"
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": SIDE,
        "in_channels": shapes(f"{UNET}.input_blocks.0.0.weight", 4)[1],
        "out_channels": shapes(f"{UNET}.out.2.weight", 4)[0],
        "down_block_types": kinds("input_blocks", list(starts), "Down"),
        "up_block_types": kinds("output_blocks", [i - 1 for i in starts], "Up"),
        "block_out_channels": widths,
        "layers_per_block": layers,
        "attention_head_dim": HEADS,  # the number of heads, by an old mistake of diffusers
        "cross_attention_dim": shapes(f"{middle}.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "use_linear_projection": len(shapes(f"{middle}.proj_in.weight", 2, 4)) == 2,
        "transformer_layers_per_block": shapes.count(f"{middle}.transformer_blocks.{{}}."),
        "act_fn": "silu",
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def _vae(shapes: _Shapes) -> dict[str, Any]:
    blocks = shapes.count(f"{VAE}.encoder.down.{{}}.")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes(f"{VAE}.encoder.conv_in.weight", 4)[1],
        "out_channels": shapes(f"{VAE}.decoder.conv_out.weight", 4)[0],
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "block_out_channels": [
            shapes(f"{VAE}.encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(blocks)
        ],
        "layers_per_block": shapes.count(f"{VAE}.encoder.down.0.block.{{}}."),
        "latent_channels": shapes(f"{VAE}.decoder.conv_in.weight", 4)[1],
        "norm_num_groups": 32,
        "act_fn": "silu",
        "sample_size": SIDE * 2 ** max(blocks - 1, 0),
        "scaling_factor": 0.18215,
    }


def _text(shapes: _Shapes) -> dict[str, Any]:
    model = text_start(shapes.official)
    vocabulary, width = shapes(f"{model}.embeddings.token_embedding.weight", 2)
    if width % TEXT_HEAD:
        raise UserError(
            f"{shapes.what} has a text encoder of width {width}; expected a multiple of {TEXT_HEAD}, the width of its "
            "heads"
        )
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes(f"{model}.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "projection_dim": width,
        "num_hidden_layers": shapes.count(f"{model}.encoder.layers.{{}}."),
        "num_attention_heads": width // TEXT_HEAD,
        "max_position_embeddings": shapes(f"{model}.embeddings.position_embedding.weight", 2)[0],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        # OpenAI's vocabulary ends with the two tokens that are put around every text.
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
