"""Stable Diffusion 1 in single files, and directories in diffusers' layout with weights of PyTorch."""

import json
import re
import shutil
import sys
import types

import numpy as np
import pytest

from convert import diffusion as conversion
from convert import diffusion_config, diffusion_tables, openai_vocabulary, rules
from convert.__main__ import main
from nada_jax import files, load_diffusion
from nada_jax.errors import UserError
from nada_jax.models import diffusion, tokenizer
from nada_jax.weights import diffusers

CONFIGS = {  # a small Stable Diffusion 1, every width another number
    "unet": {
        "sample_size": 64, "block_out_channels": [32, 64], "layers_per_block": 1, "cross_attention_dim": 64,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    },
    "vae": {
        "block_out_channels": [32, 32, 96], "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3, "layers_per_block": 2, "sample_size": 256,
    },
    "text_encoder": {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 77, "projection_dim": 64,
        "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
    },
    "scheduler": diffusion_config.SCHEDULER,
}  # fmt: skip
UNET = diffusion_tables.UNET


@pytest.fixture(scope="module")
def arrays():
    """Its arrays, by part and the names of PyTorch."""
    random = np.random.default_rng(0)
    expected = conversion.expected_shapes(diffusion.canonical(CONFIGS))
    return {
        key: random.standard_normal(shape, np.float32).astype(np.float16)
        for key, shape in expected.items()
    }


@pytest.fixture(scope="module")
def official(arrays):
    """The same as its authors' code has them."""
    table = diffusion_tables.single_file(CONFIGS["unet"], CONFIGS["vae"])
    return rules.apply(table, arrays, backward=True)[0]


@pytest.fixture
def save(official, tmp_path):
    """save({key: array or None}) -> the official file, with changes."""

    def write(changes=(), name="sd.safetensors"):
        found = {key: x for key, x in (official | dict(changes)).items() if x is not None}
        files.write_safetensors(tmp_path / name, found, {})
        return tmp_path / name

    return write


def assert_same(directory, arrays):
    """The directory holds these arrays, and nothing else."""
    found = {}
    for part, (name, *_) in diffusers.WEIGHTS.items():
        held, metadata = files.read_safetensors(directory / part / name)
        assert metadata == {"format": "pt"}
        found |= {f"{part}/{key}": x for key, x in held.items()}
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


# -- single files ----------------------------------------------------------------------------------------


