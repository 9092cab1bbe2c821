"""Small latent diffusion models of PyTorch's classes, which write the directories that are compared."""

import json
import shutil

import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from nada_jax.weights.registry import ASSETS

TOKENIZER = ASSETS / "clip-avatar-p16"  # 1614 tokens, of which texts of 32 are read
UNET = {  # the layout of Stable Diffusion, in two blocks of other widths
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 48,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": 4,
}  # fmt: skip
VAE = {
    "block_out_channels": (16, 24), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 16,
}  # fmt: skip
TEXT = {
    "vocab_size": 1614, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 3, "max_position_embeddings": 32, "hidden_act": "quick_gelu",
    "bos_token_id": 1612, "eos_token_id": 1613, "pad_token_id": 1613, "projection_dim": 48,
}  # fmt: skip
SCHEDULER = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "set_alpha_to_one": False, "clip_sample": False,
}  # fmt: skip


class Models:
    """UNet, VAE and text encoder with random weights, of which each has a part in what comes out.

    Args:
      unet, vae, text, scheduler: fields of their configurations that are others than above.
    """

    def __init__(self, unet=(), vae=(), text=(), scheduler=()):
        text = transformers.CLIPTextConfig(**TEXT | dict(text))
        self.unet = _fill(UNet2DConditionModel(**UNET | dict(unet)))
        self.vae = _fill(AutoencoderKL(**VAE | dict(vae)))
        self.text_encoder = _fill(transformers.CLIPTextModel(text))
        self.scheduler = DDIMScheduler(**SCHEDULER | dict(scheduler))

    def save(self, directory):
        """Writes the directory, as `StableDiffusionPipeline.save_pretrained` does, and returns it."""
        for part in ("unet", "vae", "text_encoder", "scheduler"):
            getattr(self, part).save_pretrained(directory / part)
        (directory / "tokenizer").mkdir()
        for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
            shutil.copyfile(TOKENIZER / name, directory / "tokenizer" / name)
        (directory / "model_index.json").write_text(json.dumps({}))
        return directory


def _fill(module):
    random = np.random.default_rng(0)
    for name, parameter in module.named_parameters():
        shape = tuple(parameter.shape)
        x = random.standard_normal(shape, np.float32)
        x *= 0.1 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5
        parameter.data = torch.from_numpy(x + ("norm" in name and name.endswith("weight")))
    return module.eval().requires_grad_(False)
