"""Directories of diffusion models: names, layouts, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.weights import diffusers
from nada_jax.weights.loading import load_diffusion


def test_a_model_is_read_as_it_was_written(tiny_diffusion, tiny_diffusion_directory):
    again = load_diffusion(tiny_diffusion_directory)
    assert again.config == tiny_diffusion.config
    assert again.padding == tiny_diffusion.padding
    jax.tree.map(np.testing.assert_array_equal, tiny_diffusion.params, again.params)


@pytest.mark.parametrize(
    ("part", "path", "name"),
    [
        ("unet", "time_embedding.linear_1.kernel", "time_embedding.linear_1.weight"),
        (
            "unet",
            "up_blocks_0.attentions_1.transformer_blocks_0.ff.net_0.proj.bias",
            "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj.bias",
        ),
        (
            "unet",
            "mid_block.attentions_0.transformer_blocks_0.attn1.to_out_0.kernel",
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.weight",
        ),
        (
            "vae",
            "encoder.mid_block.attentions_0.query.kernel",
            "encoder.mid_block.attentions.0.to_q.weight",
        ),
        (
            "vae",
            "decoder.mid_block.attentions_0.proj_attn.bias",
            "decoder.mid_block.attentions.0.to_out.0.bias",
        ),
    ],
)
def test_parameters_have_the_names_of_pytorch(part, path, name):
    assert diffusers.torch_name(part, path) == name


@pytest.fixture
def copy(tiny_diffusion_directory, tmp_path):
    return shutil.copytree(tiny_diffusion_directory, tmp_path / "copy")


def change(copy, file, **fields):
    path = copy / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type='text_time'"),
        ("unet/config.json", {"_class_name": "ControlNetModel"}, "'ControlNetModel'; expected 'UNet2DConditionModel'"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "'AutoencoderTiny'; expected 'AutoencoderKL'"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("unet/config.json", {"block_out_channels": [40]}, "multiples of 32"),
        ("unet/config.json", {"layers_per_block": 10**9}, "layers_per_block=1000000000"),
        ("unet/config.json", {"cross_attention_dim": 768}, "hidden_size=128"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 2}, "one entry a block"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor=0"),
        ("text_encoder/config.json", {"model_type": "t5"}, "'t5'"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000"),
        ("text_encoder/config.json", {"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ("text_encoder/config.json", {"layer_norm_eps": float("nan")}, "layer_norm_eps=nan"),
        ("unet/config.json", {"transformer_layers_per_block": 9999}, "transformer_layers_per_block"),
        ("unet/config.json", {"flip_sin_to_cos": "yes"}, "flip_sin_to_cos='yes'"),
        ("tokenizer/vocab.json", {"red</w>": 100_000}, "number 100000"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction is 'sample'"),
        ("scheduler/scheduler_config.json", {"beta_end": "x"}, "beta_end"),
        ("tokenizer/special_tokens_map.json", {"pad_token": "!!"}, "pad_token='!!'"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(copy, file, fields, message):
    change(copy, file, **fields)
    with pytest.raises(UserError, match=message):
        load_diffusion(copy)


def test_all_arrays_that_do_not_fit_are_named_by_the_names_of_the_file(copy):
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    arrays, metadata = files.read_safetensors(path)
    arrays["conv_in.bias"] = arrays["conv_in.bias"][1:]
    arrays["more.weight"] = np.zeros(3, np.float32)
    del arrays["conv_out.bias"]
    arrays["time_embedding.linear_1.bias"][0] = np.nan
    files.write_safetensors(path, arrays, metadata)
    named = (
        "conv_in.bias",
        "more.weight",
        "conv_out.bias",
        "time_embedding.linear_1.bias holds NaN",
    )
    with pytest.raises(UserError, match="(?s)" + "".join(f"(?=.*{x})" for x in named)):
        load_diffusion(copy)


@pytest.mark.parametrize("file", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors"])
def test_a_missing_file_is_named(copy, file):
    (copy / file).unlink()
    with pytest.raises(UserError, match=file):
        load_diffusion(copy)


def test_text_in_place_of_json_is_named(copy):
    (copy / "vae" / "config.json").write_text("not found")
    with pytest.raises(UserError, match=r"vae/config\.json is not JSON"):
        load_diffusion(copy)