def test_a_single_file_becomes_a_directory(save, arrays, tmp_path, capsys):
    extras = {
        "cond_stage_model.transformer.text_model.embeddings.position_ids": np.arange(77)[None],
        "alphas_cumprod": np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
        "sqrt_recipm1_alphas_cumprod": np.zeros(1000), "posterior_mean_coef1": np.zeros(1000),
        "model_ema.decay": np.ones(1), "first_stage_model.loss.logvar": np.zeros(1),
    }  # fmt: skip
    out = tmp_path / "out"
    assert main(["diffusion", "--check", str(save(extras)), str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("(dropped)") == len(extras) and "unet/conv_in.weight" in shown
    assert_same(out, arrays)
    # Everything of the small model's configuration follows from its shapes.
    model = load_diffusion(out)
    assert model.config == diffusion.canonical(CONFIGS)
    assert model.tokenizer == tokenizer.load_tokenizer(out / "tokenizer", 49408)
    ids = model.tokenize(["a cat"])[0]
    assert ids[:4].tolist() == [49406, 320, 2368, 49407] and set(ids[4:]) == {49407}
    index = json.loads((out / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]
    assert {path.name for path in tmp_path.iterdir()} == {"sd.safetensors", "out"}


def test_what_diffusers_reads_in_a_single_file_is_the_same(official, arrays):
    torch = pytest.importorskip("torch")
    from diffusers.loaders import single_file_utils

    tensors = {key: torch.tensor(x) for key, x in official.items()}
    unet = single_file_utils.convert_ldm_unet_checkpoint(tensors, CONFIGS["unet"])
    vae = single_file_utils.convert_ldm_vae_checkpoint(tensors, CONFIGS["vae"])
    text = single_file_utils.convert_ldm_clip_checkpoint(
        tensors, remove_prefix="cond_stage_model.transformer."
    )
    found = {
        f"{part}/{key}": np.asarray(x)
        for part, state in (("unet", unet), ("vae", vae), ("text_encoder", text))
        for key, x in state.items()
    }
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


def test_a_checkpoint_of_lightning_is_read_without_lightning(
    official, arrays, tmp_path, monkeypatch
):
    torch = pytest.importorskip("torch")
    module = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": module})
    with monkeypatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module):
            patch.setitem(sys.modules, name, types.SimpleNamespace(ModelCheckpoint=callback))
        state = {
            "epoch": 3,
            "callbacks": {callback: {"monitor": "val/loss"}},  # as in the first releases
            "state_dict": {key: torch.tensor(x) for key, x in official.items()},
        }
        torch.save(state, tmp_path / "sd.ckpt")
    found = conversion.read_file(tmp_path / "sd.ckpt").arrays
    for key, array in arrays.items():
        np.testing.assert_array_equal(found.pop(key), array)
    assert not found


def test_averages_over_the_training_are_taken_where_they_are_whole(save, official, arrays):
    keys = [key for key in official if key.startswith(f"{UNET}.")]
    averages = {
        f"model_ema.{key.removeprefix('model.').replace('.', '')}": -official[key] for key in keys
    }
    found = conversion.read_file(save(averages)).arrays
    key = "unet/up_blocks.1.attentions.0.proj_in.weight"
    np.testing.assert_array_equal(found[key], -arrays[key])
    averages.pop(min(averages))
    found = conversion.read_file(save(averages)).arrays
    np.testing.assert_array_equal(found[key], arrays[key])


def test_other_spellings_of_keys_are_read(official, arrays, tmp_path):
    def other(key):  # of merged files: no "text_model.", and the VAE's attention as matrices
        return key.replace("transformer.text_model.", "transformer.")

    changed = {
        other(key): x[:, :, 0, 0] if ".attn_1." in key and x.ndim == 4 else x
        for key, x in official.items()
    }
    files.write_safetensors(tmp_path / "sd.safetensors", changed, {})
    found = conversion.read_file(tmp_path / "sd.safetensors").arrays
    assert found.keys() == arrays.keys()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conditioner.embedders.0.x": np.ones(1)}, "is a Stable Diffusion XL .conditioner.embedders.0.x"),
        ({"cond_stage_model.model.ln_final.bias": np.ones(1)}, "is a Stable Diffusion 2 .cond_stage_model"),
        ({"control_model.x": np.ones(1)}, "is a ControlNet"),
        ({"alphas_cumprod": np.linspace(1, 0, 1000)}, "trained on other noise"),
        ({f"{UNET}.input_blocks.0.0.weight": np.ones((32, 9, 3, 3))}, "inpainting"),
        ({f"{UNET}.input_blocks.1.0.op.weight": np.ones(1)}, "equal depth"),
        ({f"{UNET}.middle_block.1.proj_in.weight": np.ones(3)}, "proj_in.weight has shape .3,., expected 2 or 4"),
        ({"first_stage_model.decoder.conv_in.weight": None}, "decoder.conv_in.weight is missing"),
        ({f"{UNET}.out.2.bias": np.full(4, np.nan)}, f"1 problem: {UNET}.out.2.bias holds NaN"),
        (
            {f"{UNET}.out.0.bias": None, "x.y": np.ones(2), "first_stage_model.quant_conv.bias": np.ones(3)},
            "3 problems: unet/conv_norm_out.bias .32,. is missing; vae/quant_conv.bias has shape .3,., "
            "expected .8,.; x.y .2,.: no rule takes it",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_sentence(save, changes, said, tmp_path, capsys):
    source = save(changes)
    assert main(["diffusion", str(source), str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {source}") and shown.count("\n") == 1
    assert re.search(said, shown)
    assert [path.name for path in tmp_path.iterdir()] == ["sd.safetensors"]


@pytest.mark.parametrize("part", ["UNet", "VAE", "text encoder"])
def test_a_file_without_a_part_is_refused(official, part):
    start = {"UNet": "model.", "VAE": "first_", "text encoder": "cond_"}[part]
    left = {key: x for key, x in official.items() if not key.startswith(start)}
    with pytest.raises(UserError, match=f"sd has no {part}"):
        diffusion_config.from_arrays(left, "sd")


def test_a_text_encoder_of_another_vocabulary_is_refused(save):
    key = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    with pytest.raises(UserError, match="knows 100 tokens; expected the 49408"):
        conversion.read_file(save({key: np.zeros((100, 64), np.float32)}))


def test_openais_vocabulary_is_that_of_its_package(tmp_path, golden):
    openai_vocabulary.write(tmp_path)
    found = tokenizer.load_tokenizer(tmp_path, 49408)
    for case in golden("tokens.json"):
        assert found.encode(case["text"])[:75] == case["ids"][1:-1]


def test_without_the_package_of_the_vocabulary_nothing_is_written(save, tmp_path, monkeypatch):
    source = save()
    monkeypatch.setattr(openai_vocabulary, "PACKAGE", "not-installed")
    with pytest.raises(UserError, match="pip install -r requirements-convert.txt"):
        conversion.convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["sd.safetensors"]


# -- directories -----------------------------------------------------------------------------------------


@pytest.fixture
def directory(tiny_diffusion_directory, tmp_path):
    """A copy of the small model, to be changed."""
    return shutil.copytree(tiny_diffusion_directory, tmp_path / "source")


def weights(directory, part):
    path = directory / part / diffusers.WEIGHTS[part][0]
    return path, files.read_safetensors(path)[0]


def of_directory(directory):
    return {
        f"{part}/{key}": x
        for part in diffusers.WEIGHTS
        for key, x in weights(directory, part)[1].items()
    }


def test_pickled_weights_with_old_names_become_safetensors(
    directory, tiny_diffusion_directory, tmp_path
):
    torch = pytest.importorskip("torch")
    for part, name in conversion.PICKLED.items():
        path, arrays = weights(directory, part)
        old = diffusers.old_name if part == "vae" else str
        tensors = {old(key): torch.tensor(x) for key, x in arrays.items()}
        if part == "text_encoder":
            tensors["text_model.embeddings.position_ids"] = torch.arange(32)[None]
        torch.save(tensors, directory / part / name)
        path.unlink()
    conversion.convert(directory, tmp_path / "out")
    assert_same(tmp_path / "out", of_directory(tiny_diffusion_directory))
    again = load_diffusion(tmp_path / "out")
    assert again.config == load_diffusion(tiny_diffusion_directory).config


def test_weights_in_pieces_and_of_a_variant_are_read(directory, tiny_diffusion_directory):
    path, arrays = weights(directory, "unet")
    placed = {key: f"part{len(key) % 2}.safetensors" for key in arrays}
    for name in set(placed.values()):
        piece = {key: x for key, x in arrays.items() if placed[key] == name}
        files.write_safetensors(path.with_name(name), piece, {})
    path.unlink()
    index = path.with_name(f"{path.name}.index.json")
    index.write_text(json.dumps({"weight_map": placed}))
    path, _ = weights(directory, "vae")
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    found = conversion.read_directory(directory).arrays
    assert found.keys() == of_directory(tiny_diffusion_directory).keys()
    (directory / "unet" / "part1.safetensors").unlink()
    with pytest.raises(UserError, match="names part1.safetensors, which is missing"):
        conversion.read_directory(directory)
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.bin"}}))
    with pytest.raises(UserError, match="to files beside it"):
        conversion.read_directory(directory)


def test_directories_that_do_not_fit_leave_nothing_behind(directory, tmp_path):
    def cut(name):
        (directory / name).write_bytes((directory / name).read_bytes()[:1000])

    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    changes = (
        (lambda: None, full, "full exists already"),
        (lambda: cut("vae/diffusion_pytorch_model.safetensors"), None, "vae/.* not a whole safetensors"),
        (lambda: (directory / "vae" / "diffusion_pytorch_model.safetensors").unlink(), None,
         "has neither vae/diffusion_pytorch_model.safetensors nor vae/diffusion_pytorch_model.bin"),
        (lambda: (directory / "scheduler/scheduler_config.json").unlink(), None, "scheduler_config.json"),
        (lambda: (directory / "unet/config.json").write_text("hello"), None, "unet/config.json is not JSON"),
        (lambda: shutil.rmtree(directory), None, "source does not exist"),
    )  # fmt: skip
    for change, destination, said in changes:
        change()
        with pytest.raises(UserError, match=said):
            conversion.convert(directory, destination or tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
